//! Messages that have just arrived, until the core has said what becomes of each.

use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_core::input::{FetchedMessage, Input};
use fanin_core::record::ClaimKind;
use fanin_core::seq_set::SeqSet;
use fanin_hub::{AckSubject, Pulled, StoredMessage};

use super::batches::{Flying, Permits};
use super::driver::Driver;
use crate::stage::StagedMessage;
use crate::telemetry::metrics as names;

/// One arrival.
#[derive(Debug)]
pub struct Arrival {
    /// The messages; those that are staged are taken out.
    pub messages: Vec<(StagedMessage, Option<AckSubject>)>,
    /// The room they take.
    pub permits: Permits,
}

impl Arrival {
    /// Takes the messages of these sequences out, a second copy of one stays.
    fn take(&mut self, seqs: &SeqSet) -> (Vec<StagedMessage>, Vec<(StreamSeq, AckSubject)>) {
        let mut wanted = seqs.clone();
        let mut taken = Vec::with_capacity(self.messages.len());
        let mut acks = Vec::with_capacity(self.messages.len());
        let mut rest = Vec::new();
        for (message, ack) in self.messages.drain(..) {
            let seq = message.seq;
            if wanted.contains(seq.0) {
                wanted.remove_range(seq.0, seq.0);
                acks.extend(ack.map(|ack| (seq, ack)));
                taken.push(message);
            } else {
                rest.push((message, ack));
            }
        }
        self.messages = rest;
        (taken, acks)
    }

    /// The acknowledgement subjects of these sequences.
    pub fn acks(&self, wanted: impl Fn(StreamSeq) -> bool) -> Vec<AckSubject> {
        self.messages
            .iter()
            .filter(|(message, _)| wanted(message.seq))
            .filter_map(|(_, ack)| ack.clone())
            .collect()
    }
}

impl Driver {
    pub(super) fn on_pulled(&mut self, incarnation: Incarnation, pulled: Vec<Pulled>, permits: Permits) {
        metrics::counter!(names::HUB_FETCHED_MESSAGES, "mapping" => self.options.name.clone())
            .increment(pulled.len() as u64);
        let messages = pulled.into_iter().map(|pulled| {
            let message = StagedMessage {
                seq: StreamSeq(pulled.facts.stream_seq),
                published_ns: i64::try_from(pulled.facts.published_ns).unwrap_or(i64::MAX),
                subject: pulled.subject,
                headers: pulled.headers,
                payload: pulled.payload,
            };
            (message, Some(pulled.ack))
        });
        self.arrive(
            incarnation,
            ClaimKind::Normal,
            Arrival {
                messages: messages.collect(),
                permits,
            },
        );
    }

    pub(super) fn on_repaired(
        &mut self,
        incarnation: Incarnation,
        message: StoredMessage,
        mut permits: Permits,
    ) {
        if !self.repair_room.fit(&mut permits, message.size() as u64) {
            tracing::debug!(mapping = self.options.name, %incarnation, seq = message.seq.0, "no room for a fetched message; it is fetched again");
            return;
        }
        let ack = self.ack_by_seq(incarnation, message.seq);
        let messages = vec![(super::watch::staged_message(message), ack)];
        self.arrive(incarnation, ClaimKind::Repair, Arrival { messages, permits });
    }

    fn arrive(&mut self, incarnation: Incarnation, kind: ClaimKind, arrival: Arrival) {
        self.tickets += 1;
        let ticket = self.tickets;
        let facts = arrival.messages.iter();
        let messages = facts
            .map(|(m, _)| FetchedMessage {
                seq: m.seq,
                published_ns: m.published_ns,
            })
            .collect();
        self.arrivals.insert(ticket, arrival);
        self.feed(Input::Fetched {
            ticket,
            incarnation,
            kind,
            messages,
        });
        // The core answers at once; what it named nowhere is dropped, and its room with it.
        self.arrivals.remove(&ticket);
    }

    /// Takes what is to be staged out of an arrival.
    pub(super) fn take_arrived(&mut self, ticket: u64, seqs: &SeqSet) -> (Vec<StagedMessage>, Flying) {
        let (messages, acks, permits) = match self.arrivals.get_mut(&ticket) {
            Some(arrival) => {
                let (messages, acks) = arrival.take(seqs);
                (messages, acks, std::mem::take(&mut arrival.permits))
            }
            None => Default::default(),
        };
        (
            messages,
            Flying {
                acks,
                permits,
                ..Flying::default()
            },
        )
    }
}
