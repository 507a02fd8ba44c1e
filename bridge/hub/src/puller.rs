//! Pulling batches from the shared consumer, by demand.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::Message;
use bytes::Bytes;
use tokio::time::Instant;

use crate::codes;
use crate::connection::Connection;
use crate::consumer::SharedConsumer;
use crate::flow::{PullError, PullFlow};
use crate::headers::{self, Headers};
use crate::limits;
use crate::reply::{AckSubject, DeliveryFacts};

/// One message as the hub delivered it.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Sequences, delivery count, times.
    pub facts: DeliveryFacts,
    /// The subject it was published to.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// Where to settle it.
    pub ack: AckSubject,
}

impl Pulled {
    /// Bytes of subject, headers and body: what a batch's limit and the room in memory count.
    #[must_use]
    pub fn size(&self) -> usize {
        headers::message_size(&self.subject, &self.headers, self.payload.len())
    }
}

/// Pulls batches from the shared consumer.
///
/// One inbox, with one request kept ahead: while a batch is being worked on, the hub already sends the next one. So the
/// hub may hand this node up to `max_messages` more messages than the last [`Puller::fetch`] returned, and bytes up to
/// [`ahead_bytes_max`]; they wait here, in a bounded buffer, for the next call. What waits longer than the hub's acknowledgement wait is dropped, as another
/// node has it by then; a dropped message is never lost, it comes back by redelivery. To stop, call
/// [`Puller::release`], which gives waiting messages back at once.
///
/// A message whose headers the client library cannot read breaks the connection each time it is delivered. It never
/// comes out of here: it stays unacknowledged, and is to be fetched with [`crate::fetch_message`] and settled with
/// [`AckSubject::for_message`]. Others get past it, as after a broken connection messages are asked for one by one. So a
/// puller is best given a connection of its own, which nothing else suffers with.
pub struct Puller {
    connection: Connection,
    flow: PullFlow,
    ack_wait: Duration,
    waiting: VecDeque<Pulled>,
    waiting_bytes: usize,
    last_fetch: Instant,
    dropped_stale: u64,
}

impl Puller {
    /// A puller of a verified consumer. Nothing is asked of the hub before the first fetch.
    #[must_use]
    pub fn new(connection: &Connection, consumer: &SharedConsumer) -> Puller {
        Puller {
            flow: PullFlow::new(connection.clone(), &consumer.stream, &consumer.name),
            connection: connection.clone(),
            ack_wait: consumer.info.ack_wait,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last_fetch: Instant::now(),
            dropped_stale: 0,
        }
    }

    /// Messages that were dropped because nobody fetched them within the acknowledgement wait.
    #[must_use]
    pub fn dropped_stale(&self) -> u64 {
        self.dropped_stale
    }

    /// Messages the hub may still hand over under open requests.
    #[must_use]
    pub fn owed(&self) -> usize {
        self.flow.owed()
    }

    /// The next batch: up to `max_messages` (at most 1000) and about `max_bytes` of subject, headers and body. One that is not full waits
    /// for `linger` for more messages after its first one, which should be a small part of the consumer's acknowledgement wait.
    ///
    /// Returns when the batch is full, when the linger time has passed since its first message, or with an empty list
    /// after `wait` without any. Each request asks the hub for as much as fits into `max_bytes`, but never for less than one message
    /// of the largest size, which could not be had otherwise; then fewer requests are open at once. Cancel safe: what was received stays for the next call.
    ///
    /// # Errors
    /// [`PullError`]; messages received before stay for the next call.
    pub async fn fetch(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
        linger: Duration,
        wait: Duration,
    ) -> Result<Vec<Pulled>, PullError> {
        self.drop_stale();
        let max_messages = max_messages.clamp(1, limits::PULL_BATCH_MAX);
        let message_bytes = self.connection.max_payload() + limits::MESSAGE_OVERHEAD_BYTES;
        let (ask_bytes, open_max) = asks(max_bytes, message_bytes);
        let deadline = Instant::now() + wait;
        let mut complete: Option<Instant> = None;

        loop {
            while let Some(message) = self.flow.try_next() {
                self.take(message);
            }
            if !self.waiting.is_empty() && complete.is_none() {
                complete = Some(Instant::now() + linger);
            }
            let full = self.waiting.len() >= max_messages || self.waiting_bytes >= max_bytes;
            if !full && let Err(error) = self.flow.ask(max_messages, Some(ask_bytes), open_max).await {
                // What is here can still be worked on, and the error shows again on the next call.
                if self.waiting.is_empty() {
                    self.last_fetch = Instant::now();
                    return Err(error);
                }
                break;
            }
            let until = complete.unwrap_or(deadline);
            if full || Instant::now() >= until {
                break;
            }
            match self.flow.next(until).await {
                Ok(Some(message)) => self.take(message),
                Ok(None) => {}
                Err(error) if self.waiting.is_empty() => {
                    self.last_fetch = Instant::now();
                    return Err(error);
                }
                Err(_) => break,
            }
        }
        self.last_fetch = Instant::now();
        let batch = self.hand_out(max_messages, max_bytes);
        if self.waiting.is_empty() && !batch.is_empty() {
            // Ask ahead, so that the hub works while the caller does. A failure shows on the next call.
            let _ = self
                .flow
                .ask(max_messages, Some(ask_bytes), open_max)
                .await
                .is_err();
        }
        Ok(batch)
    }

    /// Stops asking and gives back what waits here, so that other nodes get it at once. The next fetch starts anew.
    ///
    /// First takes in what is on its way, for at most a second: what reaches an inbox that is gone comes back only after
    /// the hub's acknowledgement wait. So a message published at this very moment may be that late.
    pub async fn release(&mut self) {
        let end = Instant::now() + limits::RELEASE_MAX;
        while self.flow.owed() > 0 && Instant::now() < end {
            let quiet = (Instant::now() + limits::RELEASE_QUIET).min(end);
            match self.flow.next(quiet).await {
                Ok(Some(message)) => self.take(message),
                Ok(None) | Err(_) => break,
            }
        }
        while let Some(message) = self.flow.try_next() {
            self.take(message);
        }
        self.flow.stop();
        self.waiting_bytes = 0;
        let acks: Vec<AckSubject> = self.waiting.drain(..).map(|pulled| pulled.ack).collect();
        // Best effort: without it the hub redelivers after its acknowledgement wait.
        if self
            .connection
            .send_to_all(&acks, &Bytes::from_static(b"-NAK"))
            .await
            .is_err()
        {
            tracing::debug!(messages = acks.len(), "waiting messages could not be given back");
        }
    }

    fn take(&mut self, message: Message) {
        let Some(reply) = message.reply else { return };
        let Some(facts) = DeliveryFacts::parse(reply.as_str()) else {
            tracing::warn!(
                code = codes::DELIVERY_UNKNOWN,
                reply = reply.as_str(),
                "a delivered message has a reply subject that cannot be read"
            );
            return;
        };
        let pulled = Pulled {
            facts,
            subject: message.subject.to_string(),
            headers: headers::to_list(message.headers.as_ref()),
            payload: message.payload,
            ack: AckSubject(reply),
        };
        self.waiting_bytes += pulled.size();
        self.waiting.push_back(pulled);
    }

    fn hand_out(&mut self, max_messages: usize, max_bytes: usize) -> Vec<Pulled> {
        let mut bytes = 0;
        let mut count = 0;
        for pulled in self.waiting.iter().take(max_messages) {
            // The first one goes out whatever its size.
            if count > 0 && bytes + pulled.size() > max_bytes {
                break;
            }
            bytes += pulled.size();
            count += 1;
        }
        self.waiting_bytes -= bytes;
        self.waiting.drain(..count).collect()
    }

    fn drop_stale(&mut self) {
        if self.last_fetch.elapsed() < self.ack_wait {
            return;
        }
        while let Some(message) = self.flow.try_next() {
            self.take(message);
        }
        self.dropped_stale += u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        self.waiting.clear();
        self.waiting_bytes = 0;
    }
}

/// Bytes of subjects, headers and bodies that a puller may be handed ahead of what its caller has fetched, when `max_bytes` are
/// fetched at a time and no message of the hub is larger than `message_bytes`: `OPEN_PULLS_MAX` times `max_bytes`, or one message
/// of the largest size.
#[must_use]
pub fn ahead_bytes_max(max_bytes: usize, message_bytes: usize) -> usize {
    (limits::OPEN_PULLS_MAX * max_bytes).max(message_bytes)
}

/// The bytes of one request, and how many may be open at once.
fn asks(max_bytes: usize, message_bytes: usize) -> (usize, usize) {
    let ask_bytes = max_bytes.max(message_bytes);
    let open_max = ahead_bytes_max(max_bytes, message_bytes) / ask_bytes.max(1);
    (ask_bytes, open_max.clamp(1, limits::OPEN_PULLS_MAX))
}

#[cfg(test)]
mod tests {
    // Goal: what the open requests may bring together stays within the bound. Method: batches far below and above one message.
    use super::*;

    #[test]
    fn requests_bring_no_more_than_the_bound() {
        for message_bytes in [1, 64 * 1024, 1 << 20, 64 << 20] {
            for max_bytes in [1, 1024, 300_000, 1 << 20, 5 << 20, 1 << 30] {
                let (ask_bytes, open_max) = asks(max_bytes, message_bytes);
                assert!(ask_bytes >= message_bytes, "a message could not be had");
                assert!((1..=limits::OPEN_PULLS_MAX).contains(&open_max));
                assert!(ask_bytes * open_max <= ahead_bytes_max(max_bytes, message_bytes));
            }
        }
        assert_eq!(asks(5 << 20, 1 << 20), (5 << 20, 4));
        assert_eq!(asks(1 << 10, 1 << 20), (1 << 20, 1));
    }
}
