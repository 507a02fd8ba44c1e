//! The node's fence, graceful ends, and closing clients.

use std::time::Duration;

use fanin_bridge::codes::{Code, Refusal};
use fanin_proto::v1::Verdicts;

use crate::harness::{Client, PATIENCE, World, app, eventually, ids, range};

#[tokio::test]
async fn a_fence_stops_delivery_at_once_and_still_takes_verdicts() {
    let mut world = World::new(vec![app("a")]).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    world.publish(3).await;
    client.take(3).await;
    client
        .verdicts(Verdicts {
            begun_through: 2,
            ..Verdicts::default()
        })
        .await;
    world
        .topic
        .stop_delivery(Refusal::new(Code::Fenced, "another body uses this identity"));
    world.publish(5).await;
    while client.closing.is_none() {
        assert!(client.step().await.unwrap());
    }
    assert_eq!(client.closing.as_deref(), Some("FAN-3008"));
    client
        .verdicts(Verdicts {
            acks: range(1, 2),
            releases: range(3, 3),
            ..Verdicts::default()
        })
        .await;
    client.until_confirmed(2).await;
    client.until_end().await;
    assert!(client.buffered.is_empty(), "delivered behind the fence");
    let status = Client::open(world.channel().await, "orders", "a", "j")
        .await
        .err()
        .unwrap();
    assert!(status.message().starts_with("FAN-3008"), "{status}");
}

#[tokio::test]
async fn a_shutdown_waits_for_verdicts_and_ends_in_peace() {
    let mut world = World::new(vec![app("a")]).await;
    let published = world.publish(3).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(3).await;
    client
        .verdicts(Verdicts {
            begun_through: 2,
            ..Verdicts::default()
        })
        .await;
    let server = world.server.take().unwrap();
    let path = server.path().to_owned();
    let ending = tokio::spawn(server.shutdown(PATIENCE));
    while client.closing.is_none() {
        assert!(client.step().await.unwrap());
    }
    assert_eq!(client.closing.as_deref(), Some("FAN-3006"));
    assert!(!ending.is_finished(), "verdicts are still awaited");
    // The third was never begun; without a word about it, it is taken back after a moment.
    client.ack(1, 2).await;
    client.until_confirmed(2).await;
    client.until_end().await;
    drop(client);
    ending.await.unwrap();
    assert!(!path.exists());

    let world = world.restart().await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    assert_eq!(ids(&client.take(1).await), published[2..]);
}

#[tokio::test]
async fn a_shutdown_ends_although_a_client_holds_on() {
    let mut world = World::new(vec![app("a")]).await;
    world.publish(1).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(1).await;
    client
        .verdicts(Verdicts {
            begun_through: 1,
            ..Verdicts::default()
        })
        .await;
    let server = world.server.take().unwrap();
    server.shutdown(Duration::from_millis(50)).await;
    client.until_end_or_error().await;
}

#[tokio::test]
async fn a_closing_instance_gives_back_what_it_has_not_begun() {
    let mut world = World::new(vec![app("a")]).await;
    let published = world.publish(10).await;
    let mut first = world.open("a", "1").await;
    first.much_credit().await;
    first.take(10).await;
    first
        .verdicts(Verdicts {
            begun_through: 4,
            ..Verdicts::default()
        })
        .await;
    first.close().await;
    let mut second = world.open("a", "2").await;
    second.much_credit().await;
    assert_eq!(ids(&second.take(6).await), published[4..]);
    first.ack(1, 4).await;
    first.until_confirmed(4).await;
    first.until_end().await;
    second.ack(1, 6).await;
    second.until_confirmed(6).await;
    world.until_done([1]).await;
    second.close().await;
    second.until_end().await;
    let gate = world.topic.connected_apps();
    eventually("nobody left", || gate.borrow()["a"].instances == 0).await;
}

#[tokio::test]
async fn no_instance_joins_a_node_that_stops() {
    let mut world = World::new(vec![app("a")]).await;
    let channel = world.channel().await;
    let holder = {
        world.publish(1).await;
        let mut holder = world.open("a", "i").await;
        holder.much_credit().await;
        holder.take(1).await;
        holder
            .verdicts(Verdicts {
                begun_through: 1,
                ..Verdicts::default()
            })
            .await;
        holder
    };
    let server = world.server.take().unwrap();
    let ending = tokio::spawn(server.shutdown(PATIENCE));
    let mut holder = holder;
    while holder.closing.is_none() {
        assert!(holder.step().await.unwrap());
    }
    let status = Client::open(channel, "orders", "a", "j").await.err().unwrap();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().starts_with("FAN-3006"), "{status}");
    holder.ack(1, 1).await;
    holder.until_confirmed(1).await;
    holder.until_end().await;
    drop(holder);
    ending.await.unwrap();
}
