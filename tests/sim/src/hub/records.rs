//! One node's view of a ledger: appends that land late or twice, reads that are stale, a tail that lags and restarts.

use std::sync::Arc;

use bytes::Bytes;
use fanin_core::ids::LedgerSeq;
use fanin_core::record::Record;
use fanin_hub::ledger::AppendError;
use fanin_hub::ledger::tail::{TailError, TailEvent, TailItem};
use fanin_hub::port::{LedgerStream, LedgerTail};
use fanin_hub::{ApiError, LedgerError, LedgerInfo, PubAck};
use futures_util::future::BoxFuture;

use super::ledger::{Append, LedgerLog};
use super::link::Link;
use super::wire::Mode;
use crate::faults::Fault;
use crate::mutants::Mutant;
use crate::world::Early;

/// Most records a tail hands over at once.
const TAIL_READY_MAX: u64 = 200;

/// A ledger as one life of a node has verified it.
#[derive(Clone, Debug)]
pub struct SimLedger {
    link: Link,
    stream: String,
    created_ns: u64,
}

impl SimLedger {
    /// A ledger over a link.
    #[must_use]
    pub fn new(link: Link, stream: String, created_ns: u64) -> SimLedger {
        SimLedger {
            link,
            stream,
            created_ns,
        }
    }

    fn hub_error(&self, source: ApiError) -> LedgerError {
        LedgerError::Hub {
            stream: self.stream.clone(),
            source,
        }
    }

    async fn look<T>(&self, what: &str, ask: impl FnOnce(&LedgerLog, u64) -> T) -> Result<T, LedgerError> {
        let found = self
            .link
            .exchange(what, |hub, state| {
                let log = state.ledger(&self.link.node, &self.stream)?;
                // A single read may be answered by a replica that is behind.
                let through = if hub.world.happens(Fault::StaleRead) {
                    log.last.saturating_sub(hub.world.hub.between(1, 30))
                } else {
                    log.last
                };
                Some(ask(log, through))
            })
            .await;
        match found {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(LedgerError::Missing {
                stream: self.stream.clone(),
            }),
            Err(source) => Err(self.hub_error(source)),
        }
    }

    async fn read_info(&self) -> Result<LedgerInfo, LedgerError> {
        // The stream's facts come from its leader.
        let found = self
            .link
            .exchange("ledger info", |_, state| {
                state.ledger(&self.link.node, &self.stream).map(LedgerLog::info)
            })
            .await;
        let stream = self.stream.clone();
        match found {
            Ok(Some(info)) if info.created_ns == self.created_ns => Ok(info),
            Ok(Some(_)) => Err(LedgerError::Recreated { stream }),
            Ok(None) => Err(LedgerError::Missing { stream }),
            Err(source) => Err(LedgerError::Hub { stream, source }),
        }
    }

    async fn append_record(&self, append: Append) -> Result<PubAck, AppendError> {
        let (node, stream, late) = (self.link.node.clone(), self.stream.clone(), append.clone());
        let body = append.body.clone();
        let what = format!("append {}", append.suffix);
        let gone = self
            .link
            .perhaps_late::<()>(&what, move |hub, state| {
                drop(hub.append(state, &node, &stream, &late));
            })
            .await;
        let result = match gone {
            // It is on its way; nobody will hear of it.
            Ok(Some(())) => return Err(AppendError::Timeout),
            Ok(None) if self.link.hub.world.happens(Fault::InFlight) => {
                // An earlier copy of a claim is being stored and may land; with an expectation it is somebody else's record.
                if append.expect.is_none() && self.link.wire.mode() == Mode::Up {
                    let (node, stream, ms) = (
                        self.link.node.clone(),
                        self.stream.clone(),
                        self.link.hub.world.delay.between(1, 2_000),
                    );
                    self.link.later(ms, &what, move |hub, state| {
                        drop(hub.append(state, &node, &stream, &append));
                    });
                }
                self.link.hub.world.pause(1).await;
                return Err(AppendError::InFlight);
            }
            Ok(None) => {
                self.link
                    .exchange(&what, |hub, state| {
                        hub.world.perhaps_kill(Fault::CrashAtAppend, &self.link.node);
                        hub.append(state, &self.link.node, &self.stream, &append)
                    })
                    .await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(stored) => {
                if let Ok(ack) = &stored {
                    self.notice_early(ack, &what, &body);
                }
                stored
            }
            Err(ApiError::Timeout { .. }) => Err(AppendError::Timeout),
            Err(ApiError::Disconnected) => Err(AppendError::Disconnected),
            Err(ApiError::NoResponders { .. }) => Err(AppendError::NoStream),
            Err(source) => Err(AppendError::Other { source }),
        }
    }
}

impl SimLedger {
    /// The writer hears that its record stands where it had read another one, and must not go on (P11). An EPOCH's witness is
    /// the disk's; what comes of that is decided when the tail is there.
    fn notice_early(&self, ack: &PubAck, what: &str, body: &[u8]) {
        let Ok(Record { witness, .. }) = Record::decode(body) else {
            return;
        };
        if !ack.duplicate && ack.seq <= witness.position.0 && !what.starts_with("append epoch") {
            self.link.hub.world.early(Early {
                at_ms: self.link.hub.world.now_ms(),
                node: Arc::clone(&self.link.node),
                dead: self.link.dead.clone(),
                position: ack.seq,
                read: witness.position.0,
            });
        }
    }
}

impl LedgerStream for SimLedger {
    fn stream(&self) -> &str {
        &self.stream
    }

    fn created_ns(&self) -> u64 {
        self.created_ns
    }

    fn info(&self) -> BoxFuture<'_, Result<LedgerInfo, LedgerError>> {
        Box::pin(self.read_info())
    }

    fn append<'a>(
        &'a self,
        suffix: &'a str,
        msg_id: Option<&'a str>,
        body: Bytes,
        expect_last: Option<LedgerSeq>,
    ) -> BoxFuture<'a, Result<PubAck, AppendError>> {
        Box::pin(self.append_record(Append {
            suffix: suffix.to_owned(),
            msg_id: msg_id.map(str::to_owned),
            body,
            expect: expect_last.map(|last| last.0),
        }))
    }

    fn last_of_subject<'a>(
        &'a self,
        suffix: &'a str,
    ) -> BoxFuture<'a, Result<Option<TailItem>, LedgerError>> {
        Box::pin(async move {
            self.look("last of subject", |log, through| {
                log.read(suffix, 1, through).pop()
            })
            .await
        })
    }

    fn read_subject<'a>(
        &'a self,
        suffix: &'a str,
        from: LedgerSeq,
    ) -> BoxFuture<'a, Result<Vec<TailItem>, LedgerError>> {
        Box::pin(async move {
            self.look("read subject", |log, through| log.read(suffix, from.0, through))
                .await
        })
    }

    fn purge_subject<'a>(
        &'a self,
        suffix: &'a str,
        up_to: LedgerSeq,
    ) -> BoxFuture<'a, Result<u64, LedgerError>> {
        Box::pin(async move {
            let (node, stream, pattern) = (self.link.node.clone(), self.stream.clone(), suffix.to_owned());
            let kept = !["claim.>", "handoff.>", "progress.>", "close", "checkpoint"].contains(&suffix);
            let up_to = match kept && self.link.hub.world.plays(Mutant::PurgesKeptRecords) {
                true => up_to.next(),
                false => up_to,
            };
            let late = self
                .link
                .perhaps_late("purge", move |hub, state| {
                    hub.purge(state, &node, &stream, &pattern, up_to.0);
                })
                .await
                .map_err(|source| self.hub_error(source))?;
            if let Some(count) = late {
                return Ok(count);
            }
            let purged = self
                .link
                .exchange("purge", |hub, state| {
                    hub.purge(state, &self.link.node, &self.stream, suffix, up_to.0)
                })
                .await
                .map_err(|source| self.hub_error(source))?;
            purged.ok_or_else(|| LedgerError::Missing {
                stream: self.stream.clone(),
            })
        })
    }

    fn tail(&self, from: LedgerSeq) -> Box<dyn LedgerTail> {
        Box::new(SimTail {
            ledger: self.clone(),
            next: from.0.max(1),
            last_known: 0,
            last_read: None,
            reading: None,
        })
    }
}

/// A reader of the ledger.
#[derive(Debug)]
struct SimTail {
    ledger: SimLedger,
    next: u64,
    last_known: u64,
    /// The record that was read last: its position, and when it was stored.
    last_read: Option<(u64, u64)>,
    /// Over which connection it reads; `None` before it has verified the stream.
    reading: Option<u64>,
}

impl SimTail {
    async fn open(&mut self) -> Result<Option<TailEvent>, TailError> {
        let generation = self.ledger.link.wire.generation();
        let stream = self.ledger.stream.clone();
        match self.ledger.read_info().await {
            Ok(info) if info.last_seq + 1 < self.next => Err(TailError::Shrunk {
                stream,
                last: LedgerSeq(info.last_seq),
                read: LedgerSeq(self.next - 1),
            }),
            Ok(info) => {
                if let Some(error) = self.regrown() {
                    return Err(error);
                }
                self.reading = Some(generation);
                self.last_known = info.last_seq;
                Ok(Some(TailEvent::Opened {
                    next: LedgerSeq(self.next),
                    last: LedgerSeq(info.last_seq),
                }))
            }
            Err(LedgerError::Recreated { stream }) => Err(TailError::Recreated { stream }),
            Err(LedgerError::Missing { stream }) => Err(TailError::Missing { stream }),
            Err(LedgerError::Hub { .. }) => {
                let world = &self.ledger.link.hub.world;
                world.pause(world.delay.between(50, 1_000)).await;
                Ok(None)
            }
            Err(
                source @ (LedgerError::Differs { .. }
                | LedgerError::NoRoom { .. }
                | LedgerError::Facts { .. }),
            ) => Err(TailError::Ledger { source }),
        }
    }

    /// Another record now stands where one was read.
    fn regrown(&self) -> Option<TailError> {
        let (seq, read_ns) = self.last_read?;
        let state = self.ledger.link.hub.state.lock();
        let log = state.ledger(&self.ledger.link.node, &self.ledger.stream)?;
        let (_, stored) = log.next(seq).filter(|(found, _)| *found == seq)?;
        let found_ns = LedgerLog::item(seq, stored).stored_ns;
        (found_ns != read_ns).then(|| TailError::Regrown {
            stream: self.ledger.stream.clone(),
            seq: LedgerSeq(seq),
            read_ns,
            found_ns,
        })
    }

    /// What is there to be read now, and was read over this connection.
    fn take(&mut self) -> Vec<TailEvent> {
        let hub = &self.ledger.link.hub;
        let state = hub.state.lock();
        let mut events = Vec::new();
        let Some(log) = state.ledger(&self.ledger.link.node, &self.ledger.stream) else {
            return events;
        };
        self.last_known = self.last_known.max(log.last);
        let max = hub.world.delay.between(1, TAIL_READY_MAX);
        while (events.len() as u64) < max {
            let Some((seq, stored)) = log.next(self.next) else {
                break;
            };
            if seq > self.next {
                events.push(TailEvent::Gap {
                    from: LedgerSeq(self.next),
                    to: LedgerSeq(seq - 1),
                });
            }
            let item = LedgerLog::item(seq, stored);
            self.last_read = Some((seq, item.stored_ns));
            events.push(TailEvent::Record(item));
            self.next = seq + 1;
        }
        events
    }

    fn has_more(&self) -> bool {
        let state = self.ledger.link.hub.state.lock();
        let log = state.ledger(&self.ledger.link.node, &self.ledger.stream);
        log.is_some_and(|log| log.next(self.next).is_some())
    }

    async fn next_events(&mut self) -> Result<Vec<TailEvent>, TailError> {
        let link = self.ledger.link.clone();
        let world = &link.hub.world;
        loop {
            let Some(generation) = self.reading else {
                if let Some(opened) = self.open().await? {
                    return Ok(vec![opened]);
                }
                continue;
            };
            let appended = link.hub.appended.notified();
            if link.ready().await.is_err() || generation != link.wire.generation() {
                self.reading = None;
                continue;
            }
            if self.has_more() && link.wire.mode() == Mode::Up {
                let lag = if world.happens(Fault::TailLag) {
                    world.delay.between(500, 8_000)
                } else {
                    world.delay.below(6)
                };
                world.pause(lag).await;
                // What was on its way over a connection that is gone never arrives.
                if generation == link.wire.generation() && link.ready().await.is_ok() {
                    if world.happens(Fault::TailRestart) {
                        self.reading = None;
                        continue;
                    }
                    let events = self.take();
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                continue;
            }
            tokio::select! {
                biased;
                () = appended => {}
                () = link.wire.changed() => {}
            }
        }
    }
}

impl LedgerTail for SimTail {
    fn next_ready(&mut self) -> BoxFuture<'_, Result<Vec<TailEvent>, TailError>> {
        Box::pin(self.next_events())
    }

    fn lag(&self) -> u64 {
        (self.last_known + 1).saturating_sub(self.next)
    }

    fn verify(&mut self) {
        self.reading = None;
    }
}
