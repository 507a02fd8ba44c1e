//! Messages in batches, for applications that work on many at once.

use std::future::poll_fn;
use std::time::Duration;

use crate::confirmation::BatchConfirmation;
use crate::error::SubscribeError;
use crate::message::Message;
use crate::subscription::{Subscription, poll_message};

impl Subscription {
    /// Up to `max` messages: returns when they are there, or with what has come within `limit`, possibly nothing. A
    /// zero limit takes what is here already. More than the message credit can never be held at once, so `max` is
    /// lowered to it.
    ///
    /// When this future is dropped before it ends, what it had collected is released, uncounted.
    ///
    /// # Errors
    /// [`SubscribeError`] when the bridge refuses the subscription for good; every later call says so again.
    pub async fn pull(&mut self, max: usize, limit: Duration) -> Result<PulledBatch, SubscribeError> {
        let max = max.min(self.credit_messages());
        let shared = self.shared();
        let mut collected = Collected(Vec::new());
        let time_up = tokio::time::sleep(limit);
        tokio::pin!(time_up);
        while collected.0.len() < max {
            let next = tokio::select! {
                biased;
                next = poll_fn(|cx| poll_message(shared, cx)) => next,
                () = &mut time_up => break,
            };
            match next {
                Some(Ok(message)) => collected.0.push(message),
                Some(Err(error)) if collected.0.is_empty() => return Err(error),
                Some(Err(_)) | None => break,
            }
        }
        Ok(PulledBatch {
            messages: std::mem::take(&mut collected.0),
        })
    }
}

/// Messages on their way into a batch.
struct Collected(Vec<Message>);

impl Drop for Collected {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Message::release);
    }
}

/// Messages pulled together. Answer them together, or one by one by iterating over the batch by value.
#[derive(Debug)]
#[must_use = "messages that are dropped without a verdict are retried"]
pub struct PulledBatch {
    messages: Vec<Message>,
}

impl PulledBatch {
    /// The messages, in topic order.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages, in topic order.
    pub fn iter(&self) -> std::slice::Iter<'_, Message> {
        self.messages.iter()
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether nothing came within the time limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Done with all of them. The future resolves when every verdict is durable or lost.
    ///
    /// # Errors
    /// [`BatchAckError`](crate::BatchAckError) lists the messages whose verdict was not confirmed.
    pub fn ack_all(mut self) -> BatchConfirmation {
        let ids = self.messages.iter_mut().map(Message::take_id).collect();
        let (confirmation, waiters) = BatchConfirmation::new(ids);
        for (message, waiter) in self.messages.into_iter().zip(waiters) {
            message.ack_with(waiter);
        }
        confirmation
    }

    /// Failed for now, all of them; see [`Message::retry`].
    pub fn retry_all(self, after: Option<Duration>, reason: &str) {
        self.messages
            .into_iter()
            .for_each(|message| message.retry(after, reason));
    }

    /// Gives all of them back, uncounted.
    pub fn release_all(self) {
        self.messages.into_iter().for_each(Message::release);
    }
}

impl IntoIterator for PulledBatch {
    type Item = Message;
    type IntoIter = std::vec::IntoIter<Message>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter()
    }
}

impl<'a> IntoIterator for &'a PulledBatch {
    type Item = &'a Message;
    type IntoIter = std::slice::Iter<'a, Message>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
