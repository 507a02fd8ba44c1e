//! App sets: applications that are added, and nodes that do not all host the same ones.

use fanin_tests::apps::{AppInstance, AppOptions};
use fanin_tests::checker::Recorder;
use fanin_tests::process::Bridge;

use crate::cluster::{Cluster, LONG, TOPIC, applications, orders};

fn host(node: &mut Bridge, apps: &[&str]) {
    node.options_mut().config["mappings"][TOPIC]["applications"] = applications(apps);
}

/// Goal: a new application enters when every node hosts it, gets what is claimed from then on, and costs the old one
/// nothing. Method: restart one node after the other with the new application, feed in between, and compare its ids with what was fed
/// behind the new terms.
#[tokio::test]
async fn a_new_application_gets_what_is_claimed_from_then_on() {
    let mut cluster = Cluster::with_nodes(&["billing"], 2, 1).await;
    cluster.feed(300).await;
    cluster.wait_rest().await;
    let newcomer = Recorder::new();
    host(&mut cluster.nodes[0], &["billing", "shipping"]);
    cluster.nodes[0].restart().await.unwrap();
    let shipping = AppOptions::new(&cluster.nodes[0].socket(), TOPIC, "shipping", "s1");
    let first = AppInstance::start(shipping, newcomer.clone()).await.unwrap();
    cluster.feed(300).await;
    cluster.wait_rest().await;
    let version = orders(&cluster.nodes[0].status().await.unwrap()).terms_version;

    host(&mut cluster.nodes[1], &["billing", "shipping"]);
    cluster.nodes[1].restart().await.unwrap();
    let shipping = AppOptions::new(&cluster.nodes[1].socket(), TOPIC, "shipping", "s2");
    let second = AppInstance::start(shipping, newcomer.clone()).await.unwrap();
    for node in &cluster.nodes {
        let entered = node.wait_status(LONG, "the new terms", |status| {
            orders(status).terms_version > version
        });
        entered.await.unwrap();
    }
    let entitled = cluster.ids.len();
    cluster.feed(300).await;
    cluster.wait_rest().await;
    newcomer
        .judge(&cluster.ids[entitled..], &["shipping"])
        .assert_exactly_once_without_doubt();

    // A restart of everything changes nobody's entitlement.
    for node in &mut cluster.nodes {
        node.restart().await.unwrap();
    }
    cluster.feed(100).await;
    cluster.wait_rest().await;
    newcomer
        .judge(&cluster.ids[entitled..], &["shipping"])
        .assert_exactly_once();
    for instance in [first, second] {
        instance.stop().await.unwrap();
    }
    cluster.finish().await;
}

/// Goal: a node that lacks an application of the app set claims nothing and says why; the others do its work. Method: two
/// nodes, the second without one of the two applications; then it is given both.
#[tokio::test]
async fn a_node_that_lacks_an_application_claims_nothing() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let whole = cluster.options("n1");
    cluster.add(whole, 1).await;
    cluster.nodes[0]
        .wait_status(LONG, "terms", |status| orders(status).terms_version > 0)
        .await
        .unwrap();
    let mut options = cluster.options("n2");
    options.config["mappings"][TOPIC]["applications"] = applications(&["billing"]);
    cluster.nodes.push(Bridge::start(options).await.unwrap());
    cluster.instance(1, "billing", "b2", |options| options).await;
    cluster.feed(400).await;
    let withheld =
        cluster.nodes[1].wait_status(LONG, "the reason", |status| orders(status).state == "withheld");
    let reason = orders(&withheld.await.unwrap()).reason.clone();
    assert!(
        reason.contains("FAN-4029") && reason.contains("shipping"),
        "{reason}"
    );
    cluster.wait_rest().await;
    let report = cluster.report();
    assert!(
        report.apps["billing"]
            .shares
            .keys()
            .all(|(node, _)| &**node == "n1"),
        "{report}"
    );

    host(&mut cluster.nodes[1], &["billing", "shipping"]);
    cluster.nodes[1].restart().await.unwrap();
    cluster.instance(1, "shipping", "s2", |options| options).await;
    cluster.nodes[1]
        .wait_status(LONG, "the node to take part", |status| {
            orders(status).state == "active"
        })
        .await
        .unwrap();
    cluster.feed(400).await;
    cluster.finish().await;
}

/// Goal: a node without an instance of some application leaves the messages to the others (the gate), and takes part when
/// one comes. Method: two nodes, instances of both applications on the first only, then on both.
#[tokio::test]
async fn a_node_without_an_instance_waits_for_it() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    for (node, instances) in [("n1", 1), ("n2", 0)] {
        let options = cluster.options(node);
        cluster.add(options, instances).await;
    }
    cluster.instance(1, "billing", "b2", |options| options).await;
    cluster.feed(300).await;
    cluster.wait_rest().await;
    let status = cluster.nodes[1].status().await.unwrap();
    let gated = orders(&status);
    assert_eq!(gated.state, "gated");
    assert!(
        gated.reason.contains("FAN-4024") && gated.reason.contains("shipping"),
        "{}",
        gated.reason
    );
    cluster.instance(1, "shipping", "s2", |options| options).await;
    cluster.nodes[1]
        .wait_status(LONG, "the gate to open", |status| {
            orders(status).state == "active"
        })
        .await
        .unwrap();
    cluster.feed(300).await;
    cluster.finish().await;
}

/// Goal: an application that leaves the configuration loses nothing of its backlog. Method: one application holds
/// everything while the other finishes; the node restarts without the first, then with it again.
#[tokio::test]
async fn an_application_that_leaves_the_configuration_keeps_its_backlog() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let options = cluster.options("n1");
    cluster.add(options, 0).await;
    cluster.instance(0, "billing", "b1", |options| options).await;
    let holding = AppOptions::new(&cluster.nodes[0].socket(), TOPIC, "shipping", "holds");
    let holding = holding.decide(|_| fanin_tests::apps::Decision::Hold);
    let holding = AppInstance::start(holding, Recorder::new()).await.unwrap();
    cluster.feed(200).await;
    let finished = |status: &fanin_proto::v1::StatusResponse| {
        let billing = orders(status).apps.iter().find(|app| app.name == "billing");
        orders(status).head_offset == 200 && billing.is_some_and(|app| app.backlog_messages == 0)
    };
    cluster.nodes[0]
        .wait_status(LONG, "billing to finish", finished)
        .await
        .unwrap();
    holding.stop().await.unwrap();

    host(&mut cluster.nodes[0], &["billing"]);
    cluster.nodes[0].restart().await.unwrap();
    let withheld = |status: &fanin_proto::v1::StatusResponse| orders(status).reason.contains("FAN-4029");
    let status = cluster.nodes[0]
        .wait_status(LONG, "the reason", withheld)
        .await
        .unwrap();
    assert!(
        orders(&status).open_batches > 0,
        "the backlog is gone: {status:?}"
    );
    cluster.nodes[0]
        .wait_log(LONG, "its backlog is kept")
        .await
        .unwrap();

    host(&mut cluster.nodes[0], &["billing", "shipping"]);
    cluster.nodes[0].restart().await.unwrap();
    cluster.instance(0, "shipping", "s1", |options| options).await;
    cluster.finish().await;
}
