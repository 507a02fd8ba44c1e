//! What survives a power cut. Method: the log's twin holds syncs back, so that each moment of a crash can be chosen.

use std::{io, sync::Arc};

use fanin_bridge::stage::{RECORD_STAGE, StagedBatch, StagedMessage};
use fanin_bridge::topic::{
    BodyCache, DEAD_LETTER_SPACE, StartError, SubjectFilter, Topic, TopicFailure, TopicRecovery,
};
use fanin_core::{
    delivery::DeadLetterReason,
    ids::{BatchNo, Incarnation, LedgerSeq, Offset, StreamSeq},
};
use fanin_proto::v1::{Reject, Retry, Verdicts};
use fanin_store::{Class, Key, Op, Recovered, Store};

use crate::harness::{SPACE, World, app, eventually, ids, options, restored};

#[tokio::test]
async fn a_restart_redelivers_exactly_what_was_not_confirmed() {
    let mut world = World::new(vec![app("a"), app("b")]).await;
    let mut published = world.publish(50).await;
    published.extend(world.publish(50).await);
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    a.take(100).await;
    // Everything but 11 to 20 and 91 to 100.
    a.ack(1, 10).await;
    a.ack(21, 90).await;
    a.until_confirmed(80).await;

    let mut world = world.restart().await;
    assert_eq!(world.topic.head().0, 100);
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    let got = a.take(20).await;
    assert_eq!(ids(&got), [&published[10..20], &published[90..100]].concat());
    assert!(got.iter().all(|delivery| delivery.attempt == 1));
    // Messages of before and after stay in one order.
    let later = world.publish(1).await;
    assert_eq!(ids(&a.take(1).await), later);
    let mut b = world.open("b", "i").await;
    b.much_credit().await;
    assert_eq!(ids(&b.take(101).await), [published, later].concat());
    a.ack(1, 21).await;
    b.ack(1, 101).await;
    world.until_done(1..=3).await;

    // All is finished: nothing comes back, and offsets are not given twice.
    let mut world = world.restart().await;
    assert_eq!(world.topic.head().0, 101);
    world.until_done(1..=3).await;
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    let only = world.publish(1).await;
    assert_eq!(ids(&a.take(1).await), only);
}

#[tokio::test]
async fn an_ack_is_confirmed_only_when_the_cursor_is_durable() {
    let mut world = World::new(vec![app("a")]).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    let first = world.publish(1).await;
    let second = world.publish(1).await;
    client.take(2).await;
    world.store.hold_syncs();
    client.ack(1, 1).await;
    eventually("the cursor waits for its sync", || world.store.waiting() == 1).await;
    // A round trip through the same task and stream: a confirmation would have come before it.
    let retry = Retry {
        delivery: 2,
        after_ms: Some(0),
        reason: String::new(),
    };
    client
        .verdicts(Verdicts {
            begun_through: 2,
            retries: vec![retry],
            ..Verdicts::default()
        })
        .await;
    assert_eq!(ids(&client.take(1).await), second);
    assert_eq!(client.confirmed, [0; 0]);
    assert!(world.done.lock().is_empty());

    // Power cut before the sync: the ack is forgotten, and nobody was told otherwise.
    let world = world.restart().await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    assert_eq!(ids(&client.take(2).await), [first, second].concat());
    world.store.hold_syncs();
    client.ack(1, 2).await;
    eventually("the cursor waits for its sync", || world.store.waiting() == 1).await;
    world.store.release_syncs();
    client.until_confirmed(2).await;
    world.until_done([1, 2]).await;
}

#[tokio::test]
async fn counted_attempts_survive_and_the_last_one_makes_a_dead_letter() {
    let mut world = World::new(vec![app("a")]).await;
    let published = world.publish(2).await;
    let mut client = world.open("a", "worker-7").await;
    client.much_credit().await;
    client.take(2).await;
    let fail = |delivery, reason: &str| Verdicts {
        begun_through: delivery,
        retries: vec![Retry {
            delivery,
            after_ms: Some(0),
            reason: reason.into(),
        }],
        ..Verdicts::default()
    };
    client.verdicts(fail(1, "first")).await;
    assert_eq!(client.take(1).await[0].attempt, 2);
    // The other message is acked behind it: the confirmation says that the count is durable too.
    client.ack(2, 2).await;
    client.until_confirmed(1).await;

    let world = world.restart().await;
    let mut client = world.open("a", "worker-8").await;
    client.much_credit().await;
    let again = client.take(1).await;
    assert_eq!((again[0].attempt, again[0].id.clone()), (2, published[0].clone()));
    client.verdicts(fail(1, "second")).await;
    assert_eq!(client.take(1).await[0].attempt, 3);
    client.verdicts(fail(2, "third")).await;
    client.until_confirmed(1).await;
    assert_eq!(
        client.confirmed,
        [2],
        "a last retry is confirmed when its dead letter is durable"
    );

    let listed = world.topic.dead_letters();
    assert_eq!(listed.len(), 1);
    let letter = world.topic.dead_letter(listed[0].id).await.unwrap().unwrap();
    assert_eq!(
        (letter.head.reason, letter.head.attempts),
        (DeadLetterReason::MaxAttempts, 3)
    );
    assert_eq!(
        (
            letter.node.as_str(),
            letter.instance.as_str(),
            letter.error.as_str()
        ),
        ("n1", "worker-8", "third")
    );
    assert_eq!((letter.subject.as_str(), letter.head.seq.0), ("orders.new", 1));
    assert!(
        letter.payload.starts_with(b"payload 1 ") && letter.head.last_attempt_ms >= letter.first_attempt_ms
    );
    assert_eq!(letter.headers, [("Kind".to_owned(), "test".to_owned())]);
    world.until_done([1]).await;

    let world = world.restart().await;
    assert_eq!(world.topic.dead_letters(), listed);
    assert_eq!(world.topic.stats().await[0].dead_letters, 1);
}

#[tokio::test]
async fn a_crash_between_dead_letter_and_cursor_makes_no_second_one() {
    let mut world = World::new(vec![app("a")]).await;
    world.publish(1).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(1).await;
    world.store.hold_syncs();
    let reject = Reject {
        delivery: 1,
        reason: "never".into(),
    };
    client
        .verdicts(Verdicts {
            begun_through: 1,
            rejects: vec![reject],
            ..Verdicts::default()
        })
        .await;
    eventually("the dead letter waits", || world.store.waiting() == 1).await;
    world.store.sync(1);
    eventually("the cursor waits", || world.store.waiting() == 1).await;

    let mut world = world.restart().await;
    assert_eq!(world.topic.dead_letters().len(), 1);
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    let next = world.publish(1).await;
    assert_eq!(
        ids(&client.take(1).await),
        next,
        "the dead letter is not delivered again"
    );
    client.ack(1, 1).await;
    world.until_done([1, 2]).await;
    let (_, recovered) = world.store.crash();
    let letters = recovered
        .records
        .iter()
        .filter(|record| record.key.space >= DEAD_LETTER_SPACE);
    assert_eq!(letters.count(), 1);
}

#[tokio::test]
async fn a_crash_behind_a_counted_last_attempt_makes_no_second_one() {
    // The cursor that counts the last attempt and the dead letter are durable, the cursor that is past it is not.
    let mut once = app("a");
    once.policy.max_attempts = 1;
    let mut world = World::new(vec![once]).await;
    world.publish(1).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(1).await;
    world.store.hold_syncs();
    let retry = Retry {
        delivery: 1,
        after_ms: Some(0),
        reason: "not now".into(),
    };
    client
        .verdicts(Verdicts {
            begun_through: 1,
            retries: vec![retry],
            ..Verdicts::default()
        })
        .await;
    eventually("the count and the dead letter wait", || {
        world.store.waiting() == 2
    })
    .await;
    world.store.sync(2);
    eventually("the next cursor waits", || world.store.waiting() == 1).await;

    let mut world = world.restart().await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    let next = world.publish(1).await;
    assert_eq!(ids(&client.take(1).await), next);
    client.ack(1, 1).await;
    world.until_done([1, 2]).await;
    assert_eq!(world.topic.dead_letters().len(), 1);
}

#[tokio::test]
async fn a_crash_before_the_dead_letter_delivers_the_message_again() {
    let mut world = World::new(vec![app("a")]).await;
    let published = world.publish(1).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(1).await;
    world.store.hold_syncs();
    let reject = Reject {
        delivery: 1,
        reason: "never".into(),
    };
    client
        .verdicts(Verdicts {
            begun_through: 1,
            rejects: vec![reject],
            ..Verdicts::default()
        })
        .await;
    eventually("the dead letter waits", || world.store.waiting() == 1).await;

    let world = world.restart().await;
    assert!(world.topic.dead_letters().is_empty());
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    assert_eq!(ids(&client.take(1).await), published);
}

#[tokio::test]
async fn a_failed_sync_confirms_nothing_and_reaches_the_owner() {
    let mut world = World::new(vec![app("a")]).await;
    world.publish(2).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(2).await;
    world.store.hold_syncs();
    client.ack(1, 1).await;
    eventually("the cursor waits", || world.store.waiting() == 1).await;
    world.store.fail_syncs(io::Error::other("broken disk"));
    eventually("the owner knows", || !world.failures.lock().is_empty()).await;
    assert!(matches!(world.failures.lock()[0], TopicFailure::Store(_)));
    // A round trip: the second ack's processing shows that the first one's confirmation never came.
    client.ack(1, 1).await;
    while client.lost.is_empty() {
        assert!(client.step().await.unwrap());
    }
    assert_eq!((client.lost, client.confirmed), (vec![1], vec![]));
    assert!(world.done.lock().is_empty());
}

#[tokio::test]
async fn an_unreadable_batch_stops_its_readers_and_reaches_the_owner() {
    let mut world = World::with_memory(vec![app("a")], 0, 0).await;
    world.publish(1).await;
    // A freed record stands for a damaged one: reading it fails.
    world
        .store
        .commit(
            Class::Finish,
            vec![Op::Release {
                key: Key { space: SPACE, id: 1 },
            }],
        )
        .await
        .unwrap();
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    eventually("the owner knows", || !world.failures.lock().is_empty()).await;
    assert!(matches!(&world.failures.lock()[0], TopicFailure::Unreadable { batch, .. } if batch.0 == 1));
    world.publish(1).await;
    let stats = world.topic.stats().await.remove(0);
    assert_eq!(
        (stats.backlog_messages, stats.deliveries),
        (2, 0),
        "nothing is skipped"
    );
    client.close().await;
    client.until_end().await;
}

/// Goal: a damaged batch stops its readers, not others, is told once, and is read again where it was written anew; what the
/// source does not have any more becomes a dead letter. Method: the log's twin loses a body.
#[tokio::test]
async fn a_damaged_batch_waits_until_it_is_mended() {
    // The filter of `c` matches nothing of the batch: what was lost might have.
    let mut picky = app("c");
    picky.filter = SubjectFilter::new(vec!["none.>".into()]);
    let mut world = World::with_memory(vec![app("a"), app("b"), picky], 0, 0).await;
    let published = world.publish(3).await;
    world.store.damage(Key { space: SPACE, id: 1 });
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    let mut b = world.open("b", "i").await;
    b.much_credit().await;
    eventually("the owner knows", || !world.damaged.lock().is_empty()).await;

    let message = |seq: u64| StagedMessage {
        seq: StreamSeq(seq),
        published_ns: 7,
        subject: "s".into(),
        headers: Vec::new(),
        payload: "again".into(),
    };
    let messages = vec![message(1), StagedMessage::lost(StreamSeq(2)), message(3)];
    let (batch, epoch, incarnation) = (BatchNo(1), LedgerSeq(1), Incarnation(7));
    let body = Arc::new(StagedBatch::new(
        batch,
        incarnation,
        epoch,
        1,
        "ORDERS".into(),
        messages,
    ));
    let (head, pieces) = body.encode();
    let again = Op::Append {
        key: Key { space: SPACE, id: 1 },
        kind: RECORD_STAGE,
        head,
        body: pieces,
    };
    let at = world.store.commit(Class::Finish, vec![again]).await.unwrap();
    world.topic.mend(at[0], body).unwrap();
    for client in [&mut a, &mut b] {
        let got = client.take(2).await;
        assert_eq!(got[0].payload, "again");
        assert_eq!(ids(&got), [published[0].clone(), published[2].clone()]);
        client.ack(1, 2).await;
        client.until_confirmed(2).await;
    }
    let c = world.open("c", "i").await;
    c.much_credit().await;
    eventually("a dead letter of each", || world.topic.dead_letters().len() == 3).await;
    let letter = world.topic.dead_letters().remove(0);
    assert_eq!(
        (letter.head.reason, letter.head.seq, letter.head.attempts),
        (DeadLetterReason::Lost, StreamSeq(2), 0)
    );
    world.until_done(1..=1).await;
    assert_eq!(*world.damaged.lock(), [batch], "told once");
    assert!(world.failures.lock().is_empty());
}

fn start(recovered: &Recovered, world: &World, leave_out: Option<usize>) -> Result<Topic, StartError> {
    let recovery = TopicRecovery {
        values: &recovered.values,
        records: &recovered.records,
    };
    let mut batches = restored(recovered);
    if let Some(n) = leave_out {
        batches.remove(n);
    }
    let cache = Arc::new(BodyCache::new(0, 0));
    let store = Arc::clone(&world.store) as Arc<dyn Store>;
    Topic::start(options(world.apps.clone()), batches, recovery, store, cache).map(|(topic, _)| topic)
}

#[tokio::test]
async fn a_log_with_a_hole_or_a_damaged_cursor_is_refused() {
    let mut world = World::new(vec![app("a"), app("b")]).await;
    for _ in 0..3 {
        world.publish(10).await;
    }
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(30).await;
    client.ack(1, 30).await;
    client.until_confirmed(30).await;
    let (_, mut recovered) = world.store.crash();
    assert_eq!(start(&recovered, &world, None).unwrap().head(), Offset(30));
    // The other application has finished none of them, so each one missing is noticed.
    for (n, from) in [(0, 0), (1, 10), (2, 20)] {
        match start(&recovered, &world, Some(n)).err() {
            Some(StartError::Missing { from: found, to }) => assert_eq!((found.0, to.0), (from, from + 10)),
            other => panic!("{other:?}"),
        }
    }
    let cursor = recovered.values.get_mut("cursor/1/b").unwrap();
    *cursor = cursor.slice(..cursor.len() - 1);
    assert!(
        matches!(start(&recovered, &world, None).err(), Some(StartError::Cursor { app, .. }) if app == "b")
    );
}
