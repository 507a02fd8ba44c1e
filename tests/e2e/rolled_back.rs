//! The hub comes back as it was some time ago: from a backup, a snapshot, or a power loss that took what it had confirmed.

use std::path::PathBuf;

use crate::cluster::{Cluster, LEDGER, LONG, orders};
use crate::hub_store::{self, put_back, snapshot};
use crate::ledger::ledger_end;
use crate::regrown::{assert_delivers, assert_halts};

/// Goal: a node whose epoch the ledger has lost takes no part, says so with the cure, and delivers nothing twice; once the hub
/// is restored, nothing is lost. Method: roll the hub back to a copy of its store in which the ledger ends before the last epoch
/// of one node and holds none of the other's; look; put the newer store back.
#[tokio::test]
async fn a_hub_that_lost_an_epoch_is_not_joined_until_it_is_restored() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let first = cluster.options("n1").allow_error("FAN-4019");
    cluster.add(first, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    let away = tempfile::tempdir().unwrap();
    let (older, newer) = (away.path().join("older"), away.path().join("newer"));
    snapshot(&mut cluster, &older).await;

    cluster.nodes[0].restart().await.unwrap();
    let second = cluster.options("n2").allow_error("FAN-4019");
    cluster.add(second, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
    snapshot(&mut cluster, &newer).await;
    put_back(&mut cluster, &older, &[PathBuf::new()]).await;

    let before = cluster.recorder.count();
    for node in &mut cluster.nodes {
        node.respawn().unwrap();
    }
    for node in &cluster.nodes {
        let told = ["FANIN-orders", "restore the hub", "ledger repair"];
        assert_halts(node, "FAN-4019", &told).await;
        assert_delivers(node, false).await;
    }
    let old = cluster.consumer().await.unwrap();
    assert_eq!(
        old.delivered.stream_sequence, 100,
        "a node pulled from a hub it must not trust: {old:?}"
    );
    assert_eq!(cluster.recorder.count(), before);

    put_back(&mut cluster, &newer, &[PathBuf::new()]).await;
    // They have waited for it.
    for node in &cluster.nodes {
        node.wait_joined().await.unwrap();
        node.wait_status(LONG, "the mapping to be active", |status| {
            orders(status).state == "active"
        })
        .await
        .unwrap();
        assert_delivers(node, true).await;
    }
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a hub that lost ledger records behind a node's last epoch, which its compare-and-set cannot see, is found out by what
/// the node's disk remembers of the ledger: it does not join, writes nothing, and delivers nothing twice; with the records back, all
/// goes on. Method: of a copy of the hub's store made between two feeds only the ledger and the consumer's state are put back, as a
/// power loss may take them while the source survives.
#[tokio::test]
async fn records_lost_behind_the_last_epoch_are_missed() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster.options("n1").allow_error("FAN-4019");
    cluster.add(options, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    let away = tempfile::tempdir().unwrap();
    let (older, newer) = (away.path().join("older"), away.path().join("newer"));
    // A life that only just began: its epoch is the ledger's last record.
    cluster.nodes[0].restart().await.unwrap();
    snapshot(&mut cluster, &older).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    snapshot(&mut cluster, &newer).await;
    let parts = [hub_store::ledger(), hub_store::consumers()];
    put_back(&mut cluster, &older, &parts).await;

    let before = cluster.recorder.count();
    cluster.nodes[0].respawn().unwrap();
    assert_halts(&cluster.nodes[0], "FAN-4019", &["has read it up to"]).await;
    assert_delivers(&cluster.nodes[0], false).await;
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(
        consumer.delivered.stream_sequence, 100,
        "nothing is pulled: {consumer:?}"
    );
    assert_eq!(cluster.recorder.count(), before);

    put_back(&mut cluster, &newer, &[PathBuf::new()]).await;
    cluster.nodes[0].wait_joined().await.unwrap();
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a ledger that was deleted and created again is not joined by a node that knows the one before: nothing is written into it, pulled or
/// delivered, and log, status and metrics say so (FAN-4010). Method: the ledger is replaced by an empty one like it while the node is
/// away; then the hub's store is put back.
#[tokio::test]
async fn a_ledger_that_was_created_again_is_not_joined() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster.options("n1").allow_error("FAN-4010");
    cluster.add(options, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    let away = tempfile::tempdir().unwrap();
    let before = away.path().join("before");
    snapshot(&mut cluster, &before).await;
    let config = {
        let ledger = cluster.jetstream.get_stream(LEDGER).await.unwrap();
        ledger.cached_info().config.clone()
    };
    cluster.jetstream.delete_stream(LEDGER).await.unwrap();
    cluster.jetstream.create_stream(config).await.unwrap();

    cluster.nodes[0].respawn().unwrap();
    assert_halts(&cluster.nodes[0], "FAN-4010", &[LEDGER, "ledger repair"]).await;
    assert_delivers(&cluster.nodes[0], false).await;
    cluster.feed(100).await;
    assert_eq!(ledger_end(&cluster).await, 0, "something was written into it");
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(
        consumer.delivered.stream_sequence, 100,
        "nothing is pulled: {consumer:?}"
    );
    assert_eq!(cluster.recorder.count(), 100);

    put_back(&mut cluster, &before, &[hub_store::ledger()]).await;
    cluster.nodes[0].wait_joined().await.unwrap();
    cluster.finish().await;
}
