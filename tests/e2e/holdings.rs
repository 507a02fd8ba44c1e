//! `fanin ledger holdings`: nodes on other machines, whose sockets nobody can reach from here, are verified by files.

use std::fs;
use std::path::{Path, PathBuf};

use fanin_tests::wait::eventually;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LONG, orders};
use crate::tool::{self, Ended};

/// A socket that nobody listens on.
const NOBODY: &str = "unix:///nonexistent/fanin.sock";

/// Offsets behind everything published on each node.
async fn heads(cluster: &Cluster) -> Vec<u64> {
    let mut heads = Vec::new();
    for node in &cluster.nodes {
        heads.push(orders(&node.status().await.unwrap()).head_offset);
    }
    heads
}

/// Two nodes that hold everything fed, each of them something, as no application is there.
async fn holders() -> Cluster {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let mut options = cluster.options(node);
        options.config["mappings"]["orders"]["intake"] = json!("always");
        cluster.add(options, 0).await;
    }
    while heads(&cluster).await.contains(&0) {
        cluster.feed(20).await;
        eventually(LONG, "the nodes to hold everything", || async {
            let heads = heads(&cluster).await;
            if heads.iter().sum::<u64>() == cluster.ids.len() as u64 {
                Ok(())
            } else {
                Err(format!("{heads:?}"))
            }
        })
        .await;
    }
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    cluster
}

/// Collects what a node holds, as somebody on its machine would.
async fn collect(cluster: &Cluster, node: usize, to: &Path) -> PathBuf {
    let socket = cluster.nodes[node].socket();
    let ended = tool::run(&["ledger", "holdings", "--socket", &socket], Path::new("."), "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.told);
    let path = to.join(format!("n{}.ndjson", node + 1));
    fs::write(&path, ended.text).unwrap();
    path
}

/// `fanin ledger verify` with these files and the sockets of these nodes, or of none.
async fn verify(cluster: &Cluster, nodes: &[usize], files: &[&Path]) -> Ended {
    let mut words = vec!["ledger", "verify"];
    if nodes.is_empty() {
        words.extend(["--node", NOBODY]);
    }
    for file in files {
        words.extend(["--holdings", file.to_str().unwrap()]);
    }
    tool::about(cluster, &words, nodes, Path::new("."), "").await
}

/// Writes a copy of a file with one of its JSON lines changed.
fn forge(file: &Path, line: usize, change: impl FnOnce(&mut Value)) -> PathBuf {
    let text = fs::read_to_string(file).unwrap();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    change(&mut lines[line]);
    let path = file.with_extension("forged");
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

fn refused(ended: &Ended, exit: i32, code: &str, words: &[&str]) {
    let error = ended.error();
    assert_eq!(
        (ended.code, error["code"].as_str()),
        (Some(exit), Some(code)),
        "{error:#}"
    );
    let cure = error["cure"].as_str().unwrap();
    let way_out = if code == "FAN-5023" {
        "fanin status"
    } else {
        "fanin ledger holdings"
    };
    assert!(cure.contains(way_out), "{cure}");
    let message = error["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

/// Goal: what is on nodes out of reach is proven by files collected there, with or without sockets beside them; without a node's
/// file the result is incomplete and names it, in `ledger verify` and in `msg trace`; what a file shows to be lost is a finding. Method: two
/// nodes that hold everything; leave the second one's socket out, then both; forge the second one's file.
#[tokio::test]
async fn nodes_out_of_reach_are_verified_by_their_files() {
    let cluster = holders().await;
    let count = json!(cluster.ids.len());
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (
        collect(&cluster, 0, dir.path()).await,
        collect(&cluster, 1, dir.path()).await,
    );
    let alone = verify(&cluster, &[0], &[]).await;
    refused(&alone, 69, "FAN-5033", &["n2"]);
    assert_eq!(alone.out["unreachable"], json!(["n2"]), "{:#}", alone.out);
    let by_file = verify(&cluster, &[], &[&second]).await;
    refused(&by_file, 69, "FAN-5033", &["n1"]);
    for (nodes, files) in [(vec![0], vec![&*second]), (vec![], vec![&*first, &*second])] {
        let all = verify(&cluster, &nodes, &files).await;
        assert_eq!(all.code, Some(0), "{:#} {}", all.out, all.told);
        assert_eq!(all.out["unreachable"], json!([]), "{:#}", all.out);
        assert_eq!(all.out["open_messages"], count, "{:#}", all.out);
        assert_eq!(all.out["apps"][0]["waiting"], count, "{:#}", all.out);
    }

    let info = tool::about(&cluster, &["ledger", "info", "--claims"], &[], Path::new("."), "").await;
    let claims = info.out["claims"].as_array().unwrap().clone();
    let theirs = claims.iter().find(|claim| claim["node"] == json!("n2")).unwrap();
    let id = format!("ORDERS:{}", theirs["won"][0][0]);
    let trace = ["msg", "trace", &id];
    let unknown = tool::about(&cluster, &trace, &[0], Path::new("."), "").await;
    refused(&unknown, 69, "FAN-5033", &["n2", &id]);
    assert_eq!(unknown.out["owner_asked"], json!(false), "{:#}", unknown.out);
    assert_eq!(unknown.out["unreachable"], json!(["n2"]), "{:#}", unknown.out);
    let mut trace = trace.to_vec();
    trace.extend(["--holdings", second.to_str().unwrap()]);
    let known = tool::about(&cluster, &trace, &[0], Path::new("."), "").await;
    assert_eq!(known.code, Some(0), "{}", known.told);
    assert_eq!(known.out["node"]["node"], json!("n2"), "{:#}", known.out);
    assert_eq!(
        known.out["node"]["apps"][0]["state"],
        json!("waiting"),
        "{:#}",
        known.out
    );

    // A file by which the owner holds something else in that batch.
    let text = fs::read_to_string(&second).unwrap();
    let batch = format!("{{\"batch\":{{\"batch\":{},", theirs["batch"]);
    let line = text.lines().position(|line| line.starts_with(&batch)).unwrap();
    let forged = forge(&second, line, |line| line["batch"]["batch"] = json!(1_u64 << 40));
    trace[4] = forged.to_str().unwrap();
    let lost = tool::about(&cluster, &trace, &[0], Path::new("."), "").await;
    refused(&lost, 1, "FAN-5023", &[&id, "n2", "does not hold"]);
    assert_eq!(lost.kinds().first(), Some(&"not_held"), "{:#}", lost.out);
}

/// Goal: a file that proves nothing is refused with a code and a cure: cut short, of another mapping, of another ledger, of an
/// earlier life of its node, or old. Method: one of each; the foreign ledger is another hub's.
#[tokio::test]
async fn a_file_that_proves_nothing_is_refused() {
    let mut cluster = holders().await;
    let other = holders().await;
    let (dir, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = collect(&cluster, 1, dir.path()).await;
    let foreign = collect(&other, 1, away.path()).await;
    refused(
        &verify(&cluster, &[0], &[&foreign]).await,
        1,
        "FAN-5031",
        &["n2", "another ledger"],
    );
    let mapping = forge(&file, 0, |header| header["mapping"] = json!("invoices"));
    refused(
        &verify(&cluster, &[0], &[&mapping]).await,
        1,
        "FAN-5031",
        &["invoices"],
    );
    let old = forge(&file, 0, |header| header["taken_ns"] = json!(1_000_000_000));
    refused(
        &verify(&cluster, &[0], &[&old]).await,
        1,
        "FAN-5032",
        &["n2", "stale"],
    );
    let short = dir.path().join("short");
    let text = fs::read_to_string(&file).unwrap();
    let end = text.trim_end().rfind('\n').unwrap();
    fs::write(&short, &text[..=end]).unwrap();
    refused(
        &verify(&cluster, &[0], &[&short]).await,
        74,
        "FAN-5030",
        &["the end is missing"],
    );
    cluster.nodes[1].restart().await.unwrap();
    refused(
        &verify(&cluster, &[0], &[&file]).await,
        1,
        "FAN-5032",
        &["n2", "epoch"],
    );
    let anew = collect(&cluster, 1, dir.path()).await;
    let all = verify(&cluster, &[0], &[&anew]).await;
    assert_eq!(all.code, Some(0), "{:#} {}", all.out, all.told);
}

/// Goal: what the terms owe an application is asked for also where its node does not tell of it, and what the ledger calls done must be
/// done on the node; numbers of an application that do not make up what was published are told. Method: two nodes that hold everything;
/// forge the file of one: without its application, with a floor behind everything, and, when one batch is finished and reported, without
/// any done batch.
#[tokio::test]
async fn an_application_that_is_owed_and_not_told_of_is_found() {
    let mut cluster = holders().await;
    let dir = tempfile::tempdir().unwrap();
    let file = collect(&cluster, 1, dir.path()).await;
    let text = fs::read_to_string(&file).unwrap();
    let app = text
        .lines()
        .position(|line| line.starts_with("{\"app\":"))
        .unwrap();
    let renamed = forge(&file, app, |line| line["app"]["app"] = json!("shipping"));
    let found = verify(&cluster, &[0], &[&renamed]).await;
    assert_eq!(
        (found.code, found.kinds()),
        (Some(1), vec!["app_missing"]),
        "{:#}",
        found.out
    );
    let told = found.out["findings"][0]["text"].as_str().unwrap();
    assert!(told.contains("node n2 owes application billing"), "{told}");
    let finished = forge(&file, app, |line| {
        line["app"]["floor_offset"] = json!(1_u64 << 40)
    });
    let found = verify(&cluster, &[0], &[&finished]).await;
    assert_eq!(found.code, Some(1), "{:#}", found.out);
    assert!(
        found.kinds().iter().all(|kind| *kind == "app_differs"),
        "{:#}",
        found.out
    );

    cluster.instance(1, "billing", "b", |options| options).await;
    eventually(LONG, "a done batch to be reported, and read", || async {
        let file = collect(&cluster, 1, dir.path()).await;
        let none = forge(&file, 1, |line| line["node"]["done"] = json!([]));
        let found = verify(&cluster, &[0], &[&none]).await;
        if found.kinds() == ["done_differs"] {
            Ok(())
        } else {
            Err(format!("{:#}", found.out))
        }
    })
    .await;
    let whole = collect(&cluster, 1, dir.path()).await;
    let all = verify(&cluster, &[0], &[&whole]).await;
    assert_eq!(all.code, Some(0), "{:#} {}", all.out, all.told);
}
