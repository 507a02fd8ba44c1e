//! CLAIM: "this node durably holds these source sequences" (P1, P2, P4).

use crate::hash::{Hash128, Hasher128};
use crate::ids::{Attempt, BatchNo, Epoch, Incarnation, LedgerSeq, NodeUuid, TermsVersion};
use crate::limits::CLAIM_RANGES_MAX;
use crate::seq_set::SeqSet;
use crate::wire::{DecodeError, Reader, Writer};

/// Why a claim was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimKind {
    /// Pulled from the shared consumer.
    #[default]
    Normal,
    /// Reserved: cannot be staged, a copy went to the hub's dead letters. Rule version 1 halts on it.
    Quarantine,
    /// Reserved: re-driven from a lost node. Rule version 1 halts on it.
    Reclaim,
    /// Claimed by nobody below the consumer's acknowledgement floor, or long after it was delivered: fetched by sequence (P6).
    Repair,
}

impl ClaimKind {
    /// The number on the wire and in the local log.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            ClaimKind::Normal => 0,
            ClaimKind::Repair => 1,
            ClaimKind::Quarantine => 2,
            ClaimKind::Reclaim => 3,
        }
    }

    /// The kind of a number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<ClaimKind> {
        match code {
            0 => Some(ClaimKind::Normal),
            1 => Some(ClaimKind::Repair),
            2 => Some(ClaimKind::Quarantine),
            3 => Some(ClaimKind::Reclaim),
            _ => None,
        }
    }
}

/// A claim. Its identity is (node uuid, epoch, batch, attempt, content hash).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Who claims.
    pub node_uuid: NodeUuid,
    /// In which life.
    pub epoch: Epoch,
    /// The batch; its number never restarts and never names other content.
    pub batch: BatchNo,
    /// Which sending of this batch.
    pub attempt: Attempt,
    /// Hash of what does not change between attempts.
    pub content_hash: Hash128,
    /// The source incarnation the sequences belong to.
    pub incarnation: Incarnation,
    /// The sequences.
    pub seqs: SeqSet,
    /// The terms under which the batch is offered.
    pub terms: TermsVersion,
    /// Why.
    pub kind: ClaimKind,
    /// Publish time of the oldest and newest message, nanoseconds since the Unix epoch: tells reused sequences apart.
    pub published_ns: (i64, i64),
}

/// The hash over what identifies a batch's content, the same in every attempt.
#[must_use]
pub fn content_hash(
    incarnation: Incarnation,
    seqs: &SeqSet,
    kind: ClaimKind,
    published_ns: (i64, i64),
) -> Hash128 {
    Hasher128::new()
        .u64(incarnation.0)
        .u64(u64::from(kind.code()))
        .u64(published_ns.0 as u64)
        .u64(published_ns.1 as u64)
        .bytes(&seqs.encode())
        .finish()
}

impl Claim {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.element(1, &self.node_uuid.0.to_be_bytes());
        out.uint(2, self.epoch.0);
        out.uint(3, self.batch.0);
        out.uint(4, u64::from(self.attempt.0));
        out.element(5, &self.content_hash.to_bytes());
        out.fixed64(6, self.incarnation.0);
        out.bytes(7, &self.seqs.encode());
        out.uint(8, u64::from(self.terms.0));
        out.uint(9, u64::from(self.kind.code()));
        out.sfixed64(10, self.published_ns.0);
        out.sfixed64(11, self.published_ns.1);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Claim, DecodeError> {
        let mut claim = Claim {
            node_uuid: NodeUuid::default(),
            epoch: LedgerSeq(0),
            batch: BatchNo(0),
            attempt: Attempt(0),
            content_hash: Hash128::default(),
            incarnation: Incarnation::default(),
            seqs: SeqSet::new(),
            terms: TermsVersion(0),
            kind: ClaimKind::Normal,
            published_ns: (0, 0),
        };
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => claim.node_uuid = NodeUuid(value.u128()?),
                2 => claim.epoch = LedgerSeq(value.uint()?),
                3 => claim.batch = BatchNo(value.uint()?),
                4 => claim.attempt = Attempt(value.uint32()?),
                5 => claim.content_hash = Hash128(value.u128()?),
                6 => claim.incarnation = Incarnation(value.fixed64()?),
                7 => claim.seqs = SeqSet::decode(value.bytes()?, CLAIM_RANGES_MAX)?,
                8 => claim.terms = TermsVersion(value.uint32()?),
                9 => claim.kind = ClaimKind::from_code(value.uint32()?).ok_or(DecodeError::UnknownRecord)?,
                10 => claim.published_ns.0 = value.fixed64()? as i64,
                11 => claim.published_ns.1 = value.fixed64()? as i64,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        if claim.batch.0 == 0 || claim.seqs.is_empty() || claim.seqs.contains(0) {
            return Err(DecodeError::Invalid("claim without batch or sequences"));
        }
        let expected = content_hash(claim.incarnation, &claim.seqs, claim.kind, claim.published_ns);
        if claim.content_hash != expected {
            return Err(DecodeError::Invalid("content hash of a claim"));
        }
        Ok(claim)
    }
}
