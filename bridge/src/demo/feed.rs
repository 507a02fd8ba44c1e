//! Publishes the input to the hub at a steady rate and waits for the hub's word on each message.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context, message::PublishMessage};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::events::Event;
use super::input::{Input, InputError};
use super::limits::{FEED_ATTEMPTS_MAX, FEED_WINDOW};

/// How long the feed waits before it sends a message again that the hub did not confirm.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why the input did not get to the hub.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    /// The input ended badly.
    #[error("the input cannot be read on")]
    Input(#[from] InputError),
    /// A message was not confirmed, however often it was sent.
    #[error("the hub did not store message {msg_id} in {FEED_ATTEMPTS_MAX} attempts")]
    NotStored {
        /// Its id.
        msg_id: String,
        /// The last answer.
        #[source]
        source: jetstream::context::PublishError,
    },
    /// The stream does not hold exactly the input, so nothing could be judged by its sequences.
    #[error("the hub's stream holds {stored} messages up to sequence {last}, but {published} were published")]
    Differs {
        /// Messages in the stream.
        stored: u64,
        /// Its last sequence.
        last: u64,
        /// Messages of the input.
        published: u64,
    },
    /// The stream's state is not to be had.
    #[error("the hub does not tell the state of the stream")]
    State(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How far the feed is; read while it runs.
#[derive(Debug, Default)]
pub(crate) struct Fed(AtomicU64);

impl Fed {
    /// Messages that the hub has confirmed.
    pub(crate) fn confirmed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Feeds everything, `rate` messages per second at most, and returns how many messages the stream holds: the
/// sequences 1 to that number.
pub(crate) async fn feed(
    context: Context,
    stream: String,
    input: Input,
    rate: u64,
    fed: Arc<Fed>,
) -> Result<u64, FeedError> {
    let started = Instant::now();
    let mut sent: u64 = 0;
    let mut flying = FuturesUnordered::new();
    for event in input {
        let event = event?;
        let due = started + Duration::from_secs_f64(sent as f64 / rate.max(1) as f64);
        tokio::time::sleep_until(due.into()).await;
        sent += 1;
        if flying.len() >= FEED_WINDOW
            && let Some(done) = flying.next().await
        {
            count(&fed, done)?;
        }
        flying.push(publish(&context, event));
        // Take what is confirmed already, so that the progress is not behind by a window.
        while let Some(Some(done)) = futures_util::FutureExt::now_or_never(flying.next()) {
            count(&fed, done)?;
        }
    }
    while let Some(done) = flying.next().await {
        count(&fed, done)?;
    }
    let mut handle = context
        .get_stream(&stream)
        .await
        .map_err(|error| FeedError::State(error.into()))?;
    let state = &handle
        .info()
        .await
        .map_err(|error| FeedError::State(error.into()))?
        .state;
    if (state.messages, state.last_sequence) != (sent, sent) {
        let (stored, last) = (state.messages, state.last_sequence);
        return Err(FeedError::Differs {
            stored,
            last,
            published: sent,
        });
    }
    Ok(sent)
}

fn count(fed: &Fed, done: Result<(), FeedError>) -> Result<(), FeedError> {
    done.map(|()| {
        fed.0.fetch_add(1, Ordering::Relaxed);
    })
}

/// Sends one message until the hub has it; its id makes a repetition harmless.
async fn publish(context: &Context, event: Event) -> Result<(), FeedError> {
    let mut attempt = 1;
    loop {
        let message = PublishMessage::build()
            .payload(event.payload.clone())
            .message_id(&event.msg_id);
        let confirmed = match context.send_publish(event.subject.clone(), message).await {
            Ok(confirmation) => confirmation.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(_) => return Ok(()),
            Err(source) if attempt == FEED_ATTEMPTS_MAX => {
                return Err(FeedError::NotStored {
                    msg_id: event.msg_id,
                    source,
                });
            }
            Err(_) => attempt += 1,
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
