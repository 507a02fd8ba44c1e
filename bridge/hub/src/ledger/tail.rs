//! The tail: every record of the ledger, in order, without a silent jump.
//!
//! It reads through a throw-away consumer without acknowledgements. Whenever that consumer may have been lost (reconnect,
//! silence, a hole in its numbering) the tail verifies the stream before it goes on: same creation time, and not shorter
//! than what was read. Only then does it create another consumer, never behind the end: at the last record that was read, which is
//! delivered once more and must have been stored at the same time, for a stream may have lost records and grown again meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::Message;
use fanin_core::ids::LedgerSeq;
use serde_json::{Value, json};
use tokio::time::Instant;

pub use super::read::TailItem;
use super::{Ledger, LedgerError};
use crate::codes;
use crate::flow::{PullError, PullFlow};
use crate::limits;
use crate::reply::DeliveryFacts;

/// What the tail says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailEvent {
    /// The stream was verified and is read from `next` on. The first event, and again after each interruption.
    Opened {
        /// The next position to come.
        next: LedgerSeq,
        /// The last position at the hub as of now.
        last: LedgerSeq,
    },
    /// A record.
    Record(TailItem),
    /// The positions from `from` to `to`, both included, are not in the stream any more: purged, or lost. The record
    /// behind them follows.
    Gap {
        /// The first missing position.
        from: LedgerSeq,
        /// The last missing position.
        to: LedgerSeq,
    },
}

/// Why the tail cannot go on. Calling again tries again; nothing is skipped.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The stream ends before what was already read: the hub lost records.
    #[error(
        "the ledger {stream} ends at {last} although {read} was read: the hub lost records; the mapping halts, see `fanin ledger repair --dry-run`"
    )]
    Shrunk {
        /// The ledger's stream.
        stream: String,
        /// The last position at the hub.
        last: LedgerSeq,
        /// The last position read, or the one before the asked start.
        read: LedgerSeq,
    },
    /// The stream was deleted and created again.
    #[error("the ledger {stream} was deleted and created again; the mapping halts")]
    Recreated {
        /// The ledger's stream.
        stream: String,
    },
    /// The record that was read last is another one now: the hub lost records, and grew again beyond it.
    #[error(
        "record {seq} of the ledger {stream} is not the one that was read: the hub lost records and grew again; the mapping halts, see `fanin ledger repair --dry-run`"
    )]
    Regrown {
        /// The ledger's stream.
        stream: String,
        /// The record's position.
        seq: LedgerSeq,
        /// When the record that was read was stored, nanoseconds since 1970, by the hub's clock.
        read_ns: u64,
        /// The same of the one that stands there now.
        found_ns: u64,
    },
    /// The stream is gone.
    #[error("the ledger {stream} is missing; restore it, or see `fanin ledger repair --dry-run`")]
    Missing {
        /// The ledger's stream.
        stream: String,
    },
    /// The hub refuses, in a way that waiting does not cure.
    #[error("the ledger cannot be read")]
    Ledger {
        /// Why.
        source: LedgerError,
    },
}

impl TailError {
    /// True when calling again later may help without any change. Passing troubles never come out as errors, so this is
    /// for refusals that an operator can lift while the bridge runs.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            TailError::Shrunk { .. }
            | TailError::Recreated { .. }
            | TailError::Regrown { .. }
            | TailError::Missing { .. } => false,
            TailError::Ledger { .. } => true,
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            TailError::Shrunk { .. } | TailError::Regrown { .. } => codes::LEDGER_SHRANK,
            TailError::Recreated { .. } => codes::LEDGER_RECREATED,
            TailError::Missing { .. } => codes::LEDGER_MISSING,
            TailError::Ledger { source } => source.code(),
        }
    }
}

struct Reading {
    flow: PullFlow,
    next_delivery: u64,
    generation: u64,
}

/// A record that was read.
#[derive(Clone, Copy)]
struct LastRead {
    seq: u64,
    stored_ns: u64,
}

/// See the module. All methods are cancel safe.
pub struct Tail {
    ledger: Ledger,
    next: LedgerSeq,
    last_known: LedgerSeq,
    /// What a new consumer must deliver again, unless it was purged meanwhile; `None` before the first record.
    last_read: Option<LastRead>,
    /// What was delivered in its place.
    regrown: Option<LastRead>,
    reading: Option<Reading>,
    /// Told once the first delivery has shown that the ledger still is what was read.
    opening: Option<TailEvent>,
    ready: VecDeque<TailEvent>,
    pause: Duration,
}

impl Tail {
    /// A tail whose first record is the one at `from`, or the next behind it. Nothing is asked before the first call.
    #[must_use]
    pub fn open(ledger: &Ledger, from: LedgerSeq) -> Tail {
        let next = LedgerSeq(from.0.max(1));
        Tail {
            ledger: ledger.clone(),
            next,
            last_known: LedgerSeq(next.0 - 1),
            last_read: None,
            regrown: None,
            reading: None,
            opening: None,
            ready: VecDeque::new(),
            pause: limits::TAIL_PAUSE_FIRST,
        }
    }

    /// The position of the next record to arrive. Events that are ready but not handed over yet count as arrived.
    #[must_use]
    pub fn next_position(&self) -> LedgerSeq {
        self.next
    }

    /// The last position known to be at the hub; only a lower bound.
    #[must_use]
    pub fn last_known(&self) -> LedgerSeq {
        LedgerSeq(self.last_known.0.max(self.next.0 - 1))
    }

    /// Positions known to be at the hub and not read yet.
    #[must_use]
    pub fn lag(&self) -> u64 {
        (self.last_known.0 + 1).saturating_sub(self.next.0)
    }

    /// The next event. Waits through disconnects and other passing troubles.
    ///
    /// # Errors
    /// [`TailError`]; the next call verifies again.
    pub async fn next(&mut self) -> Result<TailEvent, TailError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(error) = self.take_regrown() {
                return Err(error);
            }
            if self.reading.is_none() {
                self.start_reading().await?;
                continue;
            }
            if let Err(error) = self.read_some().await {
                tracing::debug!(stream = %self.ledger.stream, error = %error, "the tail is interrupted");
                self.reading = None;
            }
        }
    }

    /// Waits for one event and returns it with those behind it that are ready, at most 2000.
    ///
    /// # Errors
    /// [`TailError`].
    pub async fn next_ready(&mut self) -> Result<Vec<TailEvent>, TailError> {
        let first = self.next().await?;
        let mut events = Vec::with_capacity(1 + self.ready.len());
        events.push(first);
        while events.len() < limits::TAIL_READY_MAX {
            if self.ready.is_empty()
                && let Some(message) = self.reading.as_mut().and_then(|r| r.flow.try_next())
            {
                self.take(message);
            }
            match self.ready.pop_front() {
                Some(event) => events.push(event),
                None => break,
            }
        }
        Ok(events)
    }

    /// Has the stream verified before anything more is read, as after an interruption: somebody has a reason to doubt it.
    pub fn verify(&mut self) {
        self.reading = None;
    }

    /// The next call verifies again and finds the same.
    fn take_regrown(&mut self) -> Option<TailError> {
        let (read, found) = (self.last_read?, self.regrown.take()?);
        Some(TailError::Regrown {
            stream: self.ledger.stream.clone(),
            seq: LedgerSeq(read.seq),
            read_ns: read.stored_ns,
            found_ns: found.stored_ns,
        })
    }

    async fn read_some(&mut self) -> Result<(), PullError> {
        let Some(reading) = self.reading.as_mut() else {
            return Ok(());
        };
        // The numbering of deliveries does not survive a reconnect: what was on its way is lost without a trace.
        if self.ledger.connection.generation() != Some(reading.generation) {
            return Err(PullError::Disconnected);
        }
        reading
            .flow
            .ask(limits::TAIL_BATCH, None, limits::OPEN_PULLS_MAX)
            .await?;
        let message = reading.flow.next(Instant::now() + limits::PULL_EXPIRES).await?;
        match message {
            Some(message) => self.take(message),
            // What was pending is gone: purged.
            None => self.ready.extend(self.opening.take()),
        }
        Ok(())
    }

    /// Turns one delivery into events. A hole in the consumer's own numbering ends the reading; the stream's numbering
    /// may have holes, which are gaps.
    fn take(&mut self, message: Message) {
        let Some(reading) = self.reading.as_mut() else {
            return;
        };
        let Some(facts) = message
            .reply
            .as_ref()
            .and_then(|r| DeliveryFacts::parse(r.as_str()))
        else {
            self.reading = None;
            return;
        };
        if facts.consumer_seq != reading.next_delivery {
            self.reading = None;
            return;
        }
        // A consumer begins with the record that was read last.
        if reading.next_delivery == 1
            && let Some(read) = self.last_read.filter(|read| read.seq == facts.stream_seq)
        {
            reading.next_delivery += 1;
            if facts.published_ns != read.stored_ns {
                self.regrown = Some(LastRead {
                    seq: facts.stream_seq,
                    stored_ns: facts.published_ns,
                });
                self.reading = None;
                return;
            }
            self.ready.extend(self.opening.take());
            return;
        }
        if facts.stream_seq < self.next.0 {
            self.reading = None;
            return;
        }
        reading.next_delivery += 1;
        self.ready.extend(self.opening.take());
        self.pause = limits::TAIL_PAUSE_FIRST;
        if facts.stream_seq > self.next.0 {
            self.ready.push_back(TailEvent::Gap {
                from: self.next,
                to: LedgerSeq(facts.stream_seq - 1),
            });
        }
        self.ready.push_back(TailEvent::Record(TailItem {
            seq: LedgerSeq(facts.stream_seq),
            subject_suffix: self.ledger.suffix_of(message.subject.as_str()),
            body: message.payload,
            stored_ns: facts.published_ns,
        }));
        self.last_read = Some(LastRead {
            seq: facts.stream_seq,
            stored_ns: facts.published_ns,
        });
        self.next = LedgerSeq(facts.stream_seq + 1);
        self.last_known = LedgerSeq(self.last_known.0.max(facts.stream_seq + facts.pending));
    }

    async fn start_reading(&mut self) -> Result<(), TailError> {
        match self.verify_and_create().await {
            Ok(()) => Ok(()),
            Err(TailError::Ledger { source }) if source.retryable() => {
                tracing::debug!(stream = %self.ledger.stream, error = %source, "the tail waits for the hub");
                let pause = self.pause;
                self.pause = (pause * 2).min(limits::TAIL_PAUSE_MAX);
                if self.ledger.connection.generation().is_none() {
                    self.ledger.connection.wait_connected().await;
                } else {
                    tokio::time::sleep(pause).await;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn verify_and_create(&mut self) -> Result<(), TailError> {
        self.opening = None;
        let stream = self.ledger.stream.clone();
        let disconnected = || TailError::Ledger {
            source: LedgerError::Hub {
                stream: stream.clone(),
                source: crate::ApiError::Disconnected,
            },
        };
        let generation = self.ledger.connection.generation().ok_or_else(disconnected)?;
        let info = self.ledger.info().await.map_err(of_ledger)?;
        // A consumer that starts behind the end would skip whatever the hub writes there first.
        if info.last_seq + 1 < self.next.0 {
            let (last, read) = (LedgerSeq(info.last_seq), LedgerSeq(self.next.0 - 1));
            return Err(TailError::Shrunk { stream, last, read });
        }

        let name = format!("fanin-tail-{:016x}", rand::random::<u64>());
        let request = json!({
            "stream_name": stream,
            "action": "create",
            "config": {
                "name": name,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.last_read.map_or(self.next.0, |read| read.seq),
                "ack_policy": "none",
                "replay_policy": "instant",
                "max_deliver": -1,
                "num_replicas": 1,
                "mem_storage": true,
                "inactive_threshold": u64::try_from(limits::TAIL_INACTIVE.as_nanos()).unwrap_or(u64::MAX),
            },
        });
        let created: Value = self
            .ledger
            .connection
            .api(&format!("CONSUMER.CREATE.{stream}.{name}"), &request)
            .await
            .map_err(|source| of_ledger(self.ledger.of_api(source)))?;
        self.reading = Some(Reading {
            flow: PullFlow::new(self.ledger.connection.clone(), &stream, &name),
            next_delivery: 1,
            generation,
        });
        self.last_known = LedgerSeq(info.last_seq);
        let opened = TailEvent::Opened {
            next: self.next,
            last: LedgerSeq(info.last_seq),
        };
        let pending = created.get("num_pending").and_then(Value::as_u64);
        if self.last_read.is_some() && pending != Some(0) {
            self.opening = Some(opened);
        } else {
            self.ready.push_back(opened);
        }
        Ok(())
    }
}

fn of_ledger(source: LedgerError) -> TailError {
    match source {
        LedgerError::Recreated { stream } => TailError::Recreated { stream },
        LedgerError::Missing { stream } => TailError::Missing { stream },
        source @ (LedgerError::Differs { .. }
        | LedgerError::NoRoom { .. }
        | LedgerError::Facts { .. }
        | LedgerError::Hub { .. }) => TailError::Ledger { source },
    }
}
