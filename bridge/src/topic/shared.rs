//! What the tasks of a topic share: the index, the bodies, who is connected, and what the owner wants to hear.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use fanin_core::ids::{BatchNo, InstanceNo, Offset, TermsVersion, Tick};
use fanin_store::{CommitError, Location, ReadError, Store};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};

use super::{
    body::{TopicBatch, WonMismatch},
    deadletter::DeadLetterBook,
    index::{Index, IndexEntry},
    limits::{FAILURES_WAITING_MAX, READ_AHEAD_MAX, READ_STRIPES},
    tail::{BodyCache, Origin},
    told::Told,
};
use crate::{
    ambient::Ambient,
    codes::Refusal,
    stage::{StageDecodeError, StagedBatch},
};

/// The instances of one application on this node, for the intake gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Instances that take messages.
    pub instances: u32,
    /// Since when there has been at least one, or none.
    pub since: Instant,
}

/// What a topic tells its owner.
#[derive(Debug)]
pub enum TopicEvent {
    /// Every application has durably finished these batches: their keys may be released.
    BatchesDone(Vec<BatchNo>),
    /// The body of this batch cannot be read any more. Told once, until [`Topic::mend`](super::Topic::mend).
    Damaged(BatchNo),
    /// Something the topic cannot mend by itself.
    Failed(TopicFailure),
}

/// What a topic cannot mend by itself. Nothing is skipped or lost by it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicFailure {
    /// The local log cannot be used any more: the process must end.
    #[error("the local log failed: {0}")]
    Store(#[from] CommitError),
    /// A batch cannot be read, though its bytes are those written; it is tried again every two seconds.
    #[error("batch {batch} cannot be read from the local log: {source}")]
    Unreadable {
        /// The batch.
        batch: BatchNo,
        /// Why.
        source: ReadFailure,
    },
    /// No batch holds an offset that is due; the application is stopped.
    #[error("no batch holds offset {0}, which is not finished")]
    Missing(Offset),
}

/// Why a body could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadFailure {
    /// The log could not read it.
    #[error(transparent)]
    Store(Arc<ReadError>),
    /// The bytes are no batch.
    #[error(transparent)]
    Decode(#[from] StageDecodeError),
    /// The batch does not fit its resolution.
    #[error(transparent)]
    Won(#[from] WonMismatch),
    /// The process is ending.
    #[error("the read was cancelled")]
    Cancelled,
    /// A defect.
    #[error("the read ended by a defect")]
    Crashed,
}

impl ReadFailure {
    /// Whether the disk has lost the bytes for good, so that only another copy helps.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            ReadFailure::Store(error) => match &**error {
                ReadError::Damaged { .. } => true,
                ReadError::Io(error) => error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()),
                ReadError::Gone => false,
            },
            ReadFailure::Decode(_) | ReadFailure::Won(_) | ReadFailure::Cancelled | ReadFailure::Crashed => {
                false
            }
        }
    }
}

/// A time; 0 stands for one that is not known.
fn known(published_ns: i64) -> Option<i64> {
    (published_ns != 0).then_some(published_ns)
}

/// Reads a body and makes something of it, on a thread where that blocks.
pub(crate) async fn read_apart<T: Send + 'static>(
    store: &Arc<dyn Store>,
    at: Location,
    decode: impl FnOnce(Bytes) -> Result<T, ReadFailure> + Send + 'static,
) -> Result<T, ReadFailure> {
    let blocks = store.reads_block();
    let store = Arc::clone(store);
    let read = move || {
        let body = store.read_body(at);
        decode(body.map_err(|error| ReadFailure::Store(Arc::new(error)))?)
    };
    if blocks {
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(ReadFailure::Crashed),
            Err(_) => Err(ReadFailure::Cancelled),
        }
    } else {
        read()
    }
}

/// Whether the topic delivers.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Running,
    /// Nothing more is delivered; verdicts are taken.
    Stopped {
        refusal: Refusal,
        linger_until: Instant,
    },
    /// The same, and the tasks end, at the latest at the deadline.
    Ending {
        refusal: Refusal,
        linger_until: Instant,
        deadline: Instant,
    },
}

/// No terms: the application gets nothing.
const NEVER: u32 = u32::MAX;

pub(crate) struct TopicShared {
    pub(crate) name: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) space: u32,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ambient: Ambient,
    pub(crate) fenced: Arc<AtomicBool>,
    pub(crate) head: Told<Offset>,
    pub(crate) phase: Told<Phase>,
    pub(crate) presence: watch::Sender<BTreeMap<Arc<str>, Presence>>,
    pub(crate) dead_letters: Mutex<DeadLetterBook>,
    pub(crate) index: Mutex<Index>,
    cache: Arc<BodyCache>,
    /// The terms version from which each application receives, by its number.
    since: Vec<AtomicU32>,
    events: Mutex<Events>,
    events_wake: Notify,
    stripes: [tokio::sync::Mutex<()>; READ_STRIPES],
    read_ahead: Arc<Semaphore>,
    next_instance: AtomicU64,
    started: Instant,
}

#[derive(Default)]
struct Events {
    /// Each batch is here at most once, so the index bounds it.
    done: Vec<BatchNo>,
    failures: VecDeque<TopicFailure>,
    /// Unreadable batches that the owner is not told of yet, and all that are not mended; the index bounds them.
    damaged: Vec<BatchNo>,
    unreadable: BTreeSet<BatchNo>,
}

/// What `TopicShared::new` is given.
pub(crate) struct Parts {
    pub(crate) name: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) space: u32,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Arc<BodyCache>,
    pub(crate) ambient: Ambient,
    pub(crate) index: Index,
    pub(crate) dead_letters: DeadLetterBook,
    pub(crate) since: Vec<Option<TermsVersion>>,
    pub(crate) apps: Vec<Arc<str>>,
}

impl TopicShared {
    pub(crate) fn new(parts: Parts) -> TopicShared {
        let now = Instant::now();
        let absent = Presence {
            instances: 0,
            since: now,
        };
        TopicShared {
            name: parts.name,
            node: parts.node,
            space: parts.space,
            store: parts.store,
            ambient: parts.ambient,
            fenced: Arc::new(AtomicBool::new(false)),
            head: Told::new(parts.apps.len(), parts.index.head()),
            phase: Told::new(parts.apps.len(), Phase::Running),
            presence: watch::Sender::new(parts.apps.into_iter().map(|app| (app, absent)).collect()),
            dead_letters: Mutex::new(parts.dead_letters),
            index: Mutex::new(parts.index),
            cache: parts.cache,
            since: parts
                .since
                .into_iter()
                .map(|since| AtomicU32::new(since.map_or(NEVER, |terms| terms.0)))
                .collect(),
            events: Mutex::new(Events::default()),
            events_wake: Notify::new(),
            stripes: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            read_ahead: Arc::new(Semaphore::new(READ_AHEAD_MAX)),
            next_instance: AtomicU64::new(1),
            started: now,
        }
    }

    /// Milliseconds since the topic started: the clock of its delivery machines.
    pub(crate) fn now(&self) -> Tick {
        Tick(self.started.elapsed().as_millis() as u64)
    }

    /// When a tick of that clock is reached.
    pub(crate) fn instant_of(&self, tick: Tick) -> Instant {
        self.started + std::time::Duration::from_millis(tick.0)
    }

    pub(crate) fn next_instance(&self) -> InstanceNo {
        InstanceNo(self.next_instance.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn set_since(&self, app: usize, since: Option<TermsVersion>) {
        if let Some(known) = self.since.get(app) {
            known.store(since.map_or(NEVER, |terms| terms.0), Ordering::Release);
        }
    }

    /// From which terms version on an application receives.
    pub(crate) fn since(&self, app: usize) -> Option<TermsVersion> {
        let since = self.since.get(app)?.load(Ordering::Acquire);
        (since != NEVER).then_some(TermsVersion(since))
    }

    /// Whether the terms name the application at all.
    pub(crate) fn is_served(&self, app: usize) -> bool {
        self.since
            .get(app)
            .is_some_and(|since| since.load(Ordering::Acquire) != NEVER)
    }

    /// Whether batches of these terms are for the application.
    pub(crate) fn entitled(&self, app: usize, terms: TermsVersion) -> bool {
        let since = self
            .since
            .get(app)
            .map_or(NEVER, |since| since.load(Ordering::Acquire));
        since != NEVER && since <= terms.0
    }

    pub(crate) fn entry(&self, offset: Offset) -> Option<IndexEntry> {
        self.index.lock().find(offset).cloned()
    }

    /// Base, end and terms of the batch that holds an offset.
    pub(crate) fn extent(&self, offset: Offset) -> Option<(Offset, Offset, TermsVersion)> {
        self.index
            .lock()
            .find(offset)
            .map(|entry| (entry.base, entry.end(), entry.terms))
    }

    /// When the hub stored the first message of the batch that holds an offset.
    pub(crate) fn published_ns(&self, offset: Offset) -> Option<i64> {
        known(self.index.lock().find(offset)?.published_ns)
    }

    /// Bytes at and behind an offset, and when the hub stored the first of them.
    pub(crate) fn backlog_from(&self, offset: Offset) -> (u64, Option<i64>) {
        let index = self.index.lock();
        (
            index.bytes_from(offset),
            index.find(offset).and_then(|entry| known(entry.published_ns)),
        )
    }

    pub(crate) fn cached(&self, base: Offset) -> Option<Arc<TopicBatch>> {
        self.cache.get(self.space, base)
    }

    pub(crate) fn keep(&self, batch: Arc<TopicBatch>) {
        self.cache.insert(self.space, batch, Origin::Published);
    }

    /// Reads a batch from disk, once for all who want it at the same time. A failure is logged and told to the owner.
    pub(crate) async fn read(self: Arc<Self>, entry: IndexEntry) -> Result<Arc<TopicBatch>, ReadFailure> {
        // Held over the read on purpose: whoever wants the same batch waits and then finds it in memory.
        let _one_reader = self.stripes[(entry.batch.0 % READ_STRIPES as u64) as usize]
            .lock()
            .await;
        if let Some(batch) = self.cached(entry.base) {
            return Ok(batch);
        }
        let (batch_no, entry_at) = (entry.batch, entry.at);
        let result = read_apart(&self.store, entry_at, move |body| {
            let staged = Arc::new(StagedBatch::decode(&body)?);
            Ok(Arc::new(TopicBatch::new(
                entry.base,
                entry.terms,
                staged,
                entry.won.as_deref(),
            )?))
        })
        .await;
        match &result {
            Ok(batch) => self.cache.insert(self.space, Arc::clone(batch), Origin::Read),
            Err(source) if source.is_damage() => self.note_damage((batch_no, entry_at), source),
            Err(source) => self.fail(TopicFailure::Unreadable {
                batch: batch_no,
                source: source.clone(),
            }),
        }
        result
    }

    /// Reads the batch at an offset into memory beside other work, unless enough are being read already.
    pub(crate) fn read_ahead(self: &Arc<Self>, offset: Offset) {
        let Some(entry) = self
            .entry(offset)
            .filter(|entry| self.cached(entry.base).is_none())
        else {
            return;
        };
        let Ok(permit) = Arc::clone(&self.read_ahead).try_acquire_owned() else {
            return;
        };
        let topic = Arc::clone(self);
        tokio::spawn(async move {
            // Who needs the batch later finds it in memory, or meets the same failure.
            let _ = topic.read(entry).await;
            drop(permit);
        });
    }

    /// An application has durably finished everything below `floor`.
    pub(crate) fn advance(&self, app: usize, floor: Offset) {
        let done = self.index.lock().advance(app, floor);
        self.done(done);
    }

    pub(crate) fn done(&self, done: Vec<(BatchNo, Offset)>) {
        if done.is_empty() {
            return;
        }
        for (_, base) in &done {
            self.cache.remove(self.space, *base);
        }
        self.events
            .lock()
            .done
            .extend(done.into_iter().map(|(batch, _)| batch));
        self.events_wake.notify_one();
    }

    pub(crate) fn fail(&self, failure: TopicFailure) {
        match &failure {
            // The process is ending, or the log's writer ended and has said why.
            TopicFailure::Store(CommitError::Closed) => {
                tracing::info!(topic = %self.name, "the topic ends with its local log");
            }
            TopicFailure::Store(error) => {
                tracing::error!(code = "FAN-4002", topic = %self.name, %error, "the topic's local log failed");
            }
            TopicFailure::Unreadable { .. } | TopicFailure::Missing(_) => {
                tracing::error!(code = "FAN-4032", topic = %self.name, error = %failure, "the topic needs attention");
            }
        }
        let mut events = self.events.lock();
        if events.failures.len() < FAILURES_WAITING_MAX {
            events.failures.push_back(failure);
        }
        drop(events);
        self.events_wake.notify_one();
    }

    /// A batch cannot be read where it lies: the owner is told, once until it is mended.
    pub(crate) fn note_damage(&self, (batch, at): (BatchNo, Location), failure: &ReadFailure) {
        if self.index.lock().location_of(batch) != Some(at) {
            // It was written anew, or finished, while it was being read.
            return;
        }
        let mut events = self.events.lock();
        if events.unreadable.insert(batch) {
            tracing::warn!(code = "FAN-4043", topic = %self.name, %batch, %failure, "a batch of the local log is damaged");
            events.damaged.push(batch);
            drop(events);
            self.events_wake.notify_one();
        }
    }

    /// A batch was written anew, at `at`. Returns its entry if anybody still needs it.
    pub(crate) fn moved(&self, at: Location, body: &StagedBatch) -> Option<IndexEntry> {
        let bytes = u32::try_from(body.payload_bytes()).unwrap_or(u32::MAX);
        let entry = self
            .index
            .lock()
            .moved(body.batch, at, body.published_ns().0, bytes);
        let mut events = self.events.lock();
        events.unreadable.remove(&body.batch);
        events.damaged.retain(|waiting| *waiting != body.batch);
        entry
    }

    pub(crate) fn keep_read(&self, batch: Arc<TopicBatch>) {
        self.cache.insert(self.space, batch, Origin::Read);
    }

    pub(crate) fn missing(&self, offset: Offset) {
        self.fail(TopicFailure::Missing(offset));
    }

    pub(crate) async fn next_event(&self) -> TopicEvent {
        loop {
            {
                let mut events = self.events.lock();
                if let Some(failure) = events.failures.pop_front() {
                    return TopicEvent::Failed(failure);
                }
                if let Some(batch) = events.damaged.pop() {
                    return TopicEvent::Damaged(batch);
                }
                if !events.done.is_empty() {
                    return TopicEvent::BatchesDone(std::mem::take(&mut events.done));
                }
            }
            self.events_wake.notified().await;
        }
    }

    /// Notes how many instances of an application take messages.
    pub(crate) fn note_presence(&self, app: &Arc<str>, instances: u32) {
        self.presence.send_if_modified(|all| {
            let presence = all.entry(Arc::clone(app)).or_insert_with(|| Presence {
                instances: 0,
                since: Instant::now(),
            });
            if presence.instances == instances {
                return false;
            }
            if (presence.instances == 0) != (instances == 0) {
                presence.since = Instant::now();
            }
            presence.instances = instances;
            true
        });
    }
}
