//! The shared consumer, as a server keeps it: acknowledgements look at the sequence only (F1), the floor follows from what
//! is pending, and all of it may go back to an earlier state (F4, F5).

use std::collections::BTreeMap;
use std::time::Duration;

use fanin_bridge::topic::SubjectFilter;
use fanin_core::ids::StreamSeq;
use fanin_hub::{ConsumerInfo, ConsumerSpec, CreatePolicy, SharedConsumer};

use super::stream::Stream;

/// A message that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Pending {
    due_ms: u64,
    delivered: u64,
}

/// What the server remembers of a consumer.
#[derive(Clone, Debug, Default)]
struct Memory {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    floor: u64,
    deliveries: u64,
}

/// A shared consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Its name.
    pub name: String,
    /// Its stream.
    pub stream: String,
    /// What it wants.
    pub filter: SubjectFilter,
    created_ns: u64,
    ack_wait_ms: u64,
    max_ack_pending: usize,
    to_skip: u64,
    now: Memory,
    /// An earlier state, which it may go back to.
    earlier: Memory,
}

/// One delivery.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The message.
    pub seq: u64,
    /// How often it was delivered, from 1.
    pub delivered: u64,
    /// The number of the delivery.
    pub number: u64,
}

impl Consumer {
    /// A consumer as a node asks for it.
    #[must_use]
    pub fn new(spec: &ConsumerSpec, policy: CreatePolicy, created_ns: u64) -> Consumer {
        let first = match policy {
            CreatePolicy::After(watermark) => watermark.0 + 1,
            CreatePolicy::FromStart | CreatePolicy::Never => 1,
        };
        let memory = Memory {
            next: first,
            floor: first - 1,
            ..Memory::default()
        };
        Consumer {
            name: spec.name(),
            stream: spec.stream.clone(),
            filter: SubjectFilter::new(spec.filter_subjects.clone()),
            created_ns,
            ack_wait_ms: u64::try_from(spec.ack_wait.as_millis()).unwrap_or(u64::MAX),
            max_ack_pending: usize::try_from(spec.max_ack_pending()).unwrap_or(usize::MAX),
            to_skip: 0,
            now: memory.clone(),
            earlier: memory,
        }
    }

    /// Up to `max` deliveries: what is due again first, then new messages.
    pub fn take(&mut self, now_ms: u64, max: usize, stream: &Stream) -> Vec<Delivery> {
        let mut out = Vec::new();
        let due: Vec<u64> = self
            .now
            .pending
            .iter()
            .filter(|(_, pending)| pending.due_ms <= now_ms)
            .map(|(seq, _)| *seq)
            .take(max)
            .collect();
        for seq in due {
            if !stream.messages.contains_key(&seq) {
                // What is gone from the stream cannot be delivered again: the server lets go of it.
                self.drop_pending(seq);
                continue;
            }
            self.deliver(now_ms, seq, &mut out);
        }
        while out.len() < max && self.now.pending.len() < self.max_ack_pending {
            let Some(seq) = stream.next_matching(self.now.next, &self.filter) else {
                break;
            };
            self.now.next = seq + 1;
            if self.to_skip > 0 {
                self.to_skip -= 1;
            } else {
                self.deliver(now_ms, seq, &mut out);
            }
        }
        if self.now.pending.is_empty() {
            self.now.floor = self.now.floor.max(self.now.next - 1);
        }
        out
    }

    fn deliver(&mut self, now_ms: u64, seq: u64, out: &mut Vec<Delivery>) {
        let due_ms = now_ms + self.ack_wait_ms;
        let pending = self
            .now
            .pending
            .entry(seq)
            .or_insert(Pending { due_ms, delivered: 0 });
        pending.due_ms = due_ms;
        pending.delivered += 1;
        self.now.deliveries += 1;
        out.push(Delivery {
            seq,
            delivered: pending.delivered,
            number: self.now.deliveries,
        });
    }

    /// When something becomes due again, simulated milliseconds.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.now.pending.values().map(|pending| pending.due_ms).min()
    }

    /// Takes an acknowledgement, from whomever.
    pub fn ack(&mut self, seq: u64) {
        if seq < self.now.next {
            self.drop_pending(seq);
        }
    }

    fn drop_pending(&mut self, seq: u64) {
        if self.now.pending.remove(&seq).is_some() {
            let floor = match self.now.pending.keys().next() {
                Some(first) => first - 1,
                None => self.now.next - 1,
            };
            self.now.floor = self.now.floor.max(floor);
        }
    }

    /// Takes a message back, to be delivered again after `delay_ms`.
    pub fn give_back(&mut self, seq: u64, now_ms: u64, delay_ms: u64) {
        if let Some(pending) = self.now.pending.get_mut(&seq) {
            pending.due_ms = now_ms + delay_ms;
        }
    }

    /// Makes a pending message due at once.
    pub fn hurry(&mut self, seq: u64) {
        if let Some(pending) = self.now.pending.get_mut(&seq) {
            pending.due_ms = 0;
        }
    }

    /// Goes back to an earlier state.
    pub fn lose_state(&mut self) {
        self.now = self.earlier.clone();
    }

    /// Remembers the present state as one to go back to.
    pub fn remember(&mut self) {
        self.earlier = self.now.clone();
    }

    /// Goes back to the beginning.
    pub fn reset(&mut self) {
        self.now = Memory {
            next: 1,
            deliveries: self.now.deliveries,
            ..Memory::default()
        };
    }

    /// Goes forwards to a position, whatever is pending.
    pub fn reset_to(&mut self, next: u64) {
        self.now = Memory {
            next: next.max(1),
            floor: next.max(1) - 1,
            deliveries: self.now.deliveries,
            ..Memory::default()
        };
    }

    /// The next sequence it will look at.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.now.next
    }

    /// Passes the next `count` new messages without delivering them.
    pub fn skip(&mut self, count: u64) {
        self.to_skip += count;
    }

    /// Its counters.
    #[must_use]
    pub fn info(&self, stream: &Stream) -> ConsumerInfo {
        let behind = stream.messages.range(self.now.next..);
        ConsumerInfo {
            name: self.name.clone(),
            created_ns: self.created_ns,
            ack_floor: StreamSeq(self.now.floor),
            delivered: StreamSeq(self.now.next - 1),
            deliveries: self.now.deliveries,
            pending: behind
                .filter(|(_, message)| self.filter.matches(&message.subject))
                .count() as u64,
            ack_pending: self.now.pending.len() as u64,
            redelivered: 0,
            waiting: 0,
            ack_wait: Duration::from_millis(self.ack_wait_ms),
            max_ack_pending: i64::try_from(self.max_ack_pending).unwrap_or(i64::MAX),
        }
    }

    /// What a node gets that has verified it.
    #[must_use]
    pub fn shared(&self, stream: &Stream, created: bool) -> SharedConsumer {
        SharedConsumer {
            stream: self.stream.clone(),
            name: self.name.clone(),
            info: self.info(stream),
            created,
            grown: Vec::new(),
        }
    }
}
