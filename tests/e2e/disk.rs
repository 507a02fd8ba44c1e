//! A full disk quota.

use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, orders};

/// Goal: a node whose quota is full stops pulling, the other node takes over, and nothing of what it accepted is lost or
/// repeated. Method: a quota of 2 MiB and no instance on the first node, 5 MiB of messages; everything must leave the hub; then
/// an instance comes to the full node and empties it, and the node pulls again.
#[tokio::test]
async fn a_full_node_leaves_the_rest_to_the_others() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut small = cluster.options("n1");
    small =
        small.with_config(&json!({ "store": { "quota": "2MiB", "segment": "128KiB", "reserve": "512KiB" } }));
    small.config["mappings"]["orders"]["intake"] = json!("always");
    cluster.add(small, 0).await;
    cluster
        .feed_as(400, |mut feed| {
            feed.payload_bytes = 8 * 1024;
            feed
        })
        .await;
    let status = cluster.nodes[0]
        .wait_status(LONG, "the node to be full", |status| {
            orders(status).state == "full"
        })
        .await
        .unwrap();
    assert!(orders(&status).reason.contains("FAN-4022"), "{status:?}");
    let store = status.store.unwrap();
    assert!(store.bytes <= store.quota_bytes, "{store:?}");

    let other = cluster.options("n2");
    cluster.add(other, 1).await;
    cluster
        .feed_as(200, |mut feed| {
            feed.payload_bytes = 8 * 1024;
            feed
        })
        .await;
    eventually(LONG, "everything to leave the hub", || cluster.hub_at_rest()).await;
    let kept = orders(&cluster.nodes[0].status().await.unwrap()).apps[0].backlog_messages;
    assert!(kept > 0);
    eventually(LONG, "the other node to be done", || async {
        cluster.recorder.count() as u64 + kept == cluster.ids.len() as u64
    })
    .await;

    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.wait_rest().await;
    cluster.nodes[0]
        .wait_status(LONG, "room for more", |status| orders(status).state == "active")
        .await
        .unwrap();
    cluster.feed(200).await;
    cluster.finish().await;
}
