//! Very many unfinished batches: each takes memory on every node of its mapping.
//!
//! Method of all: `FANIN_BATCH_WEIGHT`, by which each of them counts as many.

use std::time::Duration;

use fanin_tests::process::BridgeOptions;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, orders};

/// The bridge's bound, `OPEN_CLAIMS_MAX`.
const BATCHES_MAX: u64 = 1 << 20;

/// A node that takes everything, whoever is there, and counts each unfinished batch as so many.
fn weighing(cluster: &Cluster, node: &str, weight: u64) -> BridgeOptions {
    let mut options = cluster.options(node);
    options.config["mappings"]["orders"]["intake"] = json!("always");
    options
        .env
        .insert("FANIN_BATCH_WEIGHT".to_owned(), weight.to_string());
    options
}

/// Goal: with as many unfinished batches as memory allows, a node says so and takes nothing more, while what it does not take stays
/// with the hub and goes to another node; when the application that was away comes back, it goes on by itself, and every message was
/// delivered once. Method: a bound of four batches of at most 20 messages under a feed of 2000, without an instance; then a second
/// node without that bound, which takes the rest and 500 more; then an instance on the first; last, messages that only the first one can take.
#[tokio::test]
async fn too_many_unfinished_batches_stop_the_intake_until_some_are_finished() {
    const LIMIT: u64 = 4;
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = weighing(&cluster, "n1", BATCHES_MAX / LIMIT);
    cluster.add(options, 0).await;
    cluster.feed(2000).await;
    let full = cluster.nodes[0]
        .wait_status(LONG, "too many batches, and none on its way", |status| {
            let mapping = orders(status);
            mapping.reason.contains("FAN-4037") && mapping.unresolved_batches + mapping.staged_batches == 0
        })
        .await
        .unwrap();
    assert_eq!(orders(&full).state, "full", "{full:?}");
    let mut other = cluster.options("n2");
    other.config["mappings"]["orders"]["intake"] = json!("always");
    cluster.add(other, 1).await;
    cluster.wait_more(20).await;
    let kept = orders(&cluster.nodes[0].status().await.unwrap()).clone();
    assert!(kept.open_claims >= LIMIT && kept.head_offset < 2000, "{kept:?}");
    cluster.feed(500).await;
    eventually(LONG, "the other node to be done with the rest", || async {
        cluster.hub_at_rest().await?;
        let settled = cluster.recorder.settled_by("billing") as u64;
        if settled + kept.head_offset == 2500 {
            Ok(())
        } else {
            Err(format!("{settled} and {}", kept.head_offset))
        }
    })
    .await;
    let still = orders(&cluster.nodes[0].status().await.unwrap()).clone();
    assert!(
        still.reason.contains("FAN-4037") && still.head_offset == kept.head_offset,
        "{still:?}"
    );

    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.wait_rest().await;
    cluster.nodes[0]
        .wait_status(LONG, "the node to go on", |status| {
            orders(status).state == "active"
        })
        .await
        .unwrap();
    cluster.assert_published_once().await;
    cluster.instances.remove(0).stop().await.unwrap();
    cluster.nodes.remove(1).stop().await.unwrap();
    cluster.feed(200).await;
    cluster.finish().await;
}

/// Goal: the more batches are unfinished, the longer one waits that is not full, so that a slow publisher makes fewer of them. Method:
/// each counts as the lowest step, so that a few reach the highest one, a second; bursts that come far more often than that, and far less
/// often than the configured time; nobody finishes anything, and there must be far fewer batches than bursts.
#[tokio::test]
async fn batches_wait_longer_while_many_are_unfinished() {
    const BURSTS: usize = 40;
    const BURST: usize = 20;
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut options = weighing(&cluster, "n1", 16 * 1024);
    options = options.with_config(&json!({ "mappings": { "orders": {
        "ack_wait": "8s",
        "in_flight": 1000,
        "batch": { "messages": 500, "linger": "1ms" },
    } } }));
    cluster.add(options, 0).await;
    let trickle = cluster.stream(Duration::from_millis(25));
    cluster.nodes[0]
        .wait_status(LONG, "the bursts", |status| {
            orders(status).head_offset >= (BURSTS * BURST) as u64
        })
        .await
        .unwrap();
    cluster.stop_stream(trickle).await;
    let fed = cluster.ids.len() as u64;
    let all = cluster.nodes[0]
        .wait_status(LONG, "all of it", |status| orders(status).head_offset == fed)
        .await
        .unwrap();
    let batches = orders(&all).open_batches;
    assert!(
        batches < fed / BURST as u64 / 2,
        "{batches} batches of {fed} messages"
    );
    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.finish().await;
}
