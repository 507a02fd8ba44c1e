//! The hub as a mapping uses it. The bridge's driver knows these traits only, so that the same driver runs on NATS and on the
//! simulated hub of the tests. What is behind each call, its errors and bounds are described at the method of
//! [`Connection`], [`Ledger`], [`Puller`] and [`Tail`] that it stands for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanin_core::ids::{LedgerSeq, StreamSeq};
use futures_util::future::BoxFuture;

use crate::ledger::AppendError;
use crate::ledger::tail::{Tail, TailError, TailEvent, TailItem};
use crate::{
    AckSubject, ApiError, ConnectError, Connection, ConsumerError, ConsumerInfo, ConsumerSpec, CreatePolicy,
    Ledger, LedgerError, LedgerInfo, LedgerOptions, PubAck, PullError, Pulled, Puller, SettleError, Settler,
    SharedConsumer, SourceError, SourceInfo, StoredMessage, messages,
};

/// A hub, shared.
pub type HubRef = Arc<dyn Hub>;

/// A ledger, shared.
pub type LedgerRef = Arc<dyn LedgerStream>;

/// One hub, over one connection.
pub trait Hub: Send + Sync + 'static {
    /// Whether a server is connected now.
    fn is_connected(&self) -> bool;

    /// A number that differs with each connection; `None` while there is none.
    fn generation(&self) -> Option<u64>;

    /// Why the connection was lost, or could not be made, last.
    fn last_error(&self) -> Option<String>;

    /// Why no server is connected, with its code and what to do; `None` while one is, and where nobody can tell.
    fn why_away(&self) -> Option<String> {
        None
    }

    /// Waits until a server is connected.
    fn wait_connected(&self) -> BoxFuture<'_, ()>;

    /// Whether JetStream answers, waiting for it that long.
    fn check_jetstream(&self, wait: Duration) -> BoxFuture<'_, Result<(), ConnectError>>;

    /// Facts of a source stream.
    fn source_info<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<SourceInfo, SourceError>>;

    /// Creates or verifies a mapping's ledger.
    fn ensure_ledger<'a>(
        &'a self,
        options: &'a LedgerOptions,
    ) -> BoxFuture<'a, Result<LedgerRef, LedgerError>>;

    /// Creates or verifies the shared consumer of a source.
    fn ensure_consumer<'a>(
        &'a self,
        spec: &'a ConsumerSpec,
        policy: CreatePolicy,
    ) -> BoxFuture<'a, Result<SharedConsumer, ConsumerError>>;

    /// The counters of a shared consumer as of now.
    fn consumer_info<'a>(
        &'a self,
        consumer: &'a SharedConsumer,
    ) -> BoxFuture<'a, Result<ConsumerInfo, ConsumerError>>;

    /// A puller of a verified consumer.
    fn puller(&self, consumer: &SharedConsumer) -> Box<dyn Pull>;

    /// Acknowledges messages.
    fn settle<'a>(&'a self, batch: &'a [AckSubject]) -> BoxFuture<'a, Result<(), SettleError>>;

    /// Hands messages back, to come again after `delay`.
    fn give_back<'a>(
        &'a self,
        batch: &'a [AckSubject],
        delay: Duration,
    ) -> BoxFuture<'a, Result<(), SettleError>>;

    /// The message at a sequence.
    fn fetch_message<'a>(
        &'a self,
        stream: &'a str,
        seq: StreamSeq,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>>;

    /// The first message at or behind a sequence that matches a subject filter.
    fn next_matching<'a>(
        &'a self,
        stream: &'a str,
        from: StreamSeq,
        filter: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>>;
}

/// A mapping's verified ledger.
pub trait LedgerStream: Send + Sync + 'static {
    /// The stream's name.
    fn stream(&self) -> &str;

    /// When the stream was created, nanoseconds since 1970.
    fn created_ns(&self) -> u64;

    /// Whether a repair has begun the stream anew in the place of the one created at that time.
    fn succeeds(&self, _created_ns: u64) -> bool {
        false
    }

    /// The ledger's size and last position.
    fn info(&self) -> BoxFuture<'_, Result<LedgerInfo, LedgerError>>;

    /// Appends a record.
    fn append<'a>(
        &'a self,
        suffix: &'a str,
        msg_id: Option<&'a str>,
        body: Bytes,
        expect_last: Option<LedgerSeq>,
    ) -> BoxFuture<'a, Result<PubAck, AppendError>>;

    /// The last record of a subject.
    fn last_of_subject<'a>(&'a self, suffix: &'a str)
    -> BoxFuture<'a, Result<Option<TailItem>, LedgerError>>;

    /// Every record of a subject from a position on.
    fn read_subject<'a>(
        &'a self,
        suffix: &'a str,
        from: LedgerSeq,
    ) -> BoxFuture<'a, Result<Vec<TailItem>, LedgerError>>;

    /// Deletes the records of a subject below a position.
    fn purge_subject<'a>(
        &'a self,
        suffix: &'a str,
        up_to: LedgerSeq,
    ) -> BoxFuture<'a, Result<u64, LedgerError>>;

    /// Reads on from a position, for ever.
    fn tail(&self, from: LedgerSeq) -> Box<dyn LedgerTail>;
}

/// A reader of the ledger.
pub trait LedgerTail: Send + 'static {
    /// What is there to be read now, at least one event.
    fn next_ready(&mut self) -> BoxFuture<'_, Result<Vec<TailEvent>, TailError>>;

    /// Positions known and not read.
    fn lag(&self) -> u64;

    /// Has the ledger verified before anything more is read.
    fn verify(&mut self);
}

/// A puller of a shared consumer.
pub trait Pull: Send + 'static {
    /// The next batch; one that is not full waits for `linger` for more messages after its first one. Cancel safe.
    fn fetch(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
        linger: Duration,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pulled>, PullError>>;

    /// Stops asking, and gives back what waits.
    fn release(&mut self) -> BoxFuture<'_, ()>;
}

impl Hub for Connection {
    fn is_connected(&self) -> bool {
        Connection::generation(self).is_some()
    }

    fn generation(&self) -> Option<u64> {
        Connection::generation(self)
    }

    fn last_error(&self) -> Option<String> {
        let state = self.state();
        state.away.map(|away| away.to_string()).or(state.last_error)
    }

    fn why_away(&self) -> Option<String> {
        self.state()
            .why_away()
            .map(|(code, why)| format!("{code}: {why}"))
    }

    fn wait_connected(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            Connection::wait_connected(self).await;
        })
    }

    fn check_jetstream(&self, wait: Duration) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(Connection::check_jetstream(self, wait))
    }

    fn source_info<'a>(&'a self, stream: &'a str) -> BoxFuture<'a, Result<SourceInfo, SourceError>> {
        Box::pin(SourceInfo::fetch(self, stream))
    }

    fn ensure_ledger<'a>(
        &'a self,
        options: &'a LedgerOptions,
    ) -> BoxFuture<'a, Result<LedgerRef, LedgerError>> {
        Box::pin(async move {
            let ledger = Ledger::ensure(self, options).await?;
            Ok(Arc::new(ledger) as LedgerRef)
        })
    }

    fn ensure_consumer<'a>(
        &'a self,
        spec: &'a ConsumerSpec,
        policy: CreatePolicy,
    ) -> BoxFuture<'a, Result<SharedConsumer, ConsumerError>> {
        Box::pin(spec.ensure(self, policy))
    }

    fn consumer_info<'a>(
        &'a self,
        consumer: &'a SharedConsumer,
    ) -> BoxFuture<'a, Result<ConsumerInfo, ConsumerError>> {
        Box::pin(consumer.info(self))
    }

    fn puller(&self, consumer: &SharedConsumer) -> Box<dyn Pull> {
        Box::new(Puller::new(self, consumer))
    }

    fn settle<'a>(&'a self, batch: &'a [AckSubject]) -> BoxFuture<'a, Result<(), SettleError>> {
        Box::pin(async move { Settler::new(self).settle(batch).await })
    }

    fn give_back<'a>(
        &'a self,
        batch: &'a [AckSubject],
        delay: Duration,
    ) -> BoxFuture<'a, Result<(), SettleError>> {
        Box::pin(async move { Settler::new(self).give_back(batch, delay).await })
    }

    fn fetch_message<'a>(
        &'a self,
        stream: &'a str,
        seq: StreamSeq,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>> {
        Box::pin(messages::fetch_message(self, stream, seq))
    }

    fn next_matching<'a>(
        &'a self,
        stream: &'a str,
        from: StreamSeq,
        filter: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>> {
        Box::pin(messages::next_matching(self, stream, from, filter))
    }
}

impl LedgerStream for Ledger {
    fn stream(&self) -> &str {
        Ledger::stream(self)
    }

    fn created_ns(&self) -> u64 {
        Ledger::created_ns(self)
    }

    fn succeeds(&self, created_ns: u64) -> bool {
        self.predecessors().contains(&created_ns)
    }

    fn info(&self) -> BoxFuture<'_, Result<LedgerInfo, LedgerError>> {
        Box::pin(Ledger::info(self))
    }

    fn append<'a>(
        &'a self,
        suffix: &'a str,
        msg_id: Option<&'a str>,
        body: Bytes,
        expect_last: Option<LedgerSeq>,
    ) -> BoxFuture<'a, Result<PubAck, AppendError>> {
        Box::pin(Ledger::append(self, suffix, msg_id, body, expect_last))
    }

    fn last_of_subject<'a>(
        &'a self,
        suffix: &'a str,
    ) -> BoxFuture<'a, Result<Option<TailItem>, LedgerError>> {
        Box::pin(Ledger::last_of_subject(self, suffix))
    }

    fn read_subject<'a>(
        &'a self,
        suffix: &'a str,
        from: LedgerSeq,
    ) -> BoxFuture<'a, Result<Vec<TailItem>, LedgerError>> {
        Box::pin(Ledger::read_subject(self, suffix, from))
    }

    fn purge_subject<'a>(
        &'a self,
        suffix: &'a str,
        up_to: LedgerSeq,
    ) -> BoxFuture<'a, Result<u64, LedgerError>> {
        Box::pin(Ledger::purge_subject(self, suffix, up_to))
    }

    fn tail(&self, from: LedgerSeq) -> Box<dyn LedgerTail> {
        Box::new(Tail::open(self, from))
    }
}

impl LedgerTail for Tail {
    fn next_ready(&mut self) -> BoxFuture<'_, Result<Vec<TailEvent>, TailError>> {
        Box::pin(Tail::next_ready(self))
    }

    fn lag(&self) -> u64 {
        Tail::lag(self)
    }

    fn verify(&mut self) {
        Tail::verify(self);
    }
}

impl Pull for Puller {
    fn fetch(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
        linger: Duration,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pulled>, PullError>> {
        Box::pin(Puller::fetch(self, max_messages, max_bytes, linger, wait))
    }

    fn release(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(Puller::release(self))
    }
}
