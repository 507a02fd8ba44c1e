//! The application SDK on the other end. Goal: both ends mean the same by the contract, above all by credit.

use std::time::Duration;

use fanin_sdk::Client;

use crate::harness::{PATIENCE, World, app};

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
