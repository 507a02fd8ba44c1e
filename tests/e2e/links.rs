//! A bad line between bridge and hub.
//!
//! Method of all: the first node reaches the hub through a proxy that misbehaves under load, the second one directly; the
//! checker judges.

use std::time::Duration;

use fanin_proto::v1::StatusResponse;
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::proxy::{Link, Proxy};
use fanin_tests::wait::{eventually, until};

use crate::cluster::{Cluster, LEDGER, LONG, mapping, orders, talkative, unheard_claims};

/// How often a fault is tried until it has bitten: whether there is a claim on the way at a moment is chance.
const TRIES: usize = 5;
/// For how long it may take then to be noticed: above the time that a node waits for the hub's word on a claim.
const NOTICED: Duration = Duration::from_secs(10);
const DIRECT: Link = Link::Flow {
    delay: Duration::ZERO,
};

async fn behind_a_proxy() -> (Cluster, Proxy) {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let proxy = Proxy::start(cluster.hub.port()).await.unwrap();
    let far = BridgeOptions::new("n1", &proxy.url(), mapping(&cluster.apps)).with_config(&talkative());
    let near = cluster.options("n2");
    cluster.add(far, 1).await;
    cluster.add(near, 1).await;
    (cluster, proxy)
}

async fn wait_far_share(cluster: &Cluster, more: usize) {
    let wanted = cluster.share_of("n1") + more;
    eventually(LONG, "the node behind the proxy to deliver", || async {
        let now = cluster.share_of("n1");
        if now >= wanted {
            Ok(())
        } else {
            Err(format!("{now} of {wanted}"))
        }
    })
    .await;
}

/// Goal: a connection may break at any moment. Method: cut it again and again, each time after the node has delivered
/// something new and until it has connected anew; then refuse it until the node tells that it is not connected and the other one has
/// settled all that it held.
#[tokio::test]
async fn connections_may_be_cut() {
    let (mut cluster, proxy) = behind_a_proxy().await;
    let trickle = cluster.stream(Duration::from_millis(10));
    for _ in 0..8 {
        wait_far_share(&cluster, 10).await;
        let before = proxy.accepted();
        proxy.cut();
        eventually(LONG, "the node to connect anew", || async {
            proxy.accepted() > before
        })
        .await;
    }
    wait_far_share(&cluster, 10).await;
    proxy.refuse().await;
    let away = cluster.nodes[0].wait_status(LONG, "the hub to be away", |status| {
        status.hub.as_ref().is_some_and(|hub| !hub.connected)
    });
    away.await.unwrap();
    cluster.wait_settled_by_others().await;
    proxy.pass().await;
    wait_far_share(&cluster, 10).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: a slow line costs time only. Method: 200 ms in each direction, from the first connection on; the start alone, which
/// asks the hub one thing after another, shows that the line is slow.
#[tokio::test]
async fn a_slow_line_costs_time_only() {
    const DELAY: Duration = Duration::from_millis(200);
    const ASKED_AT_LEAST: u32 = 3;
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let proxy = Proxy::start(cluster.hub.port()).await.unwrap();
    proxy.delay(DELAY);
    let far = BridgeOptions::new("n1", &proxy.url(), mapping(&cluster.apps));
    let near = cluster.options("n2");
    let begun = tokio::time::Instant::now();
    cluster.add(far, 1).await;
    let joined = begun.elapsed();
    assert!(
        joined >= ASKED_AT_LEAST * 2 * DELAY,
        "the line was not slow: joined after {joined:?}"
    );
    cluster.add(near, 1).await;
    let trickle = cluster.stream(Duration::from_millis(20));
    wait_far_share(&cluster, 100).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Lets a fault last until the node has not heard of a claim it sent and the other node has settled all that was delivered before.
/// Returns whether there was such a claim.
async fn lose_a_claim(cluster: &Cluster, proxy: &Proxy, requests: Link, replies: Link) -> bool {
    wait_far_share(cluster, 20).await;
    let before = unheard_claims(&cluster.nodes[0]);
    proxy.links(requests, replies);
    let noticed = until(NOTICED, "a claim not to be heard of", || async {
        unheard_claims(&cluster.nodes[0]) > before
    });
    let bitten = noticed.await.is_ok();
    cluster.wait_settled_by_others().await;
    proxy.pass().await;
    bitten
}

/// Goal: a claim that lands without the node hearing of it, and one that never lands, are both presumed until the ledger
/// tells (P3). Method: the hub's replies vanish under load, then the node's requests, then both, each until the node says that it has
/// not heard of a claim, and the hub's wait for what it held is over.
#[tokio::test]
async fn requests_and_replies_may_vanish() {
    let (mut cluster, proxy) = behind_a_proxy().await;
    let trickle = cluster.stream(Duration::from_millis(10));
    for (requests, replies) in [
        (DIRECT, Link::Swallow),
        (Link::Swallow, DIRECT),
        (Link::Swallow, Link::Swallow),
    ] {
        let mut bitten = false;
        for _ in 0..TRIES {
            bitten = lose_a_claim(&cluster, &proxy, requests, replies).await;
            if bitten {
                break;
            }
        }
        assert!(bitten, "{requests:?} and {replies:?} met no claim");
    }
    wait_far_share(&cluster, 20).await;
    cluster.stop_stream(trickle).await;
    cluster.wait_rest().await;
    cluster.assert_published_once().await;
    cluster.finish().await;
}

/// Goal: claims that were held up on the way and land after the other node has claimed the same messages lose, for
/// everybody. Method: hold the requests back under load until the other node has settled all that was delivered before, then let all
/// of them through; the node must tell that it lost messages by them.
#[tokio::test]
async fn late_claims_lose() {
    let (mut cluster, proxy) = behind_a_proxy().await;
    let trickle = cluster.stream(Duration::from_millis(5));
    for _ in 0..3 {
        wait_far_share(&cluster, 40).await;
        let lost = |status: &StatusResponse| orders(status).lost_messages;
        let before = lost(&cluster.nodes[0].status().await.unwrap());
        proxy.links(Link::Stall, DIRECT);
        cluster.wait_settled_by_others().await;
        proxy.links(DIRECT, DIRECT);
        let late = cluster.nodes[0].wait_status(LONG, "late claims to lose", |status| lost(status) > before);
        late.await.unwrap();
    }
    wait_far_share(&cluster, 20).await;
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
