//! `fanin ledger repair`: the way out when the hub has truncated, regrown, split or lost a mapping's ledger.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use fanin_proto::v1::StatusResponse;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LEDGER, LONG, orders};
use crate::hub_store::{self, put_back, snapshot};
use crate::identity::copy;
use crate::tool::{self, Ended};

/// SIGKILL, as a status.
const KILLED: i32 = 9;

/// Runs `fanin ledger WORDS`.
async fn ledger(cluster: &Cluster, words: &[&str], nodes: &[usize], dir: &Path, point: &str) -> Ended {
    let mut all = vec!["ledger"];
    all.extend(words);
    tool::about(cluster, &all, nodes, dir, point).await
}

/// Adds a node whose halts and refusals are what the test is about.
async fn add(cluster: &mut Cluster, node: &str) {
    let mut options = cluster.options(node);
    for code in ["FAN-4030", "FAN-4019", "FAN-4010", "FAN-2013", "FAN-4052"] {
        options = options.allow_error(code);
    }
    cluster.add(options, 1).await;
}

async fn held(cluster: &Cluster, node: usize) -> String {
    let status = cluster.nodes[node]
        .wait_status(LONG, "the mapping to be held", |status| {
            orders(status).state == "halted"
        })
        .await
        .unwrap();
    orders(&status).reason.clone()
}

async fn active(cluster: &Cluster, node: usize) {
    cluster.nodes[node]
        .wait_status(LONG, "the mapping to go on", |status| {
            orders(status).state == "active"
        })
        .await
        .unwrap();
}

/// Waits until W has passed everything fed so far and the nodes know it.
async fn wait_closed(cluster: &Cluster) {
    for node in &cluster.nodes {
        node.wait_status(LONG, "W to pass everything", |status| {
            orders(status).sources[0].closed_through == cluster.ids.len() as u64
        })
        .await
        .unwrap();
    }
}

/// The ledger is what it was, and what the consumer knows; the source goes on.
async fn roll_back(cluster: &mut Cluster, older: &Path) {
    put_back(cluster, older, &[hub_store::ledger(), hub_store::consumers()]).await;
}

async fn verified(cluster: &Cluster, nodes: &[usize], dir: &Path) {
    eventually(LONG, "the ledger to be verified", || async {
        let ended = ledger(cluster, &["verify"], nodes, dir, "").await;
        match ended.code {
            Some(0) => Ok(()),
            _ => Err(format!("{} {}", ended.out, ended.told)),
        }
    })
    .await;
}

/// Goal: a ledger that was rolled back under running bridges is repaired by what they have in memory: nothing is in doubt, nothing is
/// lost, nothing comes twice, and the ledger is verified. Method: feed, copy the hub's store, feed more, put the ledger and the
/// consumer of the copy back; look, repair, restart the bridges.
#[tokio::test]
async fn a_truncated_ledger_is_repaired_from_the_bridges_memory() {
    let mut cluster = Cluster::new(&["billing"]).await;
    add(&mut cluster, "n1").await;
    add(&mut cluster, "n2").await;
    let dir = tempfile::tempdir().unwrap();
    cluster.feed(200).await;
    cluster.wait_rest().await;
    let healthy = ledger(&cluster, &["repair", "--force"], &[0, 1], dir.path(), "").await;
    assert_eq!(healthy.code, Some(1), "{}", healthy.told);
    assert!(healthy.told.contains("nothing to repair"), "{}", healthy.told);
    let older = dir.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(200).await;
    cluster.wait_rest().await;
    roll_back(&mut cluster, &older).await;
    for node in 0..2 {
        let reason = held(&cluster, node).await;
        assert!(reason.contains("FAN-4030"), "{reason}");
    }
    let seen = ledger(&cluster, &["repair", "--dry-run"], &[0, 1], dir.path(), "").await;
    assert_eq!(seen.code, Some(0), "{} {}", seen.out, seen.told);
    assert!(!seen.out["damage"].as_array().unwrap().is_empty() && seen.kinds().is_empty());
    let alone = ledger(&cluster, &["repair", "--force"], &[0], dir.path(), "").await;
    assert_eq!(alone.code, Some(1), "{}", alone.out);
    assert!(alone.told.contains("--ignore-unreachable"), "{}", alone.told);
    let done = ledger(&cluster, &["repair", "--force"], &[0, 1], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(seen.out["written"], json!(false), "{}", seen.out);
    assert_eq!(done.out["written"], json!(true), "{}", done.out);
    assert!(done.out["backup"].is_string(), "{}", done.out);
    cluster.feed(100).await;
    for node in &mut cluster.nodes {
        node.stop().await.unwrap();
        node.restart().await.unwrap();
    }
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    verified(&cluster, &[0, 1], dir.path()).await;
    cluster.finish().await;
}

/// Goal: a ledger that is gone altogether is repaired from what restarted bridges have on their disks; those that wait go on by
/// themselves. Of two copies of one disk one is let in. Method: stop the bridges when all is closed, delete the stream, start them.
#[tokio::test]
async fn a_lost_ledger_is_repaired_from_the_disks() {
    let mut cluster = Cluster::new(&["billing"]).await;
    add(&mut cluster, "n1").await;
    add(&mut cluster, "n2").await;
    let dir = tempfile::tempdir().unwrap();
    cluster.feed(200).await;
    cluster.wait_rest().await;
    wait_closed(&cluster).await;
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
    let twin = dir.path().join("twin");
    copy(&cluster.nodes[0].data_dir(), &twin);
    cluster.jetstream.delete_stream(LEDGER).await.unwrap();
    for node in &mut cluster.nodes {
        node.respawn().unwrap();
    }
    for node in 0..2 {
        let reason = held(&cluster, node).await;
        assert!(reason.contains("FAN-2013"), "{reason}");
    }
    let done = ledger(&cluster, &["repair", "--force"], &[0, 1], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    // Of a ledger that was gone there is nothing to keep; the new one was written all the same.
    assert_eq!(done.out["written"], json!(true), "{}", done.out);
    assert!(done.out["backup"].is_null(), "{}", done.out);
    for node in 0..2 {
        active(&cluster, node).await;
    }
    let mut copied = cluster.options("n1").with_config(&json!({ "data_dir": twin }));
    copied.args.push("--accept-moved-data".to_owned());
    crate::starts::refused(copied, 78, "FAN-4011").await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    verified(&cluster, &[0, 1], dir.path()).await;
    cluster.finish().await;
}

/// Goal: what cannot be decided is listed and needs the operator's word, and nothing else comes twice: finished messages whose
/// claims nobody remembers, and messages that two histories have delivered. Method: kill the bridges at rest, put an older ledger back, let a
/// third bridge go on with it (it is delivered again what the ledger forgot), and start the others.
#[tokio::test]
async fn what_is_in_doubt_is_listed_and_nothing_else_comes_twice() {
    let mut cluster = Cluster::new(&["billing"]).await;
    add(&mut cluster, "n1").await;
    let dir = tempfile::tempdir().unwrap();
    cluster.feed(100).await;
    cluster.wait_rest().await;
    wait_closed(&cluster).await;
    let older = dir.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    cluster.nodes[0].kill().unwrap();
    roll_back(&mut cluster, &older).await;
    // A bridge that knows nothing takes the forgotten half once more: the ledger has regrown.
    add(&mut cluster, "n2").await;
    let again = cluster.recorder.count() + 100;
    eventually(LONG, "the forgotten messages to come again", || async {
        let now = cluster.recorder.count();
        if now >= again {
            Ok(())
        } else {
            Err(format!("{now} of {again}"))
        }
    })
    .await;
    // And goes on beyond whatever the first bridge's disk knows to be closed.
    cluster.feed(100).await;
    let all = cluster.ids.len() as u64;
    let closed = |status: &StatusResponse| orders(status).sources[0].closed_through == all;
    let waited = cluster.nodes[1].wait_status(LONG, "W to pass everything", closed);
    waited.await.unwrap();
    cluster.nodes[0].respawn().unwrap();
    held(&cluster, 0).await;
    let seen = ledger(&cluster, &["repair", "--dry-run"], &[0, 1], dir.path(), "").await;
    assert_eq!(seen.code, Some(1), "{} {}", seen.out, seen.told);
    assert!(seen.kinds().contains(&"finished"), "{}", seen.out);
    let refused = ledger(&cluster, &["repair", "--force"], &[0, 1], dir.path(), "").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.told.contains("--accept-in-doubt"), "{}", refused.told);
    let accepted = ["repair", "--force", "--accept-in-doubt"];
    let done = ledger(&cluster, &accepted, &[0, 1], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    // Both had joined what was left, so both have to be started anew.
    for node in &mut cluster.nodes {
        node.stop().await.unwrap();
        node.restart().await.unwrap();
    }
    cluster.feed(100).await;
    cluster.wait_rest().await;
    verified(&cluster, &[0, 1], dir.path()).await;
    // Each of the second hundred came from both histories, which the findings say; nothing else came twice.
    assert_twice(&cluster, 100..200, &seen);
    for instance in cluster.instances.drain(..) {
        instance.stop().await.unwrap();
    }
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
}

/// Goal: a node that was not asked and comes back halts when the new ledger does not hold what it published. Method: it is down
/// while the others repair a ledger that has lost its claims; it has a backlog that no application took.
#[tokio::test]
async fn a_node_that_was_not_asked_halts_when_its_messages_are_not_in_the_ledger() {
    let mut cluster = Cluster::new(&["billing"]).await;
    add(&mut cluster, "n1").await;
    let mut options = cluster
        .options("n2")
        .allow_error("FAN-4030")
        .allow_error("FAN-2013");
    options.config["mappings"]["orders"]["intake"] = json!("always");
    cluster.add(options, 0).await;
    let dir = tempfile::tempdir().unwrap();
    cluster.nodes[0].stop().await.unwrap();
    cluster.feed(40).await;
    let published = |status: &fanin_proto::v1::StatusResponse| orders(status).head_offset == 40;
    cluster.nodes[1]
        .wait_status(LONG, "a backlog", published)
        .await
        .unwrap();
    cluster.nodes[1].stop().await.unwrap();
    cluster.jetstream.delete_stream(LEDGER).await.unwrap();
    cluster.nodes[0].respawn().unwrap();
    held(&cluster, 0).await;
    let words = ["repair", "--force", "--ignore-unreachable", "--accept-in-doubt"];
    let done = ledger(&cluster, &words, &[0], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    active(&cluster, 0).await;
    cluster.nodes[1].respawn().unwrap();
    let reason = held(&cluster, 1).await;
    assert!(reason.contains("disagree on what batch"), "{reason}");
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
}

async fn dies_at(points: &[&str]) {
    let mut cluster = Cluster::new(&["billing"]).await;
    add(&mut cluster, "n1").await;
    let dir = tempfile::tempdir().unwrap();
    for point in points {
        cluster.feed(40).await;
        cluster.wait_rest().await;
        wait_closed(&cluster).await;
        cluster.nodes[0].stop().await.unwrap();
        let stream = cluster.jetstream.get_stream_no_info(LEDGER).await.unwrap();
        stream.purge().await.unwrap();
        cluster.nodes[0].respawn().unwrap();
        held(&cluster, 0).await;
        let died = ledger(&cluster, &["repair", "--force"], &[0], dir.path(), point).await;
        assert_eq!(died.signal, Some(KILLED), "{point}: {} {}", died.out, died.told);
        // Nothing that a bridge does now makes it worse.
        cluster.nodes[0].kill().unwrap();
        cluster.nodes[0].respawn().unwrap();
        held(&cluster, 0).await;
        let backups = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let newest = backups.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
        let newest = newest.unwrap().display().to_string();
        let words = ["repair", "--force", "--from-backup", &newest];
        let done = ledger(&cluster, &words, &[0], dir.path(), "").await;
        assert_eq!(done.code, Some(0), "{point}: {} {}", done.out, done.told);
        active(&cluster, 0).await;
    }
    cluster.feed(40).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    verified(&cluster, &[0], dir.path()).await;
    cluster.finish().await;
}

/// Goal: a repair that dies may be run again. Method: it dies behind each step, the bridge is started anew, and the repair runs once
/// more with the backup: the steps before the old ledger is gone.
#[tokio::test]
async fn a_repair_may_die_before_the_old_ledger_is_gone() {
    dies_at(&[
        "after_repair_backup",
        "after_repair_seal",
        "after_repair_sealed_backup",
    ])
    .await;
}

/// Goal and method: the same, behind each later step.
#[tokio::test]
async fn a_repair_may_die_after_the_old_ledger_is_gone() {
    dies_at(&[
        "after_repair_delete",
        "after_repair_begin",
        "after_repair_genesis",
        "after_repair_terms",
    ])
    .await;
}

/// A node that holds everything and hands out nothing.
async fn add_holder(cluster: &mut Cluster, node: &str, batch: u32) {
    let mut options = cluster.options(node);
    for code in ["FAN-4030", "FAN-4019", "FAN-2013", "FAN-4052"] {
        options = options.allow_error(code);
    }
    options.config["mappings"]["orders"]["intake"] = json!("always");
    options.config["mappings"]["orders"]["batch"]["messages"] = json!(batch);
    cluster.add(options, 0).await;
}

async fn wait_published(cluster: &Cluster, node: usize, count: u64) {
    cluster.nodes[node]
        .wait_status(LONG, "everything to be published", |status| {
            orders(status).head_offset == count
        })
        .await
        .unwrap();
}

/// Goal and method: the same, between two records of the new ledger's checkpoint, which is not complete then, so that no bridge
/// joins. Thousands of claims that no application has finished need more than one.
#[tokio::test]
async fn a_repair_may_die_between_the_parts_of_its_checkpoint() {
    const MESSAGES: usize = 5_000;
    let mut cluster = Cluster::new(&["billing"]).await;
    add_holder(&mut cluster, "n1", 1).await;
    let dir = tempfile::tempdir().unwrap();
    cluster.feed(MESSAGES).await;
    wait_published(&cluster, 0, MESSAGES as u64).await;
    cluster.nodes[0].stop().await.unwrap();
    let stream = cluster.jetstream.get_stream_no_info(LEDGER).await.unwrap();
    stream.purge().await.unwrap();
    cluster.nodes[0].respawn().unwrap();
    held(&cluster, 0).await;
    let backup = dir.path().join("backup").display().to_string();
    let words = ["repair", "--force", "--backup", &backup];
    let died = ledger(&cluster, &words, &[0], dir.path(), "after_repair_part").await;
    assert_eq!(died.signal, Some(KILLED), "{} {}", died.out, died.told);
    cluster.nodes[0].kill().unwrap();
    cluster.nodes[0].respawn().unwrap();
    let reason = held(&cluster, 0).await;
    assert!(reason.contains("FAN-4052"), "one part was enough: {reason}");
    let words = ["repair", "--force", "--from-backup", &backup];
    let done = ledger(&cluster, &words, &[0], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(done.out["state"]["claims"], json!(MESSAGES), "{}", done.out);
    active(&cluster, 0).await;
    verified(&cluster, &[0], dir.path()).await;
    cluster
        .instance(0, "billing", "billing-1", |options| options)
        .await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: what two histories of the ledger have given to two nodes is listed as `duplicate`, with both, needs the operator's word,
/// and then comes from both, and nothing else does. Method: two nodes without applications take the same messages, the second one
/// after ledger and consumer are what they were before the first one's claims; repair, and let the applications come.
#[tokio::test]
async fn what_two_histories_gave_to_two_nodes_is_listed_as_duplicate() {
    let mut cluster = Cluster::new(&["billing"]).await;
    add_holder(&mut cluster, "n1", 20).await;
    let dir = tempfile::tempdir().unwrap();
    cluster.feed(60).await;
    wait_published(&cluster, 0, 60).await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    let older = dir.path().join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(40).await;
    wait_published(&cluster, 0, 100).await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    cluster.nodes[0].kill().unwrap();
    roll_back(&mut cluster, &older).await;
    add_holder(&mut cluster, "n2", 20).await;
    wait_published(&cluster, 1, 40).await;
    cluster.nodes[0].respawn().unwrap();
    held(&cluster, 0).await;
    let seen = ledger(&cluster, &["repair", "--dry-run"], &[0, 1], dir.path(), "").await;
    assert_eq!(seen.code, Some(1), "{} {}", seen.out, seen.told);
    assert!(
        seen.kinds().iter().all(|kind| *kind == "duplicate"),
        "{}",
        seen.out
    );
    let findings = seen.out["findings"].as_array().unwrap().iter();
    let ranges = findings.flat_map(|finding| finding["messages"].as_array().unwrap());
    let named: std::collections::BTreeSet<u64> = ranges
        .flat_map(|range| range[0].as_u64().unwrap()..=range[1].as_u64().unwrap())
        .collect();
    assert_eq!(named, (61..=100).collect(), "{}", seen.out);
    let texts = seen.out["findings"].to_string();
    for word in ["ORDERS", "n1", "n2"] {
        assert!(texts.contains(word), "{word}: {texts}");
    }
    let refused = ledger(&cluster, &["repair", "--force"], &[0, 1], dir.path(), "").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.told.contains("--accept-in-doubt"), "{}", refused.told);
    let accepted = ["repair", "--force", "--accept-in-doubt"];
    let done = ledger(&cluster, &accepted, &[0, 1], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    for node in 0..2 {
        cluster.nodes[node].stop().await.unwrap();
        cluster.nodes[node].restart().await.unwrap();
        cluster
            .instance(node, "billing", "billing-1", |options| options)
            .await;
    }
    cluster.feed(50).await;
    cluster.wait_rest().await;
    verified(&cluster, &[0, 1], dir.path()).await;
    assert_twice(&cluster, 60..100, &seen);
    for instance in cluster.instances.drain(..) {
        instance.stop().await.unwrap();
    }
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
}

/// Each message of this range, counted from 0, came twice, and every other one once.
fn assert_twice(cluster: &Cluster, twice: Range<usize>, seen: &Ended) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for confirmation in cluster.recorder.confirmations() {
        *counts.entry(confirmation.id.to_string()).or_default() += 1;
    }
    for (number, id) in cluster.ids.iter().enumerate() {
        let expected = if twice.contains(&number) { 2 } else { 1 };
        assert_eq!(counts.get(id), Some(&expected), "{id}: {}", seen.out);
    }
}
