//! The node's local log: one shared, group-committed, checksummed append-only log.
//!
//! Two kinds of data share one log so that one fsync carries both: *appended* records (staged batches, resolutions,
//! dead letters), which live until their key is released, and small *named values* (identity, cursors, done sets), of which
//! the last one counts and which the log carries forward by itself when old segments go.
//!
//! The log knows nothing of the protocol: keys, kinds and bytes only.
//!
//! [`SegmentLog`] is the log on disk, [`MemStore`] its twin in memory; both stand behind [`Store`]. The layout of the files is
//! described in [`format`](mod@format).
//!
//! # What callers must know
//! - **Releases may come undone.** A release is written and carried forward like a value, but only up to
//!   [`limits::CARRIED_RELEASES_MAX`] and not through damage. A released key may therefore be among [`Recovered::records`] again, in
//!   whole or in part. The owner's own durable state says what is done; it releases such a key again.
//! - **The queue is bounded by its callers.** [`Store::commit`] never blocks. [`SegmentLog::queued_bytes`] says what waits; a caller bounds
//!   what it has in flight.
//! - **Room is given in the order of the classes**, see [`Class`]. What finishes accepted data is never refused for want of room: on a full
//!   file system it waits, for as long as that takes, and everything else is refused meanwhile ([`Usage::waiting`]).
//! - **Poison is final.** After [`CommitError::Poisoned`] the process must end; a later start recovers what was synced.

pub mod faults;
mod files;
pub mod format;
mod index;
pub mod limits;
mod log;
mod mem;
mod prepare;
mod recover;
mod scan;
mod writer;

pub use log::{OpenError, Options, SegmentLog};
pub use mem::MemStore;

use bytes::Bytes;
use std::{future::Future, pin::Pin};

/// Names one unit of retained data, usually a batch of a mapping. All appended records of a key are freed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The space, for example a mapping's number in this data directory.
    pub space: u32,
    /// The unit in the space, for example a batch number.
    pub id: u64,
}

/// Where an appended record lies. Valid until its key is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Number of the segment file.
    pub segment: u64,
    /// Byte position of the record in the segment.
    pub position: u64,
    /// Length of the record's head in bytes.
    pub head_len: u32,
    /// Length of the record's body in bytes.
    pub body_len: u32,
}

/// One operation of an atomic commit.
#[derive(Clone, Debug)]
pub enum Op {
    /// Appends a record. `head` comes back at recovery without reading the body; `body` pieces are written one behind the
    /// other and read back by `Store::read_body`.
    Append {
        /// The unit this record belongs to.
        key: Key,
        /// The caller's record kind.
        kind: u8,
        /// Small: at most `limits::HEAD_BYTES_MAX`.
        head: Bytes,
        /// Any size up to `limits::BODY_BYTES_MAX` in all.
        body: Vec<Bytes>,
    },
    /// Frees every record of a key. Its space comes back when its segments hold nothing else that lives.
    Release {
        /// The unit to free.
        key: Key,
    },
    /// Sets a named value, replacing an earlier one.
    Put {
        /// Unique name, for example `cursor/orders/billing`.
        name: String,
        /// At most `limits::VALUE_BYTES_MAX`.
        value: Bytes,
    },
    /// Removes a named value.
    Delete {
        /// The name.
        name: String,
    },
}

/// What a commit is for; decides how much of the quota and of the file system's free space it may use. A class gives way to
/// those behind it. A commit that only releases and deletes always counts as `Finish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// New data: refused with `CommitError::Full` when quota or free space, less the reserve, are used up.
    Intake,
    /// Bulky copies of accepted data, made to finish it (dead letters): refused like `Intake`, but half of the reserve later. The other
    /// half is never theirs, so that a flood of them cannot stop what follows.
    Copy,
    /// The small records that finish accepted data and in the end free it (resolutions, done sets, cursors, releases): never refused for want
    /// of room. The reserve is theirs, and as what is accepted bounds them, they may exceed the quota; a full file system they wait out.
    Finish,
}

/// Resolves when the commit is durable, with the location of each `Append` in order.
pub type Commit = Pin<Box<dyn Future<Output = Result<Vec<Location>, CommitError>> + Send>>;

/// The small trait behind which the log lives: a segment log on disk, and its twin in memory.
pub trait Store: Send + Sync + 'static {
    /// Queues one atomic commit. Commits become durable in the order of these calls, whether or not the future is polled;
    /// after a crash the log holds a prefix of them (of those that are not refused). Never blocks.
    fn commit(&self, class: Class, ops: Vec<Op>) -> Commit;

    /// Reads and checks the body of a record. Blocks on disk I/O.
    ///
    /// # Errors
    /// `ReadError::Damaged` when the checksum does not match, `ReadError::Io`, `ReadError::Gone` for a freed location.
    fn read_body(&self, at: Location) -> Result<Bytes, ReadError>;

    /// Whether [`read_body`](Store::read_body) blocks on a disk, so that a caller with other work has it done on a thread.
    fn reads_block(&self) -> bool {
        true
    }

    /// Sizes and health, for status and metrics. Cheap.
    fn usage(&self) -> Usage;
}

/// Why a commit did not become durable.
#[derive(Debug, thiserror::Error, Clone)]
pub enum CommitError {
    /// The quota or the disk is full; the commit changed nothing. Never the answer to `Class::Finish`.
    #[error("the local log is full: {used} of {quota} bytes are used")]
    Full {
        /// Bytes used on disk.
        used: u64,
        /// Bytes allowed.
        quota: u64,
    },
    /// A record is above a limit; the commit changed nothing.
    #[error("a record of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A write or fsync failed. Nothing can be trusted from here on: the process must end (never retried).
    #[error("the local log is poisoned: {0}")]
    Poisoned(std::sync::Arc<std::io::Error>),
    /// The log was closed; the commit changed nothing.
    #[error("the local log is closed")]
    Closed,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes on disk are not those written.
    #[error("damaged record in segment {segment} at byte {position}")]
    Damaged {
        /// Segment number.
        segment: u64,
        /// Byte position.
        position: u64,
    },
    /// The record was freed.
    #[error("the record was freed")]
    Gone,
    /// The disk failed.
    #[error("reading the local log: {0}")]
    Io(#[from] std::io::Error),
}

/// Sizes and health of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// The quota in bytes.
    pub quota: u64,
    /// Free bytes of the file system.
    pub free: u64,
    /// Number of segment files.
    pub segments: u64,
    /// Whether a write or fsync failed.
    pub poisoned: bool,
    /// Bytes that `Class::Intake` commits may still take, of the quota and of the disk.
    pub room: u64,
    /// Whether `Class::Intake` commits are refused now.
    pub full: bool,
    /// Whether `Class::Finish` commits wait for room in the file system.
    pub waiting: bool,
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The named values.
    pub values: std::collections::BTreeMap<String, Bytes>,
    /// Every living appended record, in log order.
    pub records: Vec<RecoveredRecord>,
    /// Bytes of an unsynced torn tail that were cut, 0 when there was none.
    pub torn_bytes: u64,
    /// What is damaged behind a synced point: the caller halts what it belongs to, or mends it by appending the record again
    /// under the same key. Reported at every start until the key is released.
    pub damaged: Vec<Damage>,
}

/// One living appended record.
#[derive(Clone, Debug)]
pub struct RecoveredRecord {
    /// Its key.
    pub key: Key,
    /// Its kind.
    pub kind: u8,
    /// Its head.
    pub head: Bytes,
    /// Where it lies.
    pub at: Location,
}

/// A damaged region that was synced once.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Segment number.
    pub segment: u64,
    /// Byte position.
    pub position: u64,
    /// The unit that was hit, when that is known.
    pub key: Option<Key>,
    /// What is known of the record that was hit; set with `key`.
    pub record: Option<DamagedRecord>,
    /// The named value that was hit, when that is known. What [`Recovered::values`] holds under this name is older, or nothing.
    pub value: Option<String>,
    /// What is wrong, for people.
    pub what: String,
}

/// An appended record that is damaged. It still belongs to its key, and goes when that is released.
#[derive(Clone, Debug)]
pub struct DamagedRecord {
    /// Its kind.
    pub kind: u8,
    /// Its head, when only the body is damaged.
    pub head: Option<Bytes>,
    /// Where it lies.
    pub at: Location,
}
