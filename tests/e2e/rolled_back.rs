//! The hub comes back as it was some time ago: from a backup, a snapshot, or a power loss that took what it had confirmed.

use std::fs;

use crate::cluster::{Cluster, LONG, orders};
use crate::identity::copy;

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
    cluster.hub.stop().await.unwrap();
    copy(&cluster.hub.store_dir(), &older);
    cluster.hub.restart().await.unwrap();

    cluster.nodes[0].restart().await.unwrap();
    let second = cluster.options("n2").allow_error("FAN-4019");
    cluster.add(second, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
    cluster.hub.stop().await.unwrap();
    copy(&cluster.hub.store_dir(), &newer);
    fs::remove_dir_all(cluster.hub.store_dir()).unwrap();
    copy(&older, &cluster.hub.store_dir());
    cluster.hub.restart().await.unwrap();

    let before = cluster.recorder.count();
    for node in &mut cluster.nodes {
        node.respawn().unwrap();
    }
    for node in &cluster.nodes {
        node.wait_log(LONG, "FAN-4019").await.unwrap();
        let status = node
            .wait_status(LONG, "the reason", |status| !orders(status).reason.is_empty())
            .await
            .unwrap();
        let reason = &orders(&status).reason;
        for told in ["FAN-4019", "FANIN-orders", "restore the hub"] {
            assert!(reason.contains(told), "{}: {reason}", node.node());
        }
        assert_eq!(orders(&status).state, "starting");
    }
    let old = cluster.consumer().await.unwrap();
    assert_eq!(
        old.delivered.stream_sequence, 100,
        "a node pulled from a hub it must not trust: {old:?}"
    );
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
    assert_eq!(cluster.recorder.count(), before);

    cluster.hub.stop().await.unwrap();
    fs::remove_dir_all(cluster.hub.store_dir()).unwrap();
    copy(&newer, &cluster.hub.store_dir());
    cluster.hub.restart().await.unwrap();
    for node in &mut cluster.nodes {
        node.restart().await.unwrap();
    }
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
