//! The simulated hub: source streams, shared consumers and ledgers in one place, and what reaches it from the nodes.

pub mod consumer;
pub mod ledger;
pub mod link;
pub mod pull;
pub mod records;
pub mod stream;
pub mod wire;

use std::collections::BTreeMap;
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
    created: u64,
}

impl State {
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
    /// A hub with one empty source stream.
    #[must_use]
    pub fn new(world: &Arc<World>, stream: &str) -> Arc<SimHub> {
        let mut state = State::default();
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
        let Some(log) = state.ledgers.get_mut(ledger) else {
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
                .take(seq, &append.suffix, &append.body, &state.streams);
            if let Err(broken) = taken {
                self.world.violate(broken);
            }
        }
        self.appended.notify_waiters();
        result
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
                if let Some(incarnation) = incarnation
                    && !state.truth.may_settle(incarnation, seq)
                {
                    self.world.violate(format!(
                        "P5: {node} settles message {seq}, which nobody has claimed"
                    ));
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
