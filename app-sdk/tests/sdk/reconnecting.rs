//! Goal: lost connections heal by themselves and cost no message its truth; refusals end the stream with their
//! reason. Method: the scripted bridge breaks calls, stops listening, or refuses.

use std::time::Duration;

use fanin_sdk::{AckError, Client, ConnectError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, ErrorInfo, StatusExt as _};

use crate::fake_bridge::{FakeBridge, delivery, next, soon};

fn refusal(code: Code, reason: &str, retryable: bool) -> Status {
    let mut info = ErrorInfo::new(reason, "fanin", []);
    info.metadata
        .insert("retryable".to_owned(), retryable.to_string());
    let details = ErrorDetails::with_error_info(info.reason, info.domain, info.metadata);
    Status::with_error_details(code, "known topics: orders", details)
}

#[tokio::test]
async fn a_lost_connection_fails_old_verdicts_and_goes_on_with_new_deliveries() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(3).await;
    let unconfirmed = next(&mut subscription).await.ack();
    let stale = next(&mut subscription).await;
    session.until(|seen| seen.acks.contains(&1)).await;
    session.fail(Status::unavailable("going")).await;
    let error = soon(unconfirmed).await.unwrap_err();
    assert_eq!((error, error.may_have_effect()), (AckError::Unconfirmed, true));

    let mut session = bridge.accept().await;
    session.deliver(2).await;
    let fresh = next(&mut subscription).await;
    assert_eq!(
        fresh.id(),
        "ORDERS:1",
        "the third of the old connection was given back with it"
    );
    assert_eq!(next(&mut subscription).await.id(), "ORDERS:2");
    assert!(
        !stale.is_held(),
        "its number is in use again, by another delivery"
    );
    assert_eq!(soon(stale.ack()).await, Err(AckError::LeaseLost));
    let ack = fresh.ack();
    session.until(|seen| seen.acks.contains(&1)).await;
    assert!(
        !session.seen.acks.contains(&2),
        "the stale verdict must not reach the new connection"
    );
    session.confirm(1, 1).await;
    assert_eq!(soon(ack).await, Ok(()));
}

#[tokio::test]
async fn a_bridge_that_restarts_is_found_again() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, session) = bridge.subscribe().await;
    bridge.stop_listening().await;
    drop(session);
    let error = Client::connect(bridge.socket().to_str().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Missing { .. }) && error.is_retryable());
    assert!(error.to_string().contains("FANIN_SOCKET"), "{error}");
    bridge.listen_again();
    bridge.refuse_next(refusal(Code::Unavailable, "FAN-3006", true));
    let mut session = bridge.accept().await;
    session.deliver(1).await;
    next(&mut subscription).await.ack_soon();
    session.until(|seen| seen.acks.contains(&1)).await;
}

#[tokio::test]
async fn a_bridge_that_starts_late_is_waited_for() {
    let mut bridge = FakeBridge::start();
    bridge.stop_listening().await;
    let builder = Client::builder().socket(bridge.socket().to_str().unwrap());
    let waiting = tokio::spawn(builder.wait_for_bridge(Duration::from_secs(20)).connect());
    bridge.listen_again();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_permanent_refusal_fails_the_opening() {
    let bridge = FakeBridge::start();
    bridge.refuse_next(refusal(Code::NotFound, "FAN-3001", false));
    let error = soon(bridge.client().await.subscribe("odrers", "billing").open())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.is_retryable(), error.may_have_effect()),
        ("FAN-3001", false, false)
    );
    assert_eq!(error.message(), "known topics: orders");
}

#[tokio::test]
async fn a_temporary_refusal_is_waited_out_up_to_the_limit() {
    let mut bridge = FakeBridge::start();
    bridge.refuse_next(refusal(Code::Unavailable, "FAN-3006", true));
    let (_subscription, _session) = bridge.subscribe().await;
    bridge.refuse_next(refusal(Code::Unavailable, "FAN-3006", true));
    let builder = bridge
        .client()
        .await
        .subscribe("orders", "billing")
        .open_timeout(Duration::ZERO);
    let error = soon(builder.open()).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("FAN-3006", true));
}

#[tokio::test]
async fn a_silent_bridge_does_not_hold_the_opening() {
    let mut bridge = FakeBridge::start();
    let builder = Client::builder().socket(bridge.socket().to_str().unwrap());
    let client = builder
        .connect_timeout(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let builder = client.subscribe("orders", "billing").open_timeout(Duration::ZERO);
    let (opened, _session) = tokio::join!(builder.open(), bridge.accept_silently());
    assert!(opened.unwrap_err().is_retryable());
}

#[tokio::test]
async fn a_refusal_later_ends_the_stream_with_its_reason() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, session) = bridge.subscribe().await;
    bridge.refuse_next(refusal(Code::PermissionDenied, "FAN-3005", false));
    drop(session);
    let error = soon(subscription.next()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), "FAN-3005");
    assert!(soon(subscription.next()).await.is_none());
    assert_eq!(
        soon(subscription.pull(1, Duration::ZERO))
            .await
            .unwrap_err()
            .code(),
        "FAN-3005"
    );
    assert_eq!(soon(subscription.close()).await, Ok(()));
}

#[tokio::test]
async fn an_announced_end_gives_back_what_waits_and_takes_verdicts_still() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver(3).await;
    let held = next(&mut subscription).await;
    session.announce_close("FAN-3006", true).await;
    session.until(|seen| seen.releases.len() == 2).await;
    let ack = held.ack();
    session.until(|seen| seen.acks.contains(&1)).await;
    session.confirm(1, 1).await;
    assert_eq!(soon(ack).await, Ok(()));
    drop(session);
    let mut session = bridge.accept().await;
    session.announce_close("FAN-3005", false).await;
    drop(session);
    assert_eq!(
        soon(subscription.next()).await.unwrap().unwrap_err().code(),
        "FAN-3005"
    );
}

#[tokio::test]
async fn a_gap_in_the_numbers_is_a_fault_of_the_connection() {
    let mut bridge = FakeBridge::start();
    let (mut subscription, mut session) = bridge.subscribe().await;
    session.deliver_exactly(delivery(2, Vec::new())).await;
    let mut session = bridge.accept().await;
    session.deliver(1).await;
    next(&mut subscription).await.release();
    session.until(|seen| seen.releases.contains(&1)).await;
}

#[tokio::test]
async fn a_socket_nobody_serves_is_told_from_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let error = Client::connect(path.to_str().unwrap()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
}
