//! The ledger fold: the pure function by which every bridge computes, from the records alone, who owns what (P2).
//!
//! `apply` takes records in ledger order, one position at a time. Two folds that took the same prefix are equal, and a
//! fold that loaded a checkpoint at `p` equals one that took every record up to `p` (I4, I11).

mod cure;
mod halt;
mod ownership;
mod reuse;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use cure::Suspect;
pub use halt::Halt;
pub use ownership::Owners;
pub(crate) use reuse::disjoint;
pub use reuse::{Passed, Reused};
pub use state::{ClaimEntry, ClaimKey, NodeEntry};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::hash::{Hash128, Hasher128};
use crate::ids::{Epoch, Incarnation, LedgerSeq, NodeUuid, StreamSeq, TermsVersion};
use crate::limits::WITNESS_RING;
use crate::mutants::{self, Mutant};
use crate::record::{
    Body, Claim, ClaimKind, Close, EpochRecord, Genesis, NodeState, Progress, Record, Terms, Witness,
};
use crate::seq_set::SeqSet;

/// The rules this version folds by.
pub const RULES: u32 = 1;

/// The folded ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fold {
    pub(crate) position: LedgerSeq,
    /// Hash over every record folded so far, in order: two ledgers with one chain are one ledger.
    pub(crate) chain: Hash128,
    pub(crate) genesis: Option<(LedgerSeq, Genesis)>,
    pub(crate) terms: Terms,
    pub(crate) terms_at: LedgerSeq,
    pub(crate) closed: BTreeMap<Incarnation, StreamSeq>,
    /// Of the claims that W has passed, by which a message with a sequence given away twice is told from the claimed one.
    pub(crate) passed: BTreeMap<Incarnation, Passed>,
    pub(crate) nodes: BTreeMap<NodeUuid, NodeEntry>,
    pub(crate) claims: BTreeMap<ClaimKey, ClaimEntry>,
    /// Derived from `claims`: who won what above W.
    pub(crate) owners: BTreeMap<Incarnation, Owners>,
    /// Derived from `claims`: done ones that still reach above W, by their last sequence.
    pub(crate) done_above: BTreeSet<(Incarnation, StreamSeq, ClaimKey)>,
    /// Derived from `claims`: the sum of their hashes.
    pub(crate) claims_hash: Hash128,
    /// The hashes at the latest positions, for checkpoints and witnesses; not part of the state.
    pub(crate) recent: VecDeque<(LedgerSeq, Hash128)>,
}

/// Why a claim is void as a whole. It is sent again: same batch, next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Void {
    /// The epoch does not host every application of the terms.
    NotHosted,
    /// The claim's epoch is not the node's newest, or the node is unknown.
    OldEpoch,
    /// The epoch's state does not admit claims.
    State,
    /// The claim names other terms than those in force.
    Terms,
    /// The terms do not name the claim's source incarnation.
    UnknownSource,
}

/// What a record changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folded {
    /// The rules are known now.
    Genesis,
    /// New terms are in force.
    Terms(TermsVersion),
    /// A node began a new life or changed state.
    Epoch {
        /// Its data directory.
        uuid: NodeUuid,
        /// The record, whose position is the epoch.
        record: EpochRecord,
    },
    /// A valid claim, the first of its batch.
    Claim {
        /// Whose and which.
        key: ClaimKey,
        /// What it won; perhaps nothing.
        won: SeqSet,
        /// What it did not win: another valid claim's, or at or below W.
        lost: SeqSet,
    },
    /// A further valid copy of a claim already folded, or of a batch already done: nothing changes.
    ClaimRepeated(ClaimKey),
    /// A claim that is void as a whole.
    ClaimVoid(ClaimKey, Void),
    /// The watermark of a source moved.
    Closed {
        /// The source.
        incarnation: Incarnation,
        /// The watermark before.
        from: StreamSeq,
        /// The watermark now.
        through: StreamSeq,
    },
    /// A CLOSE that does not move the watermark: other terms, unknown source, or not higher.
    CloseVoid,
    /// A node reported done batches.
    Progress(NodeUuid),
    /// A part of a checkpoint.
    Checkpoint {
        /// The position of the state, with its hash. Our own fold agrees with it, as far back as it remembers.
        of: Witness,
        /// Which part, from 0.
        part: u32,
        /// How many parts.
        parts: u32,
    },
    /// A record at or below the position, met again.
    Repeat,
}

/// Why a record could not be folded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApplyError {
    /// Positions are missing in between: a checkpoint must cover them.
    Gap {
        /// The position expected next.
        expected: LedgerSeq,
        /// The position met.
        found: LedgerSeq,
    },
    /// The mapping halts (P10, P11). The fold stays as it was before the record.
    Halt(Halt),
}

impl Fold {
    /// The fold of the empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the record at `position`, found on `subject` (below the mapping's prefix).
    ///
    /// # Errors
    /// `ApplyError::Gap` when positions are missing, `ApplyError::Halt` when the record or the ledger cannot be trusted.
    /// The fold is unchanged then.
    pub fn apply(&mut self, position: LedgerSeq, subject: &str, bytes: &[u8]) -> Result<Folded, ApplyError> {
        match self.read(position, subject, bytes)? {
            Some(record) => Ok(self.take(position, record, bytes)),
            None => Ok(Folded::Repeat),
        }
    }

    /// The record at `position`, to be judged before `take`; `None` for one met again.
    ///
    /// # Errors
    /// As `apply`.
    pub(crate) fn read(
        &self,
        position: LedgerSeq,
        subject: &str,
        bytes: &[u8],
    ) -> Result<Option<Record>, ApplyError> {
        if position <= self.position {
            return Ok(None);
        }
        if position != self.position.next() && !mutants::on(Mutant::StepsOverGaps) {
            return Err(ApplyError::Gap {
                expected: self.position.next(),
                found: position,
            });
        }
        let record = self.admit(position, subject, bytes).map_err(ApplyError::Halt)?;
        Ok(Some(record))
    }

    /// Takes the record that `read` gave for this position and these bytes.
    pub(crate) fn take(&mut self, position: LedgerSeq, record: Record, bytes: &[u8]) -> Folded {
        let folded = match record.body {
            Body::Genesis(body) => {
                self.genesis = Some((position, body));
                Folded::Genesis
            }
            Body::Terms(body) => {
                self.terms_at = position;
                for incarnation in body.sources.keys() {
                    self.closed.entry(*incarnation).or_default();
                }
                self.terms = body;
                Folded::Terms(self.terms.version)
            }
            Body::Epoch(body) => self.apply_epoch(position, body),
            Body::Claim(body) => self.apply_claim(position, body),
            Body::Close(body) => self.apply_close(body),
            Body::Progress(body) => self.apply_progress(body),
            Body::Checkpoint(body) => {
                let of = Witness {
                    position: body.position,
                    hash: body.hash,
                };
                Folded::Checkpoint {
                    of,
                    part: body.part,
                    parts: body.parts,
                }
            }
            // `admit` halted on it.
            Body::Handoff(_) => Folded::Repeat,
        };
        self.position = position;
        self.chain = Hasher128::new()
            .bytes(&self.chain.to_bytes())
            .u64(position.0)
            .bytes(bytes)
            .finish();
        self.remember();
        folded
    }

    /// Everything that makes a record unacceptable, before anything changes.
    fn admit(&self, position: LedgerSeq, subject: &str, bytes: &[u8]) -> Result<Record, Halt> {
        let record = Record::decode(bytes).map_err(|error| Halt::UnknownRecord { position, error })?;
        if record.subject() != subject {
            return Err(Halt::WrongSubject {
                position,
                found: subject.to_owned(),
                expected: record.subject(),
            });
        }
        self.compare(position, record.witness)?;
        match &record.body {
            Body::Genesis(body) => Self::admit_rules(position, body)?,
            Body::Terms(_)
            | Body::Epoch(_)
            | Body::Claim(_)
            | Body::Handoff(_)
            | Body::Close(_)
            | Body::Progress(_)
            | Body::Checkpoint(_) => {
                if self.genesis.is_none() {
                    return Err(Halt::NoGenesis { position });
                }
            }
        }
        match &record.body {
            Body::Terms(body) if body.version.0 != self.terms.version.0 + 1 => Err(Halt::TermsOutOfOrder {
                position,
                found: body.version,
                expected: self.terms.version.0 + 1,
            }),
            Body::Handoff(_) if !mutants::on(Mutant::IgnoresReservedRecords) => Err(Halt::Reserved {
                position,
                what: "HANDOFF",
            }),
            Body::Claim(Claim {
                kind: ClaimKind::Quarantine | ClaimKind::Reclaim,
                ..
            }) => Err(Halt::Reserved {
                position,
                what: "CLAIM of a reserved kind",
            }),
            Body::Checkpoint(body) => {
                self.compare(
                    position,
                    Witness {
                        position: body.position,
                        hash: body.hash,
                    },
                )?;
                Ok(record)
            }
            Body::Genesis(_)
            | Body::Terms(_)
            | Body::Epoch(_)
            | Body::Claim(_)
            | Body::Handoff(_)
            | Body::Close(_)
            | Body::Progress(_) => Ok(record),
        }
    }

    pub(crate) fn admit_rules(position: LedgerSeq, genesis: &Genesis) -> Result<(), Halt> {
        if genesis.rules != RULES {
            return Err(Halt::UnsupportedRules {
                position,
                found: genesis.rules,
                supported: RULES,
            });
        }
        match genesis.features.first() {
            Some(feature) => Err(Halt::UnknownFeature {
                position,
                feature: feature.clone(),
            }),
            None => Ok(()),
        }
    }

    fn compare(&self, at: LedgerSeq, witness: Witness) -> Result<(), Halt> {
        if witness.position >= at {
            // Its writer had read more than there was when it landed.
            return Err(Halt::LedgerShrank {
                last: at,
                read: witness.position,
            });
        }
        match self.hash_at(witness.position) {
            Some(ours) if ours != witness.hash && !mutants::on(Mutant::IgnoresWitnesses) => {
                Err(Halt::Diverged {
                    at,
                    position: witness.position,
                    ours,
                    theirs: witness.hash,
                })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn apply_epoch(&mut self, position: LedgerSeq, record: EpochRecord) -> Folded {
        let uuid = record.node_uuid;
        // Another data directory under the same name takes the name over: what came before it may not claim any more.
        for (other, entry) in &mut self.nodes {
            if *other != uuid && entry.name == record.node && entry.state != NodeState::Evacuated {
                entry.state = NodeState::Closed;
            }
        }
        let entry = self.nodes.entry(uuid).or_default();
        entry.name.clone_from(&record.node);
        entry.epoch = position;
        entry.nonce = record.nonce;
        entry.hosts.clone_from(&record.hosts);
        entry.state = record.state;
        Folded::Epoch { uuid, record }
    }

    /// Whether a claim of this node, epoch, source and terms would be valid at this position (P9).
    ///
    /// # Errors
    /// Why not.
    pub fn admits_claim(
        &self,
        node: NodeUuid,
        epoch: Epoch,
        incarnation: Incarnation,
        terms: TermsVersion,
    ) -> Result<(), Void> {
        let entry = self
            .nodes
            .get(&node)
            .filter(|entry| entry.epoch == epoch || mutants::on(Mutant::OldEpochsClaim))
            .ok_or(Void::OldEpoch)?;
        if entry.state != NodeState::Active && !mutants::on(Mutant::AnyStateClaims) {
            return Err(Void::State);
        }
        let both = mutants::on(Mutant::ClaimsUnderAnyTermsUnhosted);
        let any_terms = both || mutants::on(Mutant::ClaimsUnderAnyTerms);
        if self.terms.version.0 == 0 || (terms != self.terms.version && !any_terms) {
            return Err(Void::Terms);
        }
        if !self.terms.sources.contains_key(&incarnation) {
            return Err(Void::UnknownSource);
        }
        let unhosted = both || mutants::on(Mutant::ClaimsUnhosted);
        if self.terms.apps.keys().any(|app| !entry.hosts.contains(app)) && !unhosted {
            return Err(Void::NotHosted);
        }
        Ok(())
    }

    fn apply_claim(&mut self, position: LedgerSeq, claim: Claim) -> Folded {
        let key = ClaimKey {
            node: claim.node_uuid,
            batch: claim.batch,
        };
        if let Err(void) = self.admits_claim(claim.node_uuid, claim.epoch, claim.incarnation, claim.terms) {
            return Folded::ClaimVoid(key, void);
        }
        if self.has_decided(key) {
            // P3: a later copy of a batch's claim wins nothing and loses nothing, whatever epoch sent it.
            return Folded::ClaimRepeated(key);
        }
        let closed = self.closed.get(&claim.incarnation).copied().unwrap_or_default();
        let owners = self.owners.entry(claim.incarnation).or_default();
        let mut won = owners.unowned(&claim.seqs);
        if mutants::on(Mutant::LastClaimWins) {
            won.clone_from(&claim.seqs);
        }
        if !mutants::on(Mutant::WatermarkVoidsNothing) {
            won.remove_range(0, closed.0);
        }
        let lost = claim.seqs.difference(&won);
        owners.assign(&won, key);
        self.drop_empty_owners(claim.incarnation);
        let entry = ClaimEntry {
            position,
            incarnation: claim.incarnation,
            seqs: claim.seqs,
            lost: lost.clone(),
            terms: claim.terms,
            kind: claim.kind,
            published_ns: claim.published_ns,
        };
        self.claims_hash.add(entry.hash(key));
        self.claims.insert(key, entry);
        Folded::Claim { key, won, lost }
    }

    /// Whether a valid claim of this batch was folded, or the batch is done.
    pub(crate) fn has_decided(&self, key: ClaimKey) -> bool {
        let entry = self.nodes.get(&key.node);
        entry.is_some_and(|entry| entry.done.contains(key.batch.0)) || self.claims.contains_key(&key)
    }

    fn apply_close(&mut self, close: Close) -> Folded {
        let Some(closed) = self.closed.get_mut(&close.incarnation) else {
            return Folded::CloseVoid;
        };
        let terms = close.terms == self.terms.version || mutants::on(Mutant::CloseUnderAnyTerms);
        if !terms || (close.through <= *closed && !mutants::on(Mutant::WatermarkGoesBack)) {
            return Folded::CloseVoid;
        }
        let from = core::mem::replace(closed, close.through);
        self.pass(close.incarnation, close.through);
        let finished: Vec<_> = self
            .done_above
            .range(
                (close.incarnation, StreamSeq(0), ClaimKey::MIN)
                    ..=(close.incarnation, close.through, ClaimKey::MAX),
            )
            .copied()
            .collect();
        for element in finished {
            self.done_above.remove(&element);
            self.forget(element.2);
        }
        if mutants::on(Mutant::ForgetsClosedClaims) {
            let below = |entry: &ClaimEntry| entry.seqs.last() <= Some(close.through.0);
            let closed: Vec<_> = self
                .claims
                .iter()
                .filter(|(_, entry)| below(entry))
                .map(|(&key, _)| key)
                .collect();
            closed.into_iter().for_each(|key| self.forget(key));
        }
        if let Some(owners) = self.owners.get_mut(&close.incarnation) {
            owners.forget_through(close.through);
        }
        self.drop_empty_owners(close.incarnation);
        Folded::Closed {
            incarnation: close.incarnation,
            from,
            through: close.through,
        }
    }

    fn apply_progress(&mut self, progress: Progress) -> Folded {
        let uuid = progress.node_uuid;
        let Some(entry) = self.nodes.get_mut(&uuid) else {
            return Folded::Progress(uuid);
        };
        // An evacuated node's messages are re-driven from what was known at its fence: a late report must not count.
        if entry.state == NodeState::Evacuated {
            return Folded::Progress(uuid);
        }
        let fresh = progress.done.difference(&entry.done);
        entry.done.union(&progress.done);
        for &(first, last) in fresh.ranges() {
            let keys: Vec<_> = self
                .claims
                .range(ClaimKey::new(uuid, first)..=ClaimKey::new(uuid, last))
                .map(|(key, _)| *key)
                .collect();
            for key in keys {
                self.settle_done(key);
            }
        }
        Folded::Progress(uuid)
    }

    /// A done claim is forgotten once its whole range is at or below W, and kept until then (P7).
    pub(crate) fn settle_done(&mut self, key: ClaimKey) {
        let Some(entry) = self.claims.get(&key) else {
            return;
        };
        let last = StreamSeq(entry.seqs.last().unwrap_or_default());
        let closed = self.closed.get(&entry.incarnation).copied().unwrap_or_default();
        if last <= closed || mutants::on(Mutant::ForgetsDoneClaims) {
            self.forget(key);
        } else {
            self.done_above.insert((entry.incarnation, last, key));
        }
    }

    /// A source without owned sequences has no entry, so that equal states are equal values.
    fn drop_empty_owners(&mut self, incarnation: Incarnation) {
        if self.owners.get(&incarnation).is_some_and(Owners::is_empty) {
            self.owners.remove(&incarnation);
        }
    }

    fn forget(&mut self, key: ClaimKey) {
        if let Some(entry) = self.claims.remove(&key) {
            self.claims_hash.remove(entry.hash(key));
        }
    }

    pub(crate) fn remember(&mut self) {
        if self.recent.len() >= WITNESS_RING {
            self.recent.pop_front();
        }
        self.recent.push_back((self.position, self.hash()));
    }

    /// The fold's hash at `position`, as far back as it is remembered.
    #[must_use]
    pub fn hash_at(&self, position: LedgerSeq) -> Option<Hash128> {
        let at = self.recent.partition_point(|&(p, _)| p < position);
        self.recent
            .get(at)
            .filter(|&&(p, _)| p == position)
            .map(|&(_, hash)| hash)
    }

    /// What a record written now carries.
    #[must_use]
    pub fn witness(&self) -> Witness {
        match self.recent.back() {
            Some(&(position, hash)) => Witness { position, hash },
            None => Witness::default(),
        }
    }
}
