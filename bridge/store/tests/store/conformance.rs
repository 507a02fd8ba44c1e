//! Goal: the log on disk and its twin in memory mean the same. Method: each case runs against both, with reopens and crashes.

use crate::support::{
    QUOTA, TestFaults, append, body, crash, eventually, ids, is_pending, key, open, open_faulty, put,
    release, write,
};
use bytes::Bytes;
use fanin_store::{Class, CommitError, MemStore, Op, ReadError, Recovered, SegmentLog, Store, limits};
use std::sync::{Arc, atomic::Ordering::SeqCst};
use tempfile::TempDir;

enum Subject {
    Disk {
        dir: TempDir,
        log: Arc<SegmentLog>,
        faults: Arc<TestFaults>,
    },
    Mem(Arc<MemStore>),
}

impl Subject {
    fn disk() -> Self {
        let dir = TempDir::new().unwrap();
        let faults = Arc::new(TestFaults::default());
        let (log, recovered) = open_faulty(dir.path(), 64 * 1024, &faults);
        assert!(recovered.records.is_empty() && recovered.values.is_empty());
        Self::Disk { dir, log, faults }
    }

    fn mem() -> Self {
        Self::Mem(MemStore::new(QUOTA, QUOTA / 16))
    }

    fn store(&self) -> &dyn Store {
        match self {
            Self::Disk { log, .. } => &**log,
            Self::Mem(mem) => &**mem,
        }
    }

    /// As if somebody else had filled the file system.
    fn set_full(&self, full: bool) {
        match self {
            Self::Disk { faults, .. } => faults.no_allocation.store(full, SeqCst),
            Self::Mem(mem) => mem.set_full(full),
        }
    }

    fn crash(self) -> (Self, Recovered) {
        match self {
            Self::Disk { dir, log, faults } => {
                let copy = crash(dir.path());
                drop(log);
                let (log, recovered) = open(copy.path(), 64 * 1024);
                (
                    Self::Disk {
                        dir: copy,
                        log,
                        faults,
                    },
                    recovered,
                )
            }
            Self::Mem(mem) => {
                let (mem, recovered) = mem.crash();
                (Self::Mem(mem), recovered)
            }
        }
    }
}

macro_rules! conform {
    ($($case:ident),* $(,)?) => {
        mod disk { $( #[tokio::test] async fn $case() { super::$case(super::Subject::disk()).await; } )* }
        mod mem { $( #[tokio::test] async fn $case() { super::$case(super::Subject::mem()).await; } )* }
    };
}

conform!(
    records_come_back_in_order,
    a_commit_needs_no_poll,
    the_last_value_counts,
    released_records_are_gone,
    a_key_may_be_used_again_after_its_release,
    room_goes_by_class,
    a_full_file_system_is_waited_out,
    oversized_commits_change_nothing,
    empty_things_work,
    a_forged_location_reads_nothing,
);

async fn records_come_back_in_order(subject: Subject) {
    let pieces = Op::Append {
        key: key(2),
        kind: 9,
        head: "h".into(),
        body: vec!["one ".into(), Bytes::new(), "two".into()],
    };
    let at = write(
        subject.store(),
        vec![append(1, 1000), put("n", "v"), pieces, append(1, 5)],
    )
    .await;
    assert_eq!(at.len(), 3, "one location for each appended record");
    write(subject.store(), vec![append(3, 77)]).await;
    let (subject, recovered) = subject.crash();
    assert_eq!(ids(&recovered), [1, 2, 1, 3]);
    assert_eq!(
        (recovered.records[1].kind, &recovered.records[1].head[..]),
        (9, &b"h"[..])
    );
    let read = |i: usize| subject.store().read_body(recovered.records[i].at).unwrap();
    assert_eq!(read(0), body(1, 1000));
    assert_eq!(read(1), "one two");
    assert_eq!(read(2), body(1, 5));
    assert_eq!(read(3), body(3, 77));
    assert!(recovered.damaged.is_empty());
}

async fn a_commit_needs_no_poll(subject: Subject) {
    drop(subject.store().commit(Class::Intake, vec![append(1, 10)]));
    write(subject.store(), vec![append(2, 10)]).await;
    let (_subject, recovered) = subject.crash();
    assert_eq!(ids(&recovered), [1, 2]);
}

async fn the_last_value_counts(subject: Subject) {
    write(subject.store(), vec![put("a", "1"), put("b", "1"), put("a", "2")]).await;
    write(
        subject.store(),
        vec![Op::Delete { name: "b".into() }, put("c", "3")],
    )
    .await;
    let (subject, recovered) = subject.crash();
    let expected = [
        ("a".to_owned(), Bytes::from("2")),
        ("c".to_owned(), Bytes::from("3")),
    ];
    assert_eq!(recovered.values, expected.clone().into());
    let (_subject, again) = subject.crash();
    assert_eq!(again.values, expected.into());
}

async fn released_records_are_gone(subject: Subject) {
    let at = write(
        subject.store(),
        vec![append(1, 100), append(2, 100), append(1, 100)],
    )
    .await;
    write(subject.store(), vec![release(1)]).await;
    for i in [0, 2] {
        assert!(matches!(subject.store().read_body(at[i]), Err(ReadError::Gone)));
    }
    assert_eq!(subject.store().read_body(at[1]).unwrap(), body(2, 100));
    let (_subject, recovered) = subject.crash();
    assert_eq!(ids(&recovered), [2]);
}

async fn a_key_may_be_used_again_after_its_release(subject: Subject) {
    write(subject.store(), vec![append(1, 100), release(1), append(1, 50)]).await;
    let (subject, recovered) = subject.crash();
    assert_eq!(ids(&recovered), [1]);
    assert_eq!(
        subject.store().read_body(recovered.records[0].at).unwrap(),
        body(1, 50)
    );
    write(subject.store(), vec![release(1)]).await;
    write(subject.store(), vec![append(1, 60)]).await;
    let (subject, recovered) = subject.crash();
    assert_eq!(
        subject.store().read_body(recovered.records[0].at).unwrap(),
        body(1, 60)
    );
    assert_eq!(recovered.records.len(), 1);
}

/// Writes records of a class until the store refuses one. Returns their number.
async fn fill(store: &dyn Store, class: Class, first: u64) -> u64 {
    for count in 0..1000 {
        match store.commit(class, vec![append(first + count, 64 * 1024)]).await {
            Ok(_) => {}
            Err(CommitError::Full { quota: QUOTA, .. }) => return count,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("never full");
}

/// Intake stops at the reserve, copies at half of it; what finishes is never refused, so that a log filled by both can still be
/// emptied.
async fn room_goes_by_class(subject: Subject) {
    let reserve = QUOTA / 16;
    let store = subject.store();
    let written = fill(store, Class::Intake, 0).await;
    assert!(written > 100 && !store.usage().poisoned && store.usage().bytes <= QUOTA - reserve);
    let copies = fill(store, Class::Copy, 1000).await;
    let fit = reserve / 2 / (64 * 1024);
    assert!((fit - 1..=fit).contains(&copies), "{copies} copies");
    let after_copies = store.usage();
    assert!(after_copies.full && after_copies.bytes <= QUOTA - reserve / 2);
    assert!(matches!(
        store.commit(Class::Intake, vec![append(2000, 10)]).await,
        Err(CommitError::Full { .. })
    ));
    for id in 0..(reserve / (64 * 1024)) {
        write(store, vec![append(3000 + id, 64 * 1024), put("cursor", "moves")]).await;
    }
    assert!(store.usage().bytes > QUOTA);
    // What only frees counts as finishing, whatever its caller says.
    for id in (0..written).chain(3000..3000 + reserve / (64 * 1024)) {
        store.commit(Class::Intake, vec![release(id)]).await.unwrap();
    }
    eventually("space comes back", || !store.usage().full);
    store
        .commit(Class::Intake, vec![append(9999, 256 * 1024)])
        .await
        .unwrap();
}

/// What finishes waits for room and keeps its order; everything else is refused meanwhile and leaves no trace.
async fn a_full_file_system_is_waited_out(subject: Subject) {
    let store = subject.store();
    write(store, vec![append(1, 40_000)]).await;
    subject.set_full(true);
    let mut first = store.commit(Class::Finish, vec![append(2, 40_000), put("n", "first")]);
    let mut second = store.commit(Class::Finish, vec![append(3, 10), put("n", "second")]);
    eventually("the commits wait", || store.usage().waiting);
    for class in [Class::Intake, Class::Copy] {
        let refused = store
            .commit(class, vec![append(4, 10), put("m", "refused")])
            .await;
        assert!(matches!(refused, Err(CommitError::Full { .. })), "{refused:?}");
    }
    let usage = store.usage();
    assert!(usage.full && usage.room == 0 && !usage.poisoned, "{usage:?}");
    assert!(is_pending(&mut first).await && is_pending(&mut second).await);
    subject.set_full(false);
    first.await.unwrap();
    second.await.unwrap();
    assert!(!store.usage().waiting && !store.usage().full);
    store.commit(Class::Intake, vec![append(5, 10)]).await.unwrap();
    let (_subject, recovered) = subject.crash();
    assert_eq!(ids(&recovered), [1, 2, 3, 5]);
    assert_eq!(recovered.values, [("n".to_owned(), Bytes::from("second"))].into());
}

async fn oversized_commits_change_nothing(subject: Subject) {
    let head = Bytes::from(vec![1; limits::HEAD_BYTES_MAX as usize + 1]);
    let big = Op::Append {
        key: key(2),
        kind: 0,
        head,
        body: vec![],
    };
    let result = subject
        .store()
        .commit(Class::Intake, vec![append(1, 10), big])
        .await;
    assert!(matches!(result, Err(CommitError::TooLarge { .. })));
    let value = Bytes::from(vec![1; limits::VALUE_BYTES_MAX as usize + 1]);
    let result = subject
        .store()
        .commit(
            Class::Finish,
            vec![Op::Put {
                name: "v".into(),
                value,
            }],
        )
        .await;
    assert!(matches!(result, Err(CommitError::TooLarge { .. })));
    let (_subject, recovered) = subject.crash();
    assert!(recovered.records.is_empty() && recovered.values.is_empty());
}

async fn empty_things_work(subject: Subject) {
    assert!(write(subject.store(), vec![]).await.is_empty());
    let empty = Op::Append {
        key: key(1),
        kind: 0,
        head: Bytes::new(),
        body: vec![],
    };
    let at = write(subject.store(), vec![empty, put("", "")]).await;
    assert!(subject.store().read_body(at[0]).unwrap().is_empty());
    write(
        subject.store(),
        vec![release(404), Op::Delete { name: "never".into() }],
    )
    .await;
    let (_subject, recovered) = subject.crash();
    assert_eq!((ids(&recovered), recovered.values.len()), (vec![1], 1));
}

async fn a_forged_location_reads_nothing(subject: Subject) {
    let at = write(subject.store(), vec![append(1, 100)]).await[0];
    let wrong = [
        fanin_store::Location { segment: 99, ..at },
        fanin_store::Location {
            position: at.position + 8,
            ..at
        },
        fanin_store::Location { body_len: 50, ..at },
        fanin_store::Location {
            body_len: u32::MAX,
            ..at
        },
    ];
    for at in wrong {
        assert!(subject.store().read_body(at).is_err(), "{at:?}");
    }
}

/// Goal: the twin in memory tells what is synced from what is not. Method: hold syncs, crash.
#[tokio::test]
async fn memory_forgets_what_was_not_synced() {
    let mem = MemStore::new(QUOTA, 0);
    mem.hold_syncs();
    let first = mem.commit(Class::Intake, vec![append(1, 10)]);
    let mut second = mem.commit(Class::Intake, vec![append(2, 10)]);
    assert_eq!((mem.sync(1), mem.waiting()), (1, 1));
    first.await.unwrap();
    assert!(is_pending(&mut second).await, "not durable before its sync");
    let (mem, recovered) = mem.crash();
    assert_eq!(ids(&recovered), [1]);
    assert!(matches!(second.await, Err(CommitError::Closed)));
    mem.fail_syncs(std::io::ErrorKind::Other.into());
    assert!(matches!(
        mem.commit(Class::Finish, vec![]).await,
        Err(CommitError::Poisoned(_))
    ));
    assert!(mem.usage().poisoned);
}
