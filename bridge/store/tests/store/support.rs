//! What the tests share: operations, a crash that keeps only what is on disk, and faults.

use bytes::Bytes;
use fanin_store::{
    Class, Commit, Key, Location, Op, Options, Recovered, SegmentLog, Store,
    faults::{Faults, WriteFault},
};
use parking_lot::{Condvar, Mutex};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tempfile::TempDir;

pub(crate) const QUOTA: u64 = 16 * 1024 * 1024;

pub(crate) fn key(id: u64) -> Key {
    Key { space: 1, id }
}

/// A body that differs for every number and length.
pub(crate) fn body(seed: u64, len: usize) -> Bytes {
    (0..len)
        .map(|i| (seed as usize * 31 + i * 7 + i / 251) as u8 | 1)
        .collect::<Vec<_>>()
        .into()
}

pub(crate) fn append(id: u64, len: usize) -> Op {
    Op::Append {
        key: key(id),
        kind: 7,
        head: format!("head-{id}").into(),
        body: vec![body(id, len)],
    }
}

pub(crate) fn release(id: u64) -> Op {
    Op::Release { key: key(id) }
}

pub(crate) fn put(name: &str, value: &str) -> Op {
    Op::Put {
        name: name.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// Commits and waits; the commit must pass.
pub(crate) async fn write(store: &dyn Store, ops: Vec<Op>) -> Vec<Location> {
    store.commit(Class::Finish, ops).await.unwrap()
}

/// Small segments, so that few records turn them over.
pub(crate) fn options(dir: &Path, segment_bytes: u64) -> Options {
    Options {
        segment_bytes,
        reserve_bytes: Some(QUOTA / 16),
        ..Options::new(dir, QUOTA)
    }
}

pub(crate) fn open(dir: &Path, segment_bytes: u64) -> (Arc<SegmentLog>, Recovered) {
    SegmentLog::open(options(dir, segment_bytes)).unwrap()
}

/// [`open`] on a disk with faults.
pub(crate) fn open_faulty(
    dir: &Path,
    segment_bytes: u64,
    faults: &Arc<TestFaults>,
) -> (Arc<SegmentLog>, Recovered) {
    let options = Options {
        faults: Some(Arc::clone(faults) as Arc<dyn Faults>),
        ..options(dir, segment_bytes)
    };
    SegmentLog::open(options).unwrap()
}

/// Whether a commit is not durable yet.
pub(crate) async fn is_pending(commit: &mut Commit) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(commit.as_mut().poll(cx).is_pending())).await
}

/// The files as they are now, as a killed process would leave them.
pub(crate) fn crash(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        match std::fs::copy(&path, copy.path().join(path.file_name().unwrap())) {
            // The writer removes a segment after it has confirmed the release.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{copied:?}"),
        }
    }
    copy
}

pub(crate) fn segment_file(dir: &Path, segment: u64) -> std::path::PathBuf {
    dir.join(format!("{segment:016x}.log"))
}

/// Changes one bit.
pub(crate) fn flip(dir: &Path, segment: u64, position: u64) {
    let path = segment_file(dir, segment);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[position as usize] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
}

/// Key numbers of the recovered records, in order.
pub(crate) fn ids(recovered: &Recovered) -> Vec<u64> {
    recovered.records.iter().map(|r| r.key.id).collect()
}

/// Waits for a condition that another thread brings about.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// Faults that a test switches on.
#[derive(Debug, Default)]
pub(crate) struct TestFaults {
    pub(crate) fail_sync: AtomicBool,
    pub(crate) syncs: AtomicU64,
    pub(crate) no_allocation: AtomicBool,
    pub(crate) allocations: AtomicU64,
    /// Larger reservations of space fail.
    pub(crate) largest_allocation: Mutex<Option<u64>>,
    pub(crate) free: Mutex<Option<u64>>,
    /// Bytes that writes may still take; then they fail.
    pub(crate) write_budget: Mutex<Option<usize>>,
    held: Mutex<bool>,
    changed: Condvar,
}

impl TestFaults {
    /// While held, syncs do not return.
    pub(crate) fn hold_syncs(&self, hold: bool) {
        *self.held.lock() = hold;
        self.changed.notify_all();
    }
}

impl Faults for TestFaults {
    fn write(&self, bytes: usize) -> Result<(), WriteFault> {
        let mut budget = self.write_budget.lock();
        let Some(left) = *budget else { return Ok(()) };
        if bytes <= left {
            *budget = Some(left - bytes);
            return Ok(());
        }
        *budget = Some(0);
        Err(WriteFault {
            written: left,
            // Not for want of room, which the log waits out where it begins a segment.
            error: io::Error::from_raw_os_error(5),
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.lock();
        while *held {
            self.changed.wait(&mut held);
        }
        if self.fail_sync.load(Ordering::SeqCst) {
            Err(io::Error::from_raw_os_error(5))
        } else {
            Ok(())
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.allocations.fetch_add(1, Ordering::SeqCst);
        let too_large = self.largest_allocation.lock().is_some_and(|most| bytes > most);
        if too_large || self.no_allocation.load(Ordering::SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn free(&self) -> Option<u64> {
        *self.free.lock()
    }
}
