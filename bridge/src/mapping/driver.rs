//! The one loop of a mapping: it alone owns the core's node, executes its effects in order, and feeds back what comes of
//! them. Everything that can wait runs in tasks or futures that answer with an `Event`.
//!
//! Priorities of the loop: 1. the process is ending; 2. what the local log has made durable; 3. appends, settlements and
//! looks, which only move while they are polled here; 4. the clock; 5. finished batches of the topic; 6. events of the tasks
//! (tail, pulled batches), of which there may always be more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

use fanin_core::fold::Halt;
use fanin_core::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, StreamSeq, TermsVersion, Tick};
use fanin_core::input::Input;
use fanin_core::node::{Node, SourceProbe};
use fanin_core::seq_set::SeqSet;
use fanin_hub::ledger::tail::TailEvent;
use fanin_hub::port::{HubRef, LedgerRef};
use fanin_hub::{ConsumerInfo, LedgerInfo, Pulled, StoredMessage};
use fanin_store::Store;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::batches::{Batches, Permits};
use super::disk::Names;
use super::holdings::{Question, Remembered};
use super::intake::IntakeTask;
use super::join::Source;
use super::ledger_io::TailTask;
use super::limits::{EVENTS_MAX, TICK};
use super::mend::Mending;
use super::outgoing::Outgoing;
use super::storing::Stored;
use super::stuck::PullLink;
use super::view::{Counts, Shared};
use super::watch::WatchTask;
use super::{BySource, MappingOptions};
use crate::topic::{Topic, TopicEvent, TopicEvents, TopicFailure};

/// What a mapping's tasks tell its driver.
#[derive(Debug)]
pub enum Event {
    /// A look for holes has an answer.
    Audited {
        /// The source.
        incarnation: Incarnation,
        /// The terms whose filter was used.
        terms: TermsVersion,
        /// Where the look began.
        first: StreamSeq,
        /// The first matching message.
        next_matching: Option<StreamSeq>,
    },
    /// The checkpoint to load.
    Checkpoint(Option<Box<fanin_core::checkpoint::Complete>>),
    /// The consumer's counters.
    Floor {
        /// The source.
        incarnation: Incarnation,
        /// The counters.
        info: Box<ConsumerInfo>,
    },
    /// The consumer's counters are not to be had.
    FloorUnknown {
        /// The source.
        incarnation: Incarnation,
        /// Why, when waiting does not help.
        missing: Option<String>,
    },
    /// A source is not what it was.
    HubBroken(Halt),
    /// The ledger is not what was read.
    LedgerBroken {
        /// Which tail says so; it has ended.
        number: u64,
        /// What it found.
        halt: Halt,
    },
    /// The ledger seems not to be what was read; it is looked at again.
    LedgerDoubted {
        /// Which tail says so.
        number: u64,
    },
    /// The ledger's size and end.
    LedgerLooked {
        /// What the hub says.
        info: LedgerInfo,
        /// What was read of it before the hub was asked.
        read: LedgerSeq,
    },
    /// Messages arrived.
    Pulled {
        /// Their source.
        incarnation: Incarnation,
        /// The messages.
        messages: Vec<Pulled>,
        /// The room they take.
        permits: Permits,
    },
    /// A pull failed.
    PullFailed {
        /// The source.
        incarnation: Incarnation,
        /// Whether waiting does not help.
        missing: bool,
        /// Why.
        text: String,
    },
    /// A damaged batch was fetched again, or could not be.
    Refetched(Box<super::mend::Refetched>),
    /// A message that the hub had skipped.
    Repaired {
        /// The source.
        incarnation: Incarnation,
        /// The message.
        message: Box<StoredMessage>,
        /// The room it takes.
        permits: Permits,
    },
    /// A source was looked at.
    SourceSeen {
        /// The source.
        incarnation: Incarnation,
        /// What it must have given, as of before the look.
        reaches: StreamSeq,
        /// The last sequence it says it has given.
        last: StreamSeq,
        /// When the message that got it was stored, nanoseconds since the Unix epoch; 0 for none.
        last_ns: i64,
        /// The messages that were looked for and are there, with their publish times.
        probes: Vec<(StreamSeq, i64)>,
    },
    /// A source's consumer is there; its tasks run.
    SourceReady {
        /// The source.
        incarnation: Incarnation,
        /// Its tasks.
        started: Box<super::gate::Started>,
    },
    /// The tail read on.
    Tail {
        /// Which tail.
        number: u64,
        /// Positions known and not read.
        lag: u64,
        /// What it read.
        events: Vec<TailEvent>,
    },
}

/// Why a mapping's loop ended before the process.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The local log failed: nothing can be trusted, the process ends.
    #[error("FAN-4002: {0}; the process ends, check the disk and restart")]
    Store(#[from] fanin_store::CommitError),
    /// The topic refused a batch: the log and the topic disagree.
    #[error("FAN-4005: the topic and the local log disagree: {0}")]
    Publish(#[from] crate::topic::PublishError),
    /// A defect: the core decided a batch that the node does not hold.
    #[error("FAN-4005: batch {0} was decided and is not held here")]
    Unknown(BatchNo),
    /// A small value could not be encoded.
    #[error("FAN-4005: the terms could not be encoded")]
    Encode(#[from] serde_json::Error),
    /// The topic's own failure.
    #[error("FAN-4005: {0}")]
    Topic(TopicFailure),
}

/// What the loop needs from the outside.
pub struct DriverParts {
    /// The mapping.
    pub options: MappingOptions,
    /// The core's node, recovered from disk.
    pub node: Node,
    /// The hub.
    pub hub: HubRef,
    /// What messages are pulled over.
    pub pulls: PullLink,
    /// The ledger.
    pub ledger: LedgerRef,
    /// Its size a moment ago.
    pub ledger_size: LedgerInfo,
    /// The sources.
    pub sources: BTreeMap<Incarnation, Source>,
    /// The local log.
    pub store: Arc<dyn Store>,
    /// Names in it.
    pub names: Names,
    /// The topic, its deliveries held until the node has joined.
    pub topic: Topic,
    /// What the topic tells.
    pub topic_events: TopicEvents,
    /// Bodies on disk of batches that are staged and not published.
    pub batches: Batches,
    /// Published batches whose body is damaged.
    pub damaged: BTreeSet<BatchNo>,
    /// The version of the newest terms on disk.
    pub terms_known: u32,
    /// What the disk remembers of the ledger.
    pub remembered: Remembered,
    /// Where status looks.
    pub view: Shared,
}

/// The loop's state.
pub struct Driver {
    pub(super) options: MappingOptions,
    pub(super) node: Node,
    pub(super) hub: HubRef,
    pub(super) pulls: PullLink,
    pub(super) ledger: LedgerRef,
    pub(super) sources: BTreeMap<Incarnation, Source>,
    pub(super) store: Arc<dyn Store>,
    pub(super) names: Names,
    pub(super) topic: Topic,
    pub(super) batches: Batches,
    pub(super) terms_known: u32,
    pub(super) remembered: Remembered,
    pub(super) view: Shared,
    pub(super) counts: Counts,
    pub(super) lag: u64,
    pub(super) events_tx: mpsc::Sender<Event>,
    pub(super) stored: FuturesOrdered<BoxFuture<'static, Result<Stored, DriverError>>>,
    pub(super) outgoing: Outgoing,
    /// Looks for holes and fetches of single messages, at most `LOOKS_MAX`.
    pub(super) looks: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    /// What takes its time and changes nothing at the hub: checkpoints read, damaged batches fetched.
    pub(super) errands: FuturesUnordered<BoxFuture<'static, Option<Event>>>,
    pub(super) tail: Option<TailTask>,
    pub(super) tails: u64,
    pub(super) watches: BySource<WatchTask>,
    /// What each source must have given, for its look-out.
    pub(super) probes: BySource<watch::Sender<SourceProbe>>,
    pub(super) intakes: BySource<IntakeTask>,
    pub(super) gates: BySource<watch::Sender<bool>>,
    /// Why a source cannot be pulled from, when waiting does not help.
    pub(super) missing: BySource<String>,
    pub(super) ledger_room: super::room::LedgerRoom,
    pub(super) linger: super::linger::Linger,
    pub(super) mending: Mending,
    pub(super) repair_room: super::batches::RepairRoom,
    /// Room in the local log without which pulling is in vain: about what it refused last; 0 when it refused nothing.
    pub(super) room_wanted: u64,
    /// Applications that have been connected here in this process.
    pub(super) ever_present: BTreeSet<String>,
    pub(super) tickets: u64,
    /// Arrived messages whose effects are being executed: by ticket, taken up by `Stage` and `Turned`.
    pub(super) arrivals: BTreeMap<u64, super::arrivals::Arrival>,
    /// Nothing more is pulled: the process is ending.
    pub(super) stopping: bool,
    /// What ends the loop.
    pub(super) failure: Option<DriverError>,
    started: Instant,
}

impl Driver {
    /// A loop that has not started.
    #[must_use]
    pub fn new(parts: DriverParts) -> (Driver, TopicEvents, mpsc::Receiver<Event>) {
        let (events_tx, events) = mpsc::channel(EVENTS_MAX);
        let config = &parts.options.config;
        let linger = super::linger::Linger::new(config.batch.linger.0, config.ack_wait.0);
        let driver = Driver {
            outgoing: Outgoing::new(Arc::clone(&parts.hub)),
            options: parts.options,
            node: parts.node,
            hub: parts.hub,
            pulls: parts.pulls,
            ledger: parts.ledger,
            sources: parts.sources,
            store: parts.store,
            names: parts.names,
            topic: parts.topic,
            batches: parts.batches,
            terms_known: parts.terms_known,
            remembered: parts.remembered,
            view: parts.view,
            counts: Counts::default(),
            lag: 0,
            events_tx,
            stored: FuturesOrdered::new(),
            looks: FuturesUnordered::new(),
            errands: FuturesUnordered::new(),
            tail: None,
            tails: 0,
            watches: BTreeMap::new(),
            probes: BTreeMap::new(),
            intakes: BTreeMap::new(),
            gates: BTreeMap::new(),
            missing: BTreeMap::new(),
            ledger_room: super::room::LedgerRoom::new(parts.ledger_size),
            linger,
            mending: Mending::of(parts.damaged),
            repair_room: super::batches::RepairRoom::default(),
            room_wanted: 0,
            ever_present: BTreeSet::new(),
            tickets: 0,
            arrivals: BTreeMap::new(),
            stopping: false,
            failure: None,
            started: Instant::now(),
        };
        (driver, parts.topic_events, events)
    }

    /// Runs until `stop`, or until the local log fails. From `quiesce` on nothing more is pulled.
    ///
    /// # Errors
    /// `DriverError`: the process must end.
    pub async fn run(
        mut self,
        epoch: Epoch,
        mut topic_events: TopicEvents,
        (mut events, mut questions): (mpsc::Receiver<Event>, mpsc::Receiver<Question>),
        quiesce: CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), DriverError> {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.errands.push(Box::pin(first_checkpoint(self.ledger.clone())));
        self.ledger_room.start(&self.ledger, self.events_tx.clone());
        self.feed_ledger_size();
        self.feed(Input::EpochAppended(epoch));
        let mut presence = self.topic.connected_apps();
        while self.failure.is_none() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = quiesce.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.look_over();
                }
                Some(stored) = self.stored.next() => self.on_stored(stored?)?,
                Some(appended) = self.outgoing.appends.next(), if !self.outgoing.held => self.on_appended(&appended),
                () = self.outgoing.settles.progress(), if !self.outgoing.held => {}
                Some(request) = self.outgoing.requests.next(), if !self.outgoing.held => {
                    if let Some(event) = request {
                        self.on_event(event);
                    }
                }
                Some(look) = self.looks.next() => {
                    if let Some(event) = look {
                        self.on_event(event);
                    }
                }
                Some(errand) = self.errands.next() => {
                    if let Some(event) = errand {
                        self.on_event(event);
                    }
                }
                _ = clock.tick() => self.on_tick(),
                Some(question) = questions.recv() => {
                    // An error means that nobody waits for the answer any more.
                    drop(question.reply.send(self.holdings(question.with_state)));
                }
                event = topic_events.next() => self.on_topic(event)?,
                // The gate opens as soon as the last application is there.
                Ok(()) = presence.changed() => self.look_over(),
                Some(event) = events.recv() => self.on_event(event),
            }
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.finish().await,
        }
    }

    /// The process is ending: what is on its way to the disk gets there, what is published is settled, nothing new begins.
    async fn finish(mut self) -> Result<(), DriverError> {
        self.view.update(|view| view.state = super::view::State::Stopping);
        self.intakes.clear();
        self.tail = None;
        while let Some(stored) = self.stored.next().await {
            self.on_stored(stored?)?;
        }
        // Not waited for: the log is closed behind it, and nothing rests on it but an operator's repair of the ledger.
        let closed = self.put_closed();
        drop(self.store.commit(fanin_store::Class::Finish, vec![closed]));
        while !self.outgoing.held && !self.outgoing.settles.is_empty() {
            self.outgoing.settles.progress().await;
        }
        Ok(())
    }

    /// Milliseconds since the loop was made: the core's clock.
    pub(super) fn now(&self) -> Tick {
        Tick(super::millis(self.started.elapsed()))
    }

    /// Gives the node an input and executes what it asks for, in order.
    pub(super) fn feed(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.node.handle(self.now(), input, &mut effects);
        #[cfg(debug_assertions)]
        if let Err(broken) = fanin_core::invariants::check(&self.node) {
            tracing::error!(
                code = "FAN-4099",
                mapping = self.options.name,
                broken,
                "an invariant does not hold"
            );
        }
        for effect in effects {
            self.perform(effect);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tail { number, lag, events } => {
                if self.tail.as_ref().is_none_or(|tail| tail.number != number) {
                    return;
                }
                self.lag = lag;
                self.outgoing.held = false;
                for item in super::ledger_io::records(events) {
                    self.feed(Input::Record {
                        position: item.seq,
                        subject: item.subject_suffix,
                        bytes: item.body.to_vec(),
                    });
                }
                self.look_over();
            }
            Event::Checkpoint(checkpoint) => self.feed(Input::Checkpoint(checkpoint)),
            Event::HubBroken(halt) => self.feed(Input::HubBroken(halt)),
            Event::LedgerBroken { number, halt } => {
                self.feed(Input::HubBroken(halt));
                self.watch_ledger(number);
            }
            Event::LedgerDoubted { number } => {
                self.outgoing.held |= self.tail.as_ref().is_some_and(|tail| tail.number == number);
            }
            Event::LedgerLooked { info, read } => self.on_ledger_looked(info, read),
            Event::Pulled {
                incarnation,
                messages,
                permits,
            } => {
                self.missing.remove(&incarnation);
                self.on_pulled(incarnation, messages, permits);
            }
            Event::PullFailed {
                incarnation,
                missing,
                text,
            } => {
                if missing {
                    self.note_missing(incarnation, text);
                }
            }
            Event::Refetched(refetched) => self.on_refetched(*refetched),
            Event::Repaired {
                incarnation,
                message,
                permits,
            } => self.on_repaired(incarnation, *message, permits),
            Event::Floor { incarnation, info } => {
                self.missing.remove(&incarnation);
                self.view.update(|view| {
                    let source = view.sources.entry(incarnation).or_default();
                    source.pending = info.pending;
                    source.ack_pending = info.ack_pending;
                });
                self.feed(Input::Floor {
                    incarnation,
                    floor: info.ack_floor,
                    delivered: info.delivered,
                    pulling: self.is_pulling(incarnation),
                });
            }
            Event::FloorUnknown { incarnation, missing } => {
                if let Some(text) = missing {
                    self.note_missing(incarnation, text);
                }
            }
            Event::SourceSeen {
                incarnation,
                reaches,
                last,
                last_ns,
                probes,
            } => {
                self.feed(Input::SourceSeen {
                    incarnation,
                    reaches,
                    last,
                    last_ns,
                    probes,
                });
            }
            Event::SourceReady { incarnation, started } => {
                self.missing.remove(&incarnation);
                self.watches.insert(incarnation, started.watch);
                self.intakes.insert(incarnation, started.intake);
                self.look_over();
            }
            Event::Audited {
                incarnation,
                terms,
                first,
                next_matching,
            } => {
                self.feed(Input::Audited {
                    incarnation,
                    terms,
                    first,
                    next_matching,
                });
            }
        }
    }

    fn note_missing(&mut self, incarnation: Incarnation, text: String) {
        if self.missing.insert(incarnation, text.clone()).is_none() {
            tracing::warn!(
                code = "FAN-4020",
                mapping = self.options.name,
                reason = text,
                "nothing can be pulled"
            );
        }
        self.look_over();
    }

    fn on_topic(&mut self, event: TopicEvent) -> Result<(), DriverError> {
        match event {
            TopicEvent::BatchesDone(done) => {
                for batch in done {
                    self.feed(Input::BatchFinished(batch));
                }
                Ok(())
            }
            TopicEvent::Damaged(batch) => {
                self.on_damaged(batch);
                Ok(())
            }
            TopicEvent::Failed(TopicFailure::Store(error)) => Err(error.into()),
            TopicEvent::Failed(TopicFailure::Missing(offset)) => {
                Err(DriverError::Topic(TopicFailure::Missing(offset)))
            }
            // The topic tries again by itself and has logged it; nothing is lost while it cannot be read.
            TopicEvent::Failed(TopicFailure::Unreadable { .. }) => Ok(()),
        }
    }

    fn on_tick(&mut self) {
        self.feed(Input::Tick);
        self.mend_next();
        self.pulls.look(self.hub.is_connected(), Instant::now());
        self.look_over();
    }

    /// Acknowledges won messages of a published batch.
    pub(super) fn settle(&mut self, batch: BatchNo, won: &SeqSet) {
        if let Some((acks, permits)) = self.batches.settle(batch, won) {
            self.outgoing.settles.acknowledge(acks, permits);
        }
    }
}

async fn first_checkpoint(ledger: LedgerRef) -> Option<Event> {
    Some(super::ledger_io::load_checkpoint(ledger, None).await)
}
