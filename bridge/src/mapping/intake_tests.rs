//! Goal: what has been pulled holds as much of the room as it takes in memory. Method: room for a few batches, and messages of
//! which nearly all is headers, of many sizes.

use bytes::Bytes;
use fanin_config::ByteSize;
use fanin_hub::{AckSubject, DeliveryFacts};

use super::*;

const KIB: usize = 1024;

fn room(kib: u64) -> Room {
    let batch = BatchConfig {
        messages: 10,
        bytes: ByteSize(64 * 1024),
        ..BatchConfig::default()
    };
    Room::new(100, kib * 1024, &batch, Linger::default())
}

fn message(header_bytes: usize, payload_bytes: usize) -> Pulled {
    Pulled {
        facts: DeliveryFacts {
            delivered: 1,
            stream_seq: 1,
            consumer_seq: 1,
            published_ns: 1,
            pending: 0,
        },
        subject: "s".to_owned(),
        headers: vec![("H".to_owned(), "v".repeat(header_bytes))],
        payload: Bytes::from(vec![0; payload_bytes]),
        ack: AckSubject::from_text("$JS.ACK.S.c.1.1.1.1.0"),
    }
}

#[tokio::test]
async fn headers_hold_room_as_payload_does() {
    let room = room(1024);
    let whole = room.kib.available_permits();
    let mut permits = room.take().await.unwrap();
    assert_eq!(room.messages.available_permits(), 90);
    let empty = vec![message(20 * KIB, 0), message(20 * KIB, 0)];
    room.fit(&mut permits, &empty).await.unwrap();
    assert_eq!(room.messages.available_permits(), 98);
    assert_eq!(whole - room.kib.available_permits(), 41, "two headers of 20 KiB");
    drop(permits);
    assert_eq!(room.kib.available_permits(), whole);
}

#[tokio::test]
async fn a_message_above_a_batch_waits_for_its_room() {
    let room = room(1024);
    let whole = room.kib.available_permits();
    let mut permits = room.take().await.unwrap();
    room.fit(&mut permits, &[message(0, 300 * KIB)]).await.unwrap();
    assert_eq!(whole - room.kib.available_permits(), 301);
    // A second one finds all of the room taken but its own batch, and goes on when the first one is published.
    let others = room.kib.available_permits() - 64;
    let others = Arc::clone(&room.kib)
        .acquire_many_owned(others as u32)
        .await
        .unwrap();
    let mut second = room.take().await.unwrap();
    let messages = [message(0, 300 * KIB)];
    {
        let mut waits = std::pin::pin!(room.fit(&mut second, &messages));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(permits);
        waits.await.unwrap();
    }
    drop((others, second));
    // One that is larger than the room takes all of it.
    let mut permits = room.take().await.unwrap();
    room.fit(&mut permits, &[message(0, 5_000 * KIB)]).await.unwrap();
    assert_eq!(room.kib.available_permits(), 0);
}

#[test]
fn what_comes_ahead_is_within_the_share() {
    for staged_kib in [64, 100, 333, 1024, 65 * 1024] {
        for bytes in [1, 10 * KIB, 64 * KIB, 1024 * KIB, 100 * 1024 * KIB] {
            let batch = BatchConfig {
                bytes: ByteSize(bytes as u64),
                ..BatchConfig::default()
            };
            let room = Room::new(100, staged_kib * 1024, &batch, Linger::default());
            let ahead = fanin_hub::puller::ahead_bytes_max(room.batch_bytes as usize, 1) as u64;
            assert!(ahead + u64::from(room.kib_total) * 1024 <= staged_kib * 1024);
            assert!(room.batch_bytes <= bytes as u64);
            assert!(
                room.batch_bytes.div_ceil(1024) <= u64::from(room.kib_total),
                "a batch fits in its room"
            );
        }
    }
}
