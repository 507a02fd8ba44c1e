//! The hub lost what it had confirmed and went on: a ledger, or a source, that grew again.

use std::path::Path;

use fanin_tests::line::Line;
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, LEDGER, LONG, mapping, orders};
use crate::hub_store::{self, put_back, snapshot};
use crate::identity::{copy, second_body};
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

/// Takes the ledger and the consumer back to a copy, as a power loss may leave them.
async fn put_ledger_back(cluster: &mut Cluster, older: &Path) {
    put_back(cluster, older, &[hub_store::ledger(), hub_store::consumers()]).await;
}

/// Feeds until the ledger ends behind a position.
async fn grow_beyond(cluster: &mut Cluster, position: u64) {
    while ledger_end(cluster).await <= position {
        let before = ledger_end(cluster).await;
        cluster.feed(10).await;
        eventually(LONG, "the ledger to grow", || async {
            let end = ledger_end(cluster).await;
            if end > before {
                Ok(())
            } else {
                Err(format!("it ends at {end}"))
            }
        })
        .await;
    }
}

/// A copy of the hub's store as of now, and more records behind it, which the nodes have read. Says where the ledger ends.
async fn copy_and_go_on(cluster: &mut Cluster, older: &Path) -> u64 {
    cluster.feed(50).await;
    cluster.wait_rest().await;
    snapshot(cluster, older).await;
    cluster.feed(50).await;
    cluster.wait_rest().await;
    ledger_end(cluster).await
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

    put_ledger_back(&mut cluster, &older).await;
    assert!(ledger_end(&cluster).await < read);
    let second = cluster.options("n2").allow_error("FAN-4030");
    cluster.add(second, 1).await;
    grow_beyond(&mut cluster, read + 1).await;

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

/// Goal: a node whose tail was interrupted while the ledger lost records and grew again beyond what it had read halts before it
/// takes up anything more; halted, it still sees that another body acts as it, and delivers nothing more (P8). Method: freeze the
/// node, put ledger and consumer back to a copy, have a fresh node make the ledger grow, wake the first; then start a copy of
/// its data directory.
#[tokio::test]
async fn a_ledger_that_grew_again_while_a_node_was_away_halts_it() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let errors = |options: BridgeOptions| options.allow_error("FAN-4030").allow_error("FAN-3008");
    let first = errors(cluster.options("n1"));
    cluster.add(first, 1).await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    let read = copy_and_go_on(&mut cluster, &older).await;
    let clone = away.path().join("data");
    copy(&cluster.nodes[0].data_dir(), &clone);

    cluster.nodes[0].pause().unwrap();
    put_ledger_back(&mut cluster, &older).await;
    assert!(ledger_end(&cluster).await < read);
    let second = errors(cluster.options("n2"));
    cluster.add(second, 1).await;
    grow_beyond(&mut cluster, read + 1).await;
    cluster.nodes[0].resume().unwrap();
    let told = ["is not the one that was read there", "grew again"];
    assert_halts(&cluster.nodes[0], "FAN-4030", &told).await;

    let mut third = errors(second_body(&cluster, &clone));
    third.args = vec!["--accept-moved-data".to_owned()];
    cluster.add(third, 0).await;
    let fenced = cluster.nodes[0].wait_status(LONG, "the halted body to be fenced", |status| {
        orders(status).state == "fenced"
    });
    let reason = orders(&fenced.await.unwrap()).reason.clone();
    assert!(reason.contains("FAN-3008"), "{reason}");
    for node in &cluster.nodes {
        node.assert_no_errors();
    }
}

/// Goal: a node whose record is stored where it has read another one halts by that alone (P11). Method: put ledger and consumer
/// back to a copy under a node whose questions after the ledger's state are never answered, so that its tail waits and no look at
/// the ledger tells anything; then feed.
#[tokio::test]
async fn a_record_stored_where_another_was_read_halts_its_writer() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let line = Line::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"])).allow_error("FAN-4030");
    cluster.add(far, 1).await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    let read = copy_and_go_on(&mut cluster, &older).await;

    line.rewrite(
        &format!("$JS.API.STREAM.INFO.{LEDGER}"),
        &format!("$JS.API.STREAM.NONE.{LEDGER}"),
        u64::MAX,
    );
    put_ledger_back(&mut cluster, &older).await;
    assert!(ledger_end(&cluster).await < read);
    cluster.feed(10).await;
    let told = ["the ledger ends at position", "was read from it before"];
    assert_halts(&cluster.nodes[0], "FAN-4030", &told).await;
    assert!(
        ledger_end(&cluster).await <= read,
        "it halted by what it sent first"
    );
    cluster.nodes[0].assert_no_errors();
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

/// Goal: what the hub confirmed to publishers and lost before any bridge had taken it is named by a bridge that had looked at the
/// source meanwhile, in log, metric and status, and nothing halts for it (P10). Method: a node whose application is away takes
/// nothing; feed, wait until it has seen where the source ends, put the source back to a copy, and let it grow again beyond that.
#[tokio::test]
async fn what_the_hub_loses_before_anybody_takes_it_is_named() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster.options("n1").allow_error("FAN-4038");
    cluster.add(options, 0).await;
    cluster.feed(10).await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(20).await;
    let node = &cluster.nodes[0];
    let seen = node.wait_status(LONG, "the end of the source to be seen", |status| {
        orders(status)
            .sources
            .first()
            .is_some_and(|source| source.last_seq == 30)
    });
    seen.await.unwrap();
    put_back(&mut cluster, &older, &[hub_store::source()]).await;
    cluster.feed(40).await;
    let node = &cluster.nodes[0];
    let line = node.wait_log(LONG, "FAN-4038").await.unwrap();
    // Nothing was taken of this source, so that all of it may be among what is lost.
    assert!(line.text.contains("ORDERS:1-30"), "{}", line.text);
    let text = metrics(node).await;
    let mut lost = text
        .lines()
        .filter(|line| line.starts_with("fanin_source_lost_messages_total{"));
    assert!(lost.next().is_some_and(|line| line.ends_with(" 30")), "{text}");
    assert_eq!(orders(&node.status().await.unwrap()).state, "gated");
    node.assert_no_errors();
}
