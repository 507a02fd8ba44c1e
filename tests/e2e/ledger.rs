//! The ledger: records of a newer version, checkpoints and truncation.

use std::time::Duration;

use fanin_tests::apps::Decision;
use fanin_tests::logs::Level;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LEDGER, LONG, at_rest, orders};

/// A record of format version 2, which this version does not know.
const NEWER_RECORD: &[u8] = &[0x08, 0x02, 0x52, 0x00];

async fn ledger_end(cluster: &Cluster) -> u64 {
    cluster
        .jetstream
        .get_stream(LEDGER)
        .await
        .unwrap()
        .cached_info()
        .state
        .last_sequence
}

/// Goal: a record of a newer version halts the mapping on every node: nothing is pulled, claimed or appended any more, what
/// was won keeps flowing, status and exactly one ERROR say why (P10). Method: append one by hand while slow applications work on a
/// backlog, then feed more.
#[tokio::test]
async fn a_newer_record_halts_the_mapping_and_what_was_won_keeps_flowing() {
    let mut cluster = Cluster::new(&["billing"]).await;
    for node in ["n1", "n2"] {
        let options = cluster.options(node).allow_error("FAN-4030");
        cluster.add(options, 0).await;
    }
    for node in 0..2 {
        cluster
            .instance(node, "billing", &format!("b{node}"), |options| {
                options
                    .credit_messages(20)
                    .decide(|_| Decision::AckAfter(Duration::from_millis(100)))
            })
            .await;
    }
    cluster.feed(600).await;
    eventually(LONG, "the nodes to hold everything", || cluster.hub_at_rest()).await;
    let before = cluster.recorder.count();
    assert!(before < 600, "the applications were too fast for this test");
    let ack = cluster
        .jetstream
        .publish("fanin.orders.claim.n9", NEWER_RECORD.into())
        .await
        .unwrap();
    ack.await.unwrap();
    for node in &cluster.nodes {
        let halted = node.wait_status(LONG, "the mapping to halt", |status| {
            orders(status).state == "halted"
        });
        let reason = orders(&halted.await.unwrap()).reason.clone();
        assert!(reason.contains("FAN-4030"), "{reason}");
    }
    let end = ledger_end(&cluster).await;
    let won = cluster.ids.clone();
    cluster.feed(100).await;
    for node in &cluster.nodes {
        node.wait_status(LONG, "what was won to be delivered", |status| {
            at_rest(status).is_ok()
        })
        .await
        .unwrap();
    }
    eventually(LONG, "the last confirmations", || async {
        cluster.recorder.count() == 600
    })
    .await;
    cluster
        .recorder
        .judge(&won, &["billing"])
        .assert_exactly_once_without_doubt();
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(
        consumer.num_pending + consumer.num_ack_pending as u64,
        100,
        "a halted node pulled or settled"
    );
    assert_eq!(
        ledger_end(&cluster).await,
        end,
        "a halted node appended to the ledger"
    );
    for node in &cluster.nodes {
        let errors: Vec<_> = node
            .log()
            .into_iter()
            .filter(|line| line.level == Level::Error)
            .collect();
        assert_eq!(errors.len(), 1, "{}: {errors:?}", node.node());
        node.stop().await.unwrap();
    }
}

/// Goal: the ledger is truncated behind a checkpoint while claims go on, and a restarted as well as a new node go on from
/// the checkpoint. Method: batches of one message, so that claims alone make a checkpoint due; the node is killed behind the truncation
/// with a backlog, and another one joins.
#[tokio::test]
async fn a_truncated_ledger_is_read_from_its_checkpoint() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut options = cluster.options("n1");
    options.config["mappings"]["orders"]["batch"] = json!({ "messages": 1, "linger": "0ms" });
    cluster.add(options, 1).await;
    cluster.feed(2_100).await;
    cluster.nodes[0].wait_log(LONG, "FAN-4101").await.unwrap();
    let state = cluster
        .jetstream
        .get_stream(LEDGER)
        .await
        .unwrap()
        .cached_info()
        .state
        .clone();
    assert!(state.messages < 2_000, "nothing was purged: {state:?}");
    cluster.feed(100).await;
    cluster.nodes[0].restart().await.unwrap();
    let other = cluster.options("n2");
    cluster.add(other, 1).await;
    cluster.feed(400).await;
    cluster.finish().await;
}
