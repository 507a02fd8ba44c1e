//! The hub lost what it had confirmed and went on: a ledger, or a source, that grew again.

use fanin_tests::process::Bridge;
use fanin_tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, LONG, orders};
use crate::hub_store::{self, put_back, snapshot};
use crate::ledger::ledger_end;

/// A node's metrics as text.
pub(crate) async fn metrics(node: &Bridge) -> String {
    let admin = node.status().await.unwrap().admin;
    let mut stream = tokio::net::TcpStream::connect(&admin).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nhost: fanin\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// A node's mapping halts, and its log, its status and its metrics say so, with the code and these words.
async fn assert_halts(node: &Bridge, code: &str, words: &[&str]) {
    let halted = node.wait_status(LONG, "the mapping to halt", |status| {
        orders(status).state == "halted"
    });
    let reason = orders(&halted.await.unwrap()).reason.clone();
    let line = node.wait_log(LONG, "the mapping halts").await.unwrap();
    for text in [&reason, &line.text] {
        assert!(text.contains(code), "{}: {text}", node.node());
        for word in words {
            assert!(text.contains(word), "{}: {word} is not in {text}", node.node());
        }
    }
    let text = metrics(node).await;
    let mut states = text.lines().filter(|line| {
        line.starts_with("fanin_mapping_state{") && line.contains("orders") && line.ends_with(" 1")
    });
    let state = states.next().unwrap_or_default();
    assert!(state.contains("state=\"halted\""), "{}: {state}", node.node());
}

/// Goal: a ledger that lost records and grew again beyond what a node had read is told by that node, and by its EPOCH to every
/// other one, before anything is decided by it (P11). Method: put the ledger and the consumer back to a copy, as a power loss may
/// leave them, have a fresh node make it grow, and start the old one.
#[tokio::test]
async fn a_ledger_that_grew_again_halts_whoever_read_it_before_and_everybody_else() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let first = cluster.options("n1").allow_error("FAN-4030");
    cluster.add(first, 1).await;
    cluster.feed(50).await;
    cluster.wait_rest().await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(50).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    let read = ledger_end(&cluster).await;

    let parts = [hub_store::ledger(), hub_store::consumers()];
    put_back(&mut cluster, &older, &parts).await;
    assert!(ledger_end(&cluster).await < read);
    let second = cluster.options("n2").allow_error("FAN-4030");
    cluster.add(second, 1).await;
    while ledger_end(&cluster).await <= read + 1 {
        let before = ledger_end(&cluster).await;
        cluster.feed(10).await;
        eventually(LONG, "the ledger to grow", || async {
            let end = ledger_end(&cluster).await;
            if end > before {
                Ok(())
            } else {
                Err(format!("it ends at {end}"))
            }
        })
        .await;
    }

    cluster.nodes[0].respawn().unwrap();
    assert_halts(&cluster.nodes[0], "FAN-4030", &["is not what this node had read"]).await;
    let told = [
        "was written by a bridge whose state",
        "truncated, regrown or split",
    ];
    assert_halts(&cluster.nodes[1], "FAN-4030", &told).await;
    for node in &cluster.nodes {
        node.assert_no_errors();
    }
}

/// Goal: a source restored to an earlier copy, which gives sequences away again, halts every node that is delivered one of them
/// or looks at it, before a new message is taken for a copy of an old one (P10). Method: put the source with its consumer back to
/// a copy, and publish.
#[tokio::test]
async fn a_source_that_gives_sequences_away_again_halts_every_node() {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let options = cluster.options(node).allow_error("FAN-4035");
        cluster.add(options, 1).await;
    }
    cluster.feed(50).await;
    cluster.wait_rest().await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(50).await;
    cluster.wait_rest().await;
    let before = cluster.recorder.count();

    put_back(&mut cluster, &older, &[hub_store::source()]).await;
    cluster.feed(60).await;
    for node in &cluster.nodes {
        let words = [
            "ORDERS:",
            "published 20",
            "claimed was one published",
            "generation",
        ];
        assert_halts(node, "FAN-4035", &words).await;
    }
    // Ten sequences were never given before: these may have been taken by a node that had not been delivered others yet.
    let delivered = cluster.recorder.count() - before;
    assert!(delivered <= 10, "{delivered} messages were delivered");
    for node in &cluster.nodes {
        node.assert_no_errors();
    }
}
