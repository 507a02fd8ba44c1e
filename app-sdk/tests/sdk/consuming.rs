//! Goal: the handler loop gives the right verdict for whatever a handler does, with bounded concurrency, and shuts
//! down in good order. Method: handlers that succeed, fail, panic, decide themselves and block.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fanin_sdk::{CloseError, ConsumeError, Message};
use tokio::sync::{Notify, Semaphore};

use crate::fake_bridge::{FakeBridge, soon};

async fn behave(message: Message) -> Result<(), String> {
    match message.sequence() {
        1 => Ok(()),
        2 => Err("the printer is on fire".to_owned()),
        3 => panic!("out of cheese"),
        4 => {
            drop(message.reject("poison"));
            Ok(())
        }
        5 => {
            message.release();
            Err("changes nothing".to_owned())
        }
        _ => {
            drop(message);
            Ok(())
        }
    }
}

async fn check_verdicts(concurrency: usize) {
    let mut bridge = FakeBridge::start();
    let stop = Arc::new(Notify::new());
    let consumer = bridge
        .client()
        .await
        .consume("orders", "billing")
        .concurrency(concurrency)
        .instance("b");
    let running = tokio::spawn({
        let stop = Arc::clone(&stop);
        consumer.run_until(async move { stop.notified().await }, behave)
    });
    let mut session = bridge.accept().await;
    session.deliver(6).await;
    session
        .until(|seen| seen.acks.len() + seen.retries.len() + seen.rejects.len() + seen.releases.len() == 6)
        .await;
    let seen = &mut session.seen;
    assert_eq!(seen.acks.iter().copied().collect::<Vec<_>>(), [1, 6]);
    seen.retries.sort_by_key(|retry| retry.delivery);
    let retries = seen
        .retries
        .iter()
        .map(|retry| (retry.delivery, retry.reason.as_str()));
    assert_eq!(
        retries.collect::<Vec<_>>(),
        [
            (2, "the printer is on fire"),
            (3, "the handler panicked: out of cheese")
        ]
    );
    assert_eq!(
        (seen.rejects[0].delivery, seen.rejects[0].reason.as_str()),
        (4, "poison")
    );
    assert_eq!(seen.releases.iter().copied().collect::<Vec<_>>(), [5]);
    stop.notify_one();
    session.until(|seen| seen.closed).await;
    session.confirm(1, 6).await;
    drop(session);
    assert!(soon(running).await.unwrap().is_ok());
}

#[tokio::test]
async fn one_handler_after_the_other_gives_each_verdict() {
    check_verdicts(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_handlers_give_each_verdict() {
    check_verdicts(4).await;
}

#[tokio::test]
async fn no_more_handlers_run_than_allowed_and_shutdown_waits_for_them() {
    let mut bridge = FakeBridge::start();
    let (running, gate, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Semaphore::new(0)),
        Arc::new(Notify::new()),
    );
    let consumer = bridge.client().await.consume("orders", "billing").concurrency(3);
    let task = tokio::spawn({
        let (running, gate, stop) = (Arc::clone(&running), Arc::clone(&gate), Arc::clone(&stop));
        let handler = move |_message: Message| {
            let (running, gate) = (Arc::clone(&running), Arc::clone(&gate));
            async move {
                assert!(
                    running.fetch_add(1, Ordering::SeqCst) < 3,
                    "a fourth handler runs"
                );
                gate.acquire().await.map_err(|error| error.to_string())?.forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<(), String>(())
            }
        };
        consumer.run_until(async move { stop.notified().await }, handler)
    });
    let mut session = bridge.accept().await;
    session.deliver(10).await;
    session.until(|seen| seen.begun == 3).await;
    gate.add_permits(2);
    session
        .until(|seen| seen.acks.len() == 2 && seen.begun == 5)
        .await;
    assert_eq!(running.load(Ordering::SeqCst), 3);
    stop.notify_one();
    session.until(|seen| seen.closed).await;
    assert!(!task.is_finished());
    gate.add_permits(10);
    session.until(|seen| seen.acks.len() == 5).await;
    assert_eq!((session.seen.begun, session.seen.retries.len()), (5, 0));
    drop(session);
    assert!(soon(task).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_handler_that_outlasts_the_shutdown_is_reported_and_not_counted() {
    for concurrency in [1, 2] {
        let mut bridge = FakeBridge::start();
        let stop = Arc::new(Notify::new());
        let consumer = bridge
            .client()
            .await
            .consume("orders", "billing")
            .concurrency(concurrency);
        let consumer = consumer.close_timeout(Duration::from_millis(50));
        let task = tokio::spawn({
            let stop = Arc::clone(&stop);
            let handler = |_message: Message| std::future::pending::<Result<(), String>>();
            consumer.run_until(async move { stop.notified().await }, handler)
        });
        let mut session = bridge.accept().await;
        session.deliver(1).await;
        session.until(|seen| seen.begun == 1).await;
        stop.notify_one();
        let error = soon(task).await.unwrap().unwrap_err();
        assert!(
            matches!(error, ConsumeError::Close(CloseError::TimedOut { held: 1 })),
            "{error:?}"
        );
        session.until(|seen| seen.ended).await;
        assert!(session.seen.retries.is_empty());
    }
}

#[tokio::test]
async fn giving_up_the_loop_releases_the_message_in_hand() {
    let mut bridge = FakeBridge::start();
    let consumer = bridge.client().await.consume("orders", "billing");
    let task = tokio::spawn(consumer.run(|_message| std::future::pending::<Result<(), String>>()));
    let mut session = bridge.accept().await;
    session.deliver(2).await;
    session.until(|seen| seen.begun == 1).await;
    task.abort();
    session
        .until(|seen| seen.closed && seen.releases.contains(&1))
        .await;
    assert!(session.seen.retries.is_empty());
}
