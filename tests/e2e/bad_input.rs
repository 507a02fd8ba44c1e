//! Malformed and oversize input on the socket: a clear code for whoever sent it, no effect on anybody else.

use std::time::Duration;

use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::topic_service_client::TopicServiceClient;
use fanin_proto::v1::{Credit, DeliveryRange, Open, Retry, SubscribeRequest, Verdicts};
use fanin_sdk::Client;
use fanin_tests::process::Bridge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::Endpoint;

use crate::cluster::{Cluster, LONG, TOPIC};

/// Writes bytes that are no gRPC and waits for the bridge to close the connection.
async fn talk_nonsense(bridge: &Bridge, bytes: &[u8]) {
    let mut stream = UnixStream::connect(bridge.socket_path()).await.unwrap();
    // The bridge may close before it has read everything; only the end matters.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the bridge keeps a connection that talks nonsense");
}

/// Sends these requests on one call and tells how it ended.
async fn call(bridge: &Bridge, requests: Vec<Request>) -> Status {
    let endpoint = Endpoint::from_shared(bridge.socket()).unwrap();
    let mut client = TopicServiceClient::new(endpoint.connect().await.unwrap());
    let requests = requests.into_iter().map(|request| SubscribeRequest {
        request: Some(request),
    });
    // The requests' side stays open, so that the bridge alone decides how the call ends.
    let requests = futures_util::StreamExt::chain(
        futures_util::stream::iter(requests),
        futures_util::stream::pending(),
    );
    let ended = async {
        let mut responses = match client.subscribe(requests).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return status,
        };
        loop {
            match responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the call ended without an error"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(LONG, ended)
        .await
        .expect("the bridge to end the call")
}

fn open(topic: &str, app: &str) -> Request {
    Request::Open(Open {
        topic: topic.to_owned(),
        app: app.to_owned(),
        ..Open::default()
    })
}

fn acks(first: u64, last: u64) -> Request {
    Request::Verdicts(Verdicts {
        acks: vec![DeliveryRange { first, last }],
        ..Verdicts::default()
    })
}

/// Goal and method: every kind of wrong input while messages flow to a well-behaved instance; each gets its code or its
/// connection closed, and the well-behaved one gets every message once.
#[tokio::test]
async fn wrong_input_gets_a_code_and_costs_nobody_else_anything() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    let trickle = cluster.stream(Duration::from_millis(10));
    let bridge = &cluster.nodes[0];

    talk_nonsense(bridge, &[0xff; 64 * 1024]).await;
    talk_nonsense(
        bridge,
        b"GET /fanin.v1.TopicService/Subscribe HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    talk_nonsense(
        bridge,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    )
    .await;
    // A client that connects and never says a word holds nothing up.
    let silent = UnixStream::connect(bridge.socket_path()).await.unwrap();

    let huge = Retry {
        delivery: 1,
        after_ms: None,
        reason: "x".repeat(2 << 20),
    };
    let huge = Request::Verdicts(Verdicts {
        retries: vec![huge],
        ..Verdicts::default()
    });
    let good = || open(TOPIC, "billing");
    for (requests, code) in [
        (
            vec![Request::Credit(Credit {
                bytes: 1,
                messages: 1,
            })],
            "FAN-3003",
        ),
        (vec![good(), good()], "FAN-3003"),
        (vec![open("invoices", "billing")], "FAN-3001"),
        (vec![open(TOPIC, "nobody")], "FAN-3002"),
        (vec![open(TOPIC, &"x".repeat(1_000))], "FAN-3007"),
        (vec![good(), acks(5, 4)], "FAN-3007"),
        (vec![good(), acks(0, 0)], "FAN-3007"),
        (vec![good(), acks(1, u64::MAX)], "FAN-3007"),
        (vec![good(), huge], "FAN-3007"),
    ] {
        let shown = format!("{:.200}", format!("{requests:?}"));
        let status = call(bridge, requests).await;
        let told = status
            .details()
            .windows(code.len())
            .any(|bytes| bytes == code.as_bytes());
        assert!(told, "{shown}: not {code} but {status:?}");
    }

    // The SDK tells the same codes, and that trying again does not help.
    let client = Client::connect(bridge.socket()).await.unwrap();
    let error = client.subscribe("invoices", "billing").open().await.unwrap_err();
    assert!(error.code() == "FAN-3001" && !error.is_retryable(), "{error:?}");

    cluster.wait_more(200).await;
    cluster.stop_stream(trickle).await;
    drop(silent);
    cluster.finish().await;
}

/// Goal: messages of any size that the hub takes arrive, also those above a whole batch, a frame and an instance's credit.
/// Method: bodies of up to 1000 KiB among small ones.
#[tokio::test]
async fn large_messages_arrive() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 1, 1).await;
    for kib in [1, 1_000, 300, 1_000, 1] {
        cluster
            .feed_as(10, |mut feed| {
                feed.payload_bytes = kib * 1024;
                feed
            })
            .await;
    }
    cluster.finish().await;
}
