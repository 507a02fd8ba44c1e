//! The log on disk: its options, opening, closing, and the side of its callers. The writer's side is in `writer.rs`.

use crate::{
    Class, Commit, CommitError, Location, Op, ReadError, Recovered, Store, Usage,
    faults::Faults,
    files::Dir,
    format::{FRAME_HEADER, FrameHeader},
    index::Index,
    limits,
    prepare::{Prepared, ValueSizes, only_frees, prepare},
    recover::{is_full, recover},
    writer::Writer,
};
use bytes::Bytes;
use crc32c::crc32c;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque, fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc, thread::JoinHandle,
    time::Instant,
};
use tokio::sync::oneshot;

/// What a log needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory; made if missing. Holds nothing but the log.
    pub dir: PathBuf,
    /// Bytes of a segment file, by default 64 MiB. Lowered so that intake can fill at least `limits::INTAKE_SEGMENTS_MIN` segments.
    pub segment_bytes: u64,
    /// Bytes the log may use on disk. What is reserved but not yet written does not count. Only `Class::Finish` may exceed it, when the
    /// reserve was too small.
    pub quota_bytes: u64,
    /// Bytes of the quota, and of the file system's free space, that `Class::Intake` leaves to the other classes. `None`: a
    /// twentieth of the quota, at least 64 MiB, at most a quarter of the quota.
    pub reserve_bytes: Option<u64>,
    /// Check every record at the start instead of trusting the footers of sealed segments. Reads the whole log.
    pub scan_all: bool,
    /// Faults of the disk, for tests.
    pub faults: Option<Arc<dyn Faults>>,
}

impl Options {
    /// The defaults for this directory and quota.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, quota_bytes: u64) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT,
            quota_bytes,
            reserve_bytes: None,
            scan_all: false,
            faults: None,
        }
    }

    fn reserve(&self) -> u64 {
        let most = self.quota_bytes / limits::RESERVE_SHARE_MAX;
        self.reserve_bytes
            .unwrap_or((self.quota_bytes / 20).max(limits::RESERVE_BYTES_MIN).min(most))
    }

    fn segment(&self) -> u64 {
        let most = (self.quota_bytes - self.reserve()) / limits::INTAKE_SEGMENTS_MIN;
        self.segment_bytes
            .min(most)
            .clamp(limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX)
    }

    fn check(&self) -> Result<(), OpenError> {
        let least = limits::QUOTA_BYTES_MIN;
        if self.quota_bytes < least {
            return Err(OpenError::QuotaTooSmall {
                quota: self.quota_bytes,
                least,
            });
        }
        if self.reserve() > self.quota_bytes / limits::QUOTA_PER_RESERVE {
            return Err(OpenError::ReserveTooLarge {
                reserve: self.reserve(),
                quota: self.quota_bytes,
            });
        }
        Ok(())
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the local log in {dir} is in use by another process; stop that process, or use another data directory"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// Written by another version.
    #[error(
        "{path} has layout version {version}, this build reads version {known}; use the build that wrote it",
        known = crate::format::VERSION
    )]
    Version {
        /// The segment file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The quota cannot hold the fewest segments.
    #[error("a quota of {quota} bytes is too small for the local log; give it at least {least}")]
    QuotaTooSmall {
        /// Bytes asked for.
        quota: u64,
        /// Bytes needed.
        least: u64,
    },
    /// The reserve leaves too little for intake.
    #[error(
        "a reserve of {reserve} bytes is more than half of the quota of {quota}; lower it or raise the quota"
    )]
    ReserveTooLarge {
        /// Bytes reserved.
        reserve: u64,
        /// Bytes of the quota.
        quota: u64,
    },
    /// The file system has no room for the smallest segment.
    #[error(
        "FAN-4048: the file system of {dir} is full, the local log cannot begin a segment; make room there and start again, nothing is lost", dir = dir.display()
    )]
    NoSpace {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk failed.
    #[error("opening the local log in {dir}: {source}")]
    Io {
        /// The directory or file.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A commit in the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) class: Class,
    pub(crate) frames: Vec<Prepared>,
    pub(crate) bytes: u64,
    pub(crate) done: oneshot::Sender<Result<Vec<Location>, CommitError>>,
}

/// What callers and the writer share under one lock that is only held for moments.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) commits: VecDeque<Queued>,
    /// Bytes queued or being written.
    pub(crate) queued_bytes: u64,
    /// Bytes of all segments.
    pub(crate) used: u64,
    pub(crate) segments: u64,
    /// Bytes that are reserved in the active segment: no longer free for others, not yet used by us.
    pub(crate) reserved_ahead: u64,
    /// Free bytes of the file system when last asked.
    pub(crate) free: u64,
    pub(crate) sizes: ValueSizes,
    /// The writer sleeps and must be woken.
    pub(crate) writer_waits: bool,
    /// A `Class::Finish` commit has found no room in the file system; the writer tries again in intervals.
    pub(crate) room_waits: bool,
    /// When a segment could not be begun for want of space, until one could.
    pub(crate) no_space_at: Option<Instant>,
    pub(crate) closing: bool,
    pub(crate) poisoned: Option<Arc<io::Error>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: Dir,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) wake: Condvar,
    pub(crate) index: Mutex<Index>,
    pub(crate) quota: u64,
    reserve: u64,
}

impl Queue {
    fn lacks_space(&self) -> bool {
        let lately = |at: Instant| at.elapsed() < limits::NO_SPACE_PAUSE;
        self.room_waits || self.no_space_at.is_some_and(lately)
    }
}

impl Shared {
    /// Asks the file system; a file system that does not say counts as empty.
    pub(crate) fn free(&self) -> u64 {
        self.dir.free().unwrap_or(u64::MAX)
    }

    /// Whether a commit of this size fits. Space in use counts with what is queued.
    fn admit(&self, queue: &mut Queue, class: Class, bytes: u64) -> Result<(), CommitError> {
        let used = queue.used + queue.queued_bytes;
        let full = CommitError::Full {
            used,
            quota: self.quota,
        };
        let kept = match class {
            Class::Intake => self.reserve,
            Class::Copy => self.reserve / limits::COPY_RESERVE_SHARE,
            // Refused, it could never free what fills the log.
            Class::Finish => return Ok(()),
        };
        if queue.room_waits || used + bytes > self.quota - kept {
            return Err(full);
        }
        if Self::has_room(queue, bytes + kept) {
            return Ok(());
        }
        // Somebody may have freed space since the writer asked.
        queue.free = self.free();
        if Self::has_room(queue, bytes + kept) {
            Ok(())
        } else {
            Err(full)
        }
    }

    fn has_room(queue: &Queue, bytes: u64) -> bool {
        queue.free.saturating_add(queue.reserved_ahead) >= queue.queued_bytes + bytes
    }

    /// Bytes that the file system has for intake.
    fn room(&self, queue: &Queue) -> u64 {
        if queue.lacks_space() {
            return 0;
        }
        let free = queue.free.saturating_add(queue.reserved_ahead);
        free.saturating_sub(queue.queued_bytes + self.reserve)
    }
}

/// The log on disk. See the crate's documentation for what callers must know.
///
/// One thread writes: it takes all that waits, writes it with one call, syncs it with one fdatasync, and completes it. Commits that
/// arrive meanwhile form the next group.
#[derive(Debug)]
pub struct SegmentLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
}

impl SegmentLog {
    /// Opens or makes the log in `options.dir`, and takes its lock. Blocks on disk I/O.
    ///
    /// A torn tail is cut, the last segment sealed, and a new one begun.
    ///
    /// # Errors
    /// [`OpenError`]. Damaged records are no error; they are in [`Recovered::damaged`].
    pub fn open(options: Options) -> Result<(Arc<Self>, Recovered), OpenError> {
        options.check()?;
        let io = |source| {
            let dir = options.dir.clone();
            if is_full(&source) {
                OpenError::NoSpace { dir }
            } else {
                OpenError::Io { dir, source }
            }
        };
        std::fs::create_dir_all(&options.dir).map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(options.dir.join("lock"))
            .map_err(io)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked { dir: options.dir }),
            Err(error) => return Err(io(error.into())),
        }
        let dir = Dir::open(&options.dir, options.faults.clone()).map_err(io)?;
        let opened = recover(&dir, options.scan_all)?;
        let shared = Arc::new(Shared {
            dir,
            queue: Mutex::new(Queue {
                sizes: ValueSizes::of(&opened.values),
                ..Queue::default()
            }),
            wake: Condvar::new(),
            index: Mutex::new(opened.index),
            quota: options.quota_bytes,
            reserve: options.reserve(),
        });
        let writer = Writer::start(
            Arc::clone(&shared),
            opened.values,
            opened.next_segment,
            options.segment(),
        )
        .map_err(io)?;
        let thread = std::thread::Builder::new()
            .name("fanin-log".into())
            .spawn(move || writer.run())
            .map_err(io)?;
        let log = Self {
            shared,
            writer: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
        };
        Ok((Arc::new(log), opened.recovered))
    }

    /// Writes what is queued, seals the active segment, and frees the lock. Blocks. Later commits fail with `Closed`, and so do those that
    /// wait for room in a full file system; reads go on.
    pub fn close(&self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.closing = true;
            self.shared.wake.notify_one();
        }
        let mut writer = self.writer.lock();
        if let Some(thread) = writer.take()
            && thread.join().is_err()
        {
            tracing::error!(code = "FAN-5014", "the local log's writer panicked");
        }
        self.lock.lock().take();
    }

    /// Bytes of the commits that are queued or being written. Callers bound it.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.shared.queue.lock().queued_bytes
    }

    /// Lets a segment go whose damage nobody can name a key for, once the operator has dealt with what
    /// [`Recovered::damaged`] said of it. It goes as soon as it holds nothing else that lives.
    pub fn forget_damage(&self, segment: u64) {
        self.shared.index.lock().unhold(segment);
    }
}

impl Drop for SegmentLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for SegmentLog {
    fn commit(&self, class: Class, ops: Vec<Op>) -> Commit {
        let refuse = |error| -> Commit { Box::pin(std::future::ready(Err(error))) };
        let (frames, bytes) = match prepare(ops) {
            Ok(prepared) => prepared,
            Err(error) => return refuse(error),
        };
        let class = if only_frees(&frames) { Class::Finish } else { class };
        let (done, durable) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if let Some(error) = &queue.poisoned {
                return refuse(CommitError::Poisoned(Arc::clone(error)));
            }
            if queue.closing {
                return refuse(CommitError::Closed);
            }
            if let Err(error) = self.shared.admit(&mut queue, class, bytes) {
                return refuse(error);
            }
            if let Err(error) = queue.sizes.apply_checked(&frames) {
                return refuse(error);
            }
            queue.queued_bytes += bytes;
            queue.commits.push_back(Queued {
                class,
                frames,
                bytes,
                done,
            });
            if queue.writer_waits {
                queue.writer_waits = false;
                self.shared.wake.notify_one();
            }
        }
        Box::pin(async move { durable.await.unwrap_or(Err(CommitError::Closed)) })
    }

    fn read_body(&self, at: Location) -> Result<Bytes, ReadError> {
        let damaged = ReadError::Damaged {
            segment: at.segment,
            position: at.position,
        };
        let Some(segment) = self.shared.index.lock().segment(at.segment) else {
            return Err(ReadError::Gone);
        };
        let head_end = FRAME_HEADER as u64 + u64::from(at.head_len);
        let end = head_end + u64::from(at.body_len);
        if u64::from(at.head_len) > limits::HEAD_BYTES_MAX || u64::from(at.body_len) > limits::BODY_BYTES_MAX
        {
            return Err(damaged);
        }
        let file = match self.shared.dir.reader(at.segment) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Gone),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = vec![0; end as usize];
        match file.read_exact_at(&mut bytes, at.position) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged),
            Err(error) => return Err(error.into()),
        }
        let Some(header) = FrameHeader::decode(segment.salt, at.position, &bytes) else {
            return Err(damaged);
        };
        if header.head_len != at.head_len || header.body_len != at.body_len {
            return Err(damaged);
        }
        if !self.shared.index.lock().lives(header.key, at) {
            return Err(ReadError::Gone);
        }
        let body = Bytes::from(bytes).slice(head_end as usize..);
        if crc32c(&body) == header.body_crc {
            Ok(body)
        } else {
            Err(damaged)
        }
    }

    fn usage(&self) -> Usage {
        let free = self.shared.free();
        let mut queue = self.shared.queue.lock();
        queue.free = free;
        let used = queue.used + queue.queued_bytes;
        let allowed = self.shared.quota - self.shared.reserve;
        Usage {
            bytes: queue.used,
            quota: self.shared.quota,
            free,
            segments: queue.segments,
            poisoned: queue.poisoned.is_some(),
            room: allowed.saturating_sub(used).min(self.shared.room(&queue)),
            full: queue.lacks_space() || used >= allowed || !Shared::has_room(&queue, self.shared.reserve),
            waiting: queue.room_waits,
        }
    }
}
