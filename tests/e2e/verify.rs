//! `fanin ledger verify` and `fanin msg trace` on a running cluster: a proof when all is well, a list when it is not.

use std::process::Command;

use async_nats::jetstream::consumer::PullConsumer;
use fanin_tests::apps::Decision;
use fanin_tests::process::binary_path;
use fanin_tests::wait::eventually;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LONG, STREAM, orders};

/// Runs the binary with `--json`. Its exit code, and its result.
async fn fanin(cluster: &Cluster, words: &[&str], nodes: &[usize]) -> (Option<i32>, Value) {
    let mut command = Command::new(binary_path().unwrap());
    command
        .args(words)
        .arg("--json")
        .arg("--config")
        .arg(cluster.nodes[0].config_path())
        .stdin(std::process::Stdio::null());
    for node in nodes {
        command.arg("--node").arg(cluster.nodes[*node].socket());
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| {
        let told = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}\n{told}")
    });
    (output.status.code(), value)
}

fn kinds(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .collect()
}

/// Goal: while one application is away and another has rejected a message, everything is accounted for; a node that was not
/// asked is named, and so is a message below the acknowledgement floor that nobody claimed. Method: acknowledge one at the hub
/// behind the bridges' back while they are down.
#[tokio::test]
async fn a_cluster_is_verified_and_what_is_wrong_is_listed() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    for node in ["n1", "n2"] {
        let mut options = cluster.options(node);
        options.config["mappings"]["orders"]["intake"] = json!("always");
        cluster.add(options, 0).await;
    }
    for node in 0..2 {
        cluster
            .instance(node, "billing", "b", |options| {
                options.decide(|message| {
                    if message.id().ends_with(":7") {
                        Decision::Reject("never".to_owned())
                    } else {
                        Decision::Ack
                    }
                })
            })
            .await;
    }
    cluster.feed(200).await;
    eventually(
        LONG,
        "billing to be done and the rest to be published",
        || async {
            let mut published = 0;
            for node in &cluster.nodes {
                published += orders(&node.status().await.unwrap()).head_offset;
            }
            let acked = cluster.recorder.settled_by("billing");
            if published == 200 && acked >= 199 {
                Ok(())
            } else {
                Err(format!("{published} published, {acked} acked"))
            }
        },
    )
    .await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;

    let (exit, report) = fanin(&cluster, &["ledger", "verify"], &[0, 1]).await;
    assert_eq!(exit, Some(0), "{report:#}");
    assert_eq!(report["verified"], json!(true));
    assert_eq!(report["open_messages"], json!(200), "{report:#}");
    let apps = report["apps"].as_array().unwrap();
    assert_eq!(
        apps[0],
        json!({ "app": "billing", "published": 200, "finished": 200, "waiting": 0, "dead_letters": 1 })
    );
    assert_eq!(apps[1]["waiting"], json!(200), "{report:#}");

    let (exit, trace) = fanin(&cluster, &["msg", "trace", "ORDERS:7"], &[0, 1]).await;
    assert_eq!(exit, Some(0), "{trace:#}");
    assert_eq!(trace["ledger"]["state"], json!("won"));
    assert_eq!(trace["node"]["apps"][0]["state"], json!("dead_letter"));
    assert_eq!(trace["node"]["apps"][0]["reason"], json!("rejected"));
    assert_eq!(trace["node"]["apps"][1]["state"], json!("waiting"));
    let (_, trace) = fanin(&cluster, &["msg", "trace", "ORDERS:8"], &[0, 1]).await;
    assert_eq!(trace["node"]["apps"][0]["state"], json!("finished"), "{trace:#}");

    let (exit, report) = fanin(&cluster, &["ledger", "verify"], &[0]).await;
    assert_eq!((exit, kinds(&report)), (Some(1), vec!["not_asked"]), "{report:#}");
    let (exit, _) = fanin(&cluster, &["ledger", "verify", "--ignore-unreachable"], &[0]).await;
    assert_eq!(exit, Some(0));
    let (exit, info) = fanin(&cluster, &["ledger", "info"], &[]).await;
    assert_eq!(
        (exit, info["nodes"].as_array().unwrap().len()),
        (Some(0), 2),
        "{info:#}"
    );

    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
    cluster.feed(1).await;
    let stream = cluster.jetstream.get_stream(STREAM).await.unwrap();
    let name = cluster.consumer().await.unwrap().name;
    let consumer: PullConsumer = stream.get_consumer(&name).await.unwrap();
    let mut batch = consumer.fetch().max_messages(1).messages().await.unwrap();
    batch.next().await.unwrap().unwrap().double_ack().await.unwrap();
    for node in &mut cluster.nodes {
        node.restart().await.unwrap();
    }
    let (exit, report) = fanin(&cluster, &["ledger", "verify"], &[0, 1]).await;
    assert_eq!((exit, kinds(&report)), (Some(1), vec!["unclaimed"]), "{report:#}");
    let text = report["findings"][0]["text"].as_str().unwrap();
    assert!(text.contains("ORDERS:201"), "{text}");
}
