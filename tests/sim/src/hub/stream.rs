//! Source streams.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanin_bridge::topic::SubjectFilter;
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_hub::{SourceInfo, StoredMessage, incarnation};

/// A stored message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// Its body.
    pub payload: Bytes,
    /// When it was stored, nanoseconds since 1970.
    pub stored_ns: u64,
    /// The client library cannot read it as it is delivered.
    pub unreadable: bool,
}

/// A source stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// When it was created, nanoseconds since 1970.
    pub created_ns: u64,
    /// What it holds.
    pub messages: BTreeMap<u64, Message>,
    /// The last sequence given.
    pub last: u64,
    /// When the message was stored that got it, nanoseconds since 1970; 0 for none.
    pub last_ns: i64,
}

impl Stream {
    /// An empty stream.
    #[must_use]
    pub fn new(name: &str, created_ns: u64) -> Stream {
        Stream {
            name: name.to_owned(),
            created_ns,
            messages: BTreeMap::new(),
            last: 0,
            last_ns: 0,
        }
    }

    /// Its incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        incarnation(&self.name, self.created_ns, 0)
    }

    /// Stores a message and returns its sequence.
    pub fn publish(&mut self, message: Message) -> u64 {
        self.last += 1;
        self.last_ns = i64::try_from(message.stored_ns).unwrap_or(i64::MAX);
        self.messages.insert(self.last, message);
        self.last
    }

    /// The first message at or behind a sequence that passes a filter.
    #[must_use]
    pub fn next_matching(&self, from: u64, filter: &SubjectFilter) -> Option<u64> {
        let mut behind = self.messages.range(from..);
        behind
            .find(|(_, message)| filter.matches(&message.subject))
            .map(|(seq, _)| *seq)
    }

    /// A message as it is read by its sequence.
    #[must_use]
    pub fn stored(&self, seq: u64) -> Option<StoredMessage> {
        let message = self.messages.get(&seq)?;
        Some(StoredMessage {
            seq: StreamSeq(seq),
            subject: message.subject.clone(),
            headers: Vec::new(),
            payload: message.payload.clone(),
            published_ns: message.stored_ns,
        })
    }

    /// What the hub says about it.
    #[must_use]
    pub fn info(&self) -> SourceInfo {
        SourceInfo {
            stream: self.name.clone(),
            created_ns: self.created_ns,
            first_seq: self.messages.keys().next().copied().unwrap_or(self.last + 1),
            last_seq: self.last,
            last_ns: self.last_ns,
            messages: self.messages.len() as u64,
            bytes: 0,
            subjects: vec![">".to_owned()],
            retention: "limits".to_owned(),
            storage: "file".to_owned(),
            replicas: 1,
            max_age_ns: 0,
            max_bytes: -1,
            max_messages: -1,
            max_per_subject: -1,
            discard_new: false,
            discard_new_per_subject: false,
            persist_mode: String::new(),
            mirror: false,
            sourced: false,
            leader: None,
        }
    }
}
