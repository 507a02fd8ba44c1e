//! Reads from the hub are answered by whoever believes to lead, so that one may show an older state. Nothing is decided by it.
//!
//! Method of all: the node reaches the hub through a line that changes what it asks for, so that the true answer is the one an
//! older state would have given; the clean-up of the node wants no ERROR in its log.

use std::os::unix::process::ExitStatusExt;

use fanin_tests::hub::create_source;
use fanin_tests::line::Line;
use fanin_tests::process::BridgeOptions;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LEDGER, LONG, mapping, orders};

/// What a read of checkpoint records asks for, in place of which a read finds none, and in place of which it is refused.
const CHECKPOINT: &str = "\"next_by_subj\":\"fanin.orders.checkpoint\"";
const NOTHING: &str = "\"next_by_subj\":\"fanin.orders.checkpoinT\"";
const REFUSED: &str = "\"next_by_subj\";\"fanin.orders.checkpoint\"";

/// Goal: a read that shows no epoch, or only an older one, although the hub has just refused the compare-and-set for a later
/// one, is repeated until it has caught up: then the node adopts what its interrupted start left behind. Method: the node dies
/// between its EPOCH and hearing of it; the next life's first reads find nothing, then another node's older epoch.
#[tokio::test]
async fn a_read_behind_the_refusal_is_repeated() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let line = Line::start(cluster.hub.port()).await.unwrap();
    let other = cluster.options("n2");
    cluster.add(other, 1).await;
    let far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"]));
    cluster.add(far, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;

    let node = &mut cluster.nodes[1];
    let failpoints = "FANIN_FAILPOINTS".to_owned();
    node.options_mut()
        .env
        .insert(failpoints, "after_epoch_append=kill".to_owned());
    node.respawn().unwrap();
    let ended = node.wait_exit(LONG).await.unwrap();
    assert_eq!(ended.signal(), Some(9), "{ended}\n{}", node.log_tail());
    node.options_mut().env.clear();
    let own = "\"last_by_subj\":\"fanin.orders.epoch.n1\"";
    line.rewrite(own, "\"last_by_subj\":\"fanin.orders.epoch.n9\"", 3);
    line.rewrite(own, "\"last_by_subj\":\"fanin.orders.epoch.n2\"", 1);
    node.restart().await.unwrap();
    assert_eq!(line.rewrites_left(), 0, "the node read too seldom");
    cluster.feed(200).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a node that needs a checkpoint to cross a gap reads again when what it was shown does not cover the gap; reads that
/// fail do not count; it gives up only after it was shown the same thing several times, and then it halts and sends nothing.
/// Method: batches of one message until the ledger is truncated. One life is shown no checkpoint at its start, so that it reads
/// the ledger from the beginning and meets the gap, then failures, then again no checkpoint; the next life never sees one; the
/// last one has an honest hub.
#[tokio::test]
async fn a_checkpoint_read_that_does_not_cover_the_gap_is_repeated() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let line = Line::start(cluster.hub.port()).await.unwrap();
    let mut far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"]));
    far.config["mappings"]["orders"]["batch"] = json!({ "messages": 1, "linger": "0ms" });
    cluster.add(far, 1).await;
    cluster.feed(2_100).await;
    cluster.nodes[0].wait_log(LONG, "FAN-4101").await.unwrap();
    cluster.wait_rest().await;

    line.rewrite(CHECKPOINT, NOTHING, 1);
    line.rewrite(CHECKPOINT, REFUSED, 3);
    line.rewrite(CHECKPOINT, NOTHING, 3);
    cluster.nodes[0].restart().await.unwrap();
    let joined = cluster.nodes[0].status().await.unwrap();
    assert_ne!(orders(&joined).state, "halted", "{joined:?}");
    assert_eq!(line.rewrites_left(), 0, "the node read too seldom");
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.nodes[0].assert_no_errors();

    cluster.nodes[0].options_mut().allowed_errors = vec!["FAN-4030".to_owned()];
    line.rewrite(CHECKPOINT, NOTHING, 1_000);
    cluster.nodes[0].respawn().unwrap();
    let halted = cluster.nodes[0].wait_status(LONG, "the node to give up", |status| {
        orders(status).state == "halted"
    });
    let reason = orders(&halted.await.unwrap()).reason.clone();
    assert!(
        reason.contains("FAN-4030") && reason.contains("no complete checkpoint"),
        "{reason}"
    );
    let reads = 1_000 - line.rewrites_left();
    assert!((4..20).contains(&reads), "{reads} reads");
    cluster.feed(50).await;
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(consumer.num_pending, 50, "a halted node pulled: {consumer:?}");
    cluster.nodes[0].kill().unwrap();

    // A line without rules.
    let line = Line::start(cluster.hub.port()).await.unwrap();
    cluster.nodes[0].options_mut().config["hub"]["servers"] = json!([line.url()]);
    cluster.nodes[0].restart().await.unwrap();
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    let state = cluster.jetstream.get_stream(LEDGER).await.unwrap();
    assert!(state.cached_info().state.messages < 2_000);
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    cluster.finish().await;
}

/// Goal: a ledger that one answer says is gone, or is another one, is looked at again, for longer than a leader that was replaced
/// goes on answering; nothing is sent meanwhile, and work goes on when it is there after all. When it stays, the mapping halts.
/// Method: what the node asks of its ledger is answered for a stream that is missing, and for another one, behind each restart of the
/// hub, until the node has told of its doubt; the last time for ever.
#[tokio::test]
async fn a_ledger_that_seems_gone_is_looked_at_again() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let line = Line::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"]));
    cluster.add(far, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    // Of the same length as the ledger's name.
    create_source(&cluster.jetstream, "DECOY-stream", &["decoy"])
        .await
        .unwrap();

    let asked = format!("$JS.API.STREAM.INFO.{LEDGER}");
    for (other, code) in [("MISSING-none", "FAN-2013"), ("DECOY-stream", "FAN-2016")] {
        let doubts = told(&cluster, code);
        line.rewrite(&asked, &format!("$JS.API.STREAM.INFO.{other}"), u64::MAX);
        cluster.hub.restart().await.unwrap();
        eventually(LONG, "the node to doubt", || async {
            told(&cluster, code) > doubts
        })
        .await;
        line.stop_rewriting();
        cluster.feed(100).await;
        cluster.wait_rest().await;
        let status = cluster.nodes[0].status().await.unwrap();
        assert_eq!(orders(&status).state, "active", "{status:?}");
        cluster.nodes[0].assert_no_errors();
    }
    cluster.assert_published_once().await;

    cluster.nodes[0].options_mut().allowed_errors = vec!["FAN-4030".to_owned()];
    line.rewrite(&asked, "$JS.API.STREAM.INFO.MISSING-none", u64::MAX);
    cluster.hub.restart().await.unwrap();
    let halted = cluster.nodes[0].wait_status(LONG, "the mapping to halt", |status| {
        orders(status).state == "halted"
    });
    halted.await.unwrap();
}

/// How often the node has told with this code that it looks again.
fn told(cluster: &Cluster, code: &str) -> usize {
    let log = cluster.nodes[0].log();
    let doubts = log
        .iter()
        .filter(|line| line.text.contains(code) && line.text.contains("looked at again"));
    doubts.count()
}
