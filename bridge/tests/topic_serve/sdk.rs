//! The application SDK on the other end. Goal: both ends mean the same by the contract, above all by credit.

use std::sync::Arc;
use std::time::Duration;

use fanin_sdk::{AckError, Client, Message, PulledBatch};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::harness::{PATIENCE, World, app};

impl World {
    async fn sdk(&self) -> Client {
        Client::connect(self.socket().to_string_lossy()).await.unwrap()
    }

    /// Waits until instances of the only application hold so many messages.
    async fn until_in_flight(&self, count: u64) {
        let waited = timeout(PATIENCE, async {
            while self.topic.stats().await[0].in_flight != count {
                tokio::task::yield_now().await;
            }
        });
        assert!(waited.await.is_ok(), "never {count} messages in flight");
    }
}

fn pulled(batch: &PulledBatch) -> Vec<(String, u32)> {
    let one = |message: &Message| (message.id().to_owned(), message.attempt());
    batch.iter().map(one).collect()
}

#[tokio::test]
async fn credit_neither_leaks_nor_grows_over_many_messages() {
    let mut world = World::new(vec![app("a")]).await;
    let client = Client::connect(world.socket().to_string_lossy()).await.unwrap();
    // So little that one byte lost per message would end it long before the last.
    let mut messages = client
        .subscribe("orders", "a")
        .credit_bytes(2_000)
        .credit_messages(8)
        .open()
        .await
        .unwrap();
    let mut published = Vec::new();
    for _ in 0..40 {
        published.extend(world.publish(500).await);
    }
    for expected in &published {
        let message = messages.next().await.unwrap().unwrap();
        assert_eq!(message.id(), expected);
        message.ack_soon();
    }
    messages.close().await.unwrap();
    world.until_done(1..=40).await;
    let stats = world.topic.stats().await.remove(0);
    assert_eq!(
        (stats.deliveries, stats.acked, stats.redeliveries),
        (20_000, 20_000, 0)
    );
}

#[tokio::test]
async fn retries_and_rejects_reach_their_ends() {
    let mut world = World::new(vec![app("a")]).await;
    let client = Client::connect(world.socket().to_string_lossy()).await.unwrap();
    let mut messages = client
        .subscribe("orders", "a")
        .instance("worker")
        .open()
        .await
        .unwrap();
    world.publish(2).await;
    let first = messages.next().await.unwrap().unwrap();
    let second = messages.next().await.unwrap().unwrap();
    first.retry(Some(Duration::ZERO), "later");
    second.reject("never").await.unwrap();
    let again = messages.next().await.unwrap().unwrap();
    assert_eq!((again.sequence(), again.attempt()), (1, 2));
    again.ack().await.unwrap();
    world.until_done([1]).await;
    let letters = world.topic.dead_letters();
    let letter = world.topic.dead_letter(letters[0].id).await.unwrap().unwrap();
    assert_eq!(
        (letter.error.as_str(), letter.instance.as_str(), letter.head.seq.0),
        ("never", "worker", 2)
    );
}

#[tokio::test]
async fn a_shutdown_is_quick_for_clients_that_have_prefetched() {
    let mut world = World::new(vec![app("a")]).await;
    let client = Client::connect(world.socket().to_string_lossy()).await.unwrap();
    let mut messages = client.subscribe("orders", "a").open().await.unwrap();
    world.publish(100).await;
    let held = messages.next().await.unwrap().unwrap();
    let server = world.server.take().unwrap();
    let started = std::time::Instant::now();
    let ending = tokio::spawn(server.shutdown(PATIENCE));
    held.ack().await.unwrap();
    ending.await.unwrap();
    assert!(started.elapsed() < PATIENCE / 2, "the grace time was waited out");
    drop(messages);
    let world = world.restart().await;
    let stats = world.topic.stats().await.remove(0);
    assert_eq!(stats.backlog_messages, 99);
}

/// Goal: what a handler does in the SDK's loop has its consequence at the bridge, and the loop's shutdown loses nothing of what is in
/// hand. Method: concurrent handlers that succeed, fail once, panic every time, reject, and give back once; then one that is at
/// work when the shutdown is asked for.
#[tokio::test]
async fn a_handler_loop_brings_every_message_to_its_end() {
    let mut world = World::new(vec![app("a")]).await;
    let (seen, stop, gate) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Notify::new()),
        Arc::new(Semaphore::new(0)),
    );
    let handler = {
        let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
        move |message: Message| {
            let (seen, gate) = (Arc::clone(&seen), Arc::clone(&gate));
            async move {
                let delivery = (message.sequence(), message.attempt());
                let is_first = {
                    let mut seen = seen.lock();
                    let is_first = !seen.contains(&delivery);
                    seen.push(delivery);
                    is_first
                };
                match delivery {
                    (2, 1) => return Err("the printer is on fire".to_owned()),
                    (3, _) => panic!("out of cheese"),
                    (4, _) => drop(message.reject("poison")),
                    (5, _) if is_first => message.release(),
                    (7, _) => gate.acquire().await.map_err(|error| error.to_string())?.forget(),
                    _ => {}
                }
                Ok(())
            }
        }
    };
    let consumer = world.sdk().await.consume("orders", "a").concurrency(3);
    let running = tokio::spawn({
        let stop = Arc::clone(&stop);
        consumer.run_until(async move { stop.notified().await }, handler)
    });
    world.publish(6).await;
    world.until_done([1]).await;
    let mut deliveries = seen.lock().clone();
    deliveries.sort_unstable();
    let expected = [
        (1, 1),
        (2, 1),
        (2, 2),
        (3, 1),
        (3, 2),
        (3, 3),
        (4, 1),
        (5, 1),
        (5, 1),
        (6, 1),
    ];
    assert_eq!(deliveries, expected);

    world.publish(1).await;
    let begun = || seen.lock().contains(&(7, 1));
    crate::harness::eventually("the last handler to be at work", begun).await;
    stop.notify_one();
    gate.add_permits(1);
    timeout(PATIENCE, running)
        .await
        .expect("the loop ends")
        .unwrap()
        .unwrap();
    world.until_done([1, 2]).await;
    assert_eq!(seen.lock().len(), expected.len() + 1, "nothing comes again");
    let stats = world.topic.stats().await.remove(0);
    assert_eq!((stats.acked, stats.redeliveries, stats.dead_letters), (5, 3, 2));
    let mut letters = Vec::new();
    for listed in world.topic.dead_letters() {
        let letter = world.topic.dead_letter(listed.id).await.unwrap().unwrap();
        letters.push((letter.head.seq.0, letter.head.attempts, letter.error.clone()));
    }
    letters.sort();
    assert_eq!(
        letters,
        [
            (3, 3, "the handler panicked: out of cheese".to_owned()),
            (4, 1, "poison".to_owned())
        ]
    );
}

/// Goal: a pull waits for what comes and returns a full batch at once, at its limit what is there; a batch is answered as one, with the
/// consequences that the verbs promise. Method: pulls before and after messages are published, and each verb of a batch.
#[tokio::test]
async fn a_pull_waits_and_a_batch_is_answered_as_one() {
    let mut world = World::new(vec![app("a")]).await;
    let mut messages = world.sdk().await.subscribe("orders", "a").open().await.unwrap();
    let (batch, published) = tokio::join!(messages.pull(5, PATIENCE), async {
        let mut published = world.publish(3).await;
        // The pull has these in hand, or is about to, and goes on waiting.
        world.until_in_flight(3).await;
        published.extend(world.publish(2).await);
        published
    });
    let batch = batch.unwrap();
    let first = |ids: &[String], attempt| ids.iter().map(|id| (id.clone(), attempt)).collect::<Vec<_>>();
    assert_eq!(pulled(&batch), first(&published, 1));
    batch.ack_all().await.unwrap();
    world.until_done([1, 2]).await;

    let nothing = messages.pull(5, Duration::from_millis(1)).await.unwrap();
    assert!(nothing.is_empty());
    let published = world.publish(2).await;
    let mut held = Vec::new();
    while held.iter().map(PulledBatch::len).sum::<usize>() < 2 {
        held.push(messages.pull(5, Duration::from_millis(20)).await.unwrap());
    }
    held.into_iter().for_each(PulledBatch::release_all);
    let batch = messages.pull(2, PATIENCE).await.unwrap();
    assert_eq!(pulled(&batch), first(&published, 1), "given back uncounted");
    batch.retry_all(Some(Duration::ZERO), "later");
    let batch = messages.pull(2, PATIENCE).await.unwrap();
    assert_eq!(pulled(&batch), first(&published, 2), "a retry counts");
    batch.ack_all().await.unwrap();
    messages.close().await.unwrap();
    world.until_done([1, 2, 3]).await;
    let stats = world.topic.stats().await.remove(0);
    assert_eq!((stats.acked, stats.redeliveries), (7, 2));
}

/// Goal: a message in hand stays with its instance for longer than the lease, as the SDK extends it; without extension it is lost and
/// comes again. Method: two instances that hold one message each; the losses of the one without extension tell the time.
#[tokio::test]
async fn a_message_in_hand_outlives_its_lease_only_with_extension() {
    let mut brief = app("a");
    brief.policy.lease_ms = 1_000;
    brief.policy.max_attempts = 10;
    let mut world = World::new(vec![brief]).await;
    let client = world.sdk().await;
    let one = |name: &str| client.subscribe("orders", "a").instance(name).credit_messages(1);
    let mut extending = one("extending").open().await.unwrap();
    let mut idle = one("idle").auto_extend(false).open().await.unwrap();
    assert_eq!(idle.lease(), Duration::from_secs(1));
    world.publish(2).await;
    let held = extending.next().await.unwrap().unwrap();
    let mut lost = idle.next().await.unwrap().unwrap();
    for attempt in 2..=3 {
        let again = timeout(PATIENCE, idle.next())
            .await
            .expect("comes again")
            .unwrap()
            .unwrap();
        assert_eq!((again.id(), again.attempt()), (lost.id(), attempt));
        let late = std::mem::replace(&mut lost, again);
        assert!(!late.is_held());
        assert_eq!(late.ack().await, Err(AckError::LeaseLost));
    }
    assert!(held.is_held() && held.attempt() == 1);
    held.ack().await.unwrap();
    lost.ack().await.unwrap();
    world.until_done([1]).await;
    let stats = world.topic.stats().await.remove(0);
    assert_eq!((stats.acked, stats.deliveries, stats.redeliveries), (2, 4, 2));
}
