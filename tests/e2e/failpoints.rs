//! A node dies at each named step of the protocol.
//!
//! Method of all: two nodes under a steady feed; the first one is armed with one fail point after the other, dies there
//! by its own hand as by SIGKILL, and is started again; the second one goes on. At the end the checker wants every message once
//! per application.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use fanin_tests::feed::{Feed, publish};
use fanin_tests::hub::create_source;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, LONG, STREAM, orders};

/// SIGKILL.
const KILLED: i32 = 9;

/// Which time at the point is the deadly one: late enough that earlier batches are in every other state.
const NTH: u32 = 4;

/// The first node dies at the point and is started again.
async fn die_and_return(cluster: &mut Cluster, point: &str) {
    let nth = if point.contains("epoch") { 1 } else { NTH };
    let node = &mut cluster.nodes[0];
    node.options_mut()
        .env
        .insert("FANIN_FAILPOINTS".to_owned(), format!("{point}=kill@{nth}"));
    node.respawn().unwrap();
    let ended = node.wait_exit(LONG).await.unwrap();
    assert_eq!(
        ended.signal(),
        Some(KILLED),
        "at {point}: {ended}\n{}",
        node.log_tail()
    );
    node.options_mut().env.clear();
    node.restart().await.unwrap();
    cluster.wait_more(100).await;
}

async fn die_at_each(points: &[&str]) {
    let cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    die_in(cluster, points).await;
}

async fn die_in(mut cluster: Cluster, points: &[&str]) {
    let trickle = cluster.stream(Duration::from_millis(15));
    cluster.wait_more(200).await;
    for point in points {
        die_and_return(&mut cluster, point).await;
    }
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    let report = cluster.report();
    for node in ["n1", "n2"] {
        let by_node = report.apps["billing"]
            .shares
            .keys()
            .any(|(name, _)| &**name == node);
        assert!(by_node, "{node} delivered nothing\n{report}");
    }
    cluster.finish().await;
}

/// Goal: a death before the claim is in the ledger: what was pulled and staged is claimed again or left to the other node.
#[tokio::test]
async fn a_node_may_die_anywhere_up_to_its_claim() {
    die_at_each(&["after_pull", "before_stage_sync", "after_stage", "before_claim"]).await;
}

/// Goal: a death behind the claim: what the ledger says the node won is published, whatever the node had heard of it.
#[tokio::test]
async fn a_node_may_die_anywhere_behind_its_claim() {
    die_at_each(&[
        "after_claim",
        "after_resolution",
        "after_publish",
        "before_settle",
        "after_settle",
    ])
    .await;
}

/// Goal: a death while the epoch begins: the next life adopts what the last one wrote without hearing of it. Method: twice
/// in a row at each point, so that unconfirmed epochs pile up.
#[tokio::test]
async fn a_node_may_die_while_it_begins_an_epoch() {
    die_at_each(&[
        "after_epoch_intent",
        "after_epoch_append",
        "after_epoch_append",
        "after_epoch_intent",
    ])
    .await;
}

/// Goal: the sources of one mapping have sequences, watermarks and consumers of their own, and share batches' numbers, the ledger and
/// the topic: a death at any step mixes nothing up, and each watermark reaches its source's end. Method: as above, with messages
/// of both sources in every state; their sequences are the same numbers.
#[tokio::test]
async fn a_node_with_two_sources_may_die_anywhere() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    create_source(&cluster.jetstream, "RETURNS", &["returns.>"])
        .await
        .unwrap();
    let sources = json!([{ "stream": STREAM }, { "stream": "RETURNS", "subjects": ["returns.>"] }]);
    let patch = json!({ "mappings": { "orders": { "sources": sources } } });
    for node in ["n1", "n2"] {
        let options = cluster.options(node).with_config(&patch);
        cluster.add(options, 1).await;
    }
    let stop = CancellationToken::new();
    let returns = tokio::spawn({
        let (jetstream, stop) = (cluster.jetstream.clone(), stop.clone());
        async move {
            let mut beat = tokio::time::interval(Duration::from_millis(15));
            let mut ids = Vec::new();
            while !stop.is_cancelled() {
                beat.tick().await;
                let feed = Feed::new("returns", 20).starting_at(ids.len());
                ids.extend(publish(&jetstream, &feed).await.unwrap());
            }
            ids
        }
    });
    let orders_fed = cluster.stream(Duration::from_millis(15));
    cluster.wait_more(400).await;
    for point in [
        "after_stage",
        "before_claim",
        "after_claim",
        "after_publish",
        "before_settle",
    ] {
        die_and_return(&mut cluster, point).await;
    }
    stop.cancel();
    let returns = returns.await.unwrap();
    cluster.stop_stream(orders_fed).await;
    let ends = [(STREAM, cluster.ids.len()), ("RETURNS", returns.len())];
    cluster.ids.extend(returns);
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    for node in &cluster.nodes {
        node.wait_status(LONG, "both watermarks to reach their ends", |status| {
            ends.iter().all(|&(stream, end)| {
                let mut sources = orders(status).sources.iter();
                sources.any(|source| source.stream == stream && source.closed_through == end as u64)
            })
        })
        .await
        .unwrap();
    }
    cluster.finish().await;
}
