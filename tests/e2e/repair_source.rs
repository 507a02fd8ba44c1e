//! `fanin ledger repair --source`: the way out when a source was restored to an earlier copy, as docs/operators.md tells it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fanin_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LONG, STREAM, orders};
use crate::hub_store::{self, put_back, snapshot};
use crate::tool::{self, Ended};

/// SIGKILL, as a status.
const KILLED: i32 = 9;

/// A node's configuration with the generation of its source raised, in another file: the bridge is not started anew yet.
fn raised(cluster: &Cluster, to: &Path) -> PathBuf {
    let text = fs::read_to_string(cluster.nodes[0].config_path()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["mappings"]["orders"]["sources"][0]["generation"] = json!(1);
    let path = to.join("raised.yaml");
    fs::write(&path, config.to_string()).unwrap();
    path
}

async fn repair(cluster: &Cluster, words: &[&str], config: &Path, point: &str) -> Ended {
    let sockets: Vec<String> = cluster.nodes.iter().map(|node| node.socket()).collect();
    let mut all = vec!["ledger", "repair", "--source", "ORDERS", "--json", "--config"];
    all.push(config.to_str().unwrap());
    all.extend(words);
    for socket in &sockets {
        all.extend(["--node", socket]);
    }
    tool::run(&all, Path::new("."), point).await
}

/// Confirmed acknowledgements of an application, by message id.
fn counts(cluster: &Cluster, app: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for confirmation in cluster.recorder.confirmations() {
        if &*confirmation.app == app {
            *counts.entry(confirmation.id.to_string()).or_default() += 1;
        }
    }
    counts
}

async fn wait_acked(cluster: &Cluster, app: &str, count: usize) {
    eventually(LONG, "an application to have everything", || async {
        let now: usize = counts(cluster, app).values().sum();
        if now == count {
            Ok(())
        } else {
            Err(format!("{app} has {now} of {count}"))
        }
    })
    .await;
}

/// Two nodes; billing has finished a hundred messages, and for shipping, which is away, all of them wait. Then the source goes back
/// to where it had fifty, and gets forty others: what the bridges halt on.
async fn gone_back(dir: &Path) -> Cluster {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    for node in ["n1", "n2"] {
        let mut options = cluster.options(node).allow_error("FAN-4035");
        options.config["mappings"]["orders"]["intake"] = json!("always");
        cluster.add(options, 0).await;
    }
    for node in 0..2 {
        cluster
            .instance(node, "billing", "billing-1", |options| options)
            .await;
    }
    cluster.feed(50).await;
    wait_acked(&cluster, "billing", 50).await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    let older = dir.join("older");
    snapshot(&mut cluster, &older).await;
    cluster.feed(50).await;
    wait_acked(&cluster, "billing", 100).await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    put_back(&mut cluster, &older, &[hub_store::source()]).await;
    cluster.feed(40).await;
    for node in &cluster.nodes {
        let halted = node.wait_status(LONG, "the mapping to halt", |status| {
            orders(status).state == "halted"
        });
        let reason = orders(&halted.await.unwrap()).reason.clone();
        for word in ["FAN-4035", "fanin ledger repair --source"] {
            assert!(reason.contains(word), "{word}: {reason}");
        }
    }
    cluster
}

/// Starts every bridge anew with the generation raised, brings shipping back, and wants every message of both lives of the source
/// once for each application: the first fifty, what was lost behind them and waits on the nodes, and what came instead.
async fn all_flows_again(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        node.options_mut().config["mappings"]["orders"]["sources"][0]["generation"] = json!(1);
        node.stop().await.unwrap();
        node.restart().await.unwrap();
    }
    cluster.feed(30).await;
    for node in 0..2 {
        cluster
            .instance(node, "shipping", "shipping-1", |options| options)
            .await;
    }
    for app in ["billing", "shipping"] {
        wait_acked(cluster, app, 170).await;
        let counts = counts(cluster, app);
        for seq in 1..=120 {
            let expected = if (51..=100).contains(&seq) { 2 } else { 1 };
            let id = format!("ORDERS:{seq}");
            assert_eq!(counts.get(&id), Some(&expected), "{app}: {id}");
        }
    }
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    eventually(LONG, "the ledger to be verified", || async {
        let ended = tool::about(cluster, &["ledger", "verify"], &[0, 1], Path::new("."), "").await;
        match ended.code {
            Some(0) => Ok(()),
            _ => Err(format!("{} {}", ended.out, ended.told)),
        }
    })
    .await;
}

async fn finish(mut cluster: Cluster) {
    for instance in cluster.instances.drain(..) {
        instance.stop().await.unwrap();
    }
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
}

/// Goal: a source that was restored to an earlier copy and went on is taken up again where the copy ended: what was claimed before
/// does not come again, what waits on the nodes is delivered though the source has it no more, and everything new is
/// delivered. Method: what docs/operators.md says, command by command; without the raised generation, without evidence and without
/// a node it refuses.
#[tokio::test]
async fn a_source_that_went_back_is_taken_up_where_its_copy_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = gone_back(dir.path()).await;
    let unraised = repair(&cluster, &["--force"], &cluster.nodes[0].config_path(), "").await;
    assert_eq!(unraised.code, Some(1), "{}", unraised.told);
    assert!(unraised.told.contains("generation"), "{}", unraised.told);
    let config = raised(&cluster, dir.path());
    let seen = repair(&cluster, &["--dry-run"], &config, "").await;
    assert_eq!(seen.code, Some(0), "{} {}", seen.out, seen.told);
    assert_eq!(
        seen.out["taken_as_delivered"]["through"],
        json!(50),
        "{:#}",
        seen.out
    );
    assert_eq!(seen.out["delivered_from"]["seq"], json!(51), "{:#}", seen.out);
    assert_eq!(
        (seen.out["written"].clone(), seen.kinds()),
        (json!(false), vec![]),
        "{:#}",
        seen.out
    );
    let mut words = vec![
        "ledger", "repair", "--source", "ORDERS", "--force", "--json", "--config",
    ];
    words.push(config.to_str().unwrap());
    let socket = cluster.nodes[0].socket();
    words.extend(["--node", &socket]);
    let alone = tool::run(&words, Path::new("."), "").await;
    assert_eq!(
        (alone.code, alone.kinds()),
        (Some(1), vec!["not_asked"]),
        "{}",
        alone.told
    );
    let done = repair(&cluster, &["--force"], &config, "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(done.out["written"], json!(true), "{:#}", done.out);
    all_flows_again(&mut cluster).await;
    finish(cluster).await;
}

/// Goal: a repair of a source that dies behind any of its steps is run again, and no bridge that is started in between takes
/// anything. Method: it dies behind each step in turn, with the bridges started anew after the last.
#[tokio::test]
async fn a_repair_of_a_source_may_die() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = gone_back(dir.path()).await;
    let config = raised(&cluster, dir.path());
    for point in [
        "after_source_delete",
        "after_source_consumer",
        "after_source_terms",
    ] {
        let died = repair(&cluster, &["--force"], &config, point).await;
        assert_eq!(died.signal, Some(KILLED), "{point}: {} {}", died.out, died.told);
    }
    let before = cluster.recorder.count();
    for node in &mut cluster.nodes {
        node.options_mut().config["mappings"]["orders"]["sources"][0]["generation"] = json!(1);
        node.stop().await.unwrap();
        node.restart().await.unwrap();
    }
    for node in &cluster.nodes {
        let held = node.wait_status(LONG, "the consumer to be refused", |status| {
            orders(status).reason.contains("FAN-2011")
        });
        held.await.unwrap();
    }
    assert_eq!(cluster.recorder.count(), before);
    // The bridges have been started anew: only publish times tell.
    let words = ["--force", "--accept-in-doubt"];
    let died = repair(&cluster, &words, &config, "after_source_close").await;
    assert_eq!(died.signal, Some(KILLED), "{} {}", died.out, died.told);
    let done = repair(&cluster, &["--force"], &config, "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    all_flows_again(&mut cluster).await;
    finish(cluster).await;
}

/// Goal: what a node had staged and not claimed when the source went back is delivered all the same, though the source has it no
/// more: while a node was not asked, the old incarnation stays in the terms. Run again with the node there, the repair leaves
/// it out (P3). Method: the node dies behind a stage; repair without it; start it with the generation raised; repair once more.
#[tokio::test]
async fn what_a_node_had_staged_is_delivered_though_the_source_has_it_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(50).await;
    cluster.wait_rest().await;
    let older = dir.path().join("older");
    snapshot(&mut cluster, &older).await;
    let armed = ("FANIN_FAILPOINTS".to_owned(), "after_stage=kill".to_owned());
    cluster.nodes[0].stop().await.unwrap();
    cluster.nodes[0].options_mut().env.extend([armed]);
    cluster.nodes[0].restart().await.unwrap();
    cluster.feed(1).await;
    let ended = cluster.nodes[0].wait_exit(LONG).await.unwrap();
    assert_eq!(ended.signal(), Some(KILLED), "{ended}");
    put_back(&mut cluster, &older, &[hub_store::source()]).await;
    cluster.feed(3).await;
    let config = raised(&cluster, dir.path());
    let words = ["--force", "--ignore-unreachable", "--accept-in-doubt"];
    let done = repair(&cluster, &words, &config, "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(
        done.out["taken_as_delivered"]["through"],
        json!(50),
        "{:#}",
        done.out
    );
    assert_eq!(done.out["keeps_old"], json!(true), "{:#}", done.out);
    cluster.nodes[0].options_mut().env.clear();
    cluster.nodes[0].restart().await.unwrap();
    let held = cluster.nodes[0].wait_status(LONG, "the old generation to be refused", |status| {
        orders(status).reason.contains("FAN-4064")
    });
    held.await.unwrap();
    wait_acked(&cluster, "billing", 51).await;
    let consumers = cluster.jetstream.get_stream(STREAM).await.unwrap();
    let consumers = consumers.get_info().await.unwrap().state.consumer_count;
    assert_eq!(consumers, 1, "only the new incarnation's");
    cluster.nodes[0].stop().await.unwrap();
    let options = cluster.nodes[0].options_mut();
    options.config["mappings"]["orders"]["sources"][0]["generation"] = json!(1);
    cluster.nodes[0].restart().await.unwrap();
    wait_acked(&cluster, "billing", 54).await;
    let done = repair(&cluster, &["--force"], &config, "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(done.out["keeps_old"], json!(false), "{:#}", done.out);
    let info = tool::about(&cluster, &["ledger", "info"], &[], Path::new("."), "").await;
    assert_eq!(
        info.out["terms"]["sources"].as_array().map(Vec::len),
        Some(1),
        "{:#}",
        info.out
    );
    cluster.feed(10).await;
    wait_acked(&cluster, "billing", 64).await;
    for (id, count) in counts(&cluster, "billing") {
        assert_eq!(count, if id == "ORDERS:51" { 2 } else { 1 }, "{id}");
    }
    finish(cluster).await;
}

/// Waits until everything was delivered: once, but for as many as the repair has told to come twice, which lie behind what the old
/// consumer had given out and nobody had claimed yet.
async fn all_as_told(cluster: &Cluster, repaired: &Ended) {
    let again = usize::try_from(repaired.out["again"].as_u64().unwrap()).unwrap();
    wait_acked(cluster, "billing", cluster.fed() + again).await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    let counts = counts(cluster, "billing");
    assert_eq!(counts.len(), cluster.fed());
    let twice = counts.values().filter(|count| **count == 2).count();
    assert_eq!(twice, again);
    assert!(counts.values().all(|count| *count <= 2));
}

/// Two nodes that nothing is wrong with. They halt once the terms leave out the incarnation they are configured with.
async fn live_cluster() -> Cluster {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let options = cluster.options(node).allow_error("FAN-4030");
        cluster.add(options, 1).await;
    }
    cluster
}

/// Goal: nodes that have not halted take nothing more by the old consumer once a repair has begun to write, and what they had taken
/// until then does not come again but as told (the boundary is looked for behind that). Method: a source that nothing is wrong with, under a
/// stream of messages, whose generation is raised; a first run dies behind the old consumer's end; a file of a node that goes on
/// tells too little.
#[tokio::test]
async fn nodes_that_have_not_halted_take_nothing_by_the_old_consumer() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = live_cluster().await;
    let trickle = cluster.stream(Duration::from_millis(50));
    cluster.wait_more(100).await;
    let config = raised(&cluster, dir.path());
    let refused = repair(&cluster, &["--force"], &config, "").await;
    assert_eq!(refused.code, Some(1), "{} {}", refused.out, refused.told);
    assert!(refused.kinds().contains(&"no_evidence"), "{:#}", refused.out);
    let words = ["--force", "--accept-in-doubt"];
    let died = repair(&cluster, &words, &config, "after_source_delete").await;
    assert_eq!(died.signal, Some(KILLED), "{} {}", died.out, died.told);
    for node in &cluster.nodes {
        let held = node.wait_status(LONG, "the consumer to be missed", |status| {
            orders(status).state == "withheld"
        });
        held.await.unwrap();
    }
    let socket = cluster.nodes[1].socket();
    let filed = tool::run(&["ledger", "holdings", "--socket", &socket], Path::new("."), "").await;
    assert_eq!(filed.code, Some(0), "{}", filed.told);
    let file = dir.path().join("n2.ndjson");
    fs::write(&file, filed.text).unwrap();
    let socket = cluster.nodes[0].socket();
    let config_path = config.to_str().unwrap();
    let by_file = [
        "ledger",
        "repair",
        "--source",
        "ORDERS",
        "--json",
        "--dry-run",
        "--config",
        config_path,
        "--node",
        &socket,
        "--holdings",
        file.to_str().unwrap(),
    ];
    let by_file = tool::run(&by_file, Path::new("."), "").await;
    assert_eq!(by_file.code, Some(1), "{}", by_file.told);
    assert_eq!(by_file.out["outdated"], json!(["n2"]), "{:#}", by_file.out);
    assert_eq!(by_file.kinds()[..2], ["not_asked", "no_evidence"]);
    let done = repair(&cluster, &words, &config, "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(done.out["keeps_old"], json!(false), "{:#}", done.out);
    for node in &mut cluster.nodes {
        node.options_mut().config["mappings"]["orders"]["sources"][0]["generation"] = json!(1);
        node.stop().await.unwrap();
        node.restart().await.unwrap();
    }
    cluster.stop_stream(trickle).await;
    all_as_told(&cluster, &done).await;
    finish(cluster).await;
}

/// Goal: a boundary is not confirmed on one state and written on another: with a live consumer, all that is claimed between the two
/// looks is taken as delivered, or told to come twice. Method: the same stream of messages, one run to its end.
#[tokio::test]
async fn what_is_claimed_while_a_repair_runs_comes_twice_only_as_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = live_cluster().await;
    let trickle = cluster.stream(Duration::from_millis(50));
    cluster.wait_more(100).await;
    let config = raised(&cluster, dir.path());
    let done = repair(&cluster, &["--force", "--accept-in-doubt"], &config, "").await;
    assert_eq!(done.code, Some(0), "{} {}", done.out, done.told);
    assert_eq!(done.out["written"], json!(true));
    for node in &mut cluster.nodes {
        node.options_mut().config["mappings"]["orders"]["sources"][0]["generation"] = json!(1);
        node.stop().await.unwrap();
        node.restart().await.unwrap();
    }
    cluster.stop_stream(trickle).await;
    all_as_told(&cluster, &done).await;
    finish(cluster).await;
}
