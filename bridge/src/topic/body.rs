//! A published batch in memory: the staged messages, which of them were won, and their wire form.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, BytesMut};
use fanin_core::ids::{Offset, StreamSeq, TermsVersion};

use crate::stage::{StagedBatch, StagedMessage};

/// A published batch with its bodies, shared by all applications of the topic.
#[derive(Debug)]
pub(crate) struct TopicBatch {
    pub(crate) base: Offset,
    pub(crate) terms: TermsVersion,
    staged: Arc<StagedBatch>,
    /// Positions of the won messages; `None`: all of them.
    won: Option<Box<[u32]>>,
    wire: OnceLock<Wire>,
    weight: u64,
}

/// The part of each delivery's wire form that is the same for every application: all fields but number, attempt and payload.
#[derive(Debug)]
struct Wire {
    bytes: BytesMut,
    /// Where each message's part ends.
    ends: Box<[u32]>,
}

/// A resolution names a message that the staged batch does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the resolution of batch {batch} names {won} messages, of which the staged batch holds {found}")]
pub struct WonMismatch {
    batch: fanin_core::ids::BatchNo,
    won: u64,
    found: u64,
}

impl TopicBatch {
    /// Selects the won messages of a staged batch. `None`: all of them.
    pub(crate) fn new(
        base: Offset,
        terms: TermsVersion,
        staged: Arc<StagedBatch>,
        won: Option<&[(StreamSeq, StreamSeq)]>,
    ) -> Result<TopicBatch, WonMismatch> {
        let won = match won {
            None => None,
            Some(runs) => {
                let mut selected = Vec::with_capacity(staged.messages.len());
                let mut runs_left = runs;
                for (n, message) in staged.messages.iter().enumerate() {
                    while runs_left.first().is_some_and(|run| run.1 < message.seq) {
                        runs_left = &runs_left[1..];
                    }
                    if runs_left.first().is_some_and(|run| run.0 <= message.seq) {
                        selected.push(n as u32);
                    }
                }
                let wanted = crate::stage::seqs_len(runs);
                if wanted != selected.len() as u64 {
                    return Err(WonMismatch {
                        batch: staged.batch,
                        won: wanted,
                        found: selected.len() as u64,
                    });
                }
                Some(selected.into_boxed_slice())
            }
        };
        let weight = staged
            .messages
            .iter()
            .map(|m| {
                let headers: usize = m
                    .headers
                    .iter()
                    .map(|(name, value)| name.len() + value.len() + 64)
                    .sum();
                (m.payload.len() + 2 * m.subject.len() + 2 * headers + size_of::<StagedMessage>() + 64) as u64
            })
            .sum();
        Ok(TopicBatch {
            base,
            terms,
            staged,
            won,
            wire: OnceLock::new(),
            weight,
        })
    }

    /// Bytes of memory this batch costs, about.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// Number of won messages.
    pub(crate) fn count(&self) -> u32 {
        self.won
            .as_ref()
            .map_or(self.staged.messages.len(), |won| won.len()) as u32
    }

    /// The offset behind the last message.
    pub(crate) fn end(&self) -> Offset {
        self.base.plus(u64::from(self.count()))
    }

    pub(crate) fn holds(&self, offset: Offset) -> bool {
        self.base <= offset && offset < self.end()
    }

    pub(crate) fn staged(&self) -> &StagedBatch {
        &self.staged
    }

    /// The place of an offset that this batch holds.
    pub(crate) fn place(&self, offset: Offset) -> u32 {
        debug_assert!(self.holds(offset), "{offset} is not in this batch");
        (offset.0 - self.base.0) as u32
    }

    /// The won message at a place below `count`.
    pub(crate) fn message(&self, place: u32) -> &StagedMessage {
        let n = self.won.as_ref().map_or(place, |won| won[place as usize]);
        &self.staged.messages[n as usize]
    }

    /// The shared part of a delivery's wire form. The first caller encodes the whole batch.
    pub(crate) fn wire(&self, place: u32) -> &[u8] {
        let wire = self.wire.get_or_init(|| self.encode());
        let place = place as usize;
        let start = if place == 0 {
            0
        } else {
            wire.ends[place - 1] as usize
        };
        &wire.bytes[start..wire.ends[place] as usize]
    }

    fn encode(&self) -> Wire {
        let stream = self.staged.stream.as_bytes();
        let mut bytes = BytesMut::with_capacity(self.count() as usize * (64 + 2 * stream.len()));
        let mut ends = Vec::with_capacity(self.count() as usize);
        let mut id = Vec::with_capacity(stream.len() + 21);
        for place in 0..self.count() {
            let message = self.message(place);
            id.clear();
            id.extend_from_slice(stream);
            id.push(b':');
            id.extend_from_slice(message.seq.to_string().as_bytes());
            put_field(&mut bytes, 2, &id);
            put_field(&mut bytes, 3, message.subject.as_bytes());
            for (name, value) in &message.headers {
                let len = field_len(name.len()) + field_len(value.len());
                bytes.put_u8(4 << 3 | LEN);
                put_varint(&mut bytes, len as u64);
                put_field(&mut bytes, 1, name.as_bytes());
                put_field(&mut bytes, 2, value.as_bytes());
            }
            put_number(&mut bytes, 7, message.published_ns as u64);
            put_field(&mut bytes, 8, stream);
            put_number(&mut bytes, 9, message.seq.0);
            ends.push(bytes.len() as u32);
        }
        Wire {
            bytes,
            ends: ends.into_boxed_slice(),
        }
    }
}

/// Protobuf wire type of a number.
const VARINT: u8 = 0;
/// Protobuf wire type of bytes with a length.
pub(crate) const LEN: u8 = 2;

pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(crate) fn varint_len(value: u64) -> usize {
    // One byte for each seven bits, at least one.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Bytes of a field with `len` bytes of content; like every field here its number is below 16.
pub(crate) fn framed_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// The same; an empty field is left out, as proto3 encoders do. Clients count the size of what they decoded, so the
/// encoding must be the canonical one.
pub(crate) fn field_len(len: usize) -> usize {
    if len == 0 { 0 } else { framed_len(len) }
}

pub(crate) fn put_field(out: &mut impl BufMut, number: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(number << 3 | LEN);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

pub(crate) fn put_number(out: &mut impl BufMut, number: u8, value: u64) {
    if value != 0 {
        out.put_u8(number << 3 | VARINT);
        put_varint(out, value);
    }
}
