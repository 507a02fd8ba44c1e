//! `fanin ledger repair`: the way out when the hub has truncated, regrown, split or lost a mapping's ledger.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use fanin_proto::v1::StatusResponse;
use fanin_tests::process::binary_path;
use fanin_tests::wait::eventually;
use serde_json::Value;

use crate::cluster::{Cluster, LEDGER, LONG, STREAM, orders};
use crate::identity::copy;

/// SIGKILL, as a status.
const KILLED: i32 = 9;

/// How a run of the binary ended.
struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
    out: Value,
    told: String,
}

/// Runs `fanin ledger WORDS --json` against the sockets of these nodes, in a directory, dying at a fail point if one is named.
async fn ledger(cluster: &Cluster, words: &[&str], nodes: &[usize], dir: &Path, point: &str) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let mut command = Command::new(binary_path().unwrap());
    command
        .arg("ledger")
        .args(words)
        .arg("--json")
        .arg("--config")
        .arg(cluster.nodes[0].config_path())
        .current_dir(dir)
        .stdin(std::process::Stdio::null());
    if !point.is_empty() {
        command.env("FANIN_FAILPOINTS", format!("{point}=kill"));
    }
    for node in nodes {
        command.arg("--node").arg(cluster.nodes[*node].socket());
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ended {
        code: output.status.code(),
        signal: output.status.signal(),
        out: text
            .lines()
            .last()
            .map_or(Value::Null, |line| serde_json::from_str(line).unwrap()),
        told: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn kinds(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .collect()
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

/// The hub's store is what it was: the ledger, and what the consumer knows; the source goes on.
async fn roll_back(cluster: &mut Cluster, older: &Path) {
    cluster.hub.stop().await.unwrap();
    let ledger = Path::new("jetstream/$G/streams").join(LEDGER);
    let consumers = Path::new("jetstream/$G/streams").join(STREAM).join("obs");
    for part in [&ledger, &consumers] {
        let to = cluster.hub.store_dir().join(part);
        fs::remove_dir_all(&to).unwrap();
        copy(&older.join(part), &to);
    }
    cluster.hub.restart().await.unwrap();
}

async fn snapshot(cluster: &mut Cluster, to: &Path) {
    cluster.hub.stop().await.unwrap();
    copy(&cluster.hub.store_dir(), to);
    cluster.hub.restart().await.unwrap();
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
    assert!(!seen.out["damage"].as_array().unwrap().is_empty() && kinds(&seen.out).is_empty());
    let alone = ledger(&cluster, &["repair", "--force"], &[0], dir.path(), "").await;
    assert_eq!(alone.code, Some(1), "{}", alone.out);
    assert!(alone.told.contains("--ignore-unreachable"), "{}", alone.told);
    let done = ledger(&cluster, &["repair", "--force"], &[0, 1], dir.path(), "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
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
    for node in 0..2 {
        active(&cluster, node).await;
    }
    let mut copied = cluster
        .options("n1")
        .with_config(&serde_json::json!({ "data_dir": twin }));
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
    assert!(kinds(&seen.out).contains(&"finished"), "{}", seen.out);
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
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for confirmation in cluster.recorder.confirmations() {
        *counts.entry(confirmation.id.to_string()).or_default() += 1;
    }
    for (number, id) in cluster.ids.iter().enumerate() {
        let expected = if (100..200).contains(&number) { 2 } else { 1 };
        assert_eq!(counts.get(id), Some(&expected), "{id}: {}", seen.out);
    }
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
    options.config["mappings"]["orders"]["intake"] = serde_json::json!("always");
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
