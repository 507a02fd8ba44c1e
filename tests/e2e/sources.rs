//! What a source stream's settings allow, and a source that is missing.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, PersistenceMode, RetentionPolicy, StorageType};
use fanin_tests::apps::{AppInstance, AppOptions};
use fanin_tests::checker::Recorder;
use fanin_tests::hub::{connect, create_source, start_hub};
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, STREAM, applications, mapping, orders};
use crate::starts::refused;

fn stream(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![format!("{}.>", name.to_lowercase())],
        ..Config::default()
    }
}

/// A data directory where the build is: the usual place of temporary files may be in memory, where no delivery can be required.
fn on_disk() -> (tempfile::TempDir, serde_json::Value) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let patch = json!({ "data_dir": dir.path().join("data") });
    (dir, patch)
}

/// How many lines of a node's log hold all of these texts.
fn logged(bridge: &Bridge, texts: &[&str]) -> usize {
    let log = bridge.log();
    let holds = |text: &str| texts.iter().all(|part| text.contains(part));
    log.iter().filter(|line| holds(&line.text)).count()
}

/// Goal: a mapping that requires a delivery does not start on a stream that may lose what the hub acknowledged; one that requires
/// nothing starts, warns once, and status says what holds. Method: streams in memory and, where the server has it, with
/// asynchronous persistence.
#[tokio::test]
async fn a_source_that_may_forget_is_refused_where_delivery_is_required() {
    let hub = start_hub().await;
    let jetstream = connect(&hub.url()).await.unwrap();
    let in_memory = Config {
        storage: StorageType::Memory,
        ..stream(STREAM)
    };
    jetstream.create_stream(in_memory).await.unwrap();
    let (_disk, on_disk) = on_disk();
    let options = || BridgeOptions::new("n1", &hub.url(), mapping(&["billing"])).with_config(&on_disk);
    let requiring = |delivery: &str| {
        let patch = json!({ "mappings": { "orders": { "required_delivery": delivery } } });
        options().with_config(&patch)
    };
    for delivery in ["exactly_once", "at_least_once"] {
        let told = refused(requiring(delivery), 78, "FAN-2020").await;
        for part in [
            "stream ORDERS has storage: memory",
            "needs storage: file",
            delivery,
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }

    let bridge = Bridge::start(options()).await.unwrap();
    let status = bridge.wait_joined().await.unwrap();
    let delivery = &orders(&status).delivery;
    assert!(
        delivery.starts_with("best_effort, because stream ORDERS has storage: memory"),
        "{delivery}"
    );
    assert_eq!(logged(&bridge, &["WARN", "FAN-2021", "storage", "memory"]), 1);
    bridge.stop().await.unwrap();

    let asynchronous = Config {
        persist_mode: Some(PersistenceMode::Async),
        ..stream("LATER")
    };
    let created = jetstream.create_stream(asynchronous).await.unwrap();
    // Servers before 2.12 do not know the setting, and always write first.
    if created.cached_info().config.persist_mode == Some(PersistenceMode::Async) {
        let later = json!({ "mappings": { "orders": { "sources": [{ "stream": "LATER" }] } } });
        let told = refused(requiring("exactly_once").with_config(&later), 78, "FAN-2020").await;
        assert!(told.contains("stream LATER has persist_mode: async"), "{told}");
    }
}

/// Goal: a stream that lets messages go is warned of, once a start and once a setting, and works. Method: a work queue with an
/// age limit, two lives of a node.
#[tokio::test]
async fn a_source_that_lets_messages_go_is_warned_of() {
    let mut cluster = Cluster::new(&["billing"]).await;
    cluster.jetstream.delete_stream(STREAM).await.unwrap();
    let queue = Config {
        retention: RetentionPolicy::WorkQueue,
        max_age: Duration::from_secs(3600),
        ..stream(STREAM)
    };
    cluster.jetstream.create_stream(queue).await.unwrap();
    let required = json!({ "mappings": { "orders": { "required_delivery": "exactly_once" } } });
    let (_disk, on_disk) = on_disk();
    let options = cluster.options("n1").with_config(&required).with_config(&on_disk);
    cluster.add(options, 1).await;
    for life in 1..=2 {
        let status = cluster.nodes[0].wait_joined().await.unwrap();
        let delivery = &orders(&status).delivery;
        assert!(delivery.starts_with("exactly_once, because "), "{delivery}");
        for setting in ["workqueue", "max_age"] {
            let lines = logged(&cluster.nodes[0], &["WARN", "FAN-2022", setting]);
            assert_eq!(lines, life, "{setting}");
        }
        cluster.feed(50).await;
        cluster.wait_rest().await;
        if life == 1 {
            cluster.nodes[0].restart().await.unwrap();
        }
    }
    cluster.finish().await;
}

/// Goal: a stream that is missing at a later start keeps its own mapping idle and nothing else; what waits for the application is
/// delivered once the stream is back. Method: of two mappings the stream of one is taken out of the stopped hub's store, with
/// messages waiting on the node, and put back later.
#[tokio::test]
async fn a_source_missing_at_a_restart_holds_up_its_own_mapping_only() {
    let mut cluster = Cluster::new(&["billing"]).await;
    create_source(&cluster.jetstream, "ALARMS", &["alarms.>"])
        .await
        .unwrap();
    let alarms = json!({ "mappings": { "alarms": {
        "sources": [{ "stream": "ALARMS" }],
        "ack_wait": "2s",
        "intake": "always",
        "applications": applications(&["pager"]),
    } } });
    let options = cluster.options("n1").with_config(&alarms).allow_error("FAN-2010");
    cluster.add(options, 1).await;
    for number in 0..5 {
        let sent = cluster
            .jetstream
            .publish(format!("alarms.{number}"), "ring".into());
        sent.await.unwrap().await.unwrap();
    }
    let backlog = |wanted: u64| {
        move |status: &fanin_proto::v1::StatusResponse| {
            let alarms = status.mappings.iter().find(|mapping| mapping.name == "alarms");
            alarms.is_some_and(|alarms| alarms.apps[0].backlog_messages == wanted)
        }
    };
    cluster.nodes[0]
        .wait_status(LONG, "a backlog", backlog(5))
        .await
        .unwrap();
    cluster.nodes[0].stop().await.unwrap();

    let away = tempfile::tempdir_in(cluster.hub.dir()).unwrap();
    let place = cluster
        .hub
        .store_dir()
        .join(Path::new("jetstream/$G/streams/ALARMS"));
    cluster.hub.stop().await.unwrap();
    std::fs::rename(&place, away.path().join("ALARMS")).unwrap();
    cluster.hub.restart().await.unwrap();
    cluster.nodes[0].respawn().unwrap();
    cluster.nodes[0]
        .wait_status(LONG, "the missing source in status", |status| {
            let alarms = status.mappings.iter().find(|mapping| mapping.name == "alarms");
            alarms.is_some_and(|alarms| {
                alarms.state == "starting"
                    && alarms.reason.contains("FAN-2010")
                    && alarms.reason.contains("ALARMS")
            })
        })
        .await
        .unwrap();
    cluster.feed(50).await;
    eventually(LONG, "the other mapping to deliver", || async {
        match cluster.recorder.settled_by("billing") {
            50 => Ok(()),
            got => Err(format!("{got} of 50")),
        }
    })
    .await;

    cluster.hub.stop().await.unwrap();
    std::fs::rename(away.path().join("ALARMS"), &place).unwrap();
    cluster.hub.restart().await.unwrap();
    cluster.nodes[0].wait_joined().await.unwrap();
    let pager = Recorder::new();
    let options = AppOptions::new(&cluster.nodes[0].socket(), "alarms", "pager", "p1");
    let instance = AppInstance::start(options, pager.clone()).await.unwrap();
    eventually(LONG, "the backlog", || async {
        match pager.settled_by("pager") {
            5 => Ok(()),
            got => Err(format!("{got} of 5")),
        }
    })
    .await;
    instance.stop().await.unwrap();
    cluster.finish().await;
    assert_eq!(pager.count(), 5, "nothing comes twice");
}
