//! Goal: a halted or fenced mapping sends nothing. Method: work of each kind, some begun and some never polled, before and after
//! the mapping falls silent, over a hub that counts what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fanin_core::ids::{LedgerSeq, StreamSeq};
use fanin_hub::ledger::AppendError;
use fanin_hub::port::{Hub, LedgerRef, Pull};
use fanin_hub::{
    AckSubject, ApiError, ConnectError, ConsumerError, ConsumerInfo, ConsumerSpec, CreatePolicy, LedgerError,
    LedgerOptions, SettleError, SharedConsumer, SourceError, SourceInfo, StoredMessage,
};
use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::mapping::limits::SETTLES_MAX;

/// Settlements begun. Each takes for ever.
#[derive(Default)]
struct Counting(AtomicU64);

impl Counting {
    fn asked(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn count(&self) -> BoxFuture<'_, Result<(), SettleError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    }
}

impl Hub for Counting {
    fn generation(&self) -> Option<u64> {
        Some(1)
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn last_error(&self) -> Option<String> {
        None
    }

    fn wait_connected(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn check_jetstream(&self, _wait: Duration) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(std::future::pending())
    }

    fn source_info<'a>(&'a self, _stream: &'a str) -> BoxFuture<'a, Result<SourceInfo, SourceError>> {
        Box::pin(std::future::pending())
    }

    fn ensure_ledger<'a>(
        &'a self,
        _options: &'a LedgerOptions,
    ) -> BoxFuture<'a, Result<LedgerRef, LedgerError>> {
        Box::pin(std::future::pending())
    }

    fn ensure_consumer<'a>(
        &'a self,
        _spec: &'a ConsumerSpec,
        _policy: CreatePolicy,
    ) -> BoxFuture<'a, Result<SharedConsumer, ConsumerError>> {
        Box::pin(std::future::pending())
    }

    fn consumer_info<'a>(
        &'a self,
        _consumer: &'a SharedConsumer,
    ) -> BoxFuture<'a, Result<ConsumerInfo, ConsumerError>> {
        Box::pin(std::future::pending())
    }

    fn puller(&self, _consumer: &SharedConsumer) -> Box<dyn Pull> {
        panic!("nothing is pulled here")
    }

    fn settle<'a>(&'a self, _batch: &'a [AckSubject]) -> BoxFuture<'a, Result<(), SettleError>> {
        self.count()
    }

    fn give_back<'a>(
        &'a self,
        _batch: &'a [AckSubject],
        _delay: Duration,
    ) -> BoxFuture<'a, Result<(), SettleError>> {
        self.count()
    }

    fn fetch_message<'a>(
        &'a self,
        _stream: &'a str,
        _seq: StreamSeq,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>> {
        Box::pin(std::future::pending())
    }

    fn next_matching<'a>(
        &'a self,
        _stream: &'a str,
        _from: StreamSeq,
        _filter: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, ApiError>> {
        Box::pin(std::future::pending())
    }
}

fn ack(n: usize) -> Vec<AckSubject> {
    let subject = format!("$JS.ACK.S.C.1.{n}.{n}.1.0");
    vec![AckSubject::from_text(&subject)]
}

/// An append that notes that it was polled.
fn append(polled: &Arc<AtomicU64>) -> BoxFuture<'static, Appended> {
    let polled = Arc::clone(polled);
    Box::pin(async move {
        polled.fetch_add(1, Ordering::Relaxed);
        Appended {
            claim: None,
            read: LedgerSeq(0),
            result: Err(AppendError::Timeout),
        }
    })
}

fn request(polled: &Arc<AtomicU64>) -> BoxFuture<'static, Option<Event>> {
    let polled = Arc::clone(polled);
    Box::pin(async move {
        polled.fetch_add(1, Ordering::Relaxed);
        None
    })
}

#[tokio::test]
async fn nothing_is_sent_once_silent() {
    let hub = Arc::new(Counting::default());
    let mut outgoing = Outgoing::new(hub.clone());
    let polled = Arc::new(AtomicU64::new(0));

    // While it may send, everything moves, as far as the bounds allow.
    outgoing.append(append(&polled));
    outgoing.request(request(&polled));
    assert!(outgoing.appends.next().await.is_some() && outgoing.requests.next().await.is_some());
    assert_eq!(polled.load(Ordering::Relaxed), 2);
    for n in 0..SETTLES_MAX + 10 {
        outgoing.settles.acknowledge(ack(n), Default::default());
    }
    assert!(outgoing.settles.progress().now_or_never().is_none());
    assert_eq!(hub.asked(), SETTLES_MAX as u64);
    assert_eq!(outgoing.settles.len(), SETTLES_MAX + 10);

    // Never polled, begun, and waiting: all of it is gone.
    outgoing.append(append(&polled));
    outgoing.request(request(&polled));
    outgoing.fall_silent();
    // Nor does anything begin, such as a batch that the full disk refuses afterwards.
    outgoing.append(append(&polled));
    outgoing.request(request(&polled));
    outgoing.settles.acknowledge(ack(1), Default::default());
    outgoing.settles.give_back(ack(2), Duration::from_secs(1));
    assert!(outgoing.settles.is_empty());
    assert!(outgoing.settles.progress().now_or_never().is_none());
    assert!(outgoing.appends.next().await.is_none() && outgoing.requests.next().await.is_none());
    assert_eq!(polled.load(Ordering::Relaxed), 2);
    assert_eq!(hub.asked(), SETTLES_MAX as u64);
}
