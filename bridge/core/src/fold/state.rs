//! The entries of the fold's state, their canonical encoding and the state's hash (P7).

use std::collections::{BTreeMap, BTreeSet};

use super::{Fold, Passed};
use crate::hash::{Hash128, Hasher128};
use crate::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use crate::limits::{APPS_MAX, CLAIM_RANGES_MAX, DONE_RANGES_MAX, NAME_BYTES_MAX};
use crate::mutants::{self, Mutant};
use crate::record::{ClaimKind, Genesis, NodeState, Terms};
use crate::seq_set::SeqSet;
use crate::wire::{DecodeError, Reader, Writer};

/// A batch of a node: what a claim is about, whatever epoch sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    /// The data directory that staged the batch.
    pub node: NodeUuid,
    /// The batch.
    pub batch: BatchNo,
}

impl ClaimKey {
    pub(crate) const MIN: ClaimKey = ClaimKey {
        node: NodeUuid(0),
        batch: BatchNo(0),
    };
    pub(crate) const MAX: ClaimKey = ClaimKey {
        node: NodeUuid(u128::MAX),
        batch: BatchNo(u64::MAX),
    };

    /// The key of a batch number of a node.
    #[must_use]
    pub fn new(node: NodeUuid, batch: u64) -> Self {
        ClaimKey {
            node,
            batch: BatchNo(batch),
        }
    }
}

/// A valid claim that is not done, or whose range reaches above W.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimEntry {
    /// The first valid record of the batch.
    pub position: LedgerSeq,
    /// The source.
    pub incarnation: Incarnation,
    /// What was claimed.
    pub seqs: SeqSet,
    /// What of it was not won; usually empty, which is why this is kept and not the other part.
    pub lost: SeqSet,
    /// The terms it was valid under: they say which applications it serves.
    pub terms: TermsVersion,
    /// Why it was made.
    pub kind: ClaimKind,
    /// Publish time of its oldest and newest message, nanoseconds since the Unix epoch.
    pub published_ns: (i64, i64),
}

impl ClaimEntry {
    /// What the claim won.
    #[must_use]
    pub fn won(&self) -> SeqSet {
        self.seqs.difference(&self.lost)
    }

    fn encode(&self, key: ClaimKey) -> Vec<u8> {
        let mut out = Writer::new();
        out.element(1, &key.node.0.to_be_bytes());
        out.uint(2, key.batch.0);
        out.uint(3, self.position.0);
        out.fixed64(4, self.incarnation.0);
        out.bytes(5, &self.seqs.encode());
        if !mutants::on(Mutant::CheckpointWithoutWonSets) {
            out.bytes(6, &self.lost.encode());
        }
        out.uint(7, u64::from(self.terms.0));
        out.uint(8, u64::from(self.kind.code()));
        out.sfixed64(9, self.published_ns.0);
        out.sfixed64(10, self.published_ns.1);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<(ClaimKey, ClaimEntry), DecodeError> {
        let mut key = ClaimKey::default();
        let mut entry = ClaimEntry::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => key.node = NodeUuid(value.u128()?),
                2 => key.batch = BatchNo(value.uint()?),
                3 => entry.position = LedgerSeq(value.uint()?),
                4 => entry.incarnation = Incarnation(value.fixed64()?),
                5 => entry.seqs = SeqSet::decode(value.bytes()?, CLAIM_RANGES_MAX)?,
                6 => entry.lost = SeqSet::decode(value.bytes()?, CLAIM_RANGES_MAX)?,
                7 => entry.terms = TermsVersion(value.uint32()?),
                8 => entry.kind = ClaimKind::from_code(value.uint32()?).ok_or(DecodeError::UnknownRecord)?,
                9 => entry.published_ns.0 = value.fixed64()? as i64,
                10 => entry.published_ns.1 = value.fixed64()? as i64,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        Ok((key, entry))
    }

    pub(crate) fn hash(&self, key: ClaimKey) -> Hash128 {
        Hash128::of(&self.encode(key))
    }
}

/// A node as the ledger knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Its newest epoch.
    pub epoch: Epoch,
    /// The nonce of that epoch.
    pub nonce: Nonce,
    /// The applications it hosts.
    pub hosts: BTreeSet<String>,
    /// Its state.
    pub state: NodeState,
    /// Its batches that every application has finished.
    pub done: SeqSet,
}

impl NodeEntry {
    fn encode(&self, uuid: NodeUuid) -> Vec<u8> {
        let mut out = Writer::new();
        out.element(1, &uuid.0.to_be_bytes());
        out.bytes(2, self.name.as_bytes());
        if !mutants::on(Mutant::CheckpointWithoutEpochs) {
            out.uint(3, self.epoch.0);
        }
        out.fixed64(4, self.nonce.0);
        for app in &self.hosts {
            out.element(5, app.as_bytes());
        }
        out.uint(6, u64::from(self.state.code()));
        if !mutants::on(Mutant::CheckpointWithoutDoneSets) {
            out.bytes(7, &self.done.encode());
        }
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<(NodeUuid, NodeEntry), DecodeError> {
        let mut uuid = NodeUuid::default();
        let mut entry = NodeEntry::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => uuid = NodeUuid(value.u128()?),
                2 => entry.name = value.text(NAME_BYTES_MAX)?,
                3 => entry.epoch = LedgerSeq(value.uint()?),
                4 => entry.nonce = Nonce(value.fixed64()?),
                5 if entry.hosts.len() < APPS_MAX => {
                    entry.hosts.insert(value.text(NAME_BYTES_MAX)?);
                }
                5 => return Err(DecodeError::Limit("hosted applications")),
                6 => entry.state = NodeState::from_code(value.uint32()?).ok_or(DecodeError::UnknownRecord)?,
                7 => entry.done = SeqSet::decode(value.bytes()?, DONE_RANGES_MAX)?,
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        Ok((uuid, entry))
    }
}

impl Fold {
    /// The hash of the whole state at the present position. Costs the small parts, not the claims.
    #[must_use]
    pub fn hash(&self) -> Hash128 {
        Hasher128::new()
            .bytes(&self.encode_small())
            .bytes(&self.claims_hash.to_bytes())
            .finish()
    }

    fn encode_small(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.uint(1, self.position.0);
        out.element(2, &self.chain.to_bytes());
        if let Some((at, genesis)) = &self.genesis {
            out.uint(3, at.0);
            out.element(4, &genesis.encode());
        }
        if self.terms.version.0 > 0 {
            out.uint(5, self.terms_at.0);
            out.element(6, &self.terms.encode());
        }
        for (incarnation, closed) in &self.closed {
            let mut inner = Writer::new();
            inner.fixed64(1, incarnation.0);
            inner.uint(2, closed.0);
            if let Some(passed) = self.passed.get(incarnation) {
                inner.uint(3, passed.claimed_through.0);
                inner.sfixed64(4, passed.newest_ns);
            }
            out.element(7, &inner.finish());
        }
        for (uuid, node) in &self.nodes {
            out.element(8, &node.encode(*uuid));
        }
        out.finish()
    }

    /// The whole state, canonical: equal states have equal bytes. Claims stand in the order of their first valid record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_small();
        let mut claims: Vec<_> = self.claims.iter().collect();
        claims.sort_unstable_by_key(|(_, entry)| entry.position);
        let mut out = Writer::new();
        for (key, entry) in claims {
            out.element(9, &entry.encode(*key));
        }
        bytes.extend_from_slice(&out.finish());
        bytes
    }

    /// Rebuilds a fold from `encode`'s bytes.
    ///
    /// # Errors
    /// When the bytes are not a state of this version.
    pub fn decode(bytes: &[u8]) -> Result<Fold, DecodeError> {
        let mut fold = Fold::new();
        let mut genesis_at = LedgerSeq(0);
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match number {
                1 => fold.position = LedgerSeq(value.uint()?),
                2 => fold.chain = Hash128(value.u128()?),
                3 => genesis_at = LedgerSeq(value.uint()?),
                4 => fold.genesis = Some((genesis_at, Genesis::decode(value.bytes()?)?)),
                5 => fold.terms_at = LedgerSeq(value.uint()?),
                6 => fold.terms = Terms::decode(value.bytes()?)?,
                7 => {
                    let (incarnation, closed, passed) = decode_closed(value.bytes()?)?;
                    fold.closed.insert(incarnation, closed);
                    if passed.claimed_through.0 > 0 {
                        fold.passed.insert(incarnation, passed);
                    }
                }
                8 => {
                    let (uuid, node) = NodeEntry::decode(value.bytes()?)?;
                    fold.nodes.insert(uuid, node);
                }
                9 => {
                    let (key, entry) = ClaimEntry::decode(value.bytes()?)?;
                    fold.claims.insert(key, entry);
                }
                other => return Err(DecodeError::UnknownField(other)),
            }
        }
        // There is a record behind every position, and a sequence behind every watermark.
        if fold.position.0 == u64::MAX || fold.closed.values().any(|closed| closed.0 == u64::MAX) {
            return Err(DecodeError::Overflow);
        }
        fold.derive();
        fold.remember();
        Ok(fold)
    }

    /// Rebuilds what is derived from the claims.
    pub(crate) fn derive(&mut self) {
        self.claims_hash = Hash128::default();
        self.owners = BTreeMap::new();
        for (&key, entry) in &self.claims {
            self.claims_hash.add(entry.hash(key));
            let mut won = entry.won();
            won.remove_range(
                0,
                self.closed.get(&entry.incarnation).copied().unwrap_or_default().0,
            );
            if !won.is_empty() {
                let owners = self.owners.entry(entry.incarnation).or_default();
                // After a repair two claims may have won one message: both nodes have published it. One entry is enough.
                let free = owners.unowned(&won);
                owners.assign(&free, key);
            }
        }
        let done: Vec<_> = self
            .claims
            .keys()
            .filter(|key| {
                self.nodes
                    .get(&key.node)
                    .is_some_and(|node| node.done.contains(key.batch.0))
            })
            .copied()
            .collect();
        for key in done {
            self.settle_done(key);
        }
    }
}

fn decode_closed(bytes: &[u8]) -> Result<(Incarnation, StreamSeq, Passed), DecodeError> {
    let mut entry = (Incarnation::default(), StreamSeq::default(), Passed::default());
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match number {
            1 => entry.0 = Incarnation(value.fixed64()?),
            2 => entry.1 = StreamSeq(value.uint()?),
            3 => entry.2.claimed_through = StreamSeq(value.uint()?),
            4 => entry.2.newest_ns = value.fixed64()? as i64,
            other => return Err(DecodeError::UnknownField(other)),
        }
    }
    if entry.2.claimed_through > entry.1 || (entry.2.claimed_through.0 == 0 && entry.2.newest_ns != 0) {
        return Err(DecodeError::Invalid("claimed sequences above the watermark"));
    }
    Ok(entry)
}
