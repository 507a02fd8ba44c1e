//! The hub lost what it had confirmed and went on: a ledger, or a source, that grew again.

use std::path::Path;

use fanin_tests::hub::create_source;
use fanin_tests::line::Line;
use fanin_tests::logs::Level;
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::{Cluster, LEDGER, LONG, STREAM, SUBJECT, TOPIC, mapping, orders};
use crate::hostile::channel;
use crate::hub_store::{self, put_back, snapshot};
use crate::identity::{copy, second_body};
use crate::ledger::ledger_end;

/// A page of a node's admin endpoint: head and body.
pub(crate) async fn page(node: &Bridge, path: &str) -> String {
    let admin = node.status().await.unwrap().admin;
    let mut stream = tokio::net::TcpStream::connect(&admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: fanin\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// A node's metrics as text.
pub(crate) async fn metrics(node: &Bridge) -> String {
    page(node, "/metrics").await
}

/// A node's mapping halts, while it runs or before it has joined, and its log, its status and its metrics say so, with the code and
/// these words.
pub(crate) async fn assert_halts(node: &Bridge, code: &str, words: &[&str]) {
    let halted = node.wait_status(LONG, "the mapping to halt", |status| {
        orders(status).state == "halted"
    });
    let reason = orders(&halted.await.unwrap()).reason.clone();
    let is_told = |text: &str| {
        let told = ["the mapping halts", "the mapping cannot take part"];
        text.contains(code) && told.iter().any(|told| text.contains(told))
    };
    let line = eventually(LONG, "the log to tell of the halt", || async {
        let mut log = node.log().into_iter();
        log.rfind(|line| line.level == Level::Error && is_told(&line.text))
    })
    .await;
    for text in [&reason, &line.text] {
        assert!(text.contains(code), "{}: {text}", node.node());
        for word in words {
            assert!(text.contains(word), "{}: {word} is not in {text}", node.node());
        }
    }
    let text = metrics(node).await;
    let in_force = |metric: &str| -> Vec<&str> {
        let named = text
            .lines()
            .filter(|line| line.starts_with(metric) && line.contains("orders"));
        named.filter(|line| line.ends_with(" 1")).collect()
    };
    for (metric, label) in [
        ("fanin_mapping_state{", "state=\"halted\"".to_owned()),
        ("fanin_mapping_reason{", format!("code=\"{code}\"")),
    ] {
        let told = in_force(metric);
        assert!(
            told.len() == 1 && told[0].contains(&label),
            "{}: {told:?}",
            node.node()
        );
    }
}

/// Whether a node says that it hands the mapping's messages to applications: its readiness, and the gRPC health of the topic.
pub(crate) async fn assert_delivers(node: &Bridge, delivers: bool) {
    let ready = page(node, "/readyz?verbose").await;
    let (code, mark, health) = if delivers {
        ("HTTP/1.0 200", "[+]ledger/orders", ServingStatus::Serving)
    } else {
        (
            "HTTP/1.0 503",
            "[-]ledger/orders failed: halted",
            ServingStatus::NotServing,
        )
    };
    let has_halted = orders(&node.status().await.unwrap()).state == "halted";
    let mark = if delivers && has_halted {
        "[!]ledger/orders condition: halted"
    } else {
        mark
    };
    assert!(
        ready.starts_with(code) && ready.contains(mark),
        "{}: {ready}",
        node.node()
    );
    let client = HealthClient::new(channel(node).await);
    eventually(LONG, "the health service to say so", || async {
        let service = format!("fanin.v1.TopicService/{TOPIC}");
        let answer = client.clone().check(HealthCheckRequest { service }).await;
        answer.is_ok_and(|answer| answer.into_inner().status() == health)
    })
    .await;
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

/// A node that believes within a second what it has to see twice.
pub(crate) fn quick_to_believe(mut options: BridgeOptions) -> BridgeOptions {
    options.env.insert("FANIN_AUDIT_MS".to_owned(), "1000".to_owned());
    options
}

/// Goal: a source that ends before what it has given halts every node that looks at it, before it gives anything to new messages
/// (P10). Method: put the source back to a copy, and publish nothing.
#[tokio::test]
async fn a_source_that_shrank_halts_every_node() {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let options = quick_to_believe(cluster.options(node)).allow_error("FAN-4036");
        cluster.add(options, 1).await;
    }
    cluster.feed(50).await;
    cluster.wait_rest().await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(50).await;
    cluster.wait_rest().await;
    put_back(&mut cluster, &older, &[hub_store::source()]).await;
    for node in &cluster.nodes {
        assert_halts(node, "FAN-4036", &["ORDERS", "50", "100", "generation"]).await;
        assert_delivers(node, true).await;
        node.assert_no_errors();
    }
    assert_eq!(cluster.recorder.count(), 100, "something came twice");
}

/// Goal: a source that was deleted and created again halts a node that runs, and it halts again at its next start: nothing of the new
/// stream is taken before an operator says so, what was won is delivered (P10). Method: an application that is away while the stream
/// is created again under the node; restart it without a word, then with --accept-terms.
#[tokio::test]
async fn a_source_that_was_created_again_halts_until_the_operators_word() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut options = cluster.options("n1").allow_error("FAN-4030");
    options.config["mappings"][TOPIC]["intake"] = serde_json::json!("always");
    cluster.add(options, 0).await;
    cluster.feed(50).await;
    let held = cluster.nodes[0].wait_status(LONG, "everything to be published", |status| {
        orders(status).head_offset == 50
    });
    held.await.unwrap();
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;

    cluster.jetstream.delete_stream(STREAM).await.unwrap();
    let subjects = format!("{SUBJECT}.>");
    create_source(&cluster.jetstream, STREAM, &[&subjects])
        .await
        .unwrap();
    cluster.feed(20).await;
    let words = ["ORDERS", "created again", "--accept-terms"];
    assert_halts(&cluster.nodes[0], "FAN-4030", &words).await;
    cluster.nodes[0].restart().await.unwrap();
    assert_halts(&cluster.nodes[0], "FAN-4030", &words).await;
    assert_delivers(&cluster.nodes[0], true).await;
    cluster.instance(0, "billing", "late", |options| options).await;
    eventually(LONG, "what was won to be delivered", || async {
        cluster.recorder.count() == 50
    })
    .await;
    assert!(cluster.consumer().await.is_err(), "the new stream has a consumer");

    cluster.nodes[0].options_mut().args = vec!["--accept-terms".to_owned()];
    cluster.nodes[0].restart().await.unwrap();
    // Both streams' messages have the same ids here, so the counts are the proof.
    eventually(LONG, "the new stream's messages", || async {
        cluster.recorder.count() == 70
    })
    .await;
    assert_eq!(orders(&cluster.nodes[0].status().await.unwrap()).head_offset, 70);
    cluster.nodes[0].assert_no_errors();
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
    // It looks for its consumer first, which the copy may not have.
    let gated = node.wait_status(LONG, "the mapping to wait for its application only", |status| {
        orders(status).state == "gated"
    });
    gated.await.unwrap();
    node.assert_no_errors();
}
