//! Goal: hand-over, verdicts, leases and credit reach the bridge as the contract says, and its answers reach the
//! application. Method: one subscription, one scripted call.

use std::time::{Duration, SystemTime};

use fanin_sdk::AckError;
use tokio::time::timeout;

use crate::fake_bridge::{FakeBridge, LEASE, delivery, next, soon};

#[tokio::test]
async fn opening_names_the_instance_and_grants_credit() {
    let mut bridge = FakeBridge::start();
    let builder = bridge
        .client()
        .await
        .subscribe("orders", "billing")
        .instance("billing-1");
    let (subscription, mut session) = tokio::join!(
        builder.credit_messages(7).credit_bytes(5000).open(),
        bridge.accept()
    );
    let subscription = subscription.unwrap();
    session
        .until(|seen| seen.credit_messages == 7 && seen.credit_bytes == 5000)
        .await;
    let open = &session.open;
    assert_eq!(
        (open.topic.as_str(), open.app.as_str(), open.instance.as_str()),
        ("orders", "billing", "billing-1")
    );
    assert!(open.client.starts_with("fanin-sdk-rust/"));
    assert_eq!(
        (subscription.node().as_str(), subscription.instance().as_str()),
        ("node-a", "billing-1")
    );
    assert_eq!(subscription.lease(), LEASE);
    assert_eq!(bridge.client().await.status().await.unwrap().node, "node-a");
}

#[tokio::test]
async fn a_message_shows_everything_the_bridge_said() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    let mut sent = delivery(1, b"body".to_vec());
    (sent.attempt, sent.possible_duplicate) = (3, true);
    session.deliver_exactly(sent).await;
    let mut message = next(&mut subscription).await;
    assert_eq!(
        (message.id(), message.subject(), message.attempt()),
        ("ORDERS:1", "orders.created", 3)
    );
    assert_eq!(
        (message.stream(), message.sequence(), message.node()),
        ("ORDERS", 1, "node-a")
    );
    assert!(message.possible_duplicate() && message.is_held());
    assert_eq!(message.headers().get("TRACE-ID"), Some("t1"));
    assert_eq!(
        message.headers().get_all("trace-id").collect::<Vec<_>>(),
        ["t1", "t2"]
    );
    assert_eq!(message.headers().get("absent"), None);
    assert_eq!(
        (message.headers().len(), message.headers().iter().count()),
        (2, 2)
    );
    assert_eq!(
        message.published(),
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    );
    assert_eq!(message.payload().as_ref(), b"body");
    assert_eq!(message.take_payload().as_ref(), b"body");
    assert!(message.payload().is_empty());
    message.release();
}

#[tokio::test]
async fn hand_over_is_told_as_it_happens_and_not_earlier() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(3).await;
    let first = next(&mut subscription).await;
    session.until(|seen| seen.begun > 0).await;
    assert_eq!(session.seen.begun, 1, "two messages still wait in the SDK");
    let second = next(&mut subscription).await;
    session.until(|seen| seen.begun == 2).await;
    first.release();
    second.release();
}

#[tokio::test]
async fn an_ack_resolves_when_the_bridge_confirms_it() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(2).await;
    let (first, second) = (
        next(&mut subscription).await.ack(),
        next(&mut subscription).await.ack(),
    );
    session.until(|seen| seen.acks.len() == 2).await;
    session.confirm(2, 2).await;
    assert_eq!(soon(second).await, Ok(()));
    tokio::pin!(first);
    assert!(
        timeout(Duration::ZERO, &mut first).await.is_err(),
        "only the second is confirmed"
    );
    session.confirm(1, 1).await;
    assert_eq!(soon(first).await, Ok(()));
}

#[tokio::test]
async fn each_verdict_goes_out_as_itself() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(6).await;
    next(&mut subscription).await.ack_soon();
    next(&mut subscription)
        .await
        .retry(Some(Duration::from_millis(1500)), "later");
    next(&mut subscription).await.retry(None, "again");
    let rejected = next(&mut subscription).await.reject("poison");
    next(&mut subscription).await.release();
    drop(next(&mut subscription).await);
    session
        .until(|seen| seen.retries.len() == 3 && seen.rejects.len() == 1 && seen.releases.len() == 1)
        .await;
    let seen = &session.seen;
    assert_eq!(seen.acks.iter().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(seen.releases.iter().copied().collect::<Vec<_>>(), [5]);
    let retries = seen
        .retries
        .iter()
        .map(|retry| (retry.delivery, retry.after_ms, retry.reason.as_str()));
    assert_eq!(
        retries.collect::<Vec<_>>(),
        [
            (2, Some(1500), "later"),
            (3, None, "again"),
            (6, None, "dropped without a verdict")
        ]
    );
    assert_eq!(
        (seen.rejects[0].delivery, seen.rejects[0].reason.as_str()),
        (4, "poison")
    );
    session.confirm(1, 6).await;
    assert_eq!(soon(rejected).await, Ok(()));
}

#[tokio::test]
async fn a_lost_lease_fails_the_ack_and_frees_what_waited() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(4).await;
    let late = next(&mut subscription).await.ack();
    let held = next(&mut subscription).await;
    session.until(|seen| seen.acks.contains(&1)).await;
    session.lose(1, 3).await;
    let error = soon(late).await.unwrap_err();
    assert_eq!((error, error.may_have_effect()), (AckError::LeaseLost, false));
    assert!(!held.is_held() && !held.extend());
    assert_eq!(soon(held.ack()).await, Err(AckError::LeaseLost));
    let fourth = next(&mut subscription).await;
    assert_eq!(
        fourth.id(),
        "ORDERS:4",
        "the third was lost before it was handed out"
    );
    fourth.ack_soon();
    session.until(|seen| seen.acks.contains(&4)).await;
    assert!(!session.seen.acks.contains(&2));
}

#[tokio::test]
async fn credit_comes_back_with_the_verdicts_and_in_batches() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.until(|seen| seen.credit_messages > 0).await;
    let (messages, bytes) = (session.seen.credit_messages, session.seen.credit_bytes);
    session.deliver(500).await;
    for _ in 0..500 {
        next(&mut subscription).await.ack_soon();
    }
    session.until(|seen| seen.credit_messages == messages + 500).await;
    assert_eq!(session.seen.acks.len(), 500);
    let returned = session.seen.credit_bytes - bytes;
    assert!(returned >= 500 * 7, "at least the payloads, {returned}");
    assert!(
        session.seen.verdict_frames < 100,
        "{} frames for 500 verdicts",
        session.seen.verdict_frames
    );
}

#[tokio::test]
async fn leases_of_messages_in_hand_are_extended() {
    let mut bridge = FakeBridge::start();
    let builder = bridge.client().await.subscribe("orders", "billing");
    let lease = Duration::from_millis(60);
    let (subscription, mut session) = tokio::join!(builder.open(), bridge.accept_with(lease));
    let mut subscription = subscription.unwrap();
    session.deliver(3).await;
    let first = next(&mut subscription).await;
    let second = next(&mut subscription).await;
    session.until(|seen| seen.extends.len() >= 6).await;
    assert!(
        session
            .seen
            .extends
            .iter()
            .all(|delivery| [1, 2].contains(delivery)),
        "the third was not handed out"
    );
    first.ack_soon();
    session.until(|seen| seen.acks.contains(&1)).await;
    session.seen.extends.clear();
    session.until(|seen| seen.extends.len() >= 3).await;
    assert!(session.seen.extends.iter().all(|delivery| *delivery == 2));
    second.release();
}

#[tokio::test]
async fn without_automatic_extension_only_the_handler_extends() {
    let mut bridge = FakeBridge::start();
    let lease = Duration::from_millis(30);
    let builder = bridge
        .client()
        .await
        .subscribe("orders", "billing")
        .auto_extend(false);
    let (quiet, mut quiet_session) = tokio::join!(builder.open(), bridge.accept_with(lease));
    let builder = bridge.client().await.subscribe("orders", "billing");
    let (clock, mut clock_session) = tokio::join!(builder.open(), bridge.accept_with(lease));
    let (mut quiet, mut clock) = (quiet.unwrap(), clock.unwrap());
    quiet_session.deliver(2).await;
    clock_session.deliver(1).await;
    let first = next(&mut quiet).await;
    let second = next(&mut quiet).await;
    let ticking = next(&mut clock).await;
    clock_session.until(|seen| seen.extends.len() >= 10).await;
    assert!(second.extend());
    quiet_session.until(|seen| !seen.extends.is_empty()).await;
    assert_eq!(
        quiet_session.seen.extends,
        [2],
        "several leases passed, one extension was asked for"
    );
    first.release();
    second.release();
    ticking.release();
}
