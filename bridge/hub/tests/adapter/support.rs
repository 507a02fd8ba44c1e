//! A server of its own for each test, and short ways to fill it.

use std::time::Duration;

use bytes::Bytes;
use fanin_hub::{
    Connection, ConsumerSpec, CreatePolicy, HubOptions, Ledger, LedgerOptions, Outgoing, Publisher,
    SharedConsumer, SourceInfo,
};
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use serde_json::json;

/// How long any single step may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a batch waits for more messages where nothing depends on it.
pub(crate) const LINGER: Duration = Duration::from_millis(5);

pub(crate) async fn start(extra_config: &str) -> LocalHub {
    let binary = ServerBinary::find_or_fetch(None).expect("a nats-server");
    let mut options = LocalHubOptions::new(binary);
    options.extra_config = extra_config.to_owned();
    LocalHub::start(options).await.expect("the server starts")
}

pub(crate) async fn connect(hub: &LocalHub) -> Connection {
    Connection::connect(HubOptions::new([hub.url()]))
        .await
        .expect("connected")
}

/// A server, a connection, and the stream `S` on `s.>`.
pub(crate) async fn with_stream() -> (LocalHub, Connection) {
    let hub = start("").await;
    let connection = connect(&hub).await;
    raw(
        &connection,
        "STREAM.CREATE.S",
        json!({ "name": "S", "subjects": ["s.>"], "storage": "file" }),
    )
    .await;
    (hub, connection)
}

/// A request to the API that must succeed.
pub(crate) async fn raw(connection: &Connection, name: &str, body: serde_json::Value) -> serde_json::Value {
    let payload = if body.is_null() {
        Bytes::new()
    } else {
        Bytes::from(body.to_string())
    };
    let reply = connection
        .request(&format!("$JS.API.{name}"), None, payload, PATIENCE)
        .await
        .expect("an answer");
    let value: serde_json::Value = serde_json::from_slice(&reply.payload).expect("JSON");
    assert!(value.get("error").is_none(), "{name}: {value}");
    value
}

/// Publishes `count` messages of `size` bytes to `s.a`.
pub(crate) async fn fill(connection: &Connection, count: usize, size: usize) {
    let messages = (0..count)
        .map(|_| Outgoing {
            subject: "s.a".into(),
            payload: Bytes::from(vec![b'x'; size]),
            ..Outgoing::default()
        })
        .collect();
    for result in Publisher::new(connection, 256).publish_all(messages).await {
        result.expect("stored");
    }
}

pub(crate) async fn spec(connection: &Connection) -> ConsumerSpec {
    let source = SourceInfo::fetch(connection, "S").await.expect("the stream");
    ConsumerSpec {
        stream: "S".to_owned(),
        prefix: "fanin".to_owned(),
        mapping: "m".to_owned(),
        incarnation: source.incarnation(0),
        generation: 0,
        filter_subjects: Vec::new(),
        ack_wait: Duration::from_secs(30),
        nodes: 2,
        in_flight_per_node: 2_000,
    }
}

pub(crate) async fn consumer(connection: &Connection) -> SharedConsumer {
    spec(connection)
        .await
        .ensure(connection, CreatePolicy::FromStart)
        .await
        .expect("the consumer")
}

/// The ledger of mapping `m`, small enough for any disk.
pub(crate) fn ledger_options() -> LedgerOptions {
    LedgerOptions {
        max_bytes: 16 * 1024 * 1024,
        ..LedgerOptions::new("m")
    }
}

pub(crate) async fn ledger(connection: &Connection) -> Ledger {
    Ledger::ensure(connection, &ledger_options())
        .await
        .expect("the ledger")
}

/// Fails the test when `step` takes too long.
pub(crate) async fn in_time<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, step).await.expect("done in time")
}
