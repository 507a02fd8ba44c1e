//! `fanin ledger verify` and `fanin msg trace` on a running cluster: a proof when all is well, a list when it is not.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use fanin_tests::apps::Decision;
use fanin_tests::wait::eventually;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LONG, STREAM, orders};
use crate::regrown::metrics;
use crate::tool;

/// How long a skipped message may take to be repaired: two looks, a minute apart, and what goes before.
const REPAIR: Duration = Duration::from_secs(150);

/// Runs a command about the cluster. Its exit code, and its result.
async fn fanin(cluster: &Cluster, words: &[&str], nodes: &[usize]) -> (Option<i32>, Value) {
    let ended = tool::about(cluster, words, nodes, Path::new("."), "").await;
    assert!(ended.out.is_object(), "{}{}", ended.text, ended.told);
    (ended.code, ended.out)
}

fn kinds(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| finding["kind"].as_str().unwrap())
        .collect()
}

/// Goal: while one application is away and another has rejected a message, everything is accounted for; a node that was not
/// asked is named, and so is a message below the acknowledgement floor that nobody claimed; the bridges find that one themselves,
/// fetch it by its sequence, count it, tell it and deliver it once (P6). `fanin msg trace` fails on that message until then, and names the
/// dead letter also when its batch is finished and forgotten. Method: acknowledge one at the hub behind the bridges' back while they are
/// down, look, and wait.
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
    assert_eq!(
        (exit, kinds(&report)),
        (Some(69), vec!["not_asked"]),
        "{report:#}"
    );
    assert_eq!(report["unreachable"], json!(["n2"]), "{report:#}");
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
    let (exit, trace) = fanin(&cluster, &["msg", "trace", "ORDERS:201"], &[0, 1]).await;
    assert_eq!((exit, kinds(&trace)), (Some(1), vec!["unclaimed"]), "{trace:#}");
    assert_eq!(trace["ledger"]["state"], json!("unclaimed"), "{trace:#}");
    for (id, exit) in [("ORDERS:202", 1), ("OTHERS:1", 2)] {
        let ended = tool::about(&cluster, &["msg", "trace", id], &[0, 1], Path::new("."), "").await;
        let code = ended.error()["code"].clone();
        assert_eq!(
            (ended.code, code),
            (Some(exit), json!("FAN-5025")),
            "{id}: {}",
            ended.told
        );
    }

    let billing = cluster.recorder.settled_by("billing");
    let mut repaired = 0;
    eventually(
        REPAIR,
        "the skipped message to be claimed by its sequence",
        || async {
            let (exit, report) = fanin(&cluster, &["ledger", "verify"], &[0, 1]).await;
            match exit {
                Some(0) => Ok(()),
                _ => Err(format!("{report:#}")),
            }
        },
    )
    .await;
    let (_, trace) = fanin(&cluster, &["msg", "trace", "ORDERS:201"], &[0, 1]).await;
    assert_eq!(trace["ledger"]["state"], json!("won"), "{trace:#}");
    let owner = trace["ledger"]["node"].as_str().unwrap();
    for node in &cluster.nodes {
        let own = orders(&node.status().await.unwrap()).repaired_messages;
        let metric = format!("fanin_repaired_messages_total{{mapping=\"orders\"}} {own}");
        let text = metrics(node).await;
        assert!(own == 0 || text.contains(&metric), "{metric} is not in {text}");
        let told = node
            .log()
            .iter()
            .any(|line| line.text.contains("FAN-4041") && line.text.contains("ORDERS:201"));
        assert_eq!(
            (own > 0, told),
            (node.node() == owner, node.node() == owner),
            "{}",
            node.node()
        );
        repaired += own;
    }
    assert_eq!(repaired, 1, "counted once");
    eventually(LONG, "billing to have it", || async {
        let now = cluster.recorder.settled_by("billing");
        if now > billing {
            Ok(())
        } else {
            Err(format!("{now} settled"))
        }
    })
    .await;
    let ids: Vec<String> = cluster
        .recorder
        .confirmations()
        .into_iter()
        .map(|one| one.id.to_string())
        .collect();
    assert_eq!(ids.iter().filter(|id| *id == "ORDERS:201").count(), 1);

    // The batch is finished, reported and forgotten; the dead letter in it is not.
    for node in 0..2 {
        cluster.instance(node, "shipping", "s", |options| options).await;
    }
    let trace = eventually(LONG, "the claim of a dead letter to be forgotten", || async {
        let (exit, trace) = fanin(&cluster, &["msg", "trace", "ORDERS:7"], &[0, 1]).await;
        assert_eq!(exit, Some(0), "{trace:#}");
        assert_eq!(
            (
                &trace["dead_letters"][0]["app"],
                &trace["dead_letters"][0]["reason"]
            ),
            (&json!("billing"), &json!("rejected")),
            "{trace:#}"
        );
        if trace["ledger"]["state"] == json!("closed") {
            Ok(trace)
        } else {
            Err(format!("{trace:#}"))
        }
    })
    .await;
    assert_eq!(
        (&trace["node"], &trace["dead_letters"][1]),
        (&Value::Null, &Value::Null),
        "{trace:#}"
    );
    let (exit, report) = fanin(&cluster, &["ledger", "verify"], &[0, 1]).await;
    assert_eq!(exit, Some(0), "{report:#}");
}
