//! The way of a message without faults.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanin_proto::v1::StatusResponse;
use fanin_tests::apps::{AppInstance, AppOptions, Decision};
use fanin_tests::checker::Recorder;
use fanin_tests::feed::{Feed, publish};
use fanin_tests::hub::create_source;
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, TOPIC, applications, at_rest, mapping, orders};

/// Goal: every application gets every message once, nodes and instances share the load, and a restart in order loses
/// nothing. Method: two nodes, two applications with two instances each; SIGTERM to one node after the other while
/// messages flow, then to both at once.
#[tokio::test]
async fn each_application_gets_each_message_once_also_across_restarts_in_order() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 2).await;
    let trickle = cluster.stream(Duration::from_millis(10));
    cluster.wait_more(800).await;
    for number in 0..2 {
        cluster.nodes[number].stop().await.unwrap();
        cluster.wait_more(400).await;
        cluster.nodes[number].restart().await.unwrap();
        cluster.wait_more(400).await;
    }
    let (first, second) = (cluster.nodes[0].stop(), cluster.nodes[1].stop());
    let (first, second) = tokio::join!(first, second);
    first.and(second).unwrap();
    for node in &mut cluster.nodes {
        node.restart().await.unwrap();
    }
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;

    let report = cluster.report();
    report.assert_exactly_once_without_doubt();
    for app in ["billing", "shipping"] {
        let shares = &report.apps[app].shares;
        assert_eq!(shares.len(), 4, "an instance got nothing\n{report}");
    }
    cluster.finish().await;
}

/// Goal: SIGTERM lets applications finish what they have in hand: it is confirmed, and nothing of it comes again. Method: an
/// instance that takes its time over each message, stopped with its hands full; the attempts are counted.
#[tokio::test]
async fn a_stop_waits_for_what_applications_have_in_hand() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster.options("n1");
    cluster.add(options, 0).await;
    let slow = |options: AppOptions| {
        options
            .credit_messages(40)
            .decide(|_| Decision::AckAfter(Duration::from_millis(400)))
    };
    cluster.instance(0, "billing", "b1", slow).await;
    cluster.feed(200).await;
    cluster.wait_more(40).await;
    cluster.nodes[0].stop().await.unwrap();
    let confirmed = cluster.recorder.count();
    assert!(
        (80..200).contains(&confirmed),
        "{confirmed} confirmed when the node had stopped"
    );
    cluster.nodes[0].restart().await.unwrap();
    cluster.wait_rest().await;
    let report = cluster.report();
    report.assert_exactly_once_without_doubt();
    assert_eq!(report.apps["billing"].redelivered, 0, "{report}");
    cluster.finish().await;
}

/// Goal: a stop waits for no longer than `shutdown_grace` for an application that keeps a message: it ends with exit code 0, and what
/// was kept comes again, to whoever is there. Method: an instance that answers nothing, a short grace, another instance later.
#[tokio::test]
async fn a_stop_ends_although_an_application_holds_on() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster
        .options("n1")
        .with_config(&json!({ "shutdown_grace": "1s" }));
    cluster.add(options, 0).await;
    let holding = AppOptions::new(&cluster.nodes[0].socket(), TOPIC, "billing", "holds");
    let holding = holding.credit_messages(5).decide(|_| Decision::Hold);
    let holding = AppInstance::start(holding, cluster.recorder.clone())
        .await
        .unwrap();
    cluster.feed(20).await;
    cluster.nodes[0]
        .wait_status(LONG, "messages in hand", |status| {
            orders(status).apps[0].in_flight == 5
        })
        .await
        .unwrap();
    cluster.nodes[0].stop().await.unwrap();
    holding.stop().await.unwrap();
    assert_eq!(cluster.recorder.count(), 0);
    cluster.nodes[0].restart().await.unwrap();
    cluster.instance(0, "billing", "b1", |options| options).await;
    cluster.wait_rest().await;
    cluster.report().assert_exactly_once_without_doubt();
    cluster.finish().await;
}

/// Goal: an application with a filter gets exactly what matches, and costs the other one nothing. Method: subjects
/// `orders.0` to `orders.15`, a filter on one of them, the ids compared by hand.
#[tokio::test]
async fn a_filter_leaves_out_what_does_not_match() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut options = cluster.options("n1");
    options.config["mappings"][TOPIC]["applications"]["shipping"] =
        json!({ "filter": { "subjects": ["orders.3"] } });
    cluster.add(options, 1).await;
    let filtered = Recorder::new();
    let instance = AppOptions::new(&cluster.nodes[0].socket(), TOPIC, "shipping", "s1");
    let instance = AppInstance::start(instance, filtered.clone()).await.unwrap();
    cluster.feed(640).await;
    cluster.wait_rest().await;
    let matching: Vec<String> = cluster.ids.iter().skip(3).step_by(16).cloned().collect();
    filtered
        .judge(&matching, &["shipping"])
        .assert_exactly_once_without_doubt();
    instance.stop().await.unwrap();
    cluster.finish().await;
}

/// Goal: the verbs do what they say across the whole path: a retried message comes again to the same application only,
/// a released one uncounted, and a rejected one becomes a dead letter. Method: the first instance answers by subject,
/// the second application acknowledges everything.
#[tokio::test]
async fn retries_releases_and_rejections_concern_one_application_only() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let options = cluster.options("n1");
    cluster.add(options, 0).await;
    let released = std::sync::atomic::AtomicBool::new(false);
    cluster
        .instance(0, "billing", "b1", |options| {
            options.decide(move |message| match (message.subject(), message.attempt()) {
                ("orders.1", 1) => Decision::Retry("not now".to_owned()),
                ("orders.2", _) if !released.swap(true, std::sync::atomic::Ordering::Relaxed) => {
                    Decision::Release
                }
                ("orders.3", _) => Decision::Reject("never".to_owned()),
                _ => Decision::Ack,
            })
        })
        .await;
    cluster.instance(0, "shipping", "s1", |options| options).await;
    cluster.feed(320).await;
    let status = cluster.nodes[0]
        .wait_status(LONG, "everything to be finished", |status| {
            orders(status).head_offset == 320 && at_rest(status).is_ok()
        })
        .await
        .unwrap();
    let report = cluster.report();
    let rejected: BTreeSet<&String> = cluster.ids.iter().skip(3).step_by(16).collect();
    assert_eq!(
        report.apps["billing"].missing.iter().collect::<BTreeSet<_>>(),
        rejected,
        "{report}"
    );
    assert_eq!(report.apps["billing"].redelivered, 20, "{report}");
    assert_eq!(report.apps["billing"].repeated.len(), 0, "{report}");
    assert_eq!(
        report.apps["shipping"].missing.len() + report.apps["shipping"].redelivered,
        0,
        "{report}"
    );
    let billing = orders(&status)
        .apps
        .iter()
        .find(|app| app.name == "billing")
        .unwrap();
    assert_eq!(billing.dead_letters, 20, "{billing:?}");
}

/// Goal: an application that never answers does not keep a node from stopping: SIGTERM ends it with 0 once `shutdown_grace` is over
/// and before the process would end itself, and what was in hand comes again. Method: a grace of a second, an instance that holds
/// every message, SIGTERM; another life, in which it answers.
#[tokio::test]
async fn a_stop_does_not_wait_for_an_application_that_never_answers() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let options = cluster
        .options("n1")
        .with_config(&json!({ "shutdown_grace": "1s" }));
    cluster.add(options, 0).await;
    let answers = Arc::new(AtomicBool::new(false));
    let answered = Arc::clone(&answers);
    cluster
        .instance(0, "billing", "b1", |options| {
            options.decide(move |_| match answered.load(Ordering::Relaxed) {
                true => Decision::Ack,
                false => Decision::Hold,
            })
        })
        .await;
    cluster.feed(40).await;
    let held = |status: &StatusResponse| orders(status).apps[0].in_flight == 40;
    cluster.nodes[0]
        .wait_status(LONG, "everything to be in hand", held)
        .await
        .unwrap();
    // An exit by itself, later than this, would have another code.
    cluster.nodes[0].stop().await.unwrap();
    assert_eq!(cluster.recorder.count(), 0);
    answers.store(true, Ordering::Relaxed);
    cluster.nodes[0].restart().await.unwrap();
    cluster.finish().await;
}

/// Goal: fan-in: one mapping takes from several streams, and two mappings on one node stay apart. Method: streams `ORDERS`
/// and `RETURNS` into one topic, `SENSORS` into another; each application's ids are compared.
#[tokio::test]
async fn several_sources_and_two_mappings_on_one_node() {
    let mut cluster = Cluster::new(&["billing"]).await;
    create_source(&cluster.jetstream, "RETURNS", &["returns.>"])
        .await
        .unwrap();
    create_source(&cluster.jetstream, "SENSORS", &["sensors.>"])
        .await
        .unwrap();
    let mut mappings = mapping(&["billing"]);
    mappings[TOPIC]["sources"] =
        json!([{ "stream": "ORDERS" }, { "stream": "RETURNS", "subjects": ["returns.*"] }]);
    mappings["telemetry"] = json!({
        "sources": [{ "stream": "SENSORS" }],
        "topic": "measurements",
        "ack_wait": "2s",
        "applications": applications(&["dashboard"]),
    });
    for node in ["n1", "n2"] {
        let options = BridgeOptions::new(node, &cluster.hub.url(), mappings.clone());
        cluster.nodes.push(Bridge::start(options).await.unwrap());
    }
    let (orders_seen, sensors_seen) = (Recorder::new(), Recorder::new());
    let mut instances = Vec::new();
    for node in &cluster.nodes {
        for (topic, app, seen) in [
            (TOPIC, "billing", &orders_seen),
            ("measurements", "dashboard", &sensors_seen),
        ] {
            let options = AppOptions::new(&node.socket(), topic, app, app);
            instances.push(AppInstance::start(options, seen.clone()).await.unwrap());
        }
    }
    let returns = Feed::new("returns", 400);
    let sensors = Feed::new("sensors", 400);
    let (returns, sensors) = tokio::join!(
        publish(&cluster.jetstream, &returns),
        publish(&cluster.jetstream, &sensors)
    );
    cluster.feed(400).await;
    let (mut expected, sensors) = (returns.unwrap(), sensors.unwrap());
    expected.extend(cluster.ids.iter().cloned());
    eventually(LONG, "both topics to be finished", || async {
        let (billing, dashboard) = (
            orders_seen.settled_by("billing"),
            sensors_seen.settled_by("dashboard"),
        );
        if (billing, dashboard) == (800, 400) {
            Ok(())
        } else {
            Err(format!("{billing} and {dashboard}"))
        }
    })
    .await;
    for node in &cluster.nodes {
        node.wait_status(LONG, "the node to be at rest", |status| at_rest(status).is_ok())
            .await
            .unwrap();
    }
    orders_seen
        .judge(&expected, &["billing"])
        .assert_exactly_once_without_doubt();
    sensors_seen
        .judge(&sensors, &["dashboard"])
        .assert_exactly_once_without_doubt();
    for instance in instances {
        instance.stop().await.unwrap();
    }
    for node in &cluster.nodes {
        node.stop().await.unwrap();
    }
}
