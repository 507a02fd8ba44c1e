//! Goal: batches come within size and time, and answer as one. Method: pull with more, fewer and no messages there.

use std::time::Duration;

use fanin_sdk::AckError;

use crate::fake_bridge::{FakeBridge, PATIENCE, soon};

#[tokio::test]
async fn a_full_batch_comes_at_once_and_is_acknowledged_as_one() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(3).await;
    session.deliver(4).await;
    let batch = soon(subscription.pull(5, 2 * PATIENCE)).await.unwrap();
    assert_eq!(
        batch.iter().map(|message| message.sequence()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    let confirmation = batch.ack_all();
    session.until(|seen| seen.acks.len() == 5).await;
    session.confirm(1, 3).await;
    session.lose(4, 4).await;
    session.confirm(5, 5).await;
    let error = soon(confirmation).await.unwrap_err();
    assert_eq!(error.failed(), [("ORDERS:4".to_owned(), AckError::LeaseLost)]);
    assert!(
        error.may_have_effect() && error.to_string().contains("1 of 5"),
        "{error}"
    );
}

#[tokio::test]
async fn the_time_limit_returns_what_has_come() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    let empty = soon(subscription.pull(5, Duration::from_millis(1)))
        .await
        .unwrap();
    assert!(empty.is_empty());
    assert!(soon(empty.ack_all()).await.is_ok(), "nothing to wait for");
    session.deliver(2).await;
    let mut taken = 0;
    while taken < 2 {
        let batch = soon(subscription.pull(5, Duration::from_millis(20)))
            .await
            .unwrap();
        assert!(batch.len() <= 2);
        taken += batch.len();
        batch.release_all();
    }
    session.until(|seen| seen.releases.len() == 2).await;
}

#[tokio::test]
async fn a_batch_is_never_larger_than_the_credit() {
    let mut bridge = FakeBridge::start();
    let builder = bridge
        .client()
        .await
        .subscribe("orders", "billing")
        .credit_messages(4);
    let (subscription, mut session) = tokio::join!(builder.open(), bridge.accept());
    let mut subscription = subscription.unwrap();
    session.deliver(4).await;
    let batch = soon(subscription.pull(1000, 2 * PATIENCE)).await.unwrap();
    assert_eq!((batch.len(), batch.messages().len()), (4, 4));
    batch.retry_all(None, "again");
    session.until(|seen| seen.retries.len() == 4).await;
}

#[tokio::test]
async fn a_pull_that_is_given_up_releases_what_it_had() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(2).await;
    let pull = subscription.pull(3, 2 * PATIENCE);
    tokio::select! {
        _ = pull => panic!("the third message never comes"),
        () = session.until(|seen| seen.begun == 2) => {}
    }
    session.until(|seen| seen.releases.len() == 2).await;
    assert!(session.seen.retries.is_empty());
}
