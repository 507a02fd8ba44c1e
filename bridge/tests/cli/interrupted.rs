//! Commands that are cut short: what they say is done is done, and what is in doubt is told.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use async_nats::jetstream::{self, stream};
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::support::{PATIENCE, Running, command, dir, fanin};

/// A hub with the stream ORDERS.
async fn hub_with_orders() -> (LocalHub, jetstream::Context) {
    let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
        .await
        .unwrap()
        .unwrap();
    let hub = LocalHub::start(LocalHubOptions::new(binary)).await.unwrap();
    let jetstream = jetstream::new(async_nats::connect(hub.url()).await.unwrap());
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..stream::Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
    (hub, jetstream)
}

/// Goal: an interrupted `publish` ends with its code and exit code, and its summary is exact. Method: a pipe that stays open, SIGINT
/// once the hub has what was written into it.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_publish_says_what_is_stored() {
    let (hub, jetstream) = hub_with_orders().await;
    let dir = dir();
    let mut publish = command(
        dir.path(),
        &["publish", "orders.created", "--json", "--server", &hub.url()],
    );
    let (out, errors) = (dir.path().join("out"), dir.path().join("errors"));
    publish
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&errors).unwrap());
    let mut publish = Running::start(publish);
    let mut input = publish.stdin();
    input.write_all(b"one\ntwo\nthree\n").await.unwrap();
    let stored = async {
        let mut stream = jetstream.get_stream("ORDERS").await.unwrap();
        while stream.info().await.unwrap().state.messages < 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, stored).await.expect("is stored");
    publish.signal(Signal::INT);
    assert_eq!(publish.end().await, 1);
    drop(input);
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let (summary, told) = (read(&out), read(&errors));
    assert_eq!((&summary["stored"], &summary["last_seq"]), (&3.into(), &3.into()));
    assert_eq!(
        (&told["error"]["code"], &told["error"]["exit_code"]),
        (&"FAN-5017".into(), &1.into())
    );
    assert!(
        told["error"]["cure"].as_str().unwrap().contains("Send the rest"),
        "{told}"
    );
}

/// Goal: a `subscribe` whose acknowledgement is lost says which message may come again and ends with 1; the message comes again.
/// Method: a message larger than what a pipe takes, so that the subscriber stands in its write when the bridge is killed, and
/// acknowledges into nothing afterwards; another bridge on the same directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_acknowledgement_is_told() {
    let (hub, jetstream) = hub_with_orders().await;
    let dir = dir();
    let socket = format!("unix://{}/f.sock", dir.path().display());
    let config = json!({
        "node": "n1",
        "data_dir": dir.path().join("data"),
        "listen": socket,
        "hub": { "servers": [hub.url()] },
        "store": { "quota": "256MiB", "segment": "8MiB" },
        "mappings": { "orders": {
            "sources": [{ "stream": "ORDERS" }],
            "intake": "always",
            "applications": { "billing": {} },
        } },
    });
    fs::write(dir.path().join("fanin.yaml"), config.to_string()).unwrap();
    let start_bridge = || {
        let mut bridge = command(dir.path(), &["run", "--config", "fanin.yaml"]);
        bridge.stderr(fs::File::create(dir.path().join("log")).unwrap());
        Running::start(bridge)
    };
    let large = "x".repeat(200_000);
    let sent = jetstream.publish("orders.created", large.into()).await.unwrap();
    sent.await.unwrap();

    let bridge = start_bridge();
    let args = ["subscribe", "orders", "--app", "billing", "--count", "1"];
    let args = [&args[..], &["--socket", &socket]].concat();
    let mut subscriber = command(dir.path(), &args);
    let errors = dir.path().join("errors");
    subscriber
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).unwrap());
    let mut subscriber = Running::start(subscriber);
    let mut output = subscriber.stdout();
    timeout(PATIENCE, output.read_u8())
        .await
        .expect("prints")
        .unwrap();
    bridge.kill().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, output.read_to_end(&mut rest))
        .await
        .expect("ends")
        .unwrap();
    assert_eq!(subscriber.end().await, 1);
    let told = fs::read_to_string(&errors).unwrap();
    for part in ["warning[FAN-5012]: ORDERS:1: ", "error[FAN-5012]: ", "\n  cure: "] {
        assert!(told.contains(part), "{part} is not in {told}");
    }

    let bridge = start_bridge();
    let again = fanin(dir.path(), &args);
    assert!(again.code == 0 && again.out.contains("ORDERS:1"), "{}", again.err);
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.end().await, 0);
}
