//! Two bodies with one identity: copies of a data directory, two processes on one, two nodes of one name.

use std::fs;
use std::path::Path;

use fanin_tests::process::{Bridge, BridgeOptions};
use serde_json::json;

use crate::cluster::{Cluster, LONG, orders};
use crate::starts::refused;

/// Options of another process with the first node's name on the data directory `dir`.
pub(crate) fn second_body(cluster: &Cluster, dir: &Path) -> BridgeOptions {
    cluster.options("n1").with_config(&json!({ "data_dir": dir }))
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A fenced node says in its status and in its log why, and what to do about it.
async fn assert_told(node: &Bridge, reason: &str, words: &[&str]) {
    let line = node.wait_log(LONG, "this node is fenced").await.unwrap();
    for text in [reason, &line.text] {
        for part in ["FAN-3008", "cure"].iter().chain(words) {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}

/// Goal: a second bridge on a data directory in use is refused at once, and the first one does not notice. Method: start it
/// under load.
#[tokio::test]
async fn a_second_bridge_on_the_same_directory_is_refused() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(200).await;
    refused(
        second_body(&cluster, &cluster.nodes[0].data_dir()),
        75,
        "FAN-4009",
    )
    .await;
    cluster.feed(200).await;
    cluster.finish().await;
}

/// Goal: a copy of a data directory is refused wherever it lies, and still refused on the operator's word when the original
/// has lived on. Method: copy the directory of a stopped node, start the original again, then the copy.
#[tokio::test]
async fn a_copied_directory_is_refused() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(200).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    let clone = tempfile::tempdir().unwrap();
    let clone = clone.path().join("data");
    copy(&cluster.nodes[0].data_dir(), &clone);
    cluster.nodes[0].restart().await.unwrap();

    refused(second_body(&cluster, &clone), 78, "FAN-4013").await;
    let mut accepted = second_body(&cluster, &clone);
    accepted.args = vec!["--accept-moved-data".to_owned()];
    let text = refused(accepted, 78, "FAN-4011").await;
    assert!(text.contains("copy of this data directory"), "{text}");
    cluster.feed(200).await;
    cluster.finish().await;
}

/// Goal: two data directories cannot share a node's name. Method: an empty directory under the name of a running node.
#[tokio::test]
async fn a_name_in_use_is_refused() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(100).await;
    let text = refused(cluster.options("n1"), 78, "FAN-4011").await;
    assert!(text.contains("another data directory holds this name"), "{text}");
    cluster.finish().await;
}

/// Goal: a node that sees another body's epoch stops delivering at once, and what comes after is delivered once, by the
/// newer body. Method: copy the directory of a running node at rest and start the copy with the operator's word that it was
/// moved.
#[tokio::test]
async fn the_older_of_two_bodies_is_fenced() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let old = cluster.options("n1").allow_error("FAN-3008");
    cluster.add(old, 1).await;
    cluster.feed(200).await;
    cluster.wait_rest().await;
    let clone = tempfile::tempdir().unwrap();
    let clone = clone.path().join("data");
    copy(&cluster.nodes[0].data_dir(), &clone);
    let mut new = second_body(&cluster, &clone);
    new.args = vec!["--accept-moved-data".to_owned()];
    cluster.add(new, 0).await;
    let fenced = cluster.nodes[0].wait_status(LONG, "the older body to be fenced", |status| {
        orders(status).state == "fenced"
    });
    let reason = orders(&fenced.await.unwrap()).reason.clone();
    assert_told(
        &cluster.nodes[0],
        &reason,
        &["another process", "go on with the one that began that epoch"],
    )
    .await;
    cluster.instance(1, "billing", "newer", |options| options).await;
    cluster.feed(200).await;
    cluster.wait_rest().await;
    let report = cluster.report();
    let newer = report.apps["billing"]
        .shares
        .iter()
        .find(|((_, instance), _)| &**instance == "newer");
    assert_eq!(newer.map(|(_, share)| *share), Some(200), "{report}");
    cluster.finish().await;
}

/// Goal: a body whose disk does not know what the ledger says of it delivers nothing, and neither does the other one after
/// it: an operator must decide. Method: copy a running node's directory, let the original go on within its epoch and stop,
/// start the copy on the operator's wrong word, then the original.
#[tokio::test]
async fn a_body_that_lags_behind_the_ledger_delivers_nothing() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(200).await;
    cluster.wait_rest().await;
    let clone = tempfile::tempdir().unwrap();
    let clone = clone.path().join("data");
    copy(&cluster.nodes[0].data_dir(), &clone);
    cluster.feed(200).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();

    let mut stale = second_body(&cluster, &clone).allow_error("FAN-3008");
    stale.args = vec!["--accept-moved-data".to_owned()];
    cluster.add(stale, 0).await;
    let fenced = cluster.nodes[1].wait_status(LONG, "the stale body to be fenced", |status| {
        orders(status).state == "fenced"
    });
    let reason = orders(&fenced.await.unwrap()).reason.clone();
    let words = [
        "that this data directory does not know",
        "another name and an empty data directory",
    ];
    assert_told(&cluster.nodes[1], &reason, &words).await;
    refused(
        second_body(&cluster, &cluster.nodes[0].data_dir()),
        78,
        "FAN-4011",
    )
    .await;
    cluster.report().assert_exactly_once_without_doubt();
    cluster.nodes[1].stop().await.unwrap();
}
