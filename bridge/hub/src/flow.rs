//! A flow of messages from one pull consumer: open requests, what they still owe, and every way they end.
//!
//! One inbox lives as long as the flow, so that a message is never sent to an inbox nobody reads. Messages carry no
//! sign of the request they answer, so what is owed is counted over all open requests; each request's end is told
//! apart by its own reply subject. A count that is wrong, whatever the reason, is put right when requests time out.

use std::collections::BTreeMap;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use crate::api::ApiError;
use crate::codes;
use crate::connection::Connection;
use crate::headers;
use crate::limits;

/// Why no messages come.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The connection was lost; fanin reconnects by itself.
    #[error("the hub is not connected; fanin reconnects by itself")]
    Disconnected,
    /// Nobody answers for the consumer: it is missing, or has no leader at the moment.
    #[error("the consumer {consumer} on {stream} does not answer: it is missing or has no leader")]
    NoConsumer {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// The consumer was deleted.
    #[error("the consumer {consumer} on {stream} was deleted")]
    ConsumerDeleted {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// The hub went silent although it had promised heartbeats.
    #[error("the hub is silent on an open pull of {consumer} on {stream}; it is asked again")]
    Silent {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// More pull requests wait than the consumer keeps.
    #[error("too many pull requests wait at {consumer} on {stream}; raise its max_waiting")]
    TooManyWaiting {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// The hub refused the request.
    #[error("the hub refused to deliver from {consumer} on {stream}: {text} ({status})")]
    Refused {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The status.
        status: u16,
        /// The hub's text.
        text: String,
    },
    /// The request could not be sent.
    #[error("cannot ask for messages of {consumer} on {stream}")]
    Hub {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// Why.
        source: ApiError,
    },
}

impl PullError {
    /// True when pulling again later may help without any change. After `NoConsumer`, also look whether the consumer
    /// still exists.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            PullError::Disconnected
            | PullError::NoConsumer { .. }
            | PullError::Silent { .. }
            | PullError::TooManyWaiting { .. } => true,
            PullError::ConsumerDeleted { .. } | PullError::Refused { .. } => false,
            PullError::Hub { source, .. } => source.retryable(),
        }
    }

    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            PullError::Disconnected => codes::HUB_UNREACHABLE,
            PullError::NoConsumer { .. } | PullError::Silent { .. } => codes::HUB_SILENT,
            PullError::ConsumerDeleted { .. } => codes::CONSUMER_MISSING,
            PullError::TooManyWaiting { .. } | PullError::Refused { .. } => codes::HUB_REFUSED,
            PullError::Hub { source, .. } => source.code(),
        }
    }
}

struct OpenPull {
    asked: usize,
    until: Instant,
}

/// See the module.
pub(crate) struct PullFlow {
    connection: Connection,
    stream: String,
    consumer: String,
    inbox: String,
    subscriber: Option<Subscriber>,
    generation: u64,
    open: BTreeMap<u64, OpenPull>,
    next_request: u64,
    owed: usize,
    last_heard: Instant,
    careful: usize,
}

impl PullFlow {
    pub(crate) fn new(connection: Connection, stream: &str, consumer: &str) -> PullFlow {
        PullFlow {
            inbox: connection.new_inbox(),
            connection,
            stream: stream.to_owned(),
            consumer: consumer.to_owned(),
            subscriber: None,
            generation: 0,
            open: BTreeMap::new(),
            next_request: 0,
            owed: 0,
            last_heard: Instant::now(),
            careful: 0,
        }
    }

    /// Messages the hub still may send under open requests.
    pub(crate) fn owed(&self) -> usize {
        self.owed
    }

    /// Makes sure that about `target` messages are asked for: sends a request when less than half of it is owed and fewer than
    /// `open_max` requests are open. `max_bytes` holds for each request. Cancel safe.
    pub(crate) async fn ask(
        &mut self,
        target: usize,
        max_bytes: Option<usize>,
        open_max: usize,
    ) -> Result<(), PullError> {
        let generation = self.connection.generation().ok_or(PullError::Disconnected)?;
        if generation != self.generation {
            // Requests of an earlier connection are gone with it; the subscription is renewed by the client library.
            self.generation = generation;
            self.lose_open();
        }
        if self.subscriber.is_none() {
            let subject = format!("{}.*", self.inbox);
            let subscriber = self
                .connection
                .subscribe(subject)
                .await
                .map_err(|e| self.of_api(e))?;
            self.subscriber = Some(subscriber);
        }
        let now = Instant::now();
        let over: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, pull)| pull.until <= now)
            .map(|(n, _)| *n)
            .collect();
        for number in over {
            self.close(number, None);
        }

        let target = if self.careful > 0 {
            1
        } else {
            target.clamp(1, limits::PULL_BATCH_MAX)
        };
        if self.owed > target / 2 || self.open.len() >= open_max.clamp(1, limits::OPEN_PULLS_MAX) {
            return Ok(());
        }
        let batch = target - self.owed;
        let number = self.next_request;
        let mut request = json!({
            "batch": batch,
            "expires": nanos(limits::PULL_EXPIRES),
            "idle_heartbeat": nanos(limits::PULL_HEARTBEAT),
        });
        if let Some(max_bytes) = max_bytes {
            request["max_bytes"] = json!(max_bytes);
        }
        let subject = format!(
            "{}.CONSUMER.MSG.NEXT.{}.{}",
            self.connection.api_prefix(),
            self.stream,
            self.consumer
        );
        let reply = format!("{}.{number}", self.inbox);
        let sent = self
            .connection
            .send_with_reply(&subject, reply, Bytes::from(request.to_string()))
            .await;
        sent.map_err(|e| self.of_api(e))?;
        self.next_request += 1;
        if self.open.is_empty() {
            self.last_heard = now;
        }
        let until = now + limits::PULL_EXPIRES + limits::PULL_GRACE;
        self.open.insert(number, OpenPull { asked: batch, until });
        self.owed += batch;
        Ok(())
    }

    /// The next message, or `None` at the deadline, or when no request is open any more. Cancel safe.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Option<Message>, PullError> {
        loop {
            let silent_at = self.last_heard + limits::PULL_SILENCE_MAX;
            let Some(subscriber) = self.subscriber.as_mut() else {
                return Ok(None);
            };
            let message = tokio::select! {
                biased;
                message = subscriber.next() => message,
                () = self.connection.lost(self.generation) => {
                    self.lose_open();
                    return Err(PullError::Disconnected);
                }
                () = tokio::time::sleep_until(deadline) => return Ok(None),
                () = tokio::time::sleep_until(silent_at), if !self.open.is_empty() => {
                    self.forget_open();
                    return Err(PullError::Silent { stream: self.stream.clone(), consumer: self.consumer.clone() });
                }
            };
            let Some(message) = message else {
                self.subscriber = None;
                self.lose_open();
                return Err(self.of_api(ApiError::ClientGone));
            };
            self.last_heard = Instant::now();
            match answer(&message) {
                None => {
                    self.count_one();
                    return Ok(Some(message));
                }
                Some(status) => {
                    self.ended(&message, status.as_u16())?;
                    if self.open.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A message that is already here, without waiting.
    pub(crate) fn try_next(&mut self) -> Option<Message> {
        use futures_util::FutureExt;
        loop {
            let Some(message) = self.subscriber.as_mut()?.next().now_or_never()? else {
                // Its client ended; the next request subscribes at the new one.
                self.subscriber = None;
                return None;
            };
            if let Some(status) = answer(&message) {
                // A refusal shows again on the next request, where it can be returned.
                let _ = self.ended(&message, status.as_u16());
                continue;
            }
            self.last_heard = Instant::now();
            self.count_one();
            return Some(message);
        }
    }

    /// Gives up all open requests: the inbox goes, and with it the hub's interest in sending more.
    pub(crate) fn stop(&mut self) {
        self.subscriber = None;
        self.inbox = self.connection.new_inbox();
        self.forget_open();
    }

    fn count_one(&mut self) {
        self.careful = self.careful.saturating_sub(1);
        self.owed = self.owed.saturating_sub(1);
        if self.owed == 0 {
            self.open.clear();
        }
    }

    fn ended(&mut self, message: &Message, status: u16) -> Result<(), PullError> {
        let number = message
            .subject
            .as_str()
            .rsplit('.')
            .next()
            .and_then(|n| n.parse::<u64>().ok());
        let text = message.description.as_deref().unwrap_or_default();
        if status == 100 {
            return Ok(());
        }
        let owed =
            headers::first(message.headers.as_ref(), "Nats-Pending-Messages").and_then(|n| n.parse().ok());
        if let Some(number) = number {
            self.close(number, owed);
        }
        let (stream, consumer) = (self.stream.clone(), self.consumer.clone());
        let lower = text.to_lowercase();
        match status {
            404 | 408 => Ok(()),
            409 if lower.contains("consumer deleted") => Err(PullError::ConsumerDeleted { stream, consumer }),
            409 if lower.contains("maxwaiting") => Err(PullError::TooManyWaiting { stream, consumer }),
            409 if [
                "leadership change",
                "server shutdown",
                "exceeds maxbytes",
                "batch completed",
            ]
            .iter()
            .any(|known| lower.contains(known)) =>
            {
                Ok(())
            }
            503 => Err(PullError::NoConsumer { stream, consumer }),
            _ => Err(PullError::Refused {
                stream,
                consumer,
                status,
                text: text.to_owned(),
            }),
        }
    }

    /// Request `number` is over; it still owed `owed` messages, or at most what it had asked for.
    fn close(&mut self, number: u64, owed: Option<usize>) {
        let Some(pull) = self.open.remove(&number) else {
            return;
        };
        self.owed = self
            .owed
            .saturating_sub(owed.unwrap_or(pull.asked).min(pull.asked));
        if self.open.is_empty() {
            self.owed = 0;
        }
    }

    /// The connection broke under open requests. Perhaps by chance; perhaps because the next message cannot be read by
    /// the client library, and then everything sent behind it on that connection was lost with it, again and again. So
    /// the next messages are asked for one at a time: an unreadable one then costs only itself.
    fn lose_open(&mut self) {
        if self.owed > 0 {
            self.careful = limits::CAREFUL_MESSAGES;
        }
        self.forget_open();
    }

    fn forget_open(&mut self) {
        self.open.clear();
        self.owed = 0;
        self.last_heard = Instant::now();
    }

    fn of_api(&self, source: ApiError) -> PullError {
        match source {
            ApiError::Disconnected => PullError::Disconnected,
            source @ (ApiError::Timeout { .. }
            | ApiError::NoResponders { .. }
            | ApiError::PermissionDenied { .. }
            | ApiError::Refused { .. }
            | ApiError::TooLarge { .. }
            | ApiError::BadSubject { .. }
            | ApiError::BadReply { .. }
            | ApiError::ClientGone) => PullError::Hub {
                stream: self.stream.clone(),
                consumer: self.consumer.clone(),
                source,
            },
        }
    }
}

/// The status of an answer to a pull request; `None` for a delivered message, which a careless publisher may have given
/// a status as well. Only deliveries have a reply subject.
fn answer(message: &Message) -> Option<StatusCode> {
    message.status.filter(|_| message.reply.is_none())
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
