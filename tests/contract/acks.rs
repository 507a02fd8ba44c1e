//! Acknowledgements: what they prove, which is little (F1, F2, F16), and redelivery.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::server::{PATIENCE, Server, next};

/// F1. Goal: an acknowledgement is not fenced. Method: let a delivery time out, let the message be delivered again, then
/// acknowledge with the *first* delivery's subject: the second one's pending entry is gone.
#[tokio::test]
async fn a_stale_ack_acknowledges_the_current_delivery() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 300_000_000u64 })).await;
    server.fill(1).await;

    let first = server.pull_one().await;
    let second = server.pull_one().await;
    assert_eq!((first.numbers().0, second.numbers().0), (1, 2));
    assert_ne!(first.ack(), second.ack());

    assert_eq!(server.ack(&first.ack(), "+ACK").await.status, None);
    let info = server.consumer_info().await;
    assert_eq!(info["num_ack_pending"], json!(0));
    assert_eq!(info["ack_floor"]["stream_seq"], json!(1));
}

/// Goal: what is not acknowledged comes again, with a delivery count of 2 and a new consumer sequence. Method: pull, wait
/// for the acknowledgement wait by pulling again.
#[tokio::test]
async fn redelivery_after_ack_wait_counts_two() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 300_000_000u64 })).await;
    server.fill(1).await;

    let first = server.pull_one().await;
    let (second, status) = server.pull(1, PATIENCE).await;
    assert_eq!(status, None);
    assert_eq!(first.numbers(), (1, 1, 1));
    assert_eq!(second[0].numbers(), (2, 1, 2));
}

/// F2. Goal: an acknowledgement of a message that is not pending is answered like any other. Method: acknowledge twice
/// with a reply.
#[tokio::test]
async fn an_ack_of_a_settled_message_is_answered_too() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 30_000_000_000u64 })).await;
    server.fill(1).await;

    let delivery = server.pull_one().await;
    for _ in 0..2 {
        let reply = server.ack(&delivery.ack(), "+ACK").await;
        assert_eq!((reply.status, reply.payload.len()), (None, 0));
    }
}

/// F1. Goal: a message of which only the sequence is known can be settled, as the hub looks at nothing else in the
/// acknowledgement's subject. Method: acknowledge with a made-up subject.
#[tokio::test]
async fn an_ack_by_sequence_alone_counts() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 30_000_000_000u64 })).await;
    server.fill(3).await;
    let (deliveries, _) = server.pull(3, PATIENCE).await;
    let subject = fanin_hub::AckSubject::for_message("S", "c", fanin_core::ids::StreamSeq(2));
    assert!(deliveries.iter().all(|d| d.ack() != subject.as_str()));
    assert_eq!(server.ack(subject.as_str(), "+ACK").await.status, None);
    assert_eq!(server.consumer_info().await["num_ack_pending"], json!(2));
    server.ack(&deliveries[0].ack(), "+ACK").await;
    assert_eq!(server.consumer_info().await["ack_floor"]["stream_seq"], json!(2));
}

/// Goal: that holds for a message that was delivered several times and of which no delivery was ever seen, the floor then
/// follows to the next one that is pending; and for a settled message such an acknowledgement is answered and changes
/// nothing. Method: deliver five messages, the second and fourth twice, settle the others, then those by made-up subjects.
#[tokio::test]
async fn acks_by_sequence_move_the_floor_over_redelivered_messages() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 300_000_000u64 })).await;
    server.fill(5).await;
    let (first, _) = server.pull(5, PATIENCE).await;
    for settled in [0, 2, 4] {
        server.ack(&first[settled].ack(), "+ACK").await;
    }
    let (again, _) = server.pull(2, PATIENCE).await;
    let seen: Vec<_> = again.iter().map(|delivery| delivery.numbers().1).collect();
    assert_eq!(seen, [2, 4]);
    let by_sequence = |seq| {
        fanin_hub::AckSubject::for_message("S", "c", fanin_core::ids::StreamSeq(seq))
            .as_str()
            .to_owned()
    };
    let look = || async {
        let info = server.consumer_info().await;
        (
            info["ack_floor"]["stream_seq"].as_u64(),
            info["num_ack_pending"].as_u64(),
        )
    };
    assert_eq!(look().await, (Some(1), Some(2)));
    // Settled long ago: answered like any other.
    let reply = server.ack(&by_sequence(3), "+ACK").await;
    assert_eq!((reply.status, look().await), (None, (Some(1), Some(2))));
    server.ack(&by_sequence(2), "+ACK").await;
    assert_eq!(look().await, (Some(3), Some(1)));
    server.ack(&by_sequence(4), "+ACK").await;
    assert_eq!(look().await, (Some(5), Some(0)));
}

/// Goal: a message that was not delivered yet is not lost by an acknowledgement of its sequence: it is delivered all the
/// same. Method: acknowledge ahead of the first pull.
#[tokio::test]
async fn an_ack_ahead_of_the_delivery_loses_nothing() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 30_000_000_000u64 })).await;
    server.fill(2).await;
    let ahead = fanin_hub::AckSubject::for_message("S", "c", fanin_core::ids::StreamSeq(2));
    server
        .client
        .publish(ahead.as_str().to_owned(), Bytes::from_static(b"+ACK"))
        .await
        .unwrap();
    server.client.flush().await.unwrap();
    let (deliveries, _) = server.pull(2, PATIENCE).await;
    let seen: Vec<_> = deliveries.iter().map(|delivery| delivery.numbers().1).collect();
    assert_eq!(seen, [1, 2]);
}

/// Goal: a reply to the last acknowledgement of a batch shows that those before it, sent without reply on the same
/// connection, were taken in. Method: many one-way acknowledgements, one with reply, then look at the consumer at once.
#[tokio::test]
async fn acks_of_one_connection_are_taken_in_order() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 30_000_000_000u64 })).await;
    server.fill(200).await;

    let (deliveries, _) = server.pull(200, PATIENCE).await;
    assert_eq!(deliveries.len(), 200);
    let (last, others) = deliveries.split_last().unwrap();
    for delivery in others {
        server
            .client
            .publish(delivery.ack(), Bytes::from_static(b"+ACK"))
            .await
            .unwrap();
    }
    assert_eq!(server.ack(&last.ack(), "+ACK").await.status, None);
    assert_eq!(server.consumer_info().await["num_ack_pending"], json!(0));
}

/// F16. Goal: an acknowledgement nobody listens to is answered with status 503, which must count as failure. Method:
/// delete the consumer, then acknowledge.
#[tokio::test]
async fn an_ack_without_a_consumer_is_answered_with_503() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({})).await;
    server.fill(1).await;
    let delivery = server.pull_one().await;
    server.must("CONSUMER.DELETE.S.c", json!(null)).await;

    let inbox = server.client.new_inbox();
    let mut answers = server.client.subscribe(inbox.clone()).await.unwrap();
    server
        .client
        .publish_with_reply(delivery.ack(), inbox, Bytes::from_static(b"+ACK"))
        .await
        .unwrap();
    let status = next(&mut answers).await.status.expect("a status");
    assert_eq!(status.as_u16(), 503);
}

/// Goal: `-NAK` with a delay postpones redelivery by about that delay. Method: give back with one second, see that a short
/// pull brings nothing and a long one does, well before the acknowledgement wait.
#[tokio::test]
async fn a_delayed_nak_postpones_redelivery() {
    let server = Server::start().await;
    server.stream(json!({})).await;
    server.consumer(json!({ "ack_wait": 60_000_000_000u64 })).await;
    server.fill(1).await;

    let delivery = server.pull_one().await;
    server.ack(&delivery.ack(), "-NAK {\"delay\": 1500000000}").await;
    let (early, status) = server.pull(1, Duration::from_millis(300)).await;
    assert_eq!((early.len(), status), (0, Some(408)));
    assert_eq!(server.pull_one().await.numbers().0, 2);
}
