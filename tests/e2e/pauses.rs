//! A bridge that stands still for longer than the hub waits for it.

use std::time::Duration;

use fanin_tests::hub::start_hub_with;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{ACK_WAIT, Cluster, LONG};

/// Goal: SIGSTOP of a bridge that holds pulled or claimed messages for longer than the hub's wait, then SIGCONT: what it
/// held is delivered once, by whoever claimed it first. Method: freeze it under load until the hub shows that it held
/// something and that all of that was taken and settled by the other node; thaw it, so that its late claims and
/// settlements land; several times.
#[tokio::test]
async fn a_frozen_node_loses_nothing_and_repeats_nothing() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    for _ in 0..3 {
        let trickle = cluster.stream(Duration::from_millis(5));
        cluster.wait_more(400).await;
        cluster.nodes[0].pause().unwrap();
        cluster.wait_more(100).await;
        cluster.stop_stream(trickle).await;
        let held = eventually(LONG, "the hub to have delivered all", || async {
            let consumer = cluster.consumer().await?;
            if consumer.num_pending == 0 {
                Ok(consumer.num_ack_pending)
            } else {
                Err(consumer.num_pending.to_string())
            }
        })
        .await;
        let frozen = tokio::time::Instant::now();
        eventually(LONG, "what the frozen node held to go to the other one", || {
            cluster.hub_at_rest()
        })
        .await;
        eventually(LONG, "the hub's wait to be over", || async {
            frozen.elapsed() > ACK_WAIT
        })
        .await;
        cluster.nodes[0].resume().unwrap();
        cluster.wait_rest().await;
        // Whether this round caught it in the act depends on the moment; the pull that it had open always does.
        assert!(held > 0, "the frozen node held nothing");
    }
    cluster.finish().await;
}

/// Goal: with a hub that syncs in intervals, another node's claim settles a message only once it is old enough to survive a
/// power loss; until then it is handed back, and still nothing repeats. Method: as above, once, with an interval of a second.
#[tokio::test]
async fn a_frozen_node_on_a_hub_that_syncs_lazily() {
    let hub = start_hub_with(|options| options.sync_always = false).await;
    let mut cluster = Cluster::on(hub, &["billing"]).await;
    for node in ["n1", "n2"] {
        let lazy = json!({ "hub": { "durability": "lazy", "sync_interval": "1s" } });
        let options = cluster.options(node).with_config(&lazy);
        cluster.add(options, 1).await;
    }
    let trickle = cluster.stream(Duration::from_millis(5));
    cluster.wait_more(400).await;
    cluster.nodes[0].pause().unwrap();
    let frozen = tokio::time::Instant::now();
    eventually(LONG, "the hub's wait to be over", || async {
        frozen.elapsed() > 2 * ACK_WAIT
    })
    .await;
    cluster.nodes[0].resume().unwrap();
    cluster.wait_more(200).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: both nodes frozen in turn, with the applications alive: an application that outlives its bridge's pause keeps its
/// deliveries or gets them again, never twice confirmed. Method: slow instances hold leases over the pause.
#[tokio::test]
async fn applications_outlive_a_frozen_bridge() {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let options = cluster.options(node);
        cluster.add(options, 0).await;
    }
    for node in 0..2 {
        cluster
            .instance(node, "billing", &format!("b{node}"), |options| {
                let slow = fanin_tests::apps::Decision::AckAfter(Duration::from_millis(100));
                options.credit_messages(50).decide(move |_| slow.clone())
            })
            .await;
    }
    cluster.feed(1_000).await;
    for node in [0, 1] {
        cluster.wait_more(100).await;
        cluster.nodes[node].pause().unwrap();
        let frozen = tokio::time::Instant::now();
        eventually(LONG, "the hub's wait to be over", || async {
            frozen.elapsed() > ACK_WAIT
        })
        .await;
        cluster.nodes[node].resume().unwrap();
    }
    cluster.finish().await;
}
