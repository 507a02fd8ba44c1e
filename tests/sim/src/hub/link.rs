//! One node's view of the hub: every request may be lost, late, slow or half done.

use std::sync::Arc;
use std::time::Duration;

use fanin_core::ids::StreamSeq;
use fanin_hub::api::server_code;
use fanin_hub::port::{Hub, LedgerRef, Pull};
use fanin_hub::{
    AckSubject, ApiError, ConnectError, ConsumerError, ConsumerInfo, ConsumerSpec, CreatePolicy, LedgerError,
    LedgerOptions, SettleError, SharedConsumer, SourceError, SourceInfo, StoredMessage,
};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::consumer::Consumer;
use super::ledger::LedgerLog;
use super::pull::SimPull;
use super::records::SimLedger;
use super::wire::{Mode, Wire};
use super::{LATE_MS_MAX, SimHub, State, Word};
use crate::faults::Fault;
use crate::mutants::Mutant;

/// How long a request waits for an answer that does not come, milliseconds.
const TIMEOUT_MS: u64 = 5_000;

/// What a connection that was just made is asked.
const CHECK: &str = "check";

/// The server's code for a request that it cannot make sense of.
const BAD_REQUEST: u32 = 10003;

/// Size limit of a ledger, bytes: far above what a run writes.
const LEDGER_BYTES_MAX: u64 = 64 << 20;

/// What one life of a node has of the hub.
#[derive(Clone, Debug)]
pub struct Link {
    /// The hub.
    pub hub: Arc<SimHub>,
    /// The network in between.
    pub wire: Arc<Wire>,
    /// Cancelled when the process is dead: it hears and says nothing more.
    pub dead: CancellationToken,
    /// The node, for the trace.
    pub node: Arc<str>,
}

impl Link {
    /// Waits while the node stands still, for ever when it is dead.
    ///
    /// # Errors
    /// When the connection is known to be down.
    pub(crate) async fn ready(&self) -> Result<(), ApiError> {
        self.wire.until(|mode| mode != Mode::Held).await;
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
        if self.wire.mode() == Mode::Down {
            // What is asked of a connection that is down fails at once, but never in no time at all.
            self.hub.world.pause(1).await;
            return Err(ApiError::Disconnected);
        }
        Ok(())
    }

    async fn transit(&self) {
        let world = &self.hub.world;
        let ms = if world.happens(Fault::RequestSlow) {
            world.delay.between(100, 4_000)
        } else {
            world.delay.below(4)
        };
        world.pause(ms).await;
    }

    async fn unanswered<T>(&self, what: &str) -> Result<T, ApiError> {
        self.hub.world.note(&self.node, || format!("{what}: no answer"));
        self.hub.world.pause(TIMEOUT_MS).await;
        self.ready().await?;
        Err(ApiError::Timeout {
            subject: what.to_owned(),
            after_ms: TIMEOUT_MS,
        })
    }

    /// One request: what is asked of the hub, and its answer.
    pub(crate) async fn exchange<T>(
        &self,
        what: &str,
        asked: impl FnOnce(&SimHub, &mut State) -> T,
    ) -> Result<T, ApiError> {
        let world = &self.hub.world;
        self.ready().await?;
        if self.wire.mode() == Mode::OutLost || world.happens(Fault::RequestLost) {
            return self.unanswered(what).await;
        }
        self.transit().await;
        self.ready().await?;
        // A connection that is made finds JetStream there; everything behind that may be without a leader.
        if what != CHECK && world.happens(Fault::NoResponders) {
            world.note(&self.node, || format!("{what}: no responders"));
            return Err(ApiError::NoResponders {
                subject: what.to_owned(),
            });
        }
        let answer = asked(&self.hub, &mut self.hub.state.lock());
        if self.wire.mode() == Mode::InLost || world.happens(Fault::ReplyLost) {
            return self.unanswered(what).await;
        }
        self.transit().await;
        self.ready().await?;
        Ok(answer)
    }

    /// A request that may arrive long after its sender has given up, or died. `None`: it went as usual.
    pub(crate) async fn perhaps_late<T>(
        &self,
        what: &str,
        asked: impl FnOnce(&SimHub, &mut State) + Send + 'static,
    ) -> Result<Option<T>, ApiError> {
        self.ready().await?;
        if self.wire.mode() != Mode::Up || !self.hub.world.happens(Fault::RequestLate) {
            return Ok(None);
        }
        let late = self.hub.world.delay.between(100, LATE_MS_MAX);
        self.later(late, what, asked);
        self.unanswered(what).await.map(Some)
    }

    /// Does something at the hub later, whatever has become of the node.
    pub(crate) fn later(
        &self,
        ms: u64,
        what: &str,
        asked: impl FnOnce(&SimHub, &mut State) + Send + 'static,
    ) {
        self.hub
            .world
            .note(&self.node, || format!("{what}: arrives in {ms} ms"));
        let hub = Arc::clone(&self.hub);
        tokio::spawn(async move {
            hub.world.pause(ms).await;
            asked(&hub, &mut hub.state.lock());
        });
    }

    async fn say(&self, batch: &[AckSubject], word: Word) -> Result<(), SettleError> {
        let failed = |source| SettleError {
            messages: batch.len(),
            source,
        };
        let said = self
            .exchange("settle", |hub, state| {
                hub.world.perhaps_kill(Fault::CrashAtSettle, &self.node);
                let mut taken = true;
                for ack in batch {
                    let repeat = || {
                        let (late, ack, node) = (
                            hub.world.delay.between(100, LATE_MS_MAX),
                            ack.clone(),
                            Arc::clone(&self.node),
                        );
                        self.later(late, "an acknowledgement", move |hub, state| {
                            hub.take_word(state, &node, &ack, word);
                        });
                    };
                    if hub.world.happens(Fault::AckLost) {
                        continue;
                    }
                    if hub.world.happens(Fault::AckLate) {
                        repeat();
                        continue;
                    }
                    taken &= hub.take_word(state, &self.node, ack, word);
                    if hub.world.happens(Fault::AckTwice) {
                        repeat();
                    }
                }
                hub.world
                    .note(&self.node, || format!("{word:?} of {} messages", batch.len()));
                taken
            })
            .await;
        let taken = match said {
            Err(ApiError::NoResponders { .. }) if self.hub.world.plays(Mutant::TakesNoRespondersForOk) => {
                true
            }
            said => said.map_err(failed)?,
        };
        if taken || self.hub.world.plays(Mutant::TakesNoRespondersForOk) {
            Ok(())
        } else {
            Err(failed(ApiError::NoResponders {
                subject: "$JS.ACK".to_owned(),
            }))
        }
    }
}

fn no_stream() -> ApiError {
    ApiError::Refused {
        subject: "$JS.API".to_owned(),
        code: 404,
        err_code: server_code::STREAM_NOT_FOUND,
        description: "stream not found".to_owned(),
    }
}

fn bad_request() -> ApiError {
    ApiError::Refused {
        subject: "$JS.API".to_owned(),
        code: 400,
        err_code: BAD_REQUEST,
        description: "bad request".to_owned(),
    }
}

impl Hub for Link {
    fn is_connected(&self) -> bool {
        self.wire.mode() != Mode::Down
    }

    fn generation(&self) -> Option<u64> {
        self.is_connected().then(|| self.wire.generation())
    }

    fn last_error(&self) -> Option<String> {
        None
    }

    fn wait_connected(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.wire.until(|mode| mode != Mode::Down))
    }

    fn check_jetstream(&self, _wait: Duration) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(async move {
            let asked = self.exchange(CHECK, |_, _| ()).await;
            asked.map_err(|source| ConnectError::HubWithoutJetStream {
                server: "simulated".to_owned(),
                source,
            })
        })
    }

    fn source_info<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<SourceInfo, SourceError>> {
        Box::pin(async move {
            let found = self
                .exchange("stream info", |hub, state| {
                    let (streams, _) = state.told(&self.node, hub.world.now_ms());
                    streams.get(stream).map(super::stream::Stream::info)
                })
                .await;
            let stream = stream.to_owned();
            match found {
                Ok(Some(info)) => Ok(info),
                Ok(None) => Err(SourceError::Missing { stream }),
                Err(source) => Err(SourceError::Hub { stream, source }),
            }
        })
    }

    fn ensure_ledger<'a>(
        &'a self,
        options: &'a LedgerOptions,
    ) -> BoxFuture<'a, Result<LedgerRef, LedgerError>> {
        Box::pin(async move {
            let stream = options.stream();
            let found = self
                .exchange("ensure ledger", |hub, state| {
                    if !state.ledgers.contains_key(&stream) && options.may_create {
                        let created_ns = state.created_ns(hub.world.now_ns());
                        let log = LedgerLog::new(&stream, created_ns, LEDGER_BYTES_MAX);
                        state.ledgers.insert(stream.clone(), log);
                    }
                    let log = state.ledger(&self.node, &stream);
                    log.map(|log| log.created_ns)
                })
                .await;
            match found {
                Ok(Some(created_ns)) => {
                    Ok(Arc::new(SimLedger::new(self.clone(), stream, created_ns)) as LedgerRef)
                }
                Ok(None) => Err(LedgerError::Missing { stream }),
                Err(source) => Err(LedgerError::Hub { stream, source }),
            }
        })
    }

    fn ensure_consumer<'a>(
        &'a self,
        spec: &'a ConsumerSpec,
        policy: CreatePolicy,
    ) -> BoxFuture<'a, Result<SharedConsumer, ConsumerError>> {
        Box::pin(async move {
            let (stream, name) = (spec.stream.clone(), spec.name());
            let key = (stream.clone(), name.clone());
            let found = self
                .exchange("ensure consumer", |hub, state| {
                    let is_new = !state.consumers.contains_key(&key);
                    if is_new && policy != CreatePolicy::Never {
                        let created_ns = state.created_ns(hub.world.now_ns());
                        hub.world
                            .note(&self.node, || format!("creates the consumer {policy:?}"));
                        state
                            .consumers
                            .insert(key.clone(), Consumer::new(spec, policy, created_ns));
                    }
                    let of = state.streams.get(&stream)?;
                    Some(
                        state
                            .consumers
                            .get(&key)
                            .map(|consumer| consumer.shared(of, is_new)),
                    )
                })
                .await;
            match found {
                Ok(Some(Some(consumer))) => Ok(consumer),
                Ok(Some(None)) => Err(ConsumerError::Missing { stream, name }),
                Ok(None) => Err(ConsumerError::StreamMissing { stream }),
                Err(source) => Err(ConsumerError::Hub { stream, name, source }),
            }
        })
    }

    fn consumer_info<'a>(
        &'a self,
        consumer: &'a SharedConsumer,
    ) -> BoxFuture<'a, Result<ConsumerInfo, ConsumerError>> {
        Box::pin(async move {
            let (stream, name) = (consumer.stream.clone(), consumer.name.clone());
            let key = (stream.clone(), name.clone());
            let found = self
                .exchange("consumer info", |hub, state| {
                    let (streams, consumers) = state.told(&self.node, hub.world.now_ms());
                    Some(consumers.get(&key)?.info(streams.get(&stream)?))
                })
                .await;
            match found {
                Ok(Some(info)) => Ok(info),
                Ok(None) => Err(ConsumerError::Missing { stream, name }),
                Err(source) => Err(ConsumerError::Hub { stream, name, source }),
            }
        })
    }

    fn puller(&self, consumer: &SharedConsumer) -> Box<dyn Pull> {
        Box::new(SimPull::new(self.clone(), consumer))
    }

    fn settle<'a>(&'a self, batch: &'a [AckSubject]) -> BoxFuture<'a, Result<(), SettleError>> {
        Box::pin(self.say(batch, Word::Ack))
    }

    fn give_back<'a>(
        &'a self,
        batch: &'a [AckSubject],
        delay: Duration,
    ) -> BoxFuture<'a, Result<(), SettleError>> {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Box::pin(self.say(batch, Word::GiveBack(ms)))
    }

    fn fetch_message<'a>(
        &'a self,
        stream: &'a str,
        seq: StreamSeq,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>> {
        Box::pin(async move {
            if self.hub.world.plays(Mutant::FetchesNothing) {
                self.hub.world.pause(1).await;
                return Err(no_stream());
            }
            let found = self
                .exchange("fetch message", |hub, state| {
                    let (streams, _) = state.told(&self.node, hub.world.now_ms());
                    Some(streams.get(stream)?.stored(seq.0))
                })
                .await?;
            // A server does not look for sequence 0: to it that is a request without a sequence.
            match seq.0 {
                0 => Err(bad_request()),
                _ => found.ok_or_else(no_stream),
            }
        })
    }

    fn next_matching<'a>(
        &'a self,
        stream: &'a str,
        from: StreamSeq,
        filter: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>> {
        Box::pin(async move {
            let filter = fanin_bridge::topic::SubjectFilter::new(vec![filter.to_owned()]);
            let found = self
                .exchange("next matching", |hub, state| {
                    let (streams, _) = state.told(&self.node, hub.world.now_ms());
                    let stream = streams.get(stream)?;
                    let found = stream.next_matching(from.0, &filter);
                    let is_blind = hub.world.plays(Mutant::AuditsFindNothing);
                    Some(found.filter(|_| !is_blind).and_then(|seq| stream.stored(seq)))
                })
                .await?;
            found.ok_or_else(no_stream)
        })
    }
}
