//! What the folded ledger says.

use std::collections::BTreeMap;

use super::{ClaimEntry, ClaimKey, Fold, NodeEntry, Owners};
use crate::ids::{Incarnation, LedgerSeq, NodeUuid, StreamSeq};
use crate::record::{Genesis, Terms};

impl Fold {
    /// The last record folded; 0 before the first.
    #[must_use]
    pub fn position(&self) -> LedgerSeq {
        self.position
    }

    /// The rules, once known.
    #[must_use]
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref().map(|(_, genesis)| genesis)
    }

    /// The position of the GENESIS record.
    #[must_use]
    pub fn genesis_at(&self) -> LedgerSeq {
        self.genesis.as_ref().map(|&(at, _)| at).unwrap_or_default()
    }

    /// The terms in force; version 0 before the first.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The position of the TERMS record in force, 0 before the first: what the next one's compare-and-set expects.
    #[must_use]
    pub fn terms_at(&self) -> LedgerSeq {
        self.terms_at
    }

    /// The watermark W of a source.
    #[must_use]
    pub fn closed(&self, incarnation: Incarnation) -> StreamSeq {
        self.closed.get(&incarnation).copied().unwrap_or_default()
    }

    /// Whether a later state may come of this one: epochs, done sets, watermarks and the terms' version only grow (I3).
    #[must_use]
    pub fn may_become(&self, later: &Fold) -> bool {
        let mut nodes = self.nodes.iter();
        let mut closed = self.closed.iter();
        self.terms().version <= later.terms().version
            && closed.all(|(source, w)| *w <= later.closed(*source))
            && nodes.all(|(uuid, ours)| {
                let theirs = later.nodes.get(uuid);
                theirs.is_some_and(|theirs| ours.epoch <= theirs.epoch && theirs.done.is_superset(&ours.done))
            })
    }

    /// The watermarks of all sources ever named.
    #[must_use]
    pub fn watermarks(&self) -> &BTreeMap<Incarnation, StreamSeq> {
        &self.closed
    }

    /// Every node ever seen.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeUuid, NodeEntry> {
        &self.nodes
    }

    /// Every valid claim that is not done or reaches above W.
    #[must_use]
    pub fn claims(&self) -> &BTreeMap<ClaimKey, ClaimEntry> {
        &self.claims
    }

    /// How many valid claims some application has not finished. Those that only wait for W are not counted: what keeps W is a message that
    /// nobody has claimed, and such a one must still be pulled.
    #[must_use]
    pub fn open_claims(&self) -> usize {
        self.claims.len().saturating_sub(self.done_above.len())
    }

    /// The owner of a sequence above W.
    #[must_use]
    pub fn owner(&self, incarnation: Incarnation, seq: StreamSeq) -> Option<ClaimKey> {
        self.owners.get(&incarnation).and_then(|owners| owners.owner(seq))
    }

    /// Who owns what of a source above W.
    #[must_use]
    pub fn owners(&self, incarnation: Incarnation) -> Option<&Owners> {
        self.owners.get(&incarnation)
    }
}
