//! The log's twin in memory, for tests and the simulator.

use crate::{
    Class, Commit, CommitError, Damage, DamagedRecord, Key, Location, Op, ReadError, Recovered,
    RecoveredRecord, Store, Usage,
    format::FrameType,
    limits,
    prepare::{Prepared, ValueSizes, only_frees, prepare},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};
use tokio::sync::oneshot;

/// A store without a disk: the same semantics behind the same trait, one segment, no thread. Commits are durable at once unless
/// syncs are held.
#[derive(Debug)]
pub struct MemStore {
    reserve: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    quota: u64,
    durable: Durable,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    sizes: ValueSizes,
    held: bool,
    full: bool,
    closed: bool,
    poisoned: Option<Arc<io::Error>>,
}

/// What a crash leaves.
#[derive(Clone, Debug, Default)]
struct Durable {
    values: BTreeMap<String, Bytes>,
    /// By position.
    records: BTreeMap<u64, Record>,
    position: u64,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Record {
    key: Key,
    kind: u8,
    head: Bytes,
    body: Bytes,
    bytes: u64,
    damaged: bool,
}

#[derive(Debug)]
struct Pending {
    class: Class,
    frames: Vec<Prepared>,
    bytes: u64,
    done: oneshot::Sender<Result<Vec<Location>, CommitError>>,
}

/// The number of the one segment.
const SEGMENT: u64 = 1;

impl MemStore {
    /// An empty store; `Class::Intake` stops at `quota_bytes` less `reserve_bytes`, `Class::Copy` less half of them.
    #[must_use]
    pub fn new(quota_bytes: u64, reserve_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            reserve: reserve_bytes.min(quota_bytes),
            state: Mutex::new(State {
                quota: quota_bytes,
                ..State::default()
            }),
        })
    }

    /// Changes the quota, as when the disk fills up with other files, or is cleared. Never below the reserve.
    pub fn set_quota(&self, quota_bytes: u64) {
        self.state.lock().quota = quota_bytes.max(self.reserve);
    }

    /// Lets commits wait, as if their fsync took for ever, until [`Self::sync`] or [`Self::release_syncs`].
    pub fn hold_syncs(&self) {
        self.state.lock().held = true;
    }

    /// Makes up to `commits` waiting commits durable, in order. Returns how many.
    pub fn sync(&self, commits: usize) -> usize {
        let mut state = self.state.lock();
        let count = if state.full {
            0
        } else {
            commits.min(state.pending.len())
        };
        for _ in 0..count {
            state.complete_first();
        }
        count
    }

    /// Ends [`Self::hold_syncs`].
    pub fn release_syncs(&self) {
        let mut state = self.state.lock();
        state.held = false;
        state.complete_all();
    }

    /// As if somebody else had filled the file system: until it is set back, commits of `Class::Finish` wait, others are refused.
    pub fn set_full(&self, full: bool) {
        let mut state = self.state.lock();
        state.full = full;
        let state = &mut *state;
        if full {
            let (stay, refused) = std::mem::take(&mut state.pending)
                .into_iter()
                .partition(|pending| pending.class == Class::Finish);
            state.pending = stay;
            let used = state.durable.bytes;
            for pending in refused {
                state.pending_bytes -= pending.bytes;
                let quota = state.quota;
                let _ = pending.done.send(Err(CommitError::Full { used, quota }));
            }
            state.sizes = ValueSizes::of(&state.durable.values);
            for pending in &state.pending {
                state.sizes.apply(&pending.frames);
            }
        } else if !state.held {
            state.complete_all();
        }
    }

    /// Commits that wait for a sync.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Makes the next sync, and everything after it, fail: waiting commits fail at once.
    pub fn fail_syncs(&self, error: io::Error) {
        let mut state = self.state.lock();
        let error = Arc::new(error);
        state.poisoned = Some(Arc::clone(&error));
        state.pending_bytes = 0;
        for pending in state.pending.drain(..) {
            let _ = pending.done.send(Err(CommitError::Poisoned(Arc::clone(&error))));
        }
    }

    /// Loses the bodies of a key's records, as a bad disk would. Records without a body stay whole.
    pub fn damage(&self, key: Key) {
        let mut state = self.state.lock();
        for record in state.durable.records.values_mut() {
            record.damaged |= record.key == key && !record.body.is_empty();
        }
    }

    /// The keys of the records that have a body, in log order.
    #[must_use]
    pub fn keys_with_body(&self) -> Vec<Key> {
        let state = self.state.lock();
        let records = state.durable.records.values();
        records
            .filter(|record| !record.body.is_empty())
            .map(|record| record.key)
            .collect()
    }

    /// The key of the record at a location.
    #[must_use]
    pub fn key_at(&self, at: Location) -> Option<Key> {
        let state = self.state.lock();
        state.durable.records.get(&at.position).map(|record| record.key)
    }

    /// Ends this store as a power cut would, and returns what a start would find: everything up to the last sync.
    /// Waiting commits fail with `Closed`.
    pub fn crash(&self) -> (Arc<Self>, Recovered) {
        self.crash_keeping(0)
    }

    /// The same, when the first `commits` of those that waited had reached the disk although nobody heard of it.
    pub fn crash_keeping(&self, commits: usize) -> (Arc<Self>, Recovered) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.pending);
        state.pending_bytes = 0;
        for pending in waiting.into_iter().take(commits) {
            state.durable.apply(pending.frames);
        }
        drop(state);
        self.copy()
    }

    /// A copy of the disk as a power cut now would leave it. This store goes on.
    #[must_use]
    pub fn copy(&self) -> (Arc<Self>, Recovered) {
        let state = self.state.lock();
        let (quota, durable) = (state.quota, state.durable.clone());
        drop(state);
        let recovered = durable.recovered();
        let sizes = ValueSizes::of(&durable.values);
        let state = Mutex::new(State {
            quota,
            durable,
            sizes,
            ..State::default()
        });
        let reserve = self.reserve;
        (Arc::new(Self { reserve, state }), recovered)
    }
}

impl State {
    fn complete_all(&mut self) {
        while !self.full && !self.pending.is_empty() {
            self.complete_first();
        }
    }

    fn complete_first(&mut self) {
        let Some(pending) = self.pending.pop_front() else {
            return;
        };
        self.pending_bytes -= pending.bytes;
        let locations = self.durable.apply(pending.frames);
        let _ = pending.done.send(Ok(locations));
    }
}

impl Durable {
    fn apply(&mut self, frames: Vec<Prepared>) -> Vec<Location> {
        let mut locations = Vec::new();
        for frame in frames {
            let header = frame.header;
            let (position, bytes) = (self.position, header.frame_len());
            self.position += bytes;
            let name = || String::from_utf8_lossy(&frame.head).into_owned();
            match header.frame_type {
                FrameType::Append => {
                    let body = frame.body.concat().into();
                    let record = Record {
                        key: header.key,
                        kind: header.kind,
                        head: frame.head,
                        body,
                        bytes,
                        damaged: false,
                    };
                    locations.push(record.location(position));
                    self.records.insert(position, record);
                    self.bytes += bytes;
                }
                FrameType::Release => {
                    let bytes = &mut self.bytes;
                    self.records.retain(|_, record| {
                        let freed = record.key == header.key;
                        *bytes -= if freed { record.bytes } else { 0 };
                        !freed
                    });
                }
                FrameType::Put => {
                    let value: Bytes = frame.body.concat().into();
                    self.bytes += value.len() as u64;
                    if let Some(old) = self.values.insert(name(), value) {
                        self.bytes -= old.len() as u64;
                    }
                }
                FrameType::Delete => {
                    if let Some(old) = self.values.remove(&name()) {
                        self.bytes -= old.len() as u64;
                    }
                }
                FrameType::Carried | FrameType::Marker | FrameType::Footer => {}
            }
        }
        locations
    }

    fn recovered(&self) -> Recovered {
        let mut recovered = Recovered {
            values: self.values.clone(),
            ..Recovered::default()
        };
        for (position, record) in &self.records {
            let (key, kind, head) = (record.key, record.kind, record.head.clone());
            let at = record.location(*position);
            if record.damaged {
                recovered.damaged.push(Damage {
                    segment: at.segment,
                    position: at.position,
                    key: Some(key),
                    record: Some(DamagedRecord {
                        kind,
                        head: Some(head),
                        at,
                    }),
                    value: None,
                    what: "the record's body does not match its checksum".to_owned(),
                });
            } else {
                recovered.records.push(RecoveredRecord { key, kind, head, at });
            }
        }
        recovered
    }
}

impl Record {
    fn location(&self, position: u64) -> Location {
        let (head_len, body_len) = (self.head.len() as u32, self.body.len() as u32);
        Location {
            segment: SEGMENT,
            position,
            head_len,
            body_len,
        }
    }
}

impl Store for MemStore {
    fn commit(&self, class: Class, ops: Vec<Op>) -> Commit {
        let refuse = |error| -> Commit { Box::pin(std::future::ready(Err(error))) };
        let (frames, bytes) = match prepare(ops) {
            Ok(prepared) => prepared,
            Err(error) => return refuse(error),
        };
        let mut state = self.state.lock();
        if let Some(error) = &state.poisoned {
            return refuse(CommitError::Poisoned(Arc::clone(error)));
        }
        if state.closed {
            return refuse(CommitError::Closed);
        }
        let class = if only_frees(&frames) { Class::Finish } else { class };
        let used = state.durable.bytes + state.pending_bytes;
        let allowed = match class {
            Class::Intake => state.quota - self.reserve,
            Class::Copy => state.quota - self.reserve / limits::COPY_RESERVE_SHARE,
            Class::Finish => u64::MAX,
        };
        if used + bytes > allowed || state.full && class != Class::Finish {
            return refuse(CommitError::Full {
                used,
                quota: state.quota,
            });
        }
        if let Err(error) = state.sizes.apply_checked(&frames) {
            return refuse(error);
        }
        let (done, durable) = oneshot::channel();
        state.pending_bytes += bytes;
        state.pending.push_back(Pending {
            class,
            frames,
            bytes,
            done,
        });
        if !state.held {
            state.complete_all();
        }
        Box::pin(async move { durable.await.unwrap_or(Err(CommitError::Closed)) })
    }

    fn read_body(&self, at: Location) -> Result<Bytes, ReadError> {
        let state = self.state.lock();
        let record = state.durable.records.get(&at.position).ok_or(ReadError::Gone)?;
        if record.damaged {
            Err(ReadError::Damaged {
                segment: at.segment,
                position: at.position,
            })
        } else if record.location(at.position) == at {
            Ok(record.body.clone())
        } else {
            Err(ReadError::Gone)
        }
    }

    fn reads_block(&self) -> bool {
        false
    }

    fn usage(&self) -> Usage {
        let state = self.state.lock();
        let used = state.durable.bytes + state.pending_bytes;
        Usage {
            bytes: state.durable.bytes,
            quota: state.quota,
            free: state.quota.saturating_sub(used),
            segments: 1,
            poisoned: state.poisoned.is_some(),
            room: if state.full {
                0
            } else {
                (state.quota - self.reserve).saturating_sub(used)
            },
            full: state.full || used >= state.quota - self.reserve,
            waiting: state.full && !state.pending.is_empty(),
        }
    }
}
