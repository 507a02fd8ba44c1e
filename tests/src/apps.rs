//! Application instances for tests: they subscribe through the SDK, answer as told, and record what was confirmed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fanin_sdk::{AckError, Client, Message, SubscribeError, Subscription};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::checker::{Confirmation, Recorder};
use crate::limits::{ACKS_UNDER_WAY_MAX, SERVING_TIMEOUT};
use crate::wait::patience;

/// What an instance does with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Acknowledges at once.
    Ack,
    /// Acknowledges after this long; other messages go on meanwhile.
    AckAfter(Duration),
    /// Has it delivered again after the application's back-off, with this reason.
    Retry(String),
    /// Sends it to the dead letters with this reason.
    Reject(String),
    /// Gives it back uncounted.
    Release,
    /// Keeps it in hand until the instance stops, which gives it back.
    Hold,
}

type Decide = Arc<dyn Fn(&Message) -> Decision + Send + Sync>;

/// How to run an instance.
#[derive(Clone)]
pub struct AppOptions {
    /// Socket of the node, `unix:///path`.
    pub socket: String,
    /// Topic.
    pub topic: String,
    /// Application.
    pub app: String,
    /// Name of the instance.
    pub instance: String,
    /// Credit in messages; `None`: the SDK's default.
    pub credit_messages: Option<u32>,
    /// What it does with each message. Default: acknowledge.
    pub decide: Decide,
}

impl AppOptions {
    /// An instance that acknowledges everything at once.
    pub fn new(socket: &str, topic: &str, app: &str, instance: &str) -> Self {
        Self {
            socket: socket.to_owned(),
            topic: topic.to_owned(),
            app: app.to_owned(),
            instance: instance.to_owned(),
            credit_messages: None,
            decide: Arc::new(|_| Decision::Ack),
        }
    }

    /// Decides by this function instead.
    pub fn decide(mut self, decide: impl Fn(&Message) -> Decision + Send + Sync + 'static) -> Self {
        self.decide = Arc::new(decide);
        self
    }

    /// Holds at most this many messages.
    pub fn credit_messages(mut self, messages: u32) -> Self {
        self.credit_messages = Some(messages);
        self
    }
}

impl fmt::Debug for AppOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} at {}",
            self.topic, self.app, self.instance, self.socket
        )
    }
}

/// Why an instance did not run or not stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The socket was not reached.
    #[error("{app}: {source}")]
    Connect {
        /// The instance.
        app: String,
        /// Why.
        source: fanin_sdk::ConnectError,
    },
    /// The bridge refused, at once or later.
    #[error("{app}: {source}")]
    Subscribe {
        /// The instance.
        app: String,
        /// Why.
        source: SubscribeError,
    },
    /// The instance's task panicked.
    #[error("{app}: {source}")]
    Panicked {
        /// The instance.
        app: String,
        /// The panic.
        source: tokio::task::JoinError,
    },
}

/// A running instance in this process. It lives through restarts of the bridge, as the SDK reconnects.
///
/// Dropping it ends its task; messages in hand go back when the bridge sees the connection end.
#[derive(Debug)]
pub struct AppInstance {
    name: String,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), SubscribeError>>>,
}

impl AppInstance {
    /// Waits for the socket, subscribes, and starts to work. Confirmations go to `recorder`.
    pub async fn start(options: AppOptions, recorder: Recorder) -> Result<Self, AppError> {
        let app = format!("{options:?}");
        let connected = Client::builder()
            .socket(&options.socket)
            .wait_for_bridge(patience(SERVING_TIMEOUT))
            .connect()
            .await;
        let client = match connected {
            Ok(client) => client,
            Err(source) => return Err(AppError::Connect { app, source }),
        };
        let mut subscription = client
            .subscribe(&options.topic, &options.app)
            .instance(&options.instance);
        if let Some(messages) = options.credit_messages {
            subscription = subscription.credit_messages(messages);
        }
        let subscription = match subscription.open().await {
            Ok(subscription) => subscription,
            Err(source) => return Err(AppError::Subscribe { app, source }),
        };
        let stop = CancellationToken::new();
        let worker = Worker {
            app: options.app.as_str().into(),
            instance: options.instance.as_str().into(),
            decide: options.decide,
            recorder,
            acks: FuturesUnordered::new(),
            held: Vec::new(),
        };
        let task = tokio::spawn(worker.run(subscription, stop.clone()));
        Ok(Self {
            name: app,
            stop,
            task: Some(task),
        })
    }

    /// Stops in good order: gives back what it holds, and records what is confirmed until then. Tells why the
    /// subscription ended, if it ended before.
    pub async fn stop(mut self) -> Result<(), AppError> {
        self.stop.cancel();
        let Some(task) = self.task.take() else {
            return Ok(());
        };
        let app = self.name.clone();
        match task.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(AppError::Subscribe { app, source }),
            Err(source) => Err(AppError::Panicked { app, source }),
        }
    }
}

impl Drop for AppInstance {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

type Answer = (Confirmation, Result<(), AckError>);

struct Worker {
    app: Arc<str>,
    instance: Arc<str>,
    decide: Decide,
    recorder: Recorder,
    acks: FuturesUnordered<BoxFuture<'static, Answer>>,
    held: Vec<Message>,
}

impl Worker {
    async fn run(
        mut self,
        mut subscription: Subscription,
        stop: CancellationToken,
    ) -> Result<(), SubscribeError> {
        let ended = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some(answer) = self.acks.next() => self.record(answer),
                message = subscription.next(), if self.acks.len() < ACKS_UNDER_WAY_MAX => match message {
                    Some(Ok(message)) => self.handle(message),
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                },
            }
        };
        for message in self.held.drain(..) {
            message.release();
        }
        // Closing waits for the verdicts under way, and they need this task to go on; whether it ends in good order is
        // judged by what is confirmed.
        let mut closing = std::pin::pin!(subscription.close());
        let mut closed = false;
        while !closed || !self.acks.is_empty() {
            tokio::select! {
                _ = &mut closing, if !closed => closed = true,
                Some(answer) = self.acks.next() => self.record(answer),
            }
        }
        ended
    }

    fn handle(&mut self, message: Message) {
        match (self.decide)(&message) {
            Decision::Ack => self.ack(message, None),
            Decision::AckAfter(delay) => self.ack(message, Some(delay)),
            Decision::Retry(reason) => message.retry(None, reason),
            Decision::Reject(reason) => drop(message.reject(reason)),
            Decision::Release => message.release(),
            Decision::Hold => self.held.push(message),
        }
    }

    fn ack(&mut self, message: Message, delay: Option<Duration>) {
        let what = Confirmation {
            app: self.app.clone(),
            instance: self.instance.clone(),
            node: message.node().into(),
            id: message.id().to_owned(),
            attempt: message.attempt(),
        };
        self.acks.push(match delay {
            None => {
                let confirmed = message.ack();
                Box::pin(async move { (what, confirmed.await) })
            }
            Some(delay) => Box::pin(async move {
                tokio::time::sleep(delay).await;
                (what, message.ack().await)
            }),
        });
    }

    fn record(&self, (what, result): Answer) {
        match result {
            Ok(()) => self.recorder.confirmed(what),
            // The verdict may be durable although its confirmation was lost.
            Err(error) if error.may_have_effect() => self.recorder.in_doubt(what),
            // It certainly is not; the message comes again, here or elsewhere.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "apps_tests.rs"]
mod tests;
