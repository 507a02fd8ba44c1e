//! How a staged batch and its resolution lie in the local log.
//!
//! A STAGE record has a small *head*, which recovery reads without the body, and a *body*: one block with what belongs
//! to each message (time, subject, headers, payload size) and then the payloads one behind the other, so that
//! neither writing nor reading copies a payload.
//!
//! ```text
//! head: version u8 = 1 | kind u8 | batch | incarnation u64 LE | epoch | stream text | oldest published zigzag
//!       | newest less oldest zigzag | payload bytes | count | runs | runs x (gap to the end of the run before, length - 1)
//! body: length of the head u32 LE | length of the block u32 LE | head | block | payloads
//! block: count x (published zigzag, delta to the message before | subject text | headers
//!       | headers x (name text, value text) | payload length)
//! ```
//! Numbers without a width are LEB128; a text is its length and its UTF-8 bytes. The body repeats the head, so that a body
//! read back by its location alone is a whole batch and no index has to keep heads in memory.

pub(crate) mod varint;

mod resolution;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fanin_core::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, StreamSeq};

pub use resolution::Resolution;
use varint::Reader;

/// Record kind: a staged batch. Key: (mapping's space, batch number).
pub const RECORD_STAGE: u8 = 1;
/// Record kind: the resolution of a staged batch, under the same key.
pub const RECORD_RESOLUTION: u8 = 2;
/// Record kind: a dead letter. Key: (`DEAD_LETTER_SPACE` + mapping's space, running number).
pub const RECORD_DEAD_LETTER: u8 = 3;

/// Version byte of heads and resolutions written by this code.
const VERSION: u8 = 1;

/// Bytes that a message takes in a block at least: time, length of the subject, number of headers, length of the payload.
const MESSAGE_BYTES_MIN: usize = 4;
/// Bytes that a header takes at least: the lengths of its name and its value.
pub(crate) const HEADER_BYTES_MIN: usize = 2;
/// Bytes that a run of sequences takes at least: its gap and its length.
const RUN_BYTES_MIN: usize = 2;

/// One message of a staged batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedMessage {
    /// Its sequence in the source stream.
    pub seq: StreamSeq,
    /// When the hub stored it, nanoseconds since the Unix epoch.
    pub published_ns: i64,
    /// The subject it was published to; empty for one that is [`lost`](StagedMessage::lost).
    pub subject: String,
    /// Headers in the publisher's order; a name may come more than once.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload: Bytes,
}

/// A batch of messages of one source incarnation, as pulled and staged together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedBatch {
    /// The batch's number, fixed at stage time.
    pub batch: BatchNo,
    /// The incarnation that the sequences belong to.
    pub incarnation: Incarnation,
    /// The epoch that staged it.
    pub epoch: Epoch,
    /// The kind of its claim, as the ledger record numbers it.
    pub kind: u8,
    /// Name of the source stream.
    pub stream: Arc<str>,
    /// The messages, strictly ascending by sequence; see [`StagedBatch::new`].
    pub messages: Vec<StagedMessage>,
}

/// What the head of a STAGE record says, read without the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageHead {
    /// The batch's number.
    pub batch: BatchNo,
    /// The incarnation that the sequences belong to.
    pub incarnation: Incarnation,
    /// The epoch that staged it.
    pub epoch: Epoch,
    /// The kind of its claim.
    pub kind: u8,
    /// Name of the source stream.
    pub stream: Arc<str>,
    /// When the hub stored the oldest and the newest message, nanoseconds since the Unix epoch; 0 for an empty batch.
    pub published_ns: (i64, i64),
    /// The sequences as ascending, disjoint runs, both ends inclusive.
    pub seqs: Vec<(StreamSeq, StreamSeq)>,
    /// Number of messages.
    pub count: u32,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
}

/// Why bytes of the local log are not a record of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageDecodeError {
    /// The bytes end early.
    #[error("the record is cut short")]
    Truncated,
    /// A newer version wrote it: use that version of fanin with this data directory.
    #[error("the record has version {0}, which this build does not know; use the build that wrote it")]
    Version(u8),
    /// The bytes contradict the layout.
    #[error("the record is malformed: {0}")]
    Malformed(&'static str),
}

impl StagedMessage {
    /// Stands for a won message whose body the disk lost and the source does not have any more. No message of a hub has an
    /// empty subject.
    #[must_use]
    pub fn lost(seq: StreamSeq) -> StagedMessage {
        StagedMessage {
            seq,
            published_ns: 0,
            subject: String::new(),
            headers: Vec::new(),
            payload: Bytes::new(),
        }
    }

    /// Whether nothing is left of the message but its sequence.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.subject.is_empty()
    }
}

impl StagedBatch {
    /// Puts the messages in the order of their sequences; of two copies of one sequence the first stays.
    #[must_use]
    pub fn new(
        batch: BatchNo,
        incarnation: Incarnation,
        epoch: Epoch,
        kind: u8,
        stream: Arc<str>,
        mut messages: Vec<StagedMessage>,
    ) -> StagedBatch {
        messages.sort_by_key(|message| message.seq);
        messages.dedup_by_key(|message| message.seq);
        StagedBatch {
            batch,
            incarnation,
            epoch,
            kind,
            stream,
            messages,
        }
    }

    /// Bytes of all payloads.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.messages
            .iter()
            .map(|message| message.payload.len() as u64)
            .sum()
    }

    /// When the hub stored the oldest and the newest message, lost ones left out, nanoseconds since the Unix epoch; 0 without any.
    #[must_use]
    pub fn published_ns(&self) -> (i64, i64) {
        let there = || self.messages.iter().filter(|message| !message.is_lost());
        let times = || there().map(|message| message.published_ns);
        (times().min().unwrap_or(0), times().max().unwrap_or(0))
    }

    /// The sequences as ascending, disjoint runs, both ends inclusive.
    #[must_use]
    pub fn seqs(&self) -> Vec<(StreamSeq, StreamSeq)> {
        runs_of(self.messages.iter().map(|message| message.seq))
    }

    /// The head and the body's pieces for one `Op::Append`. Payloads are shared, not copied.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Vec<Bytes>) {
        debug_assert!(
            self.messages.windows(2).all(|pair| pair[0].seq < pair[1].seq),
            "messages of a batch are strictly ascending by sequence"
        );
        let mut head = BytesMut::with_capacity(64 + self.stream.len() + self.messages.len() / 8);
        head.put_u8(VERSION);
        head.put_u8(self.kind);
        varint::put(&mut head, self.batch.0);
        head.put_u64_le(self.incarnation.0);
        varint::put(&mut head, self.epoch.0);
        varint::put_bytes(&mut head, self.stream.as_bytes());
        let (oldest, newest) = self.published_ns();
        varint::put(&mut head, zigzag(oldest));
        varint::put(&mut head, zigzag(newest.wrapping_sub(oldest)));
        varint::put(&mut head, self.payload_bytes());
        varint::put(&mut head, self.messages.len() as u64);
        put_runs(&mut head, &self.seqs());

        let text: usize = self
            .messages
            .iter()
            .map(|m| {
                16 + m.subject.len()
                    + m.headers
                        .iter()
                        .map(|(name, value)| name.len() + value.len() + 4)
                        .sum::<usize>()
            })
            .sum();
        let head = head.freeze();
        let mut block = BytesMut::with_capacity(8 + head.len() + text);
        block.put_u32_le(head.len() as u32);
        block.put_u32_le(0);
        block.put_slice(&head);
        let block_at = block.len();
        let mut before = 0_i64;
        for message in &self.messages {
            varint::put(&mut block, zigzag(message.published_ns.wrapping_sub(before)));
            before = message.published_ns;
            varint::put_bytes(&mut block, message.subject.as_bytes());
            varint::put(&mut block, message.headers.len() as u64);
            for (name, value) in &message.headers {
                varint::put_bytes(&mut block, name.as_bytes());
                varint::put_bytes(&mut block, value.as_bytes());
            }
            varint::put(&mut block, message.payload.len() as u64);
        }
        let block_len = (block.len() - block_at) as u32;
        block[4..8].copy_from_slice(&block_len.to_le_bytes());
        let mut body = Vec::with_capacity(1 + self.messages.len());
        body.push(block.freeze());
        body.extend(
            self.messages
                .iter()
                .filter(|m| !m.payload.is_empty())
                .map(|m| m.payload.clone()),
        );
        (head, body)
    }

    /// Reads a head.
    ///
    /// # Errors
    /// When the bytes are not a head of a version this build knows.
    pub fn decode_head(bytes: &[u8]) -> Result<StageHead, StageDecodeError> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let kind = reader.u8()?;
        let batch = BatchNo(reader.number()?);
        let incarnation = Incarnation(reader.u64_le()?);
        let epoch = LedgerSeq(reader.number()?);
        let stream: Arc<str> = Arc::from(reader.text()?);
        let oldest = unzigzag(reader.number()?);
        let published_ns = (oldest, oldest.wrapping_add(unzigzag(reader.number()?)));
        let payload_bytes = reader.number()?;
        let count = reader.number_u32()?;
        let seqs = take_runs(&mut reader)?;
        reader.finish()?;
        if seqs_len(&seqs) != u64::from(count) {
            return Err(StageDecodeError::Malformed(
                "the runs do not hold as many sequences as messages are named",
            ));
        }
        Ok(StageHead {
            batch,
            incarnation,
            epoch,
            kind,
            stream,
            published_ns,
            seqs,
            count,
            payload_bytes,
        })
    }

    /// Reads a whole batch from a record's body. Payloads are slices of `body`, so the body lives as long as the last of
    /// them.
    ///
    /// # Errors
    /// When the bytes are not a body of a version this build knows.
    pub fn decode(body: &Bytes) -> Result<StagedBatch, StageDecodeError> {
        let mut outer = Reader::new(body);
        let head_len = outer.u32_le()? as usize;
        let block_len = outer.u32_le()? as usize;
        let head = StagedBatch::decode_head(outer.take(head_len)?)?;
        let block = outer.take(block_len)?;
        let mut payload_at = body.len() - outer.remaining();
        let mut reader = Reader::new(block);
        // A damaged count must not reserve what the bytes cannot hold.
        let mut messages = Vec::with_capacity((head.count as usize).min(block.len() / MESSAGE_BYTES_MIN));
        let mut before = 0_i64;
        let seqs = head
            .seqs
            .iter()
            .flat_map(|(first, last)| (first.0..=last.0).map(StreamSeq));
        for seq in seqs {
            let published_ns = before.wrapping_add(unzigzag(reader.number()?));
            before = published_ns;
            let subject = reader.text()?.to_owned();
            let header_count = reader.count()?;
            let mut headers = Vec::with_capacity(header_count.min(reader.remaining() / HEADER_BYTES_MIN));
            for _ in 0..header_count {
                headers.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
            }
            let payload_len = reader.number()?;
            if payload_len > (body.len() - payload_at) as u64 {
                return Err(StageDecodeError::Truncated);
            }
            let payload = body.slice(payload_at..payload_at + payload_len as usize);
            payload_at += payload_len as usize;
            messages.push(StagedMessage {
                seq,
                published_ns,
                subject,
                headers,
                payload,
            });
        }
        reader.finish()?;
        if payload_at != body.len() {
            return Err(StageDecodeError::Malformed("bytes behind the last payload"));
        }
        Ok(StagedBatch {
            batch: head.batch,
            incarnation: head.incarnation,
            epoch: head.epoch,
            kind: head.kind,
            stream: head.stream,
            messages,
        })
    }
}

/// Number of sequences in a list of runs.
#[must_use]
pub fn seqs_len(runs: &[(StreamSeq, StreamSeq)]) -> u64 {
    runs.iter()
        .map(|(first, last)| (last.0 - first.0).saturating_add(1))
        .fold(0, u64::saturating_add)
}

/// Joins ascending sequences to runs, both ends inclusive.
pub fn runs_of(seqs: impl Iterator<Item = StreamSeq>) -> Vec<(StreamSeq, StreamSeq)> {
    let mut runs: Vec<(StreamSeq, StreamSeq)> = Vec::new();
    for seq in seqs {
        match runs.last_mut() {
            Some(last) if last.1.0 + 1 == seq.0 => last.1 = seq,
            Some(_) | None => runs.push((seq, seq)),
        }
    }
    runs
}

fn put_runs(out: &mut BytesMut, runs: &[(StreamSeq, StreamSeq)]) {
    varint::put(out, runs.len() as u64);
    let mut end = 0_u64;
    for (first, last) in runs {
        varint::put(out, first.0 - end);
        varint::put(out, last.0 - first.0);
        end = last.0;
    }
}

fn take_runs(reader: &mut Reader<'_>) -> Result<Vec<(StreamSeq, StreamSeq)>, StageDecodeError> {
    const OVERFLOW: StageDecodeError = StageDecodeError::Malformed("a sequence above 64 bits");
    let count = reader.count()?;
    let mut runs = Vec::with_capacity(count.min(reader.remaining() / RUN_BYTES_MIN));
    let mut end = 0_u64;
    for n in 0..count {
        let gap = reader.number()?;
        if n > 0 && gap == 0 {
            return Err(StageDecodeError::Malformed("runs that overlap"));
        }
        let first = end.checked_add(gap).ok_or(OVERFLOW)?;
        end = first.checked_add(reader.number()?).ok_or(OVERFLOW)?;
        runs.push((StreamSeq(first), StreamSeq(end)));
    }
    Ok(runs)
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), StageDecodeError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(StageDecodeError::Version(other)),
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}
