//! Goal: a log without room confirms nothing that is not durable, and nothing stays undone once it has room again. Method: a twin
//! in memory that is small, or as if somebody else had filled its file system.

use std::sync::Arc;

use fanin_proto::v1::{Reject, Verdicts};
use fanin_store::{Class, CommitError, Key, MemStore, Op, Store};

use crate::harness::{World, app, eventually};

const QUOTA: u64 = 1 << 20;
const RESERVE: u64 = QUOTA / 4;

fn filler(id: u64, bytes: u64) -> Op {
    Op::Append {
        key: Key { space: 99, id },
        kind: 1,
        head: "filler".into(),
        body: vec![vec![7; bytes as usize].into()],
    }
}

/// Dead letters leave half of the reserve to the cursors, and are written when there is room for them.
#[tokio::test]
async fn dead_letters_wait_and_cursors_go_on() {
    let store = MemStore::new(QUOTA, RESERVE);
    let mut world = World::in_store(Arc::clone(&store), vec![app("a")]).await;
    world.publish_as(&[("orders.new", 20_000); 3]).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(3).await;
    let mut fillers = 0;
    loop {
        match store.commit(Class::Copy, vec![filler(fillers, 8_000)]).await {
            Ok(_) => fillers += 1,
            Err(CommitError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let reject = Reject {
        delivery: 1,
        reason: "never".into(),
    };
    let verdicts = Verdicts {
        begun_through: 1,
        rejects: vec![reject],
        ..Verdicts::default()
    };
    client.verdicts(verdicts).await;
    client.ack(2, 2).await;
    client.ack(3, 3).await;
    client.until_confirmed(2).await;
    assert_eq!(client.confirmed, [2, 3]);
    assert!(world.topic.dead_letters().is_empty());
    assert!(store.usage().bytes <= QUOTA - RESERVE / 2 + 4_096);
    for id in 0..fillers {
        let release = Op::Release {
            key: Key { space: 99, id },
        };
        store.commit(Class::Finish, vec![release]).await.unwrap();
    }
    client.until_confirmed(3).await;
    assert_eq!(client.confirmed, [2, 3, 1]);
    assert_eq!(world.topic.dead_letters().len(), 1);
    world.until_done([1]).await;
    assert!(world.failures.lock().is_empty());
}

/// On a full file system a cursor waits, and so does its confirmation; nobody hears of a failure.
#[tokio::test]
async fn a_confirmation_waits_for_a_full_file_system() {
    let mut world = World::new(vec![app("a")]).await;
    world.publish(2).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(2).await;
    world.store.set_full(true);
    client.ack(1, 2).await;
    eventually("the cursor waits", || world.store.usage().waiting).await;
    assert!(client.confirmed.is_empty());
    assert!(world.done.lock().is_empty());
    world.store.set_full(false);
    client.until_confirmed(2).await;
    world.until_done([1]).await;
    assert!(world.failures.lock().is_empty());
}
