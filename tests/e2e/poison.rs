//! Messages that the client library cannot read, as a careless publisher may store them: every delivery of one breaks the
//! connection it comes over. They reach every application once like any other, and cost nobody else anything.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use fanin_tests::apps::Decision;
use fanin_tests::wait::eventually;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, LONG, STREAM, SUBJECT, orders};

/// Not UTF-8, as from a publisher that writes Latin-1; a line that can be read before it.
const NOT_UTF_8: &[u8] = b"NATS/1.0\r\nTrace: 7\r\nA: \xff\xfe\r\n\r\n";
/// The unreadable line of it in base64.
const NOT_UTF_8_KEPT: &str = "QTog//4=";
/// The library panics at this one.
const LONE_CARRIAGE_RETURN: &[u8] = b"NATS/1.0\r\nA: x\ry\r\n\r\n";
/// The library takes this one for no header at all.
const NO_COLON: &[u8] = b"NATS/1.0\r\nnonsense\r\n\r\n";

/// What the stream's last message is.
async fn last_sequence(cluster: &Cluster) -> u64 {
    let stream = cluster.jetstream.get_stream(STREAM).await.unwrap();
    stream.cached_info().state.last_sequence
}

/// Publishes over a plain socket, and notes the messages' ids.
async fn publish_raw(cluster: &mut Cluster, headers: &[&[u8]]) {
    let mut socket = TcpStream::connect(("127.0.0.1", cluster.hub.port()))
        .await
        .unwrap();
    let before = last_sequence(cluster).await;
    let mut wire = b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n".to_vec();
    for header in headers {
        let sizes = format!("HPUB {SUBJECT}.bad {} {}\r\n", header.len(), header.len() + 2);
        wire.extend_from_slice(sizes.as_bytes());
        wire.extend_from_slice(header);
        wire.extend_from_slice(b"hi\r\n");
    }
    wire.extend_from_slice(b"PING\r\n");
    socket.write_all(&wire).await.unwrap();
    let answered = tokio::time::timeout(LONG, async {
        let mut answer = Vec::new();
        while !answer.windows(4).any(|bytes| bytes == b"PONG") {
            assert!(
                socket.read_buf(&mut answer).await.unwrap() > 0,
                "the server hung up"
            );
        }
    });
    answered.await.expect("the server to answer");
    let after = before + headers.len() as u64;
    eventually(LONG, "the stream to store them", || async {
        last_sequence(cluster).await >= after
    })
    .await;
    cluster
        .ids
        .extend((before + 1..=after).map(|seq| format!("{STREAM}:{seq}")));
}

/// Waits until W is at the stream's end on every node.
async fn wait_closed(cluster: &Cluster) {
    let last = last_sequence(cluster).await;
    for node in &cluster.nodes {
        let closed = node.wait_status(LONG, "the watermark to reach the end", |status| {
            orders(status).sources[0].closed_through == last
        });
        closed.await.unwrap();
    }
}

/// Goal: unreadable messages among others reach every application once, the others are not held up, the hub has nothing
/// left to settle, W reaches the end; and what carries the ledger is never disturbed. Method: two nodes, three kinds of
/// them under a feed, one of the kinds a whole run; everything once, each told and counted once; the connections of
/// status never broke.
#[tokio::test]
async fn unreadable_messages_reach_every_application_once() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    cluster.feed(300).await;
    publish_raw(&mut cluster, &[NOT_UTF_8]).await;
    cluster.feed(700).await;
    publish_raw(&mut cluster, &[LONE_CARRIAGE_RETURN, NO_COLON]).await;
    cluster.feed(1_000).await;
    publish_raw(&mut cluster, &[NOT_UTF_8; 100]).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    wait_closed(&cluster).await;
    let mut told = 0;
    for node in &cluster.nodes {
        let status = node.status().await.unwrap();
        told += orders(&status).unreadable_messages;
        assert_eq!(status.hub.unwrap().reconnects, 0, "{}", node.log_tail());
    }
    assert_eq!(told, 103);
    let lines: usize = cluster
        .nodes
        .iter()
        .map(|node| {
            node.log()
                .iter()
                .filter(|line| line.text.contains("FAN-4042"))
                .count()
        })
        .sum();
    assert_eq!(lines, 103);
    cluster.finish().await;
}

/// Goal: the application gets subject, body and what can be read of the headers, and the rest in one header of its own.
/// Method: look at the delivered message.
#[tokio::test]
async fn what_can_be_read_is_delivered() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 0).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    cluster
        .instance(0, "billing", "billing-1", |options| {
            options.decide(move |message| {
                let headers = message.headers();
                noted.lock().push((
                    message.subject().to_owned(),
                    message.payload().to_vec(),
                    headers.get("Trace").map(str::to_owned),
                    headers.get("Fanin-Unreadable-Headers").map(str::to_owned),
                ));
                Decision::Ack
            })
        })
        .await;
    publish_raw(&mut cluster, &[NOT_UTF_8]).await;
    cluster.wait_rest().await;
    let got = seen.lock().clone();
    let wanted = (
        format!("{SUBJECT}.bad"),
        b"hi".to_vec(),
        Some("7".to_owned()),
        Some(NOT_UTF_8_KEPT.to_owned()),
    );
    assert_eq!(got, [wanted]);
    cluster.finish().await;
}

/// Goal: a death between publishing and settling leaves nothing behind: no redelivery can be read, so the next life, and
/// the other node, acknowledge by sequence what the ledger says is owned. Method: a node alone dies by its own hand before
/// it settles the message; it is started again beside a second one.
#[tokio::test]
async fn a_node_may_die_before_it_settles_an_unreadable_message() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 1, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    let node = &mut cluster.nodes[0];
    let armed = "before_settle=kill@1".to_owned();
    node.options_mut()
        .env
        .insert("FANIN_FAILPOINTS".to_owned(), armed);
    node.restart().await.unwrap();
    publish_raw(&mut cluster, &[NOT_UTF_8]).await;
    let node = &mut cluster.nodes[0];
    let ended = node.wait_exit(LONG).await.unwrap();
    assert_eq!(ended.signal(), Some(9), "{}", node.log_tail());
    node.options_mut().env.clear();
    node.restart().await.unwrap();
    let options = cluster.options("n2");
    cluster.add(options, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    wait_closed(&cluster).await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: while nobody has freed it yet, an unreadable message costs the others only what its redeliveries break. Method: a
/// feed that goes on over several of the hub's waits keeps flowing at every moment.
#[tokio::test]
async fn others_flow_while_an_unreadable_message_is_delivered_again_and_again() {
    let mut cluster = Cluster::with_nodes(&["billing"], 2, 1).await;
    publish_raw(&mut cluster, &[NOT_UTF_8]).await;
    let trickle = cluster.stream(Duration::from_millis(50));
    for _ in 0..10 {
        cluster.wait_more(200).await;
    }
    cluster.stop_stream(trickle).await;
    cluster.finish().await;
}
