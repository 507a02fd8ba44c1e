//! Dead letters: a full durable copy of a message that an application could not process.
//!
//! ```text
//! head: version u8 = 1 | reason u8 | application text | attempts | offset | batch | stream text | incarnation u64 LE
//!       | sequence | last attempt ms | payload length
//! body: length of the head u32 LE | length of the details u32 LE | head | details | payload
//! details: node text | instance text | error text | first attempt ms | trace id text | published ns u64 LE
//!       | subject text | headers | headers x (name text, value text)
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use fanin_core::{
    delivery::DeadLetterReason,
    ids::{BatchNo, Incarnation, Offset, StreamSeq},
};
use fanin_store::{Location, RecoveredRecord};

use super::limits::DEAD_LETTERS_LISTED_MAX;
use crate::stage::{
    HEADER_BYTES_MIN, RECORD_DEAD_LETTER, StageDecodeError,
    varint::{Reader, put, put_bytes},
};

/// Added to a mapping's space: the space of its topic's dead letters.
pub const DEAD_LETTER_SPACE: u32 = 0x8000_0000;

const VERSION: u8 = 1;

/// What a list of dead letters shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterHead {
    /// The application that could not process it.
    pub app: Arc<str>,
    /// Why.
    pub reason: DeadLetterReason,
    /// Attempts made.
    pub attempts: u32,
    /// Its place in the topic.
    pub offset: Offset,
    /// The batch that brought it.
    pub batch: BatchNo,
    /// Name of the source stream.
    pub stream: Arc<str>,
    /// The source's incarnation.
    pub incarnation: Incarnation,
    /// Its sequence in the source.
    pub seq: StreamSeq,
    /// When the last attempt ended, milliseconds since the Unix epoch.
    pub last_attempt_ms: u64,
    /// Bytes of the payload.
    pub payload_len: u64,
}

/// A dead letter in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// What a list shows.
    pub head: DeadLetterHead,
    /// The node it happened on.
    pub node: String,
    /// The instance that had it last; empty when that was before a restart.
    pub instance: String,
    /// The last attempt's error, as the application gave it.
    pub error: String,
    /// When the first attempt known to this process ended, milliseconds since the Unix epoch.
    pub first_attempt_ms: u64,
    /// The trace id of the publisher's `traceparent` header; empty without one.
    pub trace_id: String,
    /// When the hub stored the message, nanoseconds since the Unix epoch.
    pub published_ns: i64,
    /// The subject.
    pub subject: String,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Bytes,
}

/// A dead letter in the local log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedDeadLetter {
    /// Its running number: the id of its key.
    pub id: u64,
    /// Where it lies.
    pub at: Location,
    /// What it is.
    pub head: DeadLetterHead,
}

impl DeadLetterHead {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64 + self.app.len() + self.stream.len());
        out.put_u8(VERSION);
        out.put_u8(match self.reason {
            DeadLetterReason::MaxAttempts => 1,
            DeadLetterReason::Rejected => 2,
            DeadLetterReason::Lost => 3,
        });
        put_bytes(&mut out, self.app.as_bytes());
        put(&mut out, u64::from(self.attempts));
        put(&mut out, self.offset.0);
        put(&mut out, self.batch.0);
        put_bytes(&mut out, self.stream.as_bytes());
        out.put_u64_le(self.incarnation.0);
        put(&mut out, self.seq.0);
        put(&mut out, self.last_attempt_ms);
        put(&mut out, self.payload_len);
        out.freeze()
    }

    /// Reads the head of a dead letter's record.
    ///
    /// # Errors
    /// When the bytes are not a head of a version this build knows.
    pub fn decode(bytes: &[u8]) -> Result<DeadLetterHead, StageDecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(StageDecodeError::Version(other)),
        }
        let reason = match reader.u8()? {
            1 => DeadLetterReason::MaxAttempts,
            2 => DeadLetterReason::Rejected,
            3 => DeadLetterReason::Lost,
            _ => return Err(StageDecodeError::Malformed("a reason that does not exist")),
        };
        let head = DeadLetterHead {
            reason,
            app: Arc::from(reader.text()?),
            attempts: reader.number_u32()?,
            offset: Offset(reader.number()?),
            batch: BatchNo(reader.number()?),
            stream: Arc::from(reader.text()?),
            incarnation: Incarnation(reader.u64_le()?),
            seq: StreamSeq(reader.number()?),
            last_attempt_ms: reader.number()?,
            payload_len: reader.number()?,
        };
        reader.finish()?;
        Ok(head)
    }
}

impl DeadLetter {
    /// Head and body for one `Op::Append`.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Vec<Bytes>) {
        let head = self.head.encode();
        let mut details = BytesMut::new();
        details.put_u32_le(head.len() as u32);
        details.put_u32_le(0);
        details.put_slice(&head);
        let details_at = details.len();
        put_bytes(&mut details, self.node.as_bytes());
        put_bytes(&mut details, self.instance.as_bytes());
        put_bytes(&mut details, self.error.as_bytes());
        put(&mut details, self.first_attempt_ms);
        put_bytes(&mut details, self.trace_id.as_bytes());
        details.put_u64_le(self.published_ns as u64);
        put_bytes(&mut details, self.subject.as_bytes());
        put(&mut details, self.headers.len() as u64);
        for (name, value) in &self.headers {
            put_bytes(&mut details, name.as_bytes());
            put_bytes(&mut details, value.as_bytes());
        }
        let details_len = (details.len() - details_at) as u32;
        details[4..8].copy_from_slice(&details_len.to_le_bytes());
        (head, vec![details.freeze(), self.payload.clone()])
    }

    /// Reads the body of a dead letter's record.
    ///
    /// # Errors
    /// When the bytes are not a body of a version this build knows.
    pub fn decode(body: &Bytes) -> Result<DeadLetter, StageDecodeError> {
        let mut outer = Reader::new(body);
        let head_len = outer.u32_le()? as usize;
        let details_len = outer.u32_le()? as usize;
        let head = DeadLetterHead::decode(outer.take(head_len)?)?;
        let mut reader = Reader::new(outer.take(details_len)?);
        let payload = body.slice(body.len() - outer.remaining()..);
        if payload.len() as u64 != head.payload_len {
            return Err(StageDecodeError::Malformed(
                "a payload of another length than the head says",
            ));
        }
        let node = reader.text()?.to_owned();
        let instance = reader.text()?.to_owned();
        let error = reader.text()?.to_owned();
        let first_attempt_ms = reader.number()?;
        let trace_id = reader.text()?.to_owned();
        let published_ns = reader.u64_le()? as i64;
        let subject = reader.text()?.to_owned();
        let count = reader.count()?;
        let mut headers = Vec::with_capacity(count.min(reader.remaining() / HEADER_BYTES_MIN));
        for _ in 0..count {
            headers.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
        }
        reader.finish()?;
        Ok(DeadLetter {
            head,
            node,
            instance,
            error,
            first_attempt_ms,
            trace_id,
            published_ns,
            subject,
            headers,
            payload,
        })
    }
}

/// The trace id of a `traceparent` header, empty when there is none or it is not one.
pub(crate) fn trace_id(headers: &[(String, String)]) -> String {
    let traceparent = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("traceparent"));
    let id = traceparent
        .and_then(|(_, value)| value.split('-').nth(1))
        .unwrap_or_default();
    if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        id.to_owned()
    } else {
        String::new()
    }
}

/// The dead letters of one topic that the local log holds: all are counted, the newest are listed.
#[derive(Debug, Default)]
pub(crate) struct DeadLetterBook {
    listed: VecDeque<ListedDeadLetter>,
    counts: BTreeMap<Arc<str>, u64>,
    next_id: u64,
}

impl DeadLetterBook {
    /// Finds the dead letters of a mapping among what the log held.
    pub(crate) fn restore(
        space: u32,
        records: &[RecoveredRecord],
    ) -> Result<DeadLetterBook, StageDecodeError> {
        let mut book = DeadLetterBook {
            next_id: 1,
            ..DeadLetterBook::default()
        };
        for record in records {
            if record.kind == RECORD_DEAD_LETTER && record.key.space == DEAD_LETTER_SPACE + space {
                book.next_id = book.next_id.max(record.key.id + 1);
                let head = DeadLetterHead::decode(&record.head)?;
                book.add(ListedDeadLetter {
                    id: record.key.id,
                    at: record.at,
                    head,
                });
            }
        }
        Ok(book)
    }

    pub(crate) fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    pub(crate) fn add(&mut self, letter: ListedDeadLetter) {
        *self.counts.entry(Arc::clone(&letter.head.app)).or_default() += 1;
        self.listed.push_back(letter);
        if self.listed.len() > DEAD_LETTERS_LISTED_MAX {
            self.listed.pop_front();
        }
    }

    pub(crate) fn count(&self, app: &str) -> u64 {
        self.counts.get(app).copied().unwrap_or_default()
    }

    pub(crate) fn listed(&self) -> impl Iterator<Item = &ListedDeadLetter> {
        self.listed.iter()
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a dead letter comes back whole, in a layout that does not change unnoticed, and damage is an error.

    use super::*;

    fn sample() -> DeadLetter {
        DeadLetter {
            head: DeadLetterHead {
                app: "billing".into(),
                reason: DeadLetterReason::Rejected,
                attempts: 3,
                offset: Offset(300),
                batch: BatchNo(7),
                stream: "S".into(),
                incarnation: Incarnation(1),
                seq: StreamSeq(12),
                last_attempt_ms: 5,
                payload_len: 4,
            },
            node: "n1".into(),
            instance: "i".into(),
            error: "no".into(),
            first_attempt_ms: 4,
            trace_id: "t".into(),
            published_ns: -1,
            subject: "a.b".into(),
            headers: vec![("K".into(), "v".into())],
            payload: Bytes::from_static(b"body"),
        }
    }

    #[test]
    fn golden_bytes_and_round_trip() {
        let (head, body) = sample().encode();
        let mut expected = vec![1, 2, 7];
        expected.extend(b"billing");
        expected.extend([3, 0xac, 2, 7, 1, b'S', 1, 0, 0, 0, 0, 0, 0, 0, 12, 5, 4]);
        assert_eq!(head[..], expected[..]);
        assert_eq!(DeadLetterHead::decode(&head).unwrap(), sample().head);
        let body = Bytes::from(body.concat());
        assert_eq!(DeadLetter::decode(&body).unwrap(), sample());
        for cut in 0..body.len() {
            assert!(DeadLetter::decode(&body.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn trace_ids() {
        let header = |value: &str| vec![("TraceParent".to_owned(), value.to_owned())];
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id(&header(&format!("00-{id}-b7ad6b7169203331-01"))), id);
        assert_eq!(trace_id(&header("00-short-x-01")), "");
        assert_eq!(trace_id(&header("nonsense")), "");
        assert_eq!(trace_id(&[]), "");
    }
}
