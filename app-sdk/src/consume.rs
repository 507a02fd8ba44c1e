//! The handler loop: the SDK hands messages to a function and gives the verdicts.

use std::any::Any;
use std::fmt::Display;
use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::error::{ConsumeError, SubscribeError};
use crate::limits::CONCURRENCY_MAX;
use crate::message::Message;
use crate::shared::Shared;
use crate::subscription::{SubscriptionBuilder, poll_message};
use crate::verdicts::Verdict;

/// A handler loop, as described by [`Client::consume`](crate::Client::consume).
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `run`"]
pub struct Consumer {
    subscription: SubscriptionBuilder,
    concurrency: usize,
}

impl Consumer {
    pub(crate) fn new(subscription: SubscriptionBuilder) -> Self {
        Self {
            subscription,
            concurrency: 1,
        }
    }

    /// Handlers that run at the same time, 1 to [`CONCURRENCY_MAX`](crate::limits::CONCURRENCY_MAX). Default 1: one
    /// after the other, in the task that calls `run`. With more, each runs in a task of its own.
    pub fn concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers.clamp(1, CONCURRENCY_MAX);
        self
    }

    /// See [`SubscriptionBuilder::instance`].
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.subscription = self.subscription.instance(name);
        self
    }

    /// See [`SubscriptionBuilder::credit_messages`].
    pub fn credit_messages(mut self, messages: u32) -> Self {
        self.subscription = self.subscription.credit_messages(messages);
        self
    }

    /// See [`SubscriptionBuilder::credit_bytes`].
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.subscription = self.subscription.credit_bytes(bytes);
        self
    }

    /// See [`SubscriptionBuilder::auto_extend`].
    pub fn auto_extend(mut self, on: bool) -> Self {
        self.subscription = self.subscription.auto_extend(on);
        self
    }

    /// See [`SubscriptionBuilder::open_timeout`].
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.subscription = self.subscription.open_timeout(limit);
        self
    }

    /// See [`SubscriptionBuilder::close_timeout`].
    pub fn close_timeout(mut self, limit: Duration) -> Self {
        self.subscription = self.subscription.close_timeout(limit);
        self
    }

    /// Runs the handler for each message until the bridge refuses the subscription for good.
    ///
    /// `Ok` acknowledges (as [`Message::ack_soon`]), `Err` retries with the error's text as the reason, a panic
    /// retries with the panic's text. A handler that gives a verdict itself, for example [`Message::reject`], has
    /// decided; what it returns then changes nothing. A handler may drop the message at any time without effect.
    /// Dropping the future of `run` releases the messages in hand, uncounted.
    ///
    /// # Errors
    /// [`ConsumeError::Subscribe`] when the subscription cannot be opened or ends for good.
    pub async fn run<H, F, E>(self, handler: H) -> Result<(), ConsumeError>
    where
        H: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        self.run_until(pending(), handler).await
    }

    /// As [`run`](Self::run), and shuts down gracefully when `shutdown` resolves: nothing more is handed out, running
    /// handlers finish within the close time limit, their verdicts are made durable.
    ///
    /// # Errors
    /// [`ConsumeError::Subscribe`] as for `run`; [`ConsumeError::Close`] when the shutdown was not in good order.
    pub async fn run_until<S, H, F, E>(self, shutdown: S, handler: H) -> Result<(), ConsumeError>
    where
        S: Future<Output = ()>,
        H: Fn(Message) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let subscription = self.subscription.open().await?;
        let work = work(
            Arc::clone(subscription.shared()),
            self.concurrency,
            Arc::new(handler),
        );
        let mut work = Box::pin(work);
        tokio::select! {
            biased;
            () = shutdown => {}
            ended = &mut work => return Ok(ended?),
        }
        let deadline = subscription.start_close();
        // Handlers that outlast the deadline are cancelled; closing then reports what they held.
        let finished = timeout_at(deadline, &mut work).await;
        let closed = subscription.close().await;
        drop(work);
        if let Ok(ended) = finished {
            ended?;
        }
        Ok(closed?)
    }
}

/// Runs the workers until the subscription ends.
async fn work<H, F, E>(shared: Arc<Shared>, concurrency: usize, handler: Arc<H>) -> Result<(), SubscribeError>
where
    H: Fn(Message) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    if concurrency == 1 {
        return worker(shared, handler).await;
    }
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        workers.spawn(worker(Arc::clone(&shared), Arc::clone(&handler)));
    }
    let mut result = Ok(());
    while let Some(ended) = workers.join_next().await {
        // A worker catches what its handler throws, so it can only have been cancelled with the runtime.
        if let Ok(Err(error)) = ended {
            result = Err(error);
        }
    }
    result
}

async fn worker<H, F, E>(shared: Arc<Shared>, handler: Arc<H>) -> Result<(), SubscribeError>
where
    H: Fn(Message) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    while let Some(next) = poll_fn(|cx| poll_message(&shared, cx)).await {
        let mut message = next?;
        let mut lease = message.split_lease();
        let handled = AssertUnwindSafe(async { handler(message).await })
            .catch_unwind()
            .await;
        let verdict = match handled {
            Ok(Ok(())) => Verdict::Ack,
            Ok(Err(error)) => Verdict::Retry {
                after: None,
                reason: error.to_string(),
            },
            Err(panic) => {
                let reason = format!("the handler panicked: {}", panic_text(panic.as_ref()));
                tracing::error!(reason, "retrying the message");
                Verdict::Retry { after: None, reason }
            }
        };
        lease.answer(verdict, None);
        // A handler that never waits would otherwise keep the connection task from running on a small runtime.
        tokio::task::consume_budget().await;
    }
    Ok(())
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (
        panic.downcast_ref::<&'static str>(),
        panic.downcast_ref::<String>(),
    ) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no text",
    }
}
