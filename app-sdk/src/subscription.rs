//! A subscription: one instance of an application, and the stream of its messages.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::connection::{self, Connection, Connector};
use crate::error::{CloseError, SubscribeError};
use crate::limits::{
    CLOSE_TIMEOUT_DEFAULT, CREDIT_BYTES_DEFAULT, CREDIT_BYTES_MAX, CREDIT_MESSAGES_DEFAULT,
    CREDIT_MESSAGES_MAX, OPEN_TIMEOUT_DEFAULT,
};
use crate::message::{Lease, Message};
use crate::retry::Backoff;
use crate::shared::Shared;
use crate::table::Freed;

/// Options of a [`Subscription`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `open`"]
pub struct SubscriptionBuilder {
    client: Client,
    topic: String,
    app: String,
    instance: String,
    credit: Freed,
    auto_extend: bool,
    open_timeout: Duration,
    close_timeout: Duration,
}

impl SubscriptionBuilder {
    pub(crate) fn new(client: Client, topic: String, app: String) -> Self {
        Self {
            client,
            topic,
            app,
            instance: String::new(),
            credit: Freed {
                messages: CREDIT_MESSAGES_DEFAULT,
                bytes: CREDIT_BYTES_DEFAULT,
            },
            auto_extend: true,
            open_timeout: OPEN_TIMEOUT_DEFAULT,
            close_timeout: CLOSE_TIMEOUT_DEFAULT,
        }
    }

    /// Name of this instance in status, dead letters and logs. Default: the bridge makes one.
    pub fn instance(mut self, name: impl Into<String>) -> Self {
        self.instance = name.into();
        self
    }

    /// Messages this instance holds at most, waiting and handed out together; 1 to
    /// [`CREDIT_MESSAGES_MAX`](crate::limits::CREDIT_MESSAGES_MAX). A small credit shares work more evenly between
    /// instances, a large one is faster. Default: [`CREDIT_MESSAGES_DEFAULT`](crate::limits::CREDIT_MESSAGES_DEFAULT).
    pub fn credit_messages(mut self, messages: u32) -> Self {
        self.credit.messages = messages.clamp(1, CREDIT_MESSAGES_MAX);
        self
    }

    /// Bytes this instance holds at most, counted as on the wire; 1 to
    /// [`CREDIT_BYTES_MAX`](crate::limits::CREDIT_BYTES_MAX). A single larger message comes alone. Default:
    /// [`CREDIT_BYTES_DEFAULT`](crate::limits::CREDIT_BYTES_DEFAULT).
    pub fn credit_bytes(mut self, bytes: u64) -> Self {
        self.credit.bytes = bytes.clamp(1, CREDIT_BYTES_MAX);
        self
    }

    /// Whether leases of messages in hand are extended automatically. On by default. When off, a handler that takes
    /// longer than the lease loses its message unless it calls [`Message::extend`].
    pub fn auto_extend(mut self, on: bool) -> Self {
        self.auto_extend = on;
        self
    }

    /// How long `open` keeps trying while the bridge is not ready. Default:
    /// [`OPEN_TIMEOUT_DEFAULT`](crate::limits::OPEN_TIMEOUT_DEFAULT).
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.open_timeout = limit;
        self
    }

    /// How long closing or dropping the subscription waits for verdicts of messages in hand. Default:
    /// [`CLOSE_TIMEOUT_DEFAULT`](crate::limits::CLOSE_TIMEOUT_DEFAULT).
    pub fn close_timeout(mut self, limit: Duration) -> Self {
        self.close_timeout = limit;
        self
    }

    /// Opens the subscription. From then on it reconnects by itself, for ever.
    ///
    /// # Errors
    /// [`SubscribeError`]: permanent ones (unknown topic or application, no permission) at once, others when the time
    /// limit is reached.
    pub async fn open(self) -> Result<Subscription, SubscribeError> {
        let connector = Connector {
            client: self.client,
            topic: self.topic,
            app: self.app,
            instance: self.instance,
            credit: self.credit,
            auto_extend: self.auto_extend,
        };
        let connection = first_connection(&connector, Instant::now() + self.open_timeout).await?;
        let shared = Arc::new(Shared::new(self.credit));
        shared.begin_session(connection.opened());
        let task = tokio::spawn(connection::run(connector, Arc::clone(&shared), connection));
        Ok(Subscription {
            shared,
            task: Some(task),
            credit_messages: self.credit.messages,
            close_timeout: self.close_timeout,
            ended: false,
        })
    }
}

async fn first_connection(connector: &Connector, deadline: Instant) -> Result<Connection, SubscribeError> {
    let mut backoff = Backoff::default();
    loop {
        let error = match connector.open().await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let retry_at = Instant::now() + backoff.next_delay();
        if !error.is_retryable() || retry_at > deadline {
            return Err(error);
        }
        sleep_until(retry_at).await;
    }
}

/// The messages of one instance, as a [`Stream`].
///
/// The stream survives lost connections: messages in hand at that moment come again, here or elsewhere, and their
/// verdicts fail with [`AckError::LeaseLost`](crate::AckError::LeaseLost). It yields one error and ends when the
/// bridge refuses the subscription for good.
///
/// Dropping it closes it in the background: messages not handed out go back at once, messages in hand can still be
/// answered within the close time limit. [`close`](Self::close) waits for that.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    task: Option<JoinHandle<Result<(), CloseError>>>,
    credit_messages: u32,
    close_timeout: Duration,
    ended: bool,
}

impl Subscription {
    /// The next message; `None` after an error ended the stream. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<Result<Message, SubscribeError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Name of the node at the other end of the current or last connection.
    #[must_use]
    pub fn node(&self) -> String {
        self.shared.session().node.clone()
    }

    /// Name of this instance, as the bridge knows it.
    #[must_use]
    pub fn instance(&self) -> String {
        self.shared.session().instance.clone()
    }

    /// How long a message stays with this instance without a verdict or extension; zero: the bridge named no limit.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.shared.session().lease
    }

    /// Closes in good order: gives back what was not handed out, then waits for verdicts on messages in hand and for
    /// the node to make them durable, at most for the close time limit.
    ///
    /// # Errors
    /// [`CloseError`] when the time was up or the connection was lost before everything was settled.
    pub async fn close(mut self) -> Result<(), CloseError> {
        self.start_close();
        match self.task.take() {
            // A task that was cancelled with its runtime has lost its connection.
            Some(task) => task.await.unwrap_or(Err(CloseError::ConnectionLost { held: 0 })),
            None => Ok(()),
        }
    }

    /// Starts closing, and returns when it must be over.
    pub(crate) fn start_close(&self) -> Instant {
        let deadline = Instant::now() + self.close_timeout;
        self.shared.begin_close(deadline);
        deadline
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn credit_messages(&self) -> usize {
        usize::try_from(self.credit_messages).unwrap_or(usize::MAX)
    }
}

/// The next message of a subscription, as often as asked: an error that ended it is told every time.
pub(crate) fn poll_message(
    shared: &Arc<Shared>,
    cx: &Context<'_>,
) -> Poll<Option<Result<Message, SubscribeError>>> {
    shared.poll_next(cx).map(|next| {
        next.map(|received| {
            received.map(|(delivery, session)| {
                Message::new(
                    Lease::new(Arc::clone(shared), session, delivery.delivery),
                    delivery,
                )
            })
        })
    })
}

impl Stream for Subscription {
    type Item = Result<Message, SubscribeError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = poll_message(&self.shared, cx);
        if let Poll::Ready(None | Some(Err(_))) = &next {
            self.ended = true;
        }
        next
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.start_close();
    }
}
