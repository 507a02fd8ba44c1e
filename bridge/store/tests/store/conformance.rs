//! Goal: the log on disk and its twin in memory mean the same. Method: each case runs against both, with reopens and crashes.

use crate::support::{QUOTA, append, body, crash, ids, key, open, put, release, write};
use bytes::Bytes;
use fanin_store::{Class, CommitError, MemStore, Op, ReadError, Recovered, SegmentLog, Store, limits};
use std::sync::Arc;
use tempfile::TempDir;

enum Subject {
    Disk { dir: TempDir, log: Arc<SegmentLog> },
    Mem(Arc<MemStore>),
}

impl Subject {
    fn disk() -> Self {
        let dir = TempDir::new().unwrap();
        let (log, recovered) = open(dir.path(), 64 * 1024);
        assert!(recovered.records.is_empty() && recovered.values.is_empty());
        Self::Disk { dir, log }
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

    fn crash(self) -> (Self, Recovered) {
        match self {
            Self::Disk { dir, log } => {
                let copy = crash(dir.path());
                drop(log);
                let (log, recovered) = open(copy.path(), 64 * 1024);
                (Self::Disk { dir: copy, log }, recovered)
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
    intake_stops_at_the_reserve,
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

async fn intake_stops_at_the_reserve(subject: Subject) {
    let store = subject.store();
    let mut written = 0;
    let full = loop {
        match store
            .commit(Class::Intake, vec![append(written, 256 * 1024)])
            .await
        {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "never full");
    };
    assert!(matches!(full, CommitError::Full { quota: QUOTA, .. }), "{full}");
    assert!(!store.usage().poisoned && store.usage().bytes <= QUOTA - QUOTA / 16);
    // What finishes may use the reserve, up to the quota. What frees always may.
    let mut finished = 0;
    while store
        .commit(Class::Finish, vec![append(1000 + finished, 256 * 1024)])
        .await
        .is_ok()
    {
        finished += 1;
    }
    assert!(finished >= 2 && store.usage().full);
    for id in 0..written {
        write(store, vec![release(id)]).await;
    }
    crate::support::eventually("space comes back", || !store.usage().full);
    store
        .commit(Class::Intake, vec![append(9999, 256 * 1024)])
        .await
        .unwrap();
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
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending()));
    assert!(pending.await, "not durable before its sync");
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
