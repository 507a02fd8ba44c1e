//! The hub dies, freezes, or is away.

use std::time::Duration;

use fanin_tests::apps::Decision;
use fanin_tests::wait::eventually;

use crate::cluster::{Cluster, LONG};

/// Goal: a hub that is killed and started again on its store costs nothing. Method: SIGKILL under load, twice; the second
/// time a node is killed with it, and is back before the hub.
#[tokio::test]
async fn the_hub_may_be_killed() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    let trickle = cluster.stream(Duration::from_millis(10));
    cluster.wait_more(300).await;
    cluster.hub.restart().await.unwrap();
    cluster.wait_more(300).await;
    cluster.hub.kill().unwrap();
    cluster.nodes[0].respawn().unwrap();
    cluster.nodes[0].wait_serving().await.unwrap();
    cluster.hub.restart().await.unwrap();
    cluster.nodes[0].wait_joined().await.unwrap();
    cluster.wait_more(300).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: while the hub is away, applications are served from the node's backlog, and what they confirm counts; afterwards
/// everything goes on by itself. Method: slow instances, the hub gone once the node has everything, all of it confirmed
/// before the hub is back, then more.
#[tokio::test]
async fn applications_are_served_while_the_hub_is_away() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster.options("n1");
    cluster.add(options, 0).await;
    cluster
        .instance(0, "billing", "b1", |options| {
            options
                .credit_messages(50)
                .decide(|_| Decision::AckAfter(Duration::from_millis(100)))
        })
        .await;
    cluster.feed(1_000).await;
    eventually(LONG, "the node to hold everything", || cluster.hub_at_rest()).await;
    cluster.hub.kill().unwrap();
    let before = cluster.recorder.count();
    assert!(before < 1_000, "the applications were too fast for this test");
    eventually(LONG, "the backlog to be served", || async {
        cluster.recorder.count() == 1_000
    })
    .await;
    let status = cluster.nodes[0].status().await.unwrap();
    assert!(!status.hub.unwrap().connected);
    cluster.hub.restart().await.unwrap();
    cluster.feed(300).await;
    cluster.finish().await;
}

/// Goal: a hub that freezes for longer than every wait is as good as one that is away. Method: SIGSTOP of the server under
/// load, until the nodes have seen it; SIGCONT.
#[tokio::test]
async fn the_hub_may_freeze() {
    let mut cluster = Cluster::with_nodes(&["billing"], 2, 1).await;
    let trickle = cluster.stream(Duration::from_millis(10));
    cluster.wait_more(300).await;
    cluster.hub.pause().unwrap();
    eventually(LONG, "claims to be given up on", || async {
        cluster.nodes.iter().all(|node| {
            let log = node.log();
            log.iter()
                .any(|line| line.text.contains("an append is not confirmed"))
        })
    })
    .await;
    cluster.hub.resume().unwrap();
    cluster.wait_more(300).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
