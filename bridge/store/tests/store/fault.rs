//! Goal: faults of the disk end in poison or in `Full`, never in a promise that is not kept. Method: the fault seam under a real log.

use crate::support::{
    TestFaults, append, crash, eventually, ids, is_pending, open, open_faulty, options, put, release, write,
};
use fanin_store::{Class, CommitError, OpenError, Options, SegmentLog, Store, limits};
use std::sync::{Arc, atomic::Ordering::SeqCst};
use tempfile::TempDir;

const SEGMENT: u64 = 64 * 1024;

fn faulty(dir: &TempDir) -> (Arc<SegmentLog>, Arc<TestFaults>) {
    let faults = Arc::new(TestFaults::default());
    (open_faulty(dir.path(), SEGMENT, &faults).0, faults)
}

#[tokio::test]
async fn a_failed_fsync_poisons_and_is_never_retried() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    write(&*log, vec![append(1, 10)]).await;
    faults.fail_sync.store(true, SeqCst);
    let failed = log.commit(Class::Finish, vec![append(2, 10)]).await;
    assert!(
        matches!(&failed, Err(CommitError::Poisoned(error)) if error.raw_os_error() == Some(5)),
        "{failed:?}"
    );
    let syncs = faults.syncs.load(SeqCst);
    faults.fail_sync.store(false, SeqCst);
    let later = log.commit(Class::Finish, vec![append(3, 10)]).await;
    assert!(matches!(later, Err(CommitError::Poisoned(_))));
    assert!(log.usage().poisoned);
    log.close();
    assert_eq!(
        faults.syncs.load(SeqCst),
        syncs,
        "a poisoned log syncs nothing any more"
    );
    let (_log, recovered) = open(dir.path(), SEGMENT);
    assert_eq!(ids(&recovered)[0], 1, "what was confirmed is there");
    assert!(!ids(&recovered).contains(&3));
}

#[tokio::test]
async fn a_failed_write_poisons() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    write(&*log, vec![append(1, 10)]).await;
    // The marker after the first group may still be under way; it must not use up the budget.
    write(&*log, vec![append(2, 10)]).await;
    *faults.write_budget.lock() = Some(70);
    let failed = log.commit(Class::Intake, vec![append(3, 5000)]).await;
    assert!(matches!(failed, Err(CommitError::Poisoned(_))), "{failed:?}");
    assert!(log.usage().poisoned);
    let copy = crash(dir.path());
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), [1, 2]);
    assert!(recovered.torn_bytes <= 70 && recovered.damaged.is_empty());
}

#[tokio::test]
async fn no_space_for_a_segment_is_full_and_not_poison() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    write(&*log, vec![append(1, 40_000)]).await;
    faults.no_allocation.store(true, SeqCst);
    for class in [Class::Intake, Class::Copy] {
        let ops = vec![append(2, 40_000), put("name", "value")];
        let full = log.commit(class, ops).await;
        assert!(matches!(full, Err(CommitError::Full { .. })), "{full:?}");
    }
    let usage = log.usage();
    assert!(!usage.waiting, "nothing waits, the small ones still fit");
    assert!(
        usage.full && usage.room == 0,
        "but intake should stay away: {usage:?}"
    );
    log.commit(Class::Intake, vec![append(3, 100)]).await.unwrap();
    faults.no_allocation.store(false, SeqCst);
    write(&*log, vec![append(4, 40_000)]).await;
    assert!(!log.usage().full);
    log.close();
    let (_log, recovered) = open(dir.path(), SEGMENT);
    assert_eq!(ids(&recovered), [1, 3, 4]);
    assert!(recovered.values.is_empty(), "a refused commit changes nothing");
}

/// Method: intake, copies and finishing commits in one queue behind a held sync; then the disk turns out to be full.
#[tokio::test]
async fn what_finishes_keeps_its_order_through_a_full_disk() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    faults.hold_syncs(true);
    let syncs = faults.syncs.load(SeqCst);
    let first = log.commit(Class::Finish, vec![append(0, 40_000)]);
    eventually("the writer syncs", || faults.syncs.load(SeqCst) > syncs);
    faults.no_allocation.store(true, SeqCst);
    let mut kept = Vec::new();
    let mut refused = Vec::new();
    for id in 1..30 {
        let name = format!("at-{}", id % 3);
        match id % 3 {
            0 => kept.push(log.commit(Class::Finish, vec![append(id, 30_000), put(&name, "kept")])),
            1 => refused.push(log.commit(Class::Intake, vec![append(id, 30_000), put(&name, "refused")])),
            _ => refused.push(log.commit(Class::Copy, vec![append(id, 30_000), put(&name, "refused")])),
        }
    }
    faults.hold_syncs(false);
    first.await.unwrap();
    for commit in refused {
        assert!(matches!(commit.await, Err(CommitError::Full { .. })));
    }
    assert!(log.usage().waiting);
    let tries = faults.allocations.load(SeqCst);
    eventually("the writer tries again", || {
        faults.allocations.load(SeqCst) > tries + 1
    });
    for commit in &mut kept {
        assert!(is_pending(commit).await);
    }
    let copy = crash(dir.path());
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), [0], "nothing that waits is in the log");

    faults.no_allocation.store(false, SeqCst);
    for commit in kept {
        commit.await.unwrap();
    }
    assert_eq!(log.queued_bytes(), 0);
    assert!(!log.usage().waiting);
    let copy = crash(dir.path());
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), (0..30).step_by(3).collect::<Vec<_>>());
    assert_eq!(recovered.values.len(), 1, "{:?}", recovered.values);
}

#[tokio::test]
async fn close_ends_what_waits_for_room() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    write(&*log, vec![append(1, 40_000)]).await;
    faults.no_allocation.store(true, SeqCst);
    let waiting = [
        log.commit(Class::Finish, vec![append(2, 40_000)]),
        log.commit(Class::Finish, vec![append(3, 10)]),
    ];
    eventually("the commits wait", || log.usage().waiting);
    log.close();
    for commit in waiting {
        assert!(matches!(commit.await, Err(CommitError::Closed)));
    }
    faults.no_allocation.store(false, SeqCst);
    let (_log, recovered) = open(dir.path(), SEGMENT);
    assert_eq!(ids(&recovered), [1], "what was confirmed, and nothing else");
    assert_eq!((recovered.torn_bytes, recovered.damaged.len()), (0, 0));
}

/// A start needs room for the smallest segment only; without that it says so, and the log is as it was.
#[tokio::test]
async fn a_start_on_a_full_disk_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    write(&*log, vec![append(1, 40_000), put("name", "value")]).await;
    log.close();
    faults.no_allocation.store(true, SeqCst);
    for _ in 0..3 {
        let faulty = Options {
            faults: Some(faults.clone()),
            ..options(dir.path(), SEGMENT)
        };
        let error = SegmentLog::open(faulty).unwrap_err();
        assert!(
            matches!(&error, OpenError::NoSpace { dir: named } if named == dir.path()),
            "{error:?}"
        );
        assert!(error.to_string().contains("FAN-4048"), "{error}");
    }
    faults.no_allocation.store(false, SeqCst);
    *faults.largest_allocation.lock() = Some(2 * limits::SEGMENT_BYTES_MIN);
    let (log, recovered) = open_faulty(dir.path(), SEGMENT, &faults);
    assert_eq!((ids(&recovered), recovered.values.len()), (vec![1], 1));
    write(&*log, vec![append(2, 1000)]).await;
    // The small segment is empty again after a start, and a commit larger than it must not be written into unreserved space.
    log.close();
    let (log, _) = open_faulty(dir.path(), SEGMENT, &faults);
    let mut large = log.commit(Class::Finish, vec![append(3, 40_000)]);
    eventually("it waits", || log.usage().waiting);
    assert!(is_pending(&mut large).await);
    *faults.largest_allocation.lock() = None;
    large.await.unwrap();
    let copy = crash(dir.path());
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), [1, 2, 3]);
}

#[tokio::test]
async fn a_file_system_that_runs_full_stops_intake_only() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    *faults.free.lock() = Some(1000);
    assert!(log.usage().full);
    let refused = log.commit(Class::Intake, vec![append(1, 10)]).await;
    assert!(matches!(refused, Err(CommitError::Full { .. })));
    write(&*log, vec![append(2, 10)]).await;
    *faults.free.lock() = None;
    log.commit(Class::Intake, vec![append(3, 10)]).await.unwrap();
}

#[tokio::test]
async fn commits_share_a_sync_and_wait_for_it() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = faulty(&dir);
    faults.hold_syncs(true);
    let before = faults.syncs.load(SeqCst);
    let mut waiting: Vec<_> = (0..200)
        .map(|id| log.commit(Class::Intake, vec![append(id, 100)]))
        .collect();
    eventually("the writer syncs", || faults.syncs.load(SeqCst) > before);
    assert!(log.queued_bytes() > 200 * 100);
    for commit in &mut waiting {
        assert!(is_pending(commit).await, "confirmed before its sync");
    }
    faults.hold_syncs(false);
    for commit in waiting {
        commit.await.unwrap();
    }
    assert!(
        faults.syncs.load(SeqCst) - before <= 3,
        "200 commits took {} syncs",
        faults.syncs.load(SeqCst) - before
    );
    assert_eq!(log.queued_bytes(), 0);
}

#[tokio::test]
async fn close_writes_what_is_queued() {
    let dir = TempDir::new().unwrap();
    let (log, _faults) = faulty(&dir);
    let waiting: Vec<_> = (0..50)
        .map(|id| log.commit(Class::Intake, vec![append(id, 3000)]))
        .collect();
    log.close();
    for commit in waiting {
        commit.await.unwrap();
    }
    assert!(matches!(
        log.commit(Class::Finish, vec![release(1)]).await,
        Err(CommitError::Closed)
    ));
    let (_log, recovered) = open(dir.path(), SEGMENT);
    assert_eq!(ids(&recovered), (0..50).collect::<Vec<_>>());
    assert_eq!(recovered.torn_bytes, 0);
}

#[test]
fn a_second_open_is_refused() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), SEGMENT);
    let error = SegmentLog::open(options(dir.path(), SEGMENT)).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { dir: named } if named == dir.path()));
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    drop(log);
    open(dir.path(), SEGMENT);
}

#[test]
fn senseless_sizes_are_refused() {
    let dir = TempDir::new().unwrap();
    let open = |quota, reserve_bytes| {
        SegmentLog::open(Options {
            reserve_bytes,
            ..Options::new(dir.path(), quota)
        })
        .map(drop)
    };
    assert!(matches!(open(1000, None), Err(OpenError::QuotaTooSmall { .. })));
    assert!(matches!(
        open(1 << 20, Some(1 << 20)),
        Err(OpenError::ReserveTooLarge { .. })
    ));
    assert!(open(1 << 20, None).is_ok());
}
