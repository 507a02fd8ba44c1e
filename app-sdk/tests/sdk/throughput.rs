//! Goal: show the deliveries per second of the SDK's path in this build, and that none is lost or doubled at full
//! speed. Method: the scripted bridge sends frames of 256 under credit; the handler does nothing. The number is
//! printed, not judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fanin_proto::v1::Deliveries;
use fanin_proto::v1::subscribe_response::Response as Answer;
use fanin_sdk::Message;
use tokio::sync::Notify;

use crate::fake_bridge::{FakeBridge, delivery, soon};

const FRAME: u64 = 256;
const FRAMES: u64 = 400;

async fn measure(concurrency: usize) {
    let mut bridge = FakeBridge::start();
    let (handled, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let task = tokio::spawn({
        let (handled, stop) = (Arc::clone(&handled), Arc::clone(&stop));
        let consumer = bridge
            .client()
            .await
            .consume("orders", "billing")
            .concurrency(concurrency);
        let handler = move |_message: Message| {
            handled.fetch_add(1, Ordering::Relaxed);
            async { Ok::<(), String>(()) }
        };
        consumer.run_until(async move { stop.notified().await }, handler)
    });
    let mut session = bridge.accept().await;
    let started = Instant::now();
    for frame in 0..FRAMES {
        let first = frame * FRAME + 1;
        session
            .until(|seen| seen.credit_messages >= (frame + 1) * FRAME)
            .await;
        let deliveries = (first..first + FRAME)
            .map(|number| delivery(number, vec![0; 256]))
            .collect();
        session.send(Answer::Deliveries(Deliveries { deliveries })).await;
    }
    session
        .until(|seen| seen.acks.len() as u64 == FRAMES * FRAME)
        .await;
    let rate = (FRAMES * FRAME) as f64 / started.elapsed().as_secs_f64();
    println!(
        "{rate:.0} deliveries/s with {concurrency} handlers, {} verdict frames for {} frames of {FRAME}",
        session.seen.verdict_frames, FRAMES
    );
    assert_eq!(handled.load(Ordering::Relaxed), FRAMES * FRAME);
    stop.notify_one();
    session.until(|seen| seen.closed).await;
    drop(session);
    assert!(soon(task).await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_handler() {
    measure(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_handlers() {
    measure(16).await;
}
