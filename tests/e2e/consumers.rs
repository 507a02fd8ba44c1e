//! The shared consumer is deleted, or loses its state.

use std::time::Duration;

use async_nats::jetstream::consumer;
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{Cluster, LONG, STREAM, orders};

/// Goal: a deleted consumer is not silently created again, as that would deliver everything anew; status says what to do,
/// and the operator's word brings everything back. Method: delete it under a watermark, feed, look at both nodes; restart
/// one without and then with `--recreate-consumer`.
#[tokio::test]
async fn a_deleted_consumer_is_created_again_only_on_the_operators_word() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    cluster.feed(600).await;
    cluster.wait_rest().await;
    for node in &cluster.nodes {
        let closed = node.wait_status(LONG, "the watermark to reach the end", |status| {
            orders(status).sources[0].closed_through == 600
        });
        closed.await.unwrap();
    }
    let consumer = cluster.consumer().await.unwrap();
    cluster
        .jetstream
        .delete_consumer_from_stream(&consumer.name, STREAM)
        .await
        .unwrap();
    cluster.feed(200).await;
    cluster.nodes[0].restart().await.unwrap();
    for node in &cluster.nodes {
        let status = node
            .wait_status(LONG, "status to tell", |status| {
                orders(status).state == "withheld"
            })
            .await
            .unwrap();
        let reason = &orders(&status).reason;
        assert!(reason.contains("FAN-2012"), "{}: {reason}", node.node());
    }
    assert!(
        cluster.consumer().await.is_err(),
        "the consumer was created silently"
    );

    cluster.nodes[0].options_mut().args = vec!["--recreate-consumer".to_owned()];
    cluster.nodes[0].restart().await.unwrap();
    cluster.feed(200).await;
    cluster.wait_rest().await;
    for node in &cluster.nodes {
        node.wait_status(LONG, "both nodes to take part", |status| {
            orders(status).state == "active"
        })
        .await
        .unwrap();
    }
    let created = cluster.consumer().await.unwrap();
    assert!(
        created.delivered.consumer_sequence < 600,
        "it delivered again what the watermark covers: {created:?}"
    );
    cluster.finish().await;
}

/// Goal: acknowledgement state decides nothing: a consumer that forgot everything and delivers all messages again makes
/// no duplicate. Method: delete it under load and create it with the same settings, deliver all included; twice, the second
/// time at rest.
#[tokio::test]
async fn a_consumer_that_forgot_everything_makes_no_duplicate() {
    let mut cluster = Cluster::with_nodes(&["billing", "shipping"], 2, 1).await;
    let trickle = cluster.stream(Duration::from_millis(10));
    cluster.wait_more(1_000).await;
    forget(&cluster).await;
    cluster.wait_more(400).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    forget(&cluster).await;
    eventually(LONG, "everything to be delivered again", || async {
        let delivered = cluster.consumer().await?.delivered.consumer_sequence;
        if delivered >= cluster.ids.len() as u64 {
            Ok(())
        } else {
            Err(delivered.to_string())
        }
    })
    .await;
    cluster.wait_rest().await;
    cluster.feed(200).await;
    cluster.finish().await;
}

async fn forget(cluster: &Cluster) {
    let consumer = cluster.consumer().await.unwrap();
    cluster
        .jetstream
        .delete_consumer_from_stream(&consumer.name, STREAM)
        .await
        .unwrap();
    cluster
        .jetstream
        .create_consumer_on_stream(consumer.config, STREAM)
        .await
        .unwrap();
}

/// Goal: the shared consumer has exactly the settings of the configuration, or the node does not pull and names the setting; it is
/// never made anew. More nodes make it grow in place. Method: an operator changes one setting after the other, and the node is
/// restarted; then configurations for fewer and for more nodes.
#[tokio::test]
async fn a_consumer_that_differs_is_refused_by_the_setting_and_grows_with_the_nodes() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(100).await;
    cluster.wait_rest().await;
    let made = cluster.consumer().await.unwrap();
    assert_eq!(made.config.max_ack_pending, 2 * 3 * 256);
    let stream = cluster.jetstream.get_stream(STREAM).await.unwrap();
    let update = async |change: &dyn Fn(&mut consumer::pull::Config)| {
        let mut config: consumer::pull::Config =
            consumer::FromConsumer::try_from_consumer_config(made.config.clone()).unwrap();
        change(&mut config);
        stream.update_consumer(config).await.unwrap();
    };
    type Change = fn(&mut consumer::pull::Config);
    let table: [(&str, Change); 4] = [
        ("ack_wait", |config| config.ack_wait = Duration::from_secs(30)),
        ("max_ack_pending", |config| config.max_ack_pending = 100_000),
        ("max_batch", |config| config.max_batch = 10),
        ("max_deliver", |config| config.max_deliver = 5),
    ];
    for (setting, change) in table {
        update(&change).await;
        cluster.nodes[0].restart().await.unwrap();
        let status = cluster.nodes[0]
            .wait_status(LONG, "status to tell", |status| {
                orders(status).state == "withheld"
            })
            .await
            .unwrap();
        let reason = &orders(&status).reason;
        assert!(
            reason.contains("FAN-2011") && reason.contains(setting),
            "{setting}: {reason}"
        );
        update(&|_| {}).await;
        cluster.nodes[0]
            .wait_status(LONG, "the node to take part", |status| {
                orders(status).state == "active"
            })
            .await
            .unwrap();
    }

    for (nodes, state, max) in [(5, "active", 2 * 5 * 256), (3, "withheld", 2 * 5 * 256)] {
        cluster.nodes[0].options_mut().config["mappings"]["orders"]["nodes"] = json!(nodes);
        cluster.nodes[0].restart().await.unwrap();
        cluster.nodes[0]
            .wait_status(LONG, state, |status| orders(status).state == state)
            .await
            .unwrap();
        assert_eq!(cluster.consumer().await.unwrap().config.max_ack_pending, max);
    }
    cluster.nodes[0].options_mut().config["mappings"]["orders"]["nodes"] = json!(5);
    cluster.nodes[0].restart().await.unwrap();
    cluster.feed(100).await;
    cluster.wait_rest().await;
    assert_eq!(
        cluster.consumer().await.unwrap().created,
        made.created,
        "it was made anew"
    );
    cluster.finish().await;
}
