//! A bad line between bridge and hub.
//!
//! Method of all: the first node reaches the hub through a proxy that misbehaves under load, the second one directly; the
//! checker judges.

use std::time::Duration;

use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::proxy::{Link, Proxy};
use fanin_tests::wait::eventually;
use serde_json::json;

use crate::cluster::{ACK_WAIT, Cluster, LEDGER, LONG, mapping, orders};

async fn behind_a_proxy() -> (Cluster, Proxy) {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let proxy = Proxy::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &proxy.url(), mapping(&cluster.apps));
    let near = cluster.options("n2");
    cluster.add(far, 1).await;
    cluster.add(near, 1).await;
    (cluster, proxy)
}

/// How many messages the node behind the proxy delivered.
fn far_share(cluster: &Cluster) -> usize {
    let report = cluster.report();
    let shares = report.apps["billing"].shares.iter();
    shares
        .filter(|((node, _), _)| &**node == "n1")
        .map(|(_, share)| share)
        .sum()
}

/// How many appends of a node were not confirmed.
fn unconfirmed(node: &Bridge) -> usize {
    let log = node.log();
    let lines = log
        .iter()
        .filter(|line| line.text.contains("an append is not confirmed"));
    lines.count()
}

async fn wait_far_share(cluster: &Cluster, more: usize) {
    let wanted = far_share(cluster) + more;
    eventually(LONG, "the node behind the proxy to deliver", || async {
        let now = far_share(cluster);
        if now >= wanted {
            Ok(())
        } else {
            Err(format!("{now} of {wanted}"))
        }
    })
    .await;
}

/// Goal: a connection may break at any moment. Method: cut it again and again, each time after the node has delivered
/// something new; then refuse it for longer than the hub's wait.
#[tokio::test]
async fn connections_may_be_cut() {
    let (mut cluster, proxy) = behind_a_proxy().await;
    let trickle = cluster.stream(Duration::from_millis(10));
    for _ in 0..8 {
        wait_far_share(&cluster, 10).await;
        proxy.cut();
    }
    wait_far_share(&cluster, 10).await;
    proxy.refuse().await;
    let gone = tokio::time::Instant::now();
    eventually(LONG, "the hub's wait to be over", || async {
        gone.elapsed() > ACK_WAIT
    })
    .await;
    proxy.pass().await;
    wait_far_share(&cluster, 10).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a slow line costs time only. Method: 200 ms in each direction, from the first connection on.
#[tokio::test]
async fn a_slow_line_costs_time_only() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let proxy = Proxy::start(cluster.hub.port()).await.unwrap();
    proxy.delay(Duration::from_millis(200));
    let far = BridgeOptions::new("n1", &proxy.url(), mapping(&cluster.apps));
    let near = cluster.options("n2");
    cluster.add(far, 1).await;
    cluster.add(near, 1).await;
    let trickle = cluster.stream(Duration::from_millis(20));
    wait_far_share(&cluster, 100).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a claim that lands without the node hearing of it, and one that never lands, are both presumed until the ledger
/// tells (P3). Method: the hub's replies vanish under load, then the node's requests, then both, each for longer than the hub's
/// wait.
#[tokio::test]
async fn requests_and_replies_may_vanish() {
    let (mut cluster, proxy) = behind_a_proxy().await;
    let trickle = cluster.stream(Duration::from_millis(10));
    let direct = Link::Flow {
        delay: Duration::ZERO,
    };
    for (requests, replies) in [
        (direct, Link::Swallow),
        (Link::Swallow, direct),
        (Link::Swallow, Link::Swallow),
    ] {
        wait_far_share(&cluster, 20).await;
        proxy.links(requests, replies);
        let gone = tokio::time::Instant::now();
        eventually(LONG, "the hub's wait to be over", || async {
            gone.elapsed() > ACK_WAIT
        })
        .await;
        proxy.pass().await;
    }
    wait_far_share(&cluster, 20).await;
    // The fault was met: claims that the node did not hear of, and messages that another node had claimed meanwhile.
    assert!(unconfirmed(&cluster.nodes[0]) > 0, "every claim was confirmed");
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: claims that were held up on the way and land after the other node has claimed the same messages lose, for
/// everybody. Method: hold the requests back under load until the hub has redelivered, then let all of them through.
#[tokio::test]
async fn late_claims_lose() {
    let (mut cluster, proxy) = behind_a_proxy().await;
    let trickle = cluster.stream(Duration::from_millis(5));
    let direct = Link::Flow {
        delay: Duration::ZERO,
    };
    for _ in 0..3 {
        wait_far_share(&cluster, 40).await;
        proxy.links(Link::Stall, direct);
        let gone = tokio::time::Instant::now();
        eventually(LONG, "the hub's wait to be over", || async {
            gone.elapsed() > ACK_WAIT.mul_f64(1.2)
        })
        .await;
        proxy.links(direct, direct);
    }
    wait_far_share(&cluster, 20).await;
    let status = cluster.nodes[0].status().await.unwrap();
    assert!(
        orders(&status).lost_messages > 0,
        "no late claim lost: {status:?}"
    );
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: an EPOCH that landed although its process never heard of it is the node's own (P8), also within one process.
/// Method: a slow line is cut the moment the ledger shows the EPOCH, so that the hub's answer is lost; the node must adopt
/// it, begin another and take part.
#[tokio::test]
async fn an_epoch_whose_answer_was_lost_is_adopted() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let proxy = Proxy::start(cluster.hub.port()).await.unwrap();
    proxy.delay(Duration::from_millis(200));
    let node = Bridge::spawn(BridgeOptions::new("n1", &proxy.url(), mapping(&cluster.apps))).unwrap();
    let epochs = || async {
        let ledger = cluster
            .jetstream
            .get_stream(LEDGER)
            .await
            .map_err(|error| error.to_string())?;
        // GENESIS is the first record.
        Ok::<u64, String>(ledger.cached_info().state.last_sequence.saturating_sub(1))
    };
    eventually(LONG, "the epoch to land", || async {
        match epochs().await? {
            0 => Err("only GENESIS".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    proxy.cut();
    let status = node.wait_joined().await.unwrap();
    assert_eq!(
        orders(&status).epoch,
        3,
        "the first epoch's answer was not lost: {status:?}"
    );
    cluster.nodes.push(node);
    cluster.instance(0, "billing", "b1", |options| options).await;
    cluster.feed(100).await;
    cluster.finish().await;
}

/// Goal: of several servers any will do, at the start and when one goes away. Method: two proxies to one hub; the first one refuses
/// at the start, then the other one breaks and refuses under load, in turn.
#[tokio::test]
async fn of_several_servers_any_will_do() {
    let mut cluster = Cluster::new(&["billing"]).await;
    let mut proxies = Vec::new();
    for _ in 0..2 {
        proxies.push(Proxy::start(cluster.hub.port()).await.unwrap());
    }
    proxies[0].refuse().await;
    let servers = json!([proxies[0].url(), proxies[1].url()]);
    let options = cluster
        .options("n1")
        .with_config(&json!({ "hub": { "servers": servers } }));
    cluster.add(options, 1).await;
    let trickle = cluster.stream(Duration::from_millis(20));
    for good in [0, 1, 0] {
        cluster.wait_more(100).await;
        let before = proxies[good].accepted();
        proxies[good].pass().await;
        proxies[1 - good].cut();
        proxies[1 - good].refuse().await;
        eventually(LONG, "the node to take the other server", || async {
            proxies[good].accepted() > before
        })
        .await;
    }
    cluster.wait_more(100).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}
