//! Messages the client library cannot read: they may cost their own delay, never the bridge.

use std::collections::BTreeSet;
use std::time::Duration;

use fanin_core::ids::StreamSeq;
use fanin_hub::{
    AckSubject, ConsumerSpec, CreatePolicy, Puller, Settler, StoredMessage, UNREADABLE_HEADERS, fetch_message,
};
use fanin_localhub::LocalHub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{LINGER, PATIENCE, consumer, fill, in_time, spec, with_stream};

/// Publishes over a plain socket, as a careless client may.
async fn publish_raw(hub: &LocalHub, subject: &[u8], header: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", hub.port())).await.unwrap();
    let total = header.len() + 2;
    let mut wire = b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n".to_vec();
    wire.extend_from_slice(b"HPUB ");
    wire.extend_from_slice(subject);
    wire.extend_from_slice(format!(" {} {total}\r\n", header.len()).as_bytes());
    wire.extend_from_slice(header);
    wire.extend_from_slice(b"hi\r\nPING\r\n");
    socket.write_all(&wire).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|w| w == b"PONG") {
        let mut buffer = [0; 1024];
        let read = in_time(socket.read(&mut buffer)).await.unwrap();
        assert!(
            read > 0,
            "the server refused: {}",
            String::from_utf8_lossy(&answer)
        );
        answer.extend_from_slice(&buffer[..read]);
    }
}

/// Goal: one unreadable message among readable ones neither ends the connection for good nor keeps the others from
/// arriving, and it can be fetched by sequence. Method: pull everything readable with an acknowledgement wait of one
/// second, under which the unreadable one is delivered again and again.
async fn the_others_arrive(header: &[u8]) {
    let stored = the_others_arrive_beside(b"s.bad", header).await;
    assert_eq!(stored.subject, "s.bad");
    assert!(stored.headers.iter().any(|(name, _)| name == UNREADABLE_HEADERS));
}

async fn the_others_arrive_beside(subject: &[u8], header: &[u8]) -> StoredMessage {
    let (hub, connection) = with_stream().await;
    fill(&connection, 20, 10).await;
    publish_raw(&hub, subject, header).await;
    fill(&connection, 20, 10).await;
    let spec = ConsumerSpec {
        ack_wait: Duration::from_secs(1),
        ..spec(&connection).await
    };
    let shared = spec.ensure(&connection, CreatePolicy::FromStart).await.unwrap();

    let mut puller = Puller::new(&connection, &shared);
    let settler = Settler::new(&connection);
    let mut seen = BTreeSet::new();
    in_time(async {
        while seen.len() < 40 {
            match puller.fetch(100, 1024 * 1024, LINGER, PATIENCE).await {
                Ok(batch) => {
                    seen.extend(batch.iter().map(|p| p.facts.stream_seq));
                    let acks: Vec<AckSubject> = batch.into_iter().map(|p| p.ack).collect();
                    while let Err(error) = settler.settle(&acks).await {
                        assert!(error.retryable(), "{error}");
                        connection.wait_connected().await;
                    }
                }
                Err(error) => {
                    assert!(error.retryable(), "{error}");
                    connection.wait_connected().await;
                }
            }
        }
    })
    .await;
    assert!(!seen.contains(&21));
    puller.release().await;
    drop(puller);

    let stored = in_time(async {
        loop {
            match fetch_message(&connection, "S", StreamSeq(21)).await {
                Ok(stored) => break stored.unwrap(),
                Err(error) => {
                    assert!(error.retryable(), "{error}");
                    connection.wait_connected().await;
                }
            }
        }
    })
    .await;
    assert_eq!(stored.payload, "hi");

    let ack = [AckSubject::for_message("S", &shared.name, StreamSeq(21))];
    in_time(async {
        while let Err(error) = settler.settle(&ack).await {
            assert!(error.retryable(), "{error}");
            connection.wait_connected().await;
        }
    })
    .await;
    let info = shared.info(&connection).await.unwrap();
    assert_eq!((info.ack_floor, info.ack_pending), (StreamSeq(41), 0));
    stored
}

#[tokio::test]
async fn a_header_that_is_not_utf_8() {
    the_others_arrive(b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n").await;
}

#[tokio::test]
async fn a_header_without_a_colon() {
    the_others_arrive(b"NATS/1.0\r\nnonsense\r\n\r\n").await;
}

#[tokio::test]
async fn a_lone_carriage_return_in_a_header() {
    the_others_arrive(b"NATS/1.0\r\nA: x\ry\r\n\r\n").await;
}

#[tokio::test]
async fn another_protocol_in_the_first_line() {
    the_others_arrive(b"HTTP/1.1 200 OK\r\n\r\n").await;
}

/// Goal: a stored message that carries a status, as only the hub's own answers should (servers before 2.12 keep it), is
/// delivered like any other and is not taken for an answer. Method: statuses that would end or pause a pull, between other messages.
#[tokio::test]
async fn a_status_in_a_message_is_no_answer() {
    let (hub, connection) = with_stream().await;
    fill(&connection, 1, 10).await;
    for status in ["404 No Messages", "409 Consumer Deleted", "503"] {
        publish_raw(&hub, b"s.bad", format!("NATS/1.0 {status}\r\n\r\n").as_bytes()).await;
    }
    fill(&connection, 1, 10).await;
    let shared = consumer(&connection).await;
    let mut puller = Puller::new(&connection, &shared);
    let mut seen = Vec::new();
    in_time(async {
        while seen.len() < 5 {
            let batch = puller.fetch(100, 1024 * 1024, LINGER, PATIENCE).await.unwrap();
            seen.extend(batch.iter().map(|pulled| pulled.facts.stream_seq));
        }
    })
    .await;
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_subject_that_is_not_utf_8() {
    let stored = the_others_arrive_beside(b"s.\xff", b"NATS/1.0\r\nA: 1\r\n\r\n").await;
    assert_eq!(stored.subject, "s.\u{fffd}");
    assert_eq!(stored.headers, [("A".to_owned(), "1".to_owned())]);
}
