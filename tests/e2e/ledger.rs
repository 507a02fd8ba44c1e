//! The ledger: records of a newer version, checkpoints and truncation.

use std::time::Duration;

use fanin_core::ids::{NodeUuid, Nonce};
use fanin_core::record::{Body, EpochRecord, NodeState, Record, Witness};
use fanin_tests::apps::Decision;
use fanin_tests::line::Line;
use fanin_tests::logs::Level;
use fanin_tests::process::BridgeOptions;
use fanin_tests::wait::eventually;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::cluster::{Cluster, LEDGER, LONG, at_rest, mapping, orders};
use crate::regrown::{assert_delivers, assert_halts};

/// A record of format version 2, which this version does not know.
const NEWER_RECORD: &[u8] = &[0x08, 0x02, 0x52, 0x00];

/// Sets the ledger's size limit, as an operator does. Returns what it holds, bytes.
async fn limit_ledger(cluster: &Cluster, limit: impl FnOnce(u64) -> u64) -> u64 {
    let stream = cluster.jetstream.get_stream(LEDGER).await.unwrap();
    let info = stream.cached_info();
    let mut config = info.config.clone();
    config.max_bytes = i64::try_from(limit(info.state.bytes)).unwrap();
    cluster.jetstream.update_stream(&config).await.unwrap();
    info.state.bytes
}

/// Goal: a ledger is made as large as configured, and one that is there keeps its size. Method: two nodes with different sizes.
#[tokio::test]
async fn a_ledger_is_made_as_large_as_configured() {
    let mut cluster = Cluster::new(&["billing"]).await;
    for (node, max_bytes) in [("n1", "32MiB"), ("n2", "64MiB")] {
        let patch = json!({ "mappings": { "orders": { "ledger": { "max_bytes": max_bytes } } } });
        let options = cluster.options(node).with_config(&patch);
        cluster.add(options, 1).await;
        cluster.nodes.last().unwrap().wait_joined().await.unwrap();
        let ledger = cluster.jetstream.get_stream(LEDGER).await.unwrap();
        assert_eq!(ledger.cached_info().config.max_bytes, 32 << 20, "after {node}");
    }
    cluster.feed(40).await;
    cluster.finish().await;
}

/// Claims in the ledger.
async fn claims(cluster: &Cluster) -> usize {
    let stream = cluster.jetstream.get_stream(LEDGER).await.unwrap();
    let mut subjects = stream.info_with_subjects("fanin.orders.claim.>").await.unwrap();
    let mut count = 0;
    while let Some((_, messages)) = subjects.try_next().await.unwrap() {
        count += messages;
    }
    count
}

/// Where the ledger ends.
pub(crate) async fn ledger_end(cluster: &Cluster) -> u64 {
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
/// was won keeps flowing, status and exactly one ERROR say why and what to do (P10). Method: append one by hand while slow applications work on a
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
        assert_halts(node, "FAN-4030", &["upgrade this bridge"]).await;
        assert_delivers(node, true).await;
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
        assert!(
            errors[0].text.contains("\"cure\":\"upgrade this bridge"),
            "{}",
            errors[0]
        );
        node.stop().await.unwrap();
    }
}

/// Goal: a mapping that halts drops the settlements that it had begun (I15). Method: the acknowledgements of a node go astray on
/// the line, so that it tries them again and again; it halts, the line is honest again, and the node ends, which waits for what
/// is being settled: the hub hears of none.
#[tokio::test]
async fn a_halted_mapping_drops_what_it_was_settling() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let line = Line::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"])).allow_error("FAN-4030");
    // Somebody takes them in and does not answer, as a hub that stands still.
    let client = async_nats::connect(cluster.hub.url()).await.unwrap();
    let mut astray = client.subscribe("$JS.ACk.>").await.unwrap();
    line.rewrite("$JS.ACK.", "$JS.ACk.", u64::MAX);
    cluster.add(far, 1).await;
    cluster.feed(20).await;
    cluster.wait_more(20).await;
    astray.next().await.unwrap();
    let record = cluster
        .jetstream
        .publish("fanin.orders.claim.n9", NEWER_RECORD.into());
    record.await.unwrap().await.unwrap();
    let halted = cluster.nodes[0].wait_status(LONG, "the mapping to halt", |status| {
        orders(status).state == "halted"
    });
    halted.await.unwrap();
    line.stop_rewriting();
    cluster.nodes[0].stop().await.unwrap();
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(
        consumer.num_ack_pending, 20,
        "a halted node settled: {consumer:?}"
    );
    assert_eq!(consumer.ack_floor.stream_sequence, 0, "{consumer:?}");
}

/// Goal: a halted node delivers on, and stops at once when another body takes its name (P8). Method: halt it on a record of a newer
/// version while a slow application works on its backlog, then append the EPOCH of another data directory by hand.
#[tokio::test]
async fn a_halted_node_is_fenced_all_the_same() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster
        .options("n1")
        .allow_error("FAN-4030")
        .allow_error("FAN-3008");
    cluster.add(options, 0).await;
    cluster
        .instance(0, "billing", "b1", |options| {
            options
                .credit_messages(5)
                .decide(|_| Decision::AckAfter(Duration::from_millis(200)))
        })
        .await;
    cluster.feed(400).await;
    eventually(LONG, "the node to hold everything", || cluster.hub_at_rest()).await;
    let newer = cluster
        .jetstream
        .publish("fanin.orders.claim.n9", NEWER_RECORD.into());
    newer.await.unwrap().await.unwrap();
    let halted = cluster.nodes[0].wait_status(LONG, "the mapping to halt", |status| {
        orders(status).state == "halted"
    });
    halted.await.unwrap();
    cluster.wait_more(5).await;
    let record = Record {
        witness: Witness::default(),
        body: Body::Epoch(EpochRecord {
            node_uuid: NodeUuid(7),
            node: "n1".to_owned(),
            nonce: Nonce(7),
            hosts: ["billing".to_owned()].into(),
            state: NodeState::Active,
        }),
    };
    let other = cluster
        .jetstream
        .publish("fanin.orders.epoch.n1", record.encode().into());
    other.await.unwrap().await.unwrap();
    let fenced = cluster.nodes[0].wait_status(LONG, "the node to be fenced", |status| {
        orders(status).state == "fenced"
    });
    let reason = orders(&fenced.await.unwrap()).reason.clone();
    assert!(reason.contains("FAN-3008"), "{reason}");
    assert!(
        cluster.recorder.count() < 400,
        "the application was too fast for this test"
    );
    let status = cluster.nodes[0].status().await.unwrap();
    let delivered = orders(&status).apps[0].deliveries;
    assert!(delivered < 400, "a fenced node delivers on: {status:?}");
}

/// Goal: a ledger with another setting is refused by its name, before anything is written to it. Method: one setting after the
/// other changed by hand, as far as the server lets it be changed.
#[tokio::test]
async fn a_ledger_that_differs_is_refused_by_the_setting() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster.options("n1").allow_error("FAN-2014");
    cluster.add(options, 1).await;
    cluster.feed(40).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    let end = ledger_end(&cluster).await;
    let good = cluster
        .jetstream
        .get_stream(LEDGER)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    type Change = fn(&mut async_nats::jetstream::stream::Config);
    let table: [(&str, Change); 6] = [
        ("max_age", |config| config.max_age = Duration::from_secs(3600)),
        ("discard", |config| {
            config.discard = async_nats::jetstream::stream::DiscardPolicy::Old
        }),
        ("max_msgs_per_subject", |config| {
            config.max_messages_per_subject = 5
        }),
        ("allow_direct", |config| config.allow_direct = true),
        ("duplicate_window", |config| {
            config.duplicate_window = Duration::from_secs(10)
        }),
        ("max_msg_size", |config| config.max_message_size = 1_024),
    ];
    for (setting, change) in table {
        let mut config = good.clone();
        change(&mut config);
        cluster.jetstream.update_stream(&config).await.unwrap();
        cluster.nodes[0].respawn().unwrap();
        let ended = cluster.nodes[0].wait_exit(LONG).await.unwrap();
        assert_eq!(
            ended.code(),
            Some(78),
            "{setting}: {}",
            cluster.nodes[0].log_tail()
        );
        let told = cluster.nodes[0].log_tail();
        assert!(
            told.contains("FAN-2014") && told.contains(setting),
            "{setting} is not in {told}"
        );
        assert_eq!(ledger_end(&cluster).await, end, "{setting}: it was written to");
    }
    cluster.jetstream.update_stream(&good).await.unwrap();
    cluster.nodes[0].restart().await.unwrap();
    cluster.feed(40).await;
    cluster.finish().await;
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

/// Goal: a ledger that is nearly full stops pulling and claims, also on a node that has just started, and nothing else; when the
/// applications finish what they have, it is truncated although few records call for it, and everything goes on by itself.
/// Method: claims of one message each and nobody to take them; then the limit is lowered to just above what the ledger holds, so
/// that not even a checkpoint has room; the node is killed; an instance comes late.
#[tokio::test]
async fn claims_stop_before_the_ledger_is_full() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut options = cluster.options("n1");
    options.config["mappings"]["orders"]["batch"] = json!({ "messages": 1, "linger": "0ms" });
    options.config["mappings"]["orders"]["intake"] = json!("always");
    cluster.add(options, 0).await;
    cluster.feed(600).await;
    eventually(LONG, "the node to hold everything", || cluster.hub_at_rest()).await;
    let bytes = limit_ledger(&cluster, |bytes| bytes + bytes / 15).await;
    let nearly_full = |status: &fanin_proto::v1::StatusResponse| {
        let orders = orders(status);
        orders.state == "withheld" && orders.reason.contains("FAN-4023")
    };
    let status = cluster.nodes[0]
        .wait_status(LONG, "claims to stop", nearly_full)
        .await
        .unwrap();
    let reason = &orders(&status).reason;
    assert!(
        reason.contains(&format!("of {} bytes", bytes + bytes / 15)),
        "{reason}"
    );

    let before = claims(&cluster).await;
    assert_eq!(before, 600);
    cluster.feed(300).await;
    cluster.nodes[0].restart().await.unwrap();
    let status = cluster.nodes[0].status().await.unwrap();
    assert!(nearly_full(&status), "{:?}", orders(&status));
    cluster.nodes[0]
        .wait_status(LONG, "the node to look at the consumer", |status| {
            let sources = &orders(status).sources;
            sources.first().is_some_and(|source| source.pending > 0)
        })
        .await
        .unwrap();
    let consumer = cluster.consumer().await.unwrap();
    // A pull that was open when the gate closed may still have brought a message; it is not settled.
    let unsettled = consumer.num_pending + consumer.num_ack_pending as u64;
    assert_eq!(unsettled, 300);
    assert!(
        consumer.num_pending > 250,
        "pulled while claims wait: {consumer:?}"
    );
    assert_eq!(claims(&cluster).await, before, "a claim was sent");

    cluster.instance(0, "billing", "late", |options| options).await;
    cluster.nodes[0].wait_log(LONG, "FAN-4101").await.unwrap();
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
