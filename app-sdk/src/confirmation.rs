//! The futures that resolve when the node has made verdicts durable.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::{AckError, BatchAckError};

/// Collects the answers to a known number of verdicts.
#[derive(Debug)]
pub(crate) struct Receipt {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    remaining: usize,
    failed: Vec<(u32, AckError)>,
    waker: Option<Waker>,
}

impl Receipt {
    fn new(remaining: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                remaining,
                failed: Vec::new(),
                waker: None,
            }),
        })
    }

    fn resolve(&self, index: u32, result: Result<(), AckError>) {
        let waker = {
            let mut inner = self.inner.lock();
            if let Err(error) = result {
                inner.failed.push((index, error));
            }
            inner.remaining = inner.remaining.saturating_sub(1);
            if inner.remaining == 0 {
                inner.waker.take()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_failures(&self, cx: &Context<'_>) -> Poll<Vec<(u32, AckError)>> {
        let mut inner = self.inner.lock();
        if inner.remaining == 0 {
            return Poll::Ready(std::mem::take(&mut inner.failed));
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One verdict's place on a receipt. Every waiter that is made is resolved exactly once.
#[derive(Debug)]
pub(crate) struct Waiter {
    receipt: Arc<Receipt>,
    index: u32,
}

impl Waiter {
    pub(crate) fn resolve(self, result: Result<(), AckError>) {
        self.receipt.resolve(self.index, result);
    }
}

/// Resolves when the verdict is durable on the node. The verdict itself is given already: dropping this future only
/// gives up the news of it.
#[derive(Debug)]
#[must_use = "the verdict is on its way, but only awaiting this tells whether it became durable"]
pub struct Confirmation(Arc<Receipt>);

impl Confirmation {
    pub(crate) fn new() -> (Self, Waiter) {
        let receipt = Receipt::new(1);
        (Self(Arc::clone(&receipt)), Waiter { receipt, index: 0 })
    }
}

impl Future for Confirmation {
    type Output = Result<(), AckError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_failures(cx).map(|failed| match failed.first() {
            None => Ok(()),
            Some((_, error)) => Err(*error),
        })
    }
}

/// Resolves when every verdict of a batch is durable or lost. The verdicts are given already, as with
/// [`Confirmation`].
#[derive(Debug)]
#[must_use = "the verdicts are on their way, but only awaiting this tells whether they became durable"]
pub struct BatchConfirmation {
    receipt: Arc<Receipt>,
    ids: Vec<String>,
}

impl BatchConfirmation {
    /// A confirmation for the messages with these ids, and the waiter of each, in order.
    pub(crate) fn new(ids: Vec<String>) -> (Self, impl Iterator<Item = Waiter>) {
        let receipt = Receipt::new(ids.len());
        let waiters = (0_u32..).zip(0..ids.len()).map({
            let receipt = Arc::clone(&receipt);
            move |(index, _)| Waiter {
                receipt: Arc::clone(&receipt),
                index,
            }
        });
        (Self { receipt, ids }, waiters)
    }
}

impl Future for BatchConfirmation {
    type Output = Result<(), BatchAckError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(failed) = self.receipt.poll_failures(cx) else {
            return Poll::Pending;
        };
        let total = self.ids.len();
        let failed = failed
            .into_iter()
            .filter_map(|(index, error)| {
                let id = self.ids.get_mut(usize::try_from(index).ok()?)?;
                Some((std::mem::take(id), error))
            })
            .collect();
        Poll::Ready(BatchAckError::new(total, failed).map_or(Ok(()), Err))
    }
}
