//! The simulated hub: source streams, shared consumers and ledgers in one place, and what reaches it from the nodes.

pub mod consumer;
pub mod ledger;
pub mod link;
pub mod pull;
pub mod records;
pub mod stream;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fanin_core::ids::Incarnation;
use fanin_hub::ledger::AppendError;
use fanin_hub::{AckSubject, DeliveryFacts, PubAck};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::consumer::Consumer;
use self::ledger::{Append, LedgerLog};
use self::stream::{Message, Stream};
use crate::faults::Fault;
use crate::mutants::Mutant;
use crate::truth::Truth;
use crate::world::World;

/// The latest that something on its way arrives, milliseconds.
pub const LATE_MS_MAX: u64 = 60_000;

/// What the hub holds.
#[derive(Debug, Default)]
pub struct State {
    /// Source streams by name.
    pub streams: BTreeMap<String, Stream>,
    /// Shared consumers by stream and name.
    pub consumers: BTreeMap<(String, String), Consumer>,
    /// Ledgers by name.
    pub ledgers: BTreeMap<String, LedgerLog>,
    /// What the ledger says, to somebody who sees all of it.
    pub truth: Truth,
    /// Messages that somebody has acknowledged.
    pub settled: BTreeSet<(Incarnation, u64)>,
    /// The other half of a hub that has split.
    pub other_half: Option<OtherHalf>,
    /// A server that still takes itself for the leader.
    pub old_leader: Option<OldLeader>,
    created: u64,
}

/// One half of a split hub: what some of the nodes see.
#[derive(Clone, Debug)]
pub struct OtherHalf {
    /// The nodes.
    pub nodes: BTreeSet<String>,
    /// Their ledgers.
    pub ledgers: BTreeMap<String, LedgerLog>,
}

/// What a server knows that is the leader no more.
#[derive(Clone, Debug)]
pub struct OldLeader {
    /// Until when it answers, simulated milliseconds: it steps down when no follower answers it.
    pub until_ms: u64,
    /// The nodes that ask it.
    pub nodes: BTreeSet<String>,
    /// As of when it was the leader; `None`: it was never the leader of the stream.
    streams: Option<BTreeMap<String, Stream>>,
    /// The same of the consumer, which has a leader of its own.
    consumers: Option<BTreeMap<(String, String), Consumer>>,
}

impl State {
    /// A ledger as a node sees it.
    #[must_use]
    pub fn ledger(&self, node: &str, name: &str) -> Option<&LedgerLog> {
        match &self.other_half {
            Some(half) if half.nodes.contains(node) => half.ledgers.get(name),
            Some(_) | None => self.ledgers.get(name),
        }
    }

    /// The same, to be changed.
    pub fn ledger_mut(&mut self, node: &str, name: &str) -> Option<&mut LedgerLog> {
        match &mut self.other_half {
            Some(half) if half.nodes.contains(node) => half.ledgers.get_mut(name),
            Some(_) | None => self.ledgers.get_mut(name),
        }
    }

    /// From now on a server answers these nodes as of now: about the stream, the consumer, or both.
    pub fn keep_leader(&mut self, until_ms: u64, nodes: BTreeSet<String>, stream: bool, consumer: bool) {
        self.old_leader = Some(OldLeader {
            until_ms,
            nodes,
            streams: stream.then(|| self.streams.clone()),
            consumers: consumer.then(|| self.consumers.clone()),
        });
    }

    /// Sources and consumers as a node is told about them.
    #[must_use]
    pub fn told(
        &self,
        node: &str,
        now_ms: u64,
    ) -> (&BTreeMap<String, Stream>, &BTreeMap<(String, String), Consumer>) {
        match &self.old_leader {
            Some(old) if now_ms < old.until_ms && old.nodes.contains(node) => (
                old.streams.as_ref().unwrap_or(&self.streams),
                old.consumers.as_ref().unwrap_or(&self.consumers),
            ),
            Some(_) | None => (&self.streams, &self.consumers),
        }
    }

    /// A creation time that nothing else has.
    pub fn created_ns(&mut self, now_ns: u64) -> u64 {
        self.created += 1;
        now_ns + self.created
    }
}

/// The hub.
#[derive(Debug)]
pub struct SimHub {
    /// The run.
    pub world: Arc<World>,
    /// What it holds.
    pub state: Mutex<State>,
    /// A stream or a consumer has changed.
    pub moved: Notify,
    /// A ledger has changed.
    pub appended: Notify,
}

/// What is said about a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It is taken care of.
    Ack,
    /// It is to come again after so many milliseconds.
    GiveBack(u64),
}

impl SimHub {
    /// A hub with one empty source stream, whose records survive a power loss after so many milliseconds.
    #[must_use]
    pub fn new(world: &Arc<World>, stream: &str, stable_ms: u64) -> Arc<SimHub> {
        let mut state = State {
            truth: Truth::new(stable_ms),
            ..State::default()
        };
        let created_ns = state.created_ns(world.now_ns());
        state
            .streams
            .insert(stream.to_owned(), Stream::new(stream, created_ns));
        Arc::new(SimHub {
            world: Arc::clone(world),
            state: Mutex::new(state),
            moved: Notify::new(),
            appended: Notify::new(),
        })
    }

    /// The incarnation of a source as it is now.
    #[must_use]
    pub fn incarnation(&self, stream: &str) -> Option<Incarnation> {
        let state = self.state.lock();
        state.streams.get(stream).map(Stream::incarnation)
    }

    /// Stores a message in a source.
    pub fn publish(&self, stream: &str, subject: &str, payload: Bytes) -> Option<u64> {
        let message = Message {
            subject: subject.to_owned(),
            payload,
            stored_ns: self.world.now_ns(),
            unreadable: self.world.happens(Fault::Unreadable),
        };
        let seq = self.state.lock().streams.get_mut(stream)?.publish(message);
        self.moved.notify_waiters();
        Some(seq)
    }

    /// Stores a record, perhaps twice.
    pub(crate) fn append(
        &self,
        state: &mut State,
        node: &str,
        ledger: &str,
        append: &Append,
    ) -> Result<PubAck, AppendError> {
        let (now_ms, now_ns) = (self.world.now_ms(), self.world.now_ns());
        if append.msg_id.is_some() && append.expect.is_some() {
            // Servers differ in which of the two they look at first.
            self.world.violate(format!(
                "F12: {node} appends {} with a message id and an expectation",
                append.suffix
            ));
        }
        let append = &self.mutated(append);
        let Some(log) = state.ledger_mut(node, ledger) else {
            return Err(AppendError::NoStream);
        };
        let mut landed = Vec::new();
        let result = log.append(append, now_ms, now_ns);
        if let Ok(PubAck {
            seq,
            duplicate: false,
        }) = &result
        {
            landed.push(*seq);
            if self.world.happens(Fault::AppendTwice) {
                let again = Append {
                    msg_id: None,
                    ..append.clone()
                };
                if let Ok(second) = log.append(&again, now_ms, now_ns) {
                    landed.push(second.seq);
                }
            }
        }
        self.world.note(node, || {
            format!("append {} {} bytes: {result:?}", append.suffix, append.body.len())
        });
        for seq in landed {
            let taken = state
                .truth
                .take(seq, now_ms, &append.suffix, &append.body, &state.streams);
            if let Err(broken) = taken {
                self.world.violate(broken);
            }
        }
        self.appended.notify_waiters();
        result
    }

    /// Purges records of a subject below a position. Returns how many; `None` when there is no such ledger.
    pub(crate) fn purge(
        &self,
        state: &mut State,
        node: &str,
        ledger: &str,
        pattern: &str,
        up_to: u64,
    ) -> Option<u64> {
        let (count, last) = state.ledger_mut(node, ledger)?.purge(pattern, up_to);
        self.world
            .note(node, || format!("purges {count} of {pattern} below {up_to}"));
        if let Some(last) = last
            && let Err(broken) = state.truth.may_purge(node, self.world.now_ms(), last)
        {
            self.world.violate(broken);
        }
        Some(count)
    }

    /// What becomes of an append under a mutant.
    fn mutated(&self, append: &Append) -> Append {
        let mut append = append.clone();
        if self.world.plays(Mutant::EpochsUnconditionally) && append.suffix.starts_with("epoch") {
            append.expect = None;
        }
        let parts = append.msg_id.as_ref().map(|id| id.split('.').collect::<Vec<_>>());
        let Some([node, epoch, _, batch, attempt, content]) = parts.as_deref() else {
            return append;
        };
        let id = if self.world.plays(Mutant::IdWithoutNonce) {
            Some(format!("{node}.{epoch}.{batch}.{attempt}.{content}"))
        } else if self.world.plays(Mutant::IdByBatch) {
            Some(format!("{node}.{batch}"))
        } else {
            None
        };
        append.msg_id = id.or(append.msg_id);
        append
    }

    /// Takes what a node says about a delivered message. False when there is no such consumer.
    pub(crate) fn take_word(&self, state: &mut State, node: &str, ack: &AckSubject, word: Word) -> bool {
        let Some(facts) = DeliveryFacts::parse(ack.as_str()) else {
            self.world
                .violate(format!("{node} acknowledges to {}", ack.as_str()));
            return true;
        };
        let mut names = ack.as_str().split('.').skip(2).map(str::to_owned);
        let (Some(stream), Some(name)) = (names.next(), names.next()) else {
            return false;
        };
        let incarnation = state.streams.get(&stream).map(Stream::incarnation);
        let Some(consumer) = state.consumers.get_mut(&(stream, name)) else {
            return false;
        };
        let seq = facts.stream_seq;
        match word {
            Word::Ack => {
                if let Some(incarnation) = incarnation {
                    let now_ms = self.world.now_ms();
                    let settled = state.truth.may_settle(node, now_ms, incarnation, seq);
                    match settled {
                        Ok(true) if !self.world.is_resolved(node, seq) => self.world.violate(format!(
                            "I8: {node} settles its own message {seq} before its resolution is on its disk"
                        )),
                        Ok(_) => {}
                        Err(broken) => self.world.violate(broken),
                    }
                    state.settled.insert((incarnation, seq));
                }
                consumer.ack(seq);
            }
            Word::GiveBack(delay_ms) => {
                consumer.give_back(seq, self.world.now_ms(), delay_ms);
                self.moved.notify_waiters();
            }
        }
        true
    }
}
