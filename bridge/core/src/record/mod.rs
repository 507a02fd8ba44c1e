//! The ledger's records and their encoding (design section 4).
//!
//! A record is an envelope (format version, witness) around one body. The body's field number is its type. Decoding is
//! strict in both: an unknown version, type or field is `DecodeError`, and the mapping halts on it (P10).

mod claim;
mod control;
mod terms;

pub use claim::{Claim, ClaimKind, content_hash};
pub use control::{CheckpointPart, Close, EpochRecord, Genesis, Handoff, NodeState, Progress};
pub use terms::{SourceTerms, Terms};

use crate::hash::Hash128;
use crate::ids::{LedgerSeq, NodeUuid};
use crate::limits::RECORD_BYTES_MAX;
use crate::wire::{DecodeError, Reader, Writer};

/// The format this version writes and the only one it reads.
pub const RECORD_VERSION: u32 = 1;

/// What the writer of a record had folded when it wrote it (P11): a reader with another hash at that position halts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Witness {
    /// The last record the writer had folded; 0 before the first.
    pub position: LedgerSeq,
    /// The hash of the writer's fold at that position.
    pub hash: Hash128,
}

/// One ledger record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// What its writer had folded.
    pub witness: Witness,
    /// What it says.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Body {
    /// One part of a checkpoint (P7).
    Checkpoint(CheckpointPart),
    /// A node durably holds these source sequences (P2).
    Claim(Claim),
    /// The watermark of a source incarnation moves (P6).
    Close(Close),
    /// A node's life begins or changes state (P8).
    Epoch(EpochRecord),
    /// The first record of a ledger: rules in force.
    Genesis(Genesis),
    /// Unfinished messages move to another node; reserved, rule version 1 halts on it.
    Handoff(Handoff),
    /// A node tells which of its batches every application has finished (P7).
    Progress(Progress),
    /// Sources and app set in force (P9).
    Terms(Terms),
}

mod field {
    pub(super) const VERSION: u32 = 1;
    pub(super) const WITNESS: u32 = 2;
    pub(super) const GENESIS: u32 = 10;
    pub(super) const TERMS: u32 = 11;
    pub(super) const EPOCH: u32 = 12;
    pub(super) const CLAIM: u32 = 13;
    pub(super) const HANDOFF: u32 = 14;
    pub(super) const CLOSE: u32 = 15;
    pub(super) const PROGRESS: u32 = 16;
    pub(super) const CHECKPOINT: u32 = 17;
}

impl Record {
    /// The record's bytes. The caller keeps bodies within the limits, which keep this below `RECORD_BYTES_MAX`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.uint(field::VERSION, u64::from(RECORD_VERSION));
        if self.witness != Witness::default() {
            let mut witness = Writer::new();
            witness.uint(1, self.witness.position.0);
            witness.element(2, &self.witness.hash.to_bytes());
            out.element(field::WITNESS, &witness.finish());
        }
        match &self.body {
            Body::Genesis(body) => out.element(field::GENESIS, &body.encode()),
            Body::Terms(body) => out.element(field::TERMS, &body.encode()),
            Body::Epoch(body) => out.element(field::EPOCH, &body.encode()),
            Body::Claim(body) => out.element(field::CLAIM, &body.encode()),
            Body::Handoff(body) => out.element(field::HANDOFF, &body.encode()),
            Body::Close(body) => out.element(field::CLOSE, &body.encode()),
            Body::Progress(body) => out.element(field::PROGRESS, &body.encode()),
            Body::Checkpoint(body) => out.element(field::CHECKPOINT, &body.encode()),
        }
        out.finish()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When the bytes are not a record of this version, are above a limit, or hold an unknown type or field.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(DecodeError::Limit("size of a record"));
        }
        let mut reader = Reader::new(bytes);
        match reader.field()? {
            Some((field::VERSION, value)) if value.uint32()? == RECORD_VERSION => {}
            _ => return Err(DecodeError::UnknownRecord),
        }
        let mut witness = Witness::default();
        let mut body = None;
        while let Some((number, value)) = reader.field()? {
            if body.is_some() {
                return Err(DecodeError::UnknownField(number));
            }
            match number {
                field::WITNESS => {
                    let mut inner = Reader::new(value.bytes()?);
                    while let Some((number, value)) = inner.field()? {
                        match number {
                            1 => witness.position = LedgerSeq(value.uint()?),
                            2 => witness.hash = Hash128(value.u128()?),
                            other => return Err(DecodeError::UnknownField(other)),
                        }
                    }
                }
                field::GENESIS => body = Some(Body::Genesis(Genesis::decode(value.bytes()?)?)),
                field::TERMS => body = Some(Body::Terms(Terms::decode(value.bytes()?)?)),
                field::EPOCH => body = Some(Body::Epoch(EpochRecord::decode(value.bytes()?)?)),
                field::CLAIM => body = Some(Body::Claim(Claim::decode(value.bytes()?)?)),
                field::HANDOFF => body = Some(Body::Handoff(Handoff::decode(value.bytes()?)?)),
                field::CLOSE => body = Some(Body::Close(Close::decode(value.bytes()?)?)),
                field::PROGRESS => body = Some(Body::Progress(Progress::decode(value.bytes()?)?)),
                field::CHECKPOINT => body = Some(Body::Checkpoint(CheckpointPart::decode(value.bytes()?)?)),
                _ => return Err(DecodeError::UnknownRecord),
            }
        }
        body.map(|body| Record { witness, body })
            .ok_or(DecodeError::UnknownRecord)
    }

    /// The subject below the mapping's prefix on which this record must stand, so that compare-and-set is per writer.
    #[must_use]
    pub fn subject(&self) -> String {
        match &self.body {
            Body::Genesis(_) => "gen".to_owned(),
            Body::Terms(_) => "terms".to_owned(),
            Body::Epoch(body) => epoch_subject(&body.node),
            Body::Claim(body) => claim_subject(body.node_uuid),
            Body::Handoff(body) => format!("handoff.{}", body.node_uuid),
            Body::Close(_) => "close".to_owned(),
            Body::Progress(body) => progress_subject(body.node_uuid),
            Body::Checkpoint(_) => "checkpoint".to_owned(),
        }
    }
}

/// The subject of a node's EPOCH records: by the node's *name*, so that two data directories with one name meet (P8).
#[must_use]
pub fn epoch_subject(node: &str) -> String {
    format!("epoch.{}", token(node))
}

/// The subject of a node's claims.
#[must_use]
pub fn claim_subject(node: NodeUuid) -> String {
    format!("claim.{node}")
}

/// The subject of a node's progress reports.
#[must_use]
pub fn progress_subject(node: NodeUuid) -> String {
    format!("progress.{node}")
}

/// A name as one subject token: letters, digits, `-` and `_` stand for themselves, every other byte is `=XX`.
#[must_use]
pub fn token(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
