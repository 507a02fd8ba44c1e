//! The hub dies, freezes, or is away.

use std::time::Duration;

use fanin_tests::apps::Decision;
use fanin_tests::process::Bridge;
use fanin_tests::wait::eventually;

use crate::cluster::{Cluster, LONG, unheard_claims};

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

/// Times the hub is frozen until that has met a claim on its way: whether there is one at a moment is chance.
const TRIES: usize = 5;

/// Goal: a hub that freezes for longer than every wait is as good as one that is away. Method: SIGSTOP of the server under
/// load, until every node tells that the hub does not answer, and one of them that it has not heard of a claim; SIGCONT.
#[tokio::test]
async fn the_hub_may_freeze() {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let options = cluster.talkative(node);
        cluster.add(options, 1).await;
    }
    let trickle = cluster.stream(Duration::from_millis(10));
    let unanswered = |node: &Bridge| {
        let lines = node.log();
        let told = lines
            .iter()
            .filter(|line| line.text.contains("no counters of the consumer"));
        told.count()
    };
    let unheard = |cluster: &Cluster| cluster.nodes.iter().map(unheard_claims).sum::<usize>();
    for _ in 0..TRIES {
        cluster.wait_more(300).await;
        let before: Vec<usize> = cluster.nodes.iter().map(unanswered).collect();
        cluster.hub.pause().unwrap();
        eventually(LONG, "each node to see that the hub does not answer", || async {
            let mut nodes = cluster.nodes.iter().zip(&before);
            nodes.all(|(node, before)| unanswered(node) > *before)
        })
        .await;
        cluster.hub.resume().unwrap();
        if unheard(&cluster) > 0 {
            break;
        }
    }
    assert!(unheard(&cluster) > 0, "no claim was on its way");
    cluster.wait_more(300).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
