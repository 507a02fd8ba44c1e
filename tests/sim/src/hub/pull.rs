//! Pulling: what the hub delivers may be lost, doubled, out of order, or again what somebody else holds.

use std::time::Duration;

use fanin_hub::port::Pull;
use fanin_hub::{AckSubject, DeliveryFacts, PullError, Pulled, SharedConsumer};
use futures_util::future::BoxFuture;
use tokio::time::sleep_until;

use super::consumer::Delivery;
use super::link::Link;
use super::stream::Stream;
use super::wire::Mode;
use super::{State, Word};
use crate::faults::Fault;
use crate::mutants::Mutant;

/// A puller of a shared consumer.
#[derive(Debug)]
pub struct SimPull {
    link: Link,
    stream: String,
    consumer: String,
    received: Vec<Pulled>,
}

impl SimPull {
    /// A puller over a link.
    #[must_use]
    pub fn new(link: Link, consumer: &SharedConsumer) -> SimPull {
        SimPull {
            link,
            stream: consumer.stream.clone(),
            consumer: consumer.name.clone(),
            received: Vec::new(),
        }
    }

    fn pulled(&self, stream: &Stream, delivery: Delivery) -> Option<Pulled> {
        let message = stream.messages.get(&delivery.seq)?;
        let facts = DeliveryFacts {
            delivered: delivery.delivered,
            stream_seq: delivery.seq,
            consumer_seq: delivery.number,
            published_ns: message.stored_ns,
            pending: 0,
        };
        Some(Pulled {
            facts,
            subject: message.subject.clone(),
            headers: Vec::new(),
            payload: message.payload.clone(),
            ack: AckSubject::from_text(&format!(
                "$JS.ACK.{}.{}.{}.{}.{}.{}.0",
                self.stream,
                self.consumer,
                facts.delivered,
                facts.stream_seq,
                facts.consumer_seq,
                facts.published_ns
            )),
        })
    }

    /// What the hub hands over now, after everything that may happen to it, and whether a message broke the connection.
    fn deliver(&self, state: &mut State, max: usize) -> Option<(Vec<Pulled>, bool)> {
        let world = &self.link.hub.world;
        let stream = state.streams.get(&self.stream)?;
        let key = (self.stream.clone(), self.consumer.clone());
        let consumer = state.consumers.get_mut(&key)?;
        let mut deliveries = consumer.take(world.now_ms(), max, stream);
        for delivery in &deliveries {
            if world.happens(Fault::DeliveryTwice) {
                consumer.hurry(delivery.seq);
            }
        }
        if deliveries.len() > 1 && world.happens(Fault::DeliveryShuffled) {
            world.hub.shuffle(&mut deliveries);
        }
        deliveries.retain(|_| !world.happens(Fault::DeliveryLost));
        if self.link.wire.mode() != Mode::Up {
            deliveries.clear();
        }
        // What comes behind a message that breaks the connection is lost with it.
        let unreadable = |delivery: &Delivery| {
            let message = stream.messages.get(&delivery.seq);
            message.is_some_and(|message| message.unreadable)
        };
        let broken_at = deliveries.iter().position(unreadable);
        deliveries.truncate(broken_at.unwrap_or(usize::MAX));
        let pulled = deliveries
            .into_iter()
            .filter_map(|delivery| self.pulled(stream, delivery));
        Some((pulled.collect(), broken_at.is_some()))
    }

    fn next_due_ms(&self) -> Option<u64> {
        let state = self.link.hub.state.lock();
        let key = (self.stream.clone(), self.consumer.clone());
        state.consumers.get(&key)?.next_due_ms()
    }

    async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Vec<Pulled>, PullError> {
        let hub = self.link.hub.clone();
        let world = &hub.world;
        let deadline = world.now_ms() + u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        loop {
            let moved = hub.moved.notified();
            if self.link.ready().await.is_err() {
                return Err(PullError::Disconnected);
            }
            if self.link.wire.mode() == Mode::OutLost {
                world.pause(deadline.saturating_sub(world.now_ms()).max(1)).await;
                return Err(PullError::Silent {
                    stream: self.stream.clone(),
                    consumer: self.consumer.clone(),
                });
            }
            world.pause(world.delay.below(4)).await;
            if world.happens(Fault::NoResponders) {
                return Err(PullError::NoConsumer {
                    stream: self.stream.clone(),
                    consumer: self.consumer.clone(),
                });
            }
            let delivered = self.deliver(&mut hub.state.lock(), max);
            let Some((delivered, is_broken)) = delivered else {
                world.pause(world.delay.between(1, 20)).await;
                return Err(PullError::ConsumerDeleted {
                    stream: self.stream.clone(),
                    consumer: self.consumer.clone(),
                });
            };
            if !delivered.is_empty() {
                // From here on it waits in the client: a call that is cancelled loses nothing.
                self.received = delivered;
                world.pause(world.delay.below(4)).await;
                if self.link.ready().await.is_err() {
                    self.received.clear();
                    return Err(PullError::Disconnected);
                }
                return Ok(self.hand_out());
            }
            if is_broken {
                world.pause(world.delay.between(1, 20)).await;
                return Err(PullError::Disconnected);
            }
            if world.now_ms() >= deadline {
                return Ok(Vec::new());
            }
            // Never earlier than a millisecond from now, or a due message that nobody may have would stop the clock.
            let due_ms = self
                .next_due_ms()
                .map_or(deadline, |due| due.max(world.now_ms() + 1));
            tokio::select! {
                biased;
                () = moved => {}
                () = self.link.wire.changed() => {}
                () = sleep_until(world.instant(deadline.min(due_ms))) => {}
            }
        }
    }

    fn hand_out(&mut self) -> Vec<Pulled> {
        let pulled = std::mem::take(&mut self.received);
        if self.link.hub.world.plays(Mutant::SettlesOnArrival) {
            let mut state = self.link.hub.state.lock();
            for pulled in &pulled {
                let hub = &self.link.hub;
                hub.take_word(&mut state, &self.link.node, &pulled.ack, Word::Ack);
            }
        }
        self.link.hub.world.note(&self.link.node, || {
            let seqs: Vec<u64> = pulled.iter().map(|pulled| pulled.facts.stream_seq).collect();
            format!("pulled {seqs:?}")
        });
        pulled
    }
}

impl Pull for SimPull {
    fn fetch(
        &mut self,
        max_messages: usize,
        _max_bytes: usize,
        _linger: Duration,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Pulled>, PullError>> {
        Box::pin(async move {
            if !self.received.is_empty() {
                return Ok(self.hand_out());
            }
            self.next_batch(max_messages, wait).await
        })
    }

    fn release(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let acks: Vec<AckSubject> = self.received.drain(..).map(|pulled| pulled.ack).collect();
            if acks.is_empty() {
                return;
            }
            let given_back = self
                .link
                .exchange("release", |hub, state| {
                    for ack in &acks {
                        hub.take_word(state, &self.link.node, ack, Word::GiveBack(0));
                    }
                })
                .await;
            if given_back.is_err() {
                self.link.hub.world.note(&self.link.node, || {
                    "nothing could be given back; it comes again".to_owned()
                });
            }
        })
    }
}
