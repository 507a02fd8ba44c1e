//! Goal: a subscription closes without loss: what waited goes back, what is in hand is answered, nothing hangs.
//! Method: close and drop with messages waiting and in hand.

use std::time::Duration;

use fanin_sdk::CloseError;

use crate::fake_bridge::{FakeBridge, next, soon};

#[tokio::test]
async fn closing_waits_for_the_messages_in_hand() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(5).await;
    let acked = next(&mut subscription).await;
    let dropped = next(&mut subscription).await;
    let closing = tokio::spawn(subscription.close());
    session.until(|seen| seen.closed).await;
    assert_eq!(
        (session.seen.begun, session.seen.releases.len()),
        (2, 0),
        "Close itself gives back the rest"
    );
    session.deliver(2).await;
    acked.ack_soon();
    drop(dropped);
    session
        .until(|seen| seen.acks.contains(&1) && seen.releases.contains(&2))
        .await;
    assert!(
        session.seen.retries.is_empty(),
        "a message dropped while closing is not counted"
    );
    session.confirm(1, 1).await;
    assert!(!closing.is_finished());
    drop(session);
    assert_eq!(soon(closing).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn closing_ends_at_its_limit() {
    let mut bridge = FakeBridge::start();
    let builder = bridge
        .client()
        .await
        .subscribe("orders", "billing")
        .close_timeout(Duration::from_millis(50));
    let (subscription, mut session) = tokio::join!(builder.open(), bridge.accept());
    let mut subscription = subscription.unwrap();
    session.deliver(1).await;
    let message = next(&mut subscription).await;
    assert_eq!(
        soon(subscription.close()).await,
        Err(CloseError::TimedOut { held: 1 })
    );
    assert!(soon(message.ack()).await.is_err());
    session.until(|seen| seen.ended).await;
}

#[tokio::test]
async fn closing_tells_a_lost_connection() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(1).await;
    let message = next(&mut subscription).await;
    let closing = tokio::spawn(subscription.close());
    session.until(|seen| seen.closed).await;
    drop(session);
    assert_eq!(
        soon(closing).await.unwrap(),
        Err(CloseError::ConnectionLost { held: 1 })
    );
    message.release();
}

#[tokio::test]
async fn closing_while_disconnected_ends_at_once() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(1).await;
    let message = next(&mut subscription).await;
    bridge.stop_listening().await;
    drop(session);
    assert!(soon(message.ack()).await.is_err());
    // The ack may have been given before the loss was noticed; either way it has been noticed now.
    assert_eq!(soon(subscription.close()).await, Ok(()));
}

#[tokio::test]
async fn a_dropped_subscription_still_takes_verdicts() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(2).await;
    let message = next(&mut subscription).await;
    drop(subscription);
    session.until(|seen| seen.closed).await;
    let ack = message.ack();
    session.until(|seen| seen.acks.contains(&1)).await;
    session.confirm(1, 1).await;
    assert_eq!(soon(ack).await, Ok(()));
}
