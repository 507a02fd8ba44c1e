//! The tail: order, gaps, restarts, and ledgers it must refuse.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use fanin_core::ids::LedgerSeq;
use fanin_hub::Ledger;
use fanin_hub::ledger::tail::{Tail, TailError, TailEvent};
use fanin_localhub::LocalHub;
use serde_json::Value;

use crate::support::{PATIENCE, connect, in_time, ledger, ledger_options, raw, start};

async fn append(ledger: &Ledger, count: usize) {
    for n in 0..count {
        ledger
            .append("claim.n", None, Bytes::from(n.to_string()), None)
            .await
            .expect("appended");
    }
}

/// Reads until the record at `last`; every event but `Opened` in a short form.
async fn read_to(tail: &mut Tail, last: u64) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        for event in in_time(tail.next_ready()).await.expect("the tail goes on") {
            match event {
                TailEvent::Opened { .. } => {}
                TailEvent::Gap { from, to } => seen.push(format!("gap {from}-{to}")),
                TailEvent::Record(item) => {
                    seen.push(item.seq.to_string());
                    if item.seq.0 == last {
                        return seen;
                    }
                }
            }
        }
    }
}

fn numbers(from: u64, to: u64) -> Vec<String> {
    (from..=to).map(|n| n.to_string()).collect()
}

/// Goal: all records in order, those that exist and those that come, with subject and body. Method: more records than one
/// request asks for.
#[tokio::test]
async fn all_records_in_order() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 1_200).await;
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    assert_eq!(
        in_time(tail.next()).await.unwrap(),
        TailEvent::Opened {
            next: LedgerSeq(1),
            last: LedgerSeq(1_200)
        }
    );
    assert_eq!(tail.lag(), 1_200);
    assert_eq!(read_to(&mut tail, 1_200).await, numbers(1, 1_200));
    assert_eq!((tail.lag(), tail.next_position()), (0, LedgerSeq(1_201)));

    ledger
        .append("epoch.n", None, Bytes::from_static(b"hello"), None)
        .await
        .unwrap();
    let TailEvent::Record(item) = in_time(tail.next()).await.unwrap() else {
        panic!("no record")
    };
    assert_eq!(
        (item.subject_suffix.as_str(), &item.body[..]),
        ("epoch.n", &b"hello"[..])
    );
    assert!(item.stored_ns > 1_600_000_000_000_000_000);

    let mut later = Tail::open(&ledger, LedgerSeq(1_200));
    assert_eq!(read_to(&mut later, 1_201).await, numbers(1_200, 1_201));
}

/// Goal: purged positions show as gaps, at the start and in the middle. Method: purge two stretches.
#[tokio::test]
async fn purged_positions_are_gaps() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    for suffix in ["claim.a", "claim.a", "close", "claim.b", "claim.b", "close"] {
        ledger
            .append(suffix, None, Bytes::from_static(b"x"), None)
            .await
            .unwrap();
    }
    ledger.purge_subject("claim.*", LedgerSeq(6)).await.unwrap();
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    assert_eq!(read_to(&mut tail, 6).await, ["gap 1-2", "3", "gap 4-5", "6"]);
}

/// Goal: a restart of the hub neither repeats nor skips a record. Method: SIGKILL between records, several times.
#[tokio::test]
async fn over_restarts_of_the_hub() {
    let mut hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 50).await;
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    let mut seen = read_to(&mut tail, 50).await;
    for round in 1..=3u64 {
        hub.kill().unwrap();
        in_time(connection.lost(round)).await;
        hub.restart().await.unwrap();
        in_time(connection.wait_connected()).await;
        in_time(connection.check_jetstream(PATIENCE)).await.unwrap();
        append(&ledger, 10).await;
        seen.extend(read_to(&mut tail, 50 + round * 10).await);
    }
    assert_eq!(seen, numbers(1, 80));
}

/// Goal: a tail whose consumer vanishes opens another one without a repetition or a skip. Method: delete all consumers of
/// the stream.
#[tokio::test]
async fn over_a_lost_consumer() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 5).await;
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    assert_eq!(read_to(&mut tail, 5).await, numbers(1, 5));
    let names = raw(&connection, "CONSUMER.NAMES.FANIN-m", Value::Null).await;
    for name in names["consumers"].as_array().unwrap() {
        raw(
            &connection,
            &format!("CONSUMER.DELETE.FANIN-m.{}", name.as_str().unwrap()),
            Value::Null,
        )
        .await;
    }
    append(&ledger, 5).await;
    assert_eq!(read_to(&mut tail, 10).await, numbers(6, 10));
}

/// Goal: a ledger that was re-created is refused, by a tail at work and by its handle. Method: delete and create the
/// stream under them.
#[tokio::test]
async fn a_recreated_ledger_is_refused() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 5).await;
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    read_to(&mut tail, 5).await;
    raw(&connection, "STREAM.DELETE.FANIN-m", Value::Null).await;
    let again = Ledger::ensure(&connection, &ledger_options()).await.unwrap();
    append(&again, 9).await;
    let error = in_time(tail.next()).await.err().unwrap();
    assert!(
        matches!(error, TailError::Recreated { .. }) && error.code() == "FAN-2016",
        "{error}"
    );
    assert!(matches!(
        in_time(tail.next()).await,
        Err(TailError::Recreated { .. })
    ));
}

/// Goal: a ledger shorter than what was read is refused, rather than read from behind its end. Method: what the hub lost
/// is played by a tail that already read more than there is; the end itself is fine.
#[tokio::test]
async fn a_shrunk_ledger_is_refused() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 5).await;
    let mut at_end = Tail::open(&ledger, LedgerSeq(6));
    assert!(matches!(
        in_time(at_end.next()).await,
        Ok(TailEvent::Opened { .. })
    ));
    let error = in_time(Tail::open(&ledger, LedgerSeq(7)).next())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            TailError::Shrunk {
                last: LedgerSeq(5),
                read: LedgerSeq(6),
                ..
            }
        ),
        "{error}"
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The server stands still while something is done to its store.
async fn interrupted(
    hub: &mut LocalHub,
    connection: &fanin_hub::Connection,
    generation: u64,
    what: impl FnOnce(&Path),
) {
    hub.stop().await.unwrap();
    in_time(connection.lost(generation)).await;
    what(&hub.store_dir());
    hub.restart().await.unwrap();
    in_time(connection.wait_connected()).await;
    in_time(connection.check_jetstream(PATIENCE)).await.unwrap();
}

/// Goal: a ledger that lost what was read and grew again beyond it is refused, before it is told as opened, as often as it is
/// looked at; one that lost nothing is read on. Method: put the server's store back to a copy between two readings, and append
/// more than was lost.
#[tokio::test]
async fn a_regrown_ledger_is_refused() {
    let mut hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 5).await;
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    read_to(&mut tail, 5).await;
    let away = tempfile::tempdir().unwrap();
    let older = away.path().join("older");
    interrupted(&mut hub, &connection, 1, |store| copy(store, &older)).await;
    append(&ledger, 5).await;
    assert_eq!(read_to(&mut tail, 10).await, numbers(6, 10));

    interrupted(&mut hub, &connection, 2, |store| {
        fs::remove_dir_all(store).unwrap();
        copy(&older, store);
    })
    .await;
    let ack = ledger.append("claim.n", None, Bytes::from_static(b"5"), None);
    let ack = ack.await.unwrap();
    assert_eq!((ack.seq, ack.duplicate), (6, false), "where another was read");
    append(&ledger, 6).await;
    for _ in 0..2 {
        let error = in_time(tail.next()).await.err().unwrap();
        assert!(
            matches!(
                error,
                TailError::Regrown {
                    seq: LedgerSeq(10),
                    read_ns,
                    found_ns,
                    ..
                } if found_ns > read_ns
            ) && error.code() == "FAN-2015",
            "{error}"
        );
    }
}

/// Goal: a tail that is told to verify reads on without a repetition or a skip, also when the record it read last was purged
/// meanwhile, with and without records behind it. Method: do so after each step.
#[tokio::test]
async fn a_verified_tail_reads_on() {
    let hub = start("").await;
    let connection = connect(&hub).await;
    let ledger = ledger(&connection).await;
    append(&ledger, 5).await;
    let mut tail = Tail::open(&ledger, LedgerSeq(1));
    read_to(&mut tail, 5).await;
    let opened = |last: u64| TailEvent::Opened {
        next: LedgerSeq(last + 1),
        last: LedgerSeq(last),
    };
    tail.verify();
    assert_eq!(in_time(tail.next()).await.unwrap(), opened(5));
    append(&ledger, 2).await;
    assert_eq!(read_to(&mut tail, 7).await, numbers(6, 7));
    ledger.purge_subject("claim.*", LedgerSeq(8)).await.unwrap();
    tail.verify();
    assert_eq!(in_time(tail.next()).await.unwrap(), opened(7));
    append(&ledger, 2).await;
    assert_eq!(read_to(&mut tail, 9).await, numbers(8, 9));
    append(&ledger, 2).await;
    ledger.purge_subject("claim.*", LedgerSeq(11)).await.unwrap();
    tail.verify();
    assert_eq!(read_to(&mut tail, 11).await, ["gap 10-10", "11"]);
}
