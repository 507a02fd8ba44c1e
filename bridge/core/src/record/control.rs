//! The records besides TERMS and CLAIM: GENESIS, EPOCH, CLOSE, PROGRESS, CHECKPOINT, HANDOFF.

use std::collections::BTreeSet;

use crate::hash::Hash128;
use crate::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use crate::limits::{
    APPS_MAX, CHECKPOINT_PART_BYTES, CHECKPOINT_PARTS_MAX, CLAIM_RANGES_MAX, DONE_RANGES_MAX, FEATURES_MAX,
    NAME_BYTES_MAX,
};
use crate::seq_set::SeqSet;
use crate::wire::{DecodeError, Reader, Writer};

/// GENESIS: the rules by which this ledger is folded (P10).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Genesis {
    /// Rule version; a bridge that does not know it halts.
    pub rules: u32,
    /// Activated features; a bridge that does not know one halts.
    pub features: BTreeSet<String>,
}

impl Genesis {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.uint(1, u64::from(self.rules));
        for feature in &self.features {
            out.element(2, feature.as_bytes());
        }
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Genesis, DecodeError> {
        let mut genesis = Genesis::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => genesis.rules = value.uint32()?,
                2 if genesis.features.len() < FEATURES_MAX => {
                    genesis.features.insert(value.text(NAME_BYTES_MAX)?);
                }
                2 => return Err(DecodeError::Limit("features")),
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        Ok(genesis)
    }
}

/// The state an EPOCH record puts its node in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Claims are admitted.
    #[default]
    Active,
    /// Left in order: nothing unfinished.
    Closed,
    /// Handing over: no claims.
    Draining,
    /// Fenced by an operator: no claims, no deliveries.
    Evacuated,
}

impl NodeState {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            NodeState::Active => 0,
            NodeState::Draining => 1,
            NodeState::Closed => 2,
            NodeState::Evacuated => 3,
        }
    }

    /// The state of a number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<NodeState> {
        match code {
            0 => Some(NodeState::Active),
            1 => Some(NodeState::Draining),
            2 => Some(NodeState::Closed),
            3 => Some(NodeState::Evacuated),
            _ => None,
        }
    }
}

/// EPOCH: a node's life begins; the record's own position is the epoch (P8).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochRecord {
    /// The data directory.
    pub node_uuid: NodeUuid,
    /// The node's name, which is also the subject.
    pub node: String,
    /// Random, of this process.
    pub nonce: Nonce,
    /// The applications this node hosts.
    pub hosts: BTreeSet<String>,
    /// The state.
    pub state: NodeState,
}

impl EpochRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.element(1, &self.node_uuid.0.to_be_bytes());
        out.bytes(2, self.node.as_bytes());
        out.fixed64(3, self.nonce.0);
        for app in &self.hosts {
            out.element(4, app.as_bytes());
        }
        out.uint(5, u64::from(self.state.code()));
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<EpochRecord, DecodeError> {
        let mut epoch = EpochRecord::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => epoch.node_uuid = NodeUuid(value.u128()?),
                2 => epoch.node = value.text(NAME_BYTES_MAX)?,
                3 => epoch.nonce = Nonce(value.fixed64()?),
                4 if epoch.hosts.len() < APPS_MAX => {
                    epoch.hosts.insert(value.text(NAME_BYTES_MAX)?);
                }
                4 => return Err(DecodeError::Limit("hosted applications")),
                5 => epoch.state = NodeState::from_code(value.uint32()?).ok_or(DecodeError::UnknownRecord)?,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        Ok(epoch)
    }
}

/// CLOSE: every sequence at or below W is finished business for ever (P6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Close {
    /// The source.
    pub incarnation: Incarnation,
    /// The watermark W.
    pub through: StreamSeq,
    /// The terms under which the evidence was gathered; void under others.
    pub terms: TermsVersion,
    /// The acknowledgement floor that was read, for people.
    pub floor: StreamSeq,
    /// How many sequences were closed as holes, for people.
    pub holes: u64,
}

impl Close {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.fixed64(1, self.incarnation.0);
        out.uint(2, self.through.0);
        out.uint(3, u64::from(self.terms.0));
        out.uint(4, self.floor.0);
        out.uint(5, self.holes);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Close, DecodeError> {
        let mut close = Close::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => close.incarnation = Incarnation(value.fixed64()?),
                2 => close.through = StreamSeq(value.uint()?),
                3 => close.terms = TermsVersion(value.uint32()?),
                4 => close.floor = StreamSeq(value.uint()?),
                5 => close.holes = value.uint()?,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        // There must be a sequence behind every watermark.
        if close.through.0 == u64::MAX {
            return Err(DecodeError::Overflow);
        }
        Ok(close)
    }
}

/// PROGRESS: batches of a node that every application has finished. Done sets only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Progress {
    /// The node.
    pub node_uuid: NodeUuid,
    /// The life in which it was written.
    pub epoch: Epoch,
    /// Batch numbers.
    pub done: SeqSet,
}

impl Progress {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.element(1, &self.node_uuid.0.to_be_bytes());
        out.uint(2, self.epoch.0);
        out.bytes(3, &self.done.encode());
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Progress, DecodeError> {
        let mut progress = Progress::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => progress.node_uuid = NodeUuid(value.u128()?),
                2 => progress.epoch = LedgerSeq(value.uint()?),
                3 => progress.done = SeqSet::decode(value.bytes()?, DONE_RANGES_MAX)?,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        Ok(progress)
    }
}

/// One part of a CHECKPOINT: a piece of the fold's canonical state at a position (P7).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointPart {
    /// The last record its writer had folded.
    pub position: LedgerSeq,
    /// The hash of the fold at that position.
    pub hash: Hash128,
    /// Which part, from 0.
    pub part: u32,
    /// How many parts.
    pub parts: u32,
    /// The piece.
    pub bytes: Vec<u8>,
}

impl CheckpointPart {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.uint(1, self.position.0);
        out.element(2, &self.hash.to_bytes());
        out.uint(3, u64::from(self.part));
        out.uint(4, u64::from(self.parts));
        out.bytes(5, &self.bytes);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<CheckpointPart, DecodeError> {
        let mut part = CheckpointPart::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => part.position = LedgerSeq(value.uint()?),
                2 => part.hash = Hash128(value.u128()?),
                3 => part.part = value.uint32()?,
                4 => part.parts = value.uint32()?,
                5 => part.bytes = value.bytes()?.to_vec(),
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        if part.parts == 0 || part.parts > CHECKPOINT_PARTS_MAX || part.part >= part.parts {
            return Err(DecodeError::Invalid("part of a checkpoint"));
        }
        if part.bytes.len() > CHECKPOINT_PART_BYTES {
            return Err(DecodeError::Limit("part of a checkpoint"));
        }
        Ok(part)
    }
}

/// HANDOFF: unfinished messages of an application leave their node. Encoded now, folded by a later rule version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handoff {
    /// The node that gives.
    pub node_uuid: NodeUuid,
    /// Its life.
    pub epoch: Epoch,
    /// The batch the sequences were won by.
    pub batch: BatchNo,
    /// The application.
    pub app: String,
    /// The source.
    pub incarnation: Incarnation,
    /// Never handed out.
    pub untouched: SeqSet,
    /// Perhaps handed out.
    pub in_doubt: SeqSet,
}

impl Handoff {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.element(1, &self.node_uuid.0.to_be_bytes());
        out.uint(2, self.epoch.0);
        out.uint(3, self.batch.0);
        out.bytes(4, self.app.as_bytes());
        out.fixed64(5, self.incarnation.0);
        out.bytes(6, &self.untouched.encode());
        out.bytes(7, &self.in_doubt.encode());
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Handoff, DecodeError> {
        let mut handoff = Handoff::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => handoff.node_uuid = NodeUuid(value.u128()?),
                2 => handoff.epoch = LedgerSeq(value.uint()?),
                3 => handoff.batch = BatchNo(value.uint()?),
                4 => handoff.app = value.text(NAME_BYTES_MAX)?,
                5 => handoff.incarnation = Incarnation(value.fixed64()?),
                6 => handoff.untouched = SeqSet::decode(value.bytes()?, CLAIM_RANGES_MAX)?,
                7 => handoff.in_doubt = SeqSet::decode(value.bytes()?, CLAIM_RANGES_MAX)?,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        Ok(handoff)
    }
}
