//! What a source stream's settings allow, and a source that is missing.

use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, PersistenceMode, RetentionPolicy, StorageType};
use fanin_tests::apps::{AppInstance, AppOptions};
use fanin_tests::checker::Recorder;
use fanin_tests::feed::{Feed, publish};
use fanin_tests::hub::{connect, create_source, start_hub};
use fanin_tests::line::Line;
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

/// Sets the subjects that a node takes of the source.
fn take(node: &mut BridgeOptions, subjects: &[&str]) {
    node.config["mappings"]["orders"]["sources"] = json!([{ "stream": STREAM, "subjects": subjects }]);
}

/// Waits until a node pulls nothing, for the reason with this code; returns the reason.
async fn withheld(node: &Bridge, code: &str) -> String {
    let told = node.wait_status(LONG, code, |status| {
        orders(status).state == "withheld" && orders(status).reason.starts_with(code)
    });
    orders(&told.await.unwrap()).reason.clone()
}

/// Publishes `count` messages with so many subjects, `orders.0` and so on. Of those with the first `wanted` subjects the mapping is
/// to deliver each.
async fn feed_subjects(cluster: &mut Cluster, count: usize, keys: usize, wanted: usize) {
    let before = cluster.ids.len();
    let first = cluster.fed();
    cluster
        .feed_as(count, |mut feed| {
            feed.keys = keys;
            feed
        })
        .await;
    let fed = cluster.ids.split_off(before).into_iter().enumerate();
    let matching = fed.filter(|(number, _)| (first + number) % keys < wanted);
    cluster.ids.extend(matching.map(|(_, id)| id));
}

/// Goal: a changed filter is in force only on an operator's word (P9). A node that differs from the terms claims nothing, says so with the
/// cure, and costs the others nothing; following the cures, every message that the filter in force matches is delivered once.
/// Method: two nodes on one subject; a second subject is added on one node, accepted there, added on the other, and the shared
/// consumer, which has the old filter, is made anew; messages come at every step.
#[tokio::test]
async fn a_changed_filter_is_in_force_on_an_operators_word() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let (narrow, wide) = (["orders.0"], ["orders.0", "orders.1"]);
    for node in ["n1", "n2"] {
        let mut options = cluster.options(node);
        take(&mut options, &narrow);
        cluster.add(options, 1).await;
    }
    feed_subjects(&mut cluster, 100, 1, 1).await;
    cluster.wait_rest().await;

    take(cluster.nodes[0].options_mut(), &wide);
    cluster.nodes[0].restart().await.unwrap();
    let reason = withheld(&cluster.nodes[0], "FAN-4026").await;
    assert!(reason.contains("--accept-terms"), "{reason}");
    let before = cluster.share_of("n1");
    feed_subjects(&mut cluster, 100, 1, 1).await;
    cluster.wait_rest().await;
    assert_eq!(
        cluster.share_of("n1"),
        before,
        "it claimed under terms that differ"
    );

    cluster.nodes[0].options_mut().args = vec!["--accept-terms".to_owned()];
    cluster.nodes[0].restart().await.unwrap();
    withheld(&cluster.nodes[1], "FAN-4026").await;
    let reason = withheld(&cluster.nodes[0], "FAN-2011").await;
    for part in ["filter_subjects", "orders.1", "--recreate-consumer"] {
        assert!(reason.contains(part), "{part} is not in {reason}");
    }
    // Nobody takes these yet.
    feed_subjects(&mut cluster, 100, 2, 2).await;

    take(cluster.nodes[1].options_mut(), &wide);
    cluster.nodes[1].restart().await.unwrap();
    withheld(&cluster.nodes[1], "FAN-2011").await;
    let consumer = cluster.consumer().await.unwrap();
    let deleted = cluster
        .jetstream
        .delete_consumer_from_stream(&consumer.name, STREAM);
    deleted.await.unwrap();
    cluster.nodes[0].options_mut().args = vec!["--recreate-consumer".to_owned()];
    cluster.nodes[0].restart().await.unwrap();
    for node in &cluster.nodes {
        let active = node.wait_status(LONG, "both nodes to take part", |status| {
            orders(status).state == "active"
        });
        active.await.unwrap();
    }
    feed_subjects(&mut cluster, 200, 4, 2).await;
    cluster.finish().await;
}

/// Goal: until the ledger shows the terms that a mapping needs, its first ones or those with a source that was added, a node takes nothing and
/// says what it waits for; then it goes on by itself, and every message comes once, also of a source that leaves the
/// configuration again and comes back. Method: the line to the hub holds the TERMS record back from the node that wrote it.
#[tokio::test]
async fn terms_on_their_way_are_waited_for() {
    let terms = "MSG fanin.orders.terms ";
    let mut cluster = Cluster::new(&["billing"]).await;
    create_source(&cluster.jetstream, "RETURNS", &["returns.>"])
        .await
        .unwrap();
    let line = Line::start(cluster.hub.port()).await.unwrap();
    line.hold_replies_at(terms, 1);
    let far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"]));
    cluster.nodes.push(Bridge::spawn(far).unwrap());
    cluster.instance(0, "billing", "b1", |options| options).await;
    withheld(&cluster.nodes[0], "FAN-4027").await;
    cluster.feed(50).await;
    assert_eq!(cluster.recorder.count(), 0);
    line.release();
    cluster.wait_rest().await;

    let both = json!([{ "stream": STREAM }, { "stream": "RETURNS" }]);
    let sources = |node: &mut Bridge, sources: &serde_json::Value| {
        node.options_mut().config["mappings"]["orders"]["sources"] = sources.clone();
    };
    sources(&mut cluster.nodes[0], &both);
    // The first terms come again, from the beginning of the ledger.
    line.hold_replies_at(terms, 2);
    cluster.nodes[0].respawn().unwrap();
    withheld(&cluster.nodes[0], "FAN-4028").await;
    line.release();
    let returns = |first: usize| Feed::new("returns", 50).starting_at(first);
    let ids = publish(&cluster.jetstream, &returns(0)).await.unwrap();
    cluster.ids.extend(ids);
    cluster.feed(50).await;
    eventually(LONG, "both sources", || async {
        match cluster.recorder.settled_by("billing") {
            150 => Ok(()),
            got => Err(format!("{got} of 150")),
        }
    })
    .await;

    // A source that is not configured is not pulled from; the terms go on naming it, and its consumer keeps its place.
    sources(&mut cluster.nodes[0], &json!([{ "stream": STREAM }]));
    cluster.nodes[0].restart().await.unwrap();
    cluster.feed(50).await;
    let later = publish(&cluster.jetstream, &returns(50)).await.unwrap();
    eventually(LONG, "the source that is left", || async {
        match cluster.recorder.settled_by("billing") {
            200 => Ok(()),
            got => Err(format!("{got} of 200")),
        }
    })
    .await;
    cluster.ids.extend(later);
    sources(&mut cluster.nodes[0], &both);
    cluster.nodes[0].restart().await.unwrap();
    eventually(LONG, "what waited in the other source", || async {
        match cluster.recorder.settled_by("billing") {
            250 => Ok(()),
            got => Err(format!("{got} of 250")),
        }
    })
    .await;
    cluster.finish().await;
}
