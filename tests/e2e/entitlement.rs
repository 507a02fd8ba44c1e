//! What an application is owed stays owed, whatever a restart meets on its way.

use fanin_proto::v1::{AppStatus, StatusResponse};
use fanin_tests::apps::{AppInstance, AppOptions, Decision};
use fanin_tests::checker::Recorder;
use fanin_tests::line::Line;
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::wait::eventually;

use crate::cluster::{Cluster, LEDGER, LONG, TOPIC, applications, mapping, orders};

fn host(node: &mut Bridge, apps: &[&str]) {
    node.options_mut().config["mappings"][TOPIC]["applications"] = applications(apps);
}

fn app<'a>(status: &'a StatusResponse, name: &str) -> Option<&'a AppStatus> {
    orders(status).apps.iter().find(|app| app.name == name)
}

/// Goal: a restart reads the ledger from its beginning and meets older terms first; they take nothing away from an
/// application of the newer terms, even when the node's life ends between the two and the next one begins without the hub.
/// Method: `shipping` enters with the second terms and leaves everything waiting; the line to the hub holds the second TERMS
/// record back from the next life, which is stopped there; then a life without the hub, then one with it.
#[tokio::test]
async fn older_terms_met_again_take_no_backlog_away() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let line = Line::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &line.url(), mapping(&["billing"]));
    cluster.add(far, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;

    host(&mut cluster.nodes[0], &["billing", "shipping"]);
    cluster.nodes[0].restart().await.unwrap();
    cluster.nodes[0]
        .wait_status(LONG, "the second terms", |status| {
            orders(status).terms_version == 2
        })
        .await
        .unwrap();
    let socket = cluster.nodes[0].socket();
    let holding = AppOptions::new(&socket, TOPIC, "shipping", "holds").decide(|_| Decision::Hold);
    let holding = AppInstance::start(holding, Recorder::new()).await.unwrap();
    cluster.feed(200).await;
    let waits =
        |status: &StatusResponse| app(status, "shipping").is_some_and(|app| app.backlog_messages == 200);
    cluster.nodes[0]
        .wait_status(
            LONG,
            "billing to finish and shipping to have all waiting",
            |status| waits(status) && app(status, "billing").is_some_and(|app| app.backlog_messages == 0),
        )
        .await
        .unwrap();
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    holding.stop().await.unwrap();
    cluster.nodes[0].stop().await.unwrap();

    let ledger = cluster.jetstream.get_stream(LEDGER).await.unwrap();
    let second = ledger
        .get_last_raw_message_by_subject("fanin.orders.terms")
        .await
        .unwrap();
    line.hold_replies_at("MSG fanin.orders.terms ", 2);
    cluster.nodes[0].respawn().unwrap();
    let between = cluster.nodes[0]
        .wait_status(LONG, "everything before the second terms to be read", |status| {
            orders(status).ledger_position == second.sequence - 1
        })
        .await
        .unwrap();
    assert_eq!(
        (orders(&between).terms_version, orders(&between).state.as_str()),
        (1, "joining")
    );
    cluster.nodes[0].stop().await.unwrap();

    cluster.hub.kill().unwrap();
    line.release();
    cluster.nodes[0].respawn().unwrap();
    let alone = cluster.nodes[0].wait_serving().await.unwrap();
    assert!(waits(&alone), "without the hub: {alone:?}");
    let late = Recorder::new();
    let shipping = AppOptions::new(&socket, TOPIC, "shipping", "s1");
    let shipping = AppInstance::start(shipping, late.clone()).await.unwrap();

    cluster.hub.restart().await.unwrap();
    cluster.nodes[0].wait_joined().await.unwrap();
    cluster.feed(100).await;
    cluster.wait_rest().await;
    late.judge(&cluster.ids[100..], &["shipping"])
        .assert_exactly_once_without_doubt();
    shipping.stop().await.unwrap();
    cluster.finish().await;
}

/// Goal: an application that is in the terms and leaves the configuration of the only node keeps what it has not finished
/// through any number of restarts, with and without the hub, and receives exactly that once it is back. Meanwhile the node says
/// what is missing and claims nothing. Method: `shipping` confirms a part and holds the rest; two lives without it under a feed;
/// a third one with it that begins while the hub is away.
#[tokio::test]
async fn an_application_that_comes_back_gets_exactly_the_rest() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let options = cluster.options("n1");
    cluster.add(options, 0).await;
    cluster.instance(0, "billing", "b1", |options| options).await;
    let socket = cluster.nodes[0].socket();
    let part = AppOptions::new(&socket, TOPIC, "shipping", "part").decide(|message| {
        let (_, seq) = message.id().split_once(':').unwrap();
        if seq.parse::<u64>().unwrap() <= 80 {
            Decision::Ack
        } else {
            Decision::Hold
        }
    });
    let part = AppInstance::start(part, cluster.recorder.clone()).await.unwrap();
    cluster.feed(200).await;
    eventually(LONG, "billing to finish and shipping a part", || async {
        let done = (
            cluster.recorder.settled_by("billing"),
            cluster.recorder.settled_by("shipping"),
        );
        if done == (200, 80) {
            Ok(())
        } else {
            Err(format!("{done:?}"))
        }
    })
    .await;
    eventually(LONG, "everything to be settled", || cluster.hub_at_rest()).await;
    part.stop().await.unwrap();

    host(&mut cluster.nodes[0], &["billing"]);
    cluster.nodes[0].restart().await.unwrap();
    let warned = cluster.nodes[0].wait_log(LONG, "FAN-4018").await.unwrap();
    for told in ["\"app\":\"shipping\"", "\"from\":80", "\"messages\":120"] {
        assert!(warned.text.contains(told), "{told} in {warned}");
    }
    cluster.feed(60).await;
    cluster.nodes[0].restart().await.unwrap();
    let withheld = cluster.nodes[0]
        .wait_status(LONG, "the reason", |status| {
            orders(status).reason.contains("FAN-4029")
        })
        .await
        .unwrap();
    let kept = orders(&withheld);
    assert!(kept.reason.contains("shipping"), "{}", kept.reason);
    assert!(
        kept.open_batches >= 6 && kept.head_offset == 200,
        "the backlog is gone: {kept:?}"
    );
    let consumer = cluster.consumer().await.unwrap();
    assert_eq!(consumer.num_pending + consumer.num_ack_pending as u64, 60);

    cluster.hub.kill().unwrap();
    host(&mut cluster.nodes[0], &["billing", "shipping"]);
    cluster.nodes[0].respawn().unwrap();
    let alone = cluster.nodes[0].wait_serving().await.unwrap();
    let backlog = app(&alone, "shipping").map(|app| app.backlog_messages);
    assert_eq!(backlog, Some(120), "without the hub: {alone:?}");
    cluster.instance(0, "shipping", "s1", |options| options).await;
    cluster.hub.restart().await.unwrap();
    cluster.nodes[0].wait_joined().await.unwrap();
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
