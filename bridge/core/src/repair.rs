//! Repair: one state out of what survives of a ledger, what bridges still hold of it in memory, and what their disks know.
//!
//! A checkpoint holds the whole state of the fold. So a ledger that the hub truncated, split, regrew or lost is repaired by
//! computing the state it would have, and by beginning a new stream with that state as its first checkpoint. This module
//! computes; whoever calls it reads, asks and writes.
//!
//! What is taken from where:
//!
//! | part | rule |
//! |---|---|
//! | W of a source | the highest that any fold or disk knows |
//! | a node | the entry of its highest epoch; its done sets united, with what its disk says |
//! | terms | the highest version |
//! | claims | of all folds, by node and batch |
//! | what a decided batch won | its owner's disk, when that was asked |
//!
//! A message that two claims have won stays with the one that published it. What cannot be decided is a [`Finding`].

mod claims;
mod finding;
mod split;

pub use finding::{Finding, Ranges};

use std::collections::{BTreeMap, BTreeSet};

use crate::fold::{Fold, NodeEntry, Passed};
use crate::hash::Hasher128;
use crate::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use crate::limits::{DONE_RANGES_MAX, REPAIR_GAP};
use crate::record::{ClaimKind, Genesis, NodeState, Terms};
use crate::seq_set::SeqSet;

/// A batch as its owner's disk holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBatch {
    /// Its source.
    pub incarnation: Incarnation,
    /// What it won, when the disk knows; else what it holds.
    pub seqs: SeqSet,
    /// Whether the disk knows what it won: it is published, or won nothing.
    pub decided: bool,
    /// The terms it was won under; 0 when not decided.
    pub terms: TermsVersion,
    /// Why it was fetched.
    pub kind: ClaimKind,
    /// Publish time of its oldest and newest message, nanoseconds since the Unix epoch.
    pub published_ns: (i64, i64),
}

/// A node as its disk knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDisk {
    /// The data directory.
    pub uuid: NodeUuid,
    /// The node's name.
    pub name: String,
    /// The newest epoch it remembers; 0 for none.
    pub epoch: Epoch,
    /// The highest ledger position it ever read.
    pub read: LedgerSeq,
    /// Batches that every application has finished.
    pub done: SeqSet,
    /// The highest W of each source it knew.
    pub closed: BTreeMap<Incarnation, StreamSeq>,
    /// The newest terms it knew; 0 for none.
    pub terms: TermsVersion,
    /// Its applications, with the terms since which each is served.
    pub apps: BTreeMap<String, TermsVersion>,
    /// Its batches that are not released.
    pub batches: BTreeMap<BatchNo, HeldBatch>,
}

/// A fold that somebody still has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The node whose memory it is; `None` for what was read from a ledger or a backup of one.
    pub of: Option<NodeUuid>,
    /// The state.
    pub fold: Fold,
}

/// What there is to build from.
#[derive(Clone, Debug, Default)]
pub struct Survivors {
    /// What the ledger itself still says comes first, then the folds of running bridges.
    pub memories: Vec<Memory>,
    /// The nodes that were asked.
    pub disks: Vec<NodeDisk>,
    /// The sources as configured: for the terms, when no fold has any.
    pub configured: Terms,
    /// The last sequence of each source, as the hub has it.
    pub ends: BTreeMap<Incarnation, StreamSeq>,
    /// Every position below this is taken already; 0 when nothing more is known than what the rest says.
    pub taken: LedgerSeq,
}

/// The state to begin a ledger with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The state, at the position right before `first`.
    pub fold: Fold,
    /// The first position of the new ledger, above everything that anybody ever read.
    pub first: LedgerSeq,
    /// What cannot be decided by what is known, most serious first.
    pub findings: Vec<Finding>,
}

impl Survivors {
    fn folds(&self) -> impl Iterator<Item = &Fold> {
        self.memories.iter().map(|memory| &memory.fold)
    }
}

/// Computes the state. The same survivors make the same state.
#[must_use]
pub fn merge(survivors: &Survivors) -> Merged {
    let known = highest_position(survivors);
    let first = LedgerSeq(known.0.saturating_add(REPAIR_GAP));
    let mut findings = BTreeSet::new();
    let mut fold = Fold::new();
    fold.genesis = Some((first, genesis(survivors)));
    fold.terms = merge_terms(survivors, &mut findings);
    fold.terms_at = first;
    fold.closed = merge_closed(survivors, &fold.terms);
    fold.passed = merge_passed(survivors);
    fold.nodes = merge_nodes(survivors);
    let mut settled = claims::merge(survivors, &fold, known, &mut findings);
    fold.claims = core::mem::take(&mut settled.claims);
    settled.find_finished(survivors, &fold, &mut findings);
    split::find(survivors, &mut findings);
    for (uuid, node) in &fold.nodes {
        if node.state == NodeState::Active && !survivors.disks.iter().any(|disk| disk.uuid == *uuid) {
            let own = fold.claims.iter().filter(|(key, _)| key.node == *uuid);
            let open = own.filter(|(key, _)| !node.done.contains(key.batch.0));
            findings.insert(Finding::NotAsked {
                node: node.name.clone(),
                messages: open.map(|(_, claim)| claim.won().len()).sum(),
            });
        }
    }
    fold.position = LedgerSeq(first.0.saturating_sub(1));
    // A history of its own: no record of an old stream can be taken for one of this.
    let mut chain = Hasher128::new().bytes(b"repaired").u64(first.0);
    for old in survivors.folds() {
        chain = chain.bytes(&old.hash().to_bytes());
    }
    fold.chain = chain.finish();
    fold.derive();
    fold.remember();
    Merged {
        fold,
        first,
        findings: findings.into_iter().collect(),
    }
}

fn highest_position(survivors: &Survivors) -> LedgerSeq {
    let folds = survivors.folds().map(Fold::position);
    let epochs = survivors.folds().flat_map(|fold| fold.nodes.values());
    let disks = survivors.disks.iter().map(|disk| disk.read.max(disk.epoch));
    folds
        .chain(epochs.map(|node| node.epoch))
        .chain(disks)
        .chain([survivors.taken])
        .max()
        .unwrap_or_default()
}

fn genesis(survivors: &Survivors) -> Genesis {
    let known = survivors.folds().find_map(Fold::genesis);
    known.cloned().unwrap_or(Genesis {
        rules: crate::fold::RULES,
        features: BTreeSet::new(),
    })
}

/// The terms of the highest version. What a disk knows of later ones, since when an application is served, is added: an
/// application must not lose what it is entitled to.
fn merge_terms(survivors: &Survivors, findings: &mut BTreeSet<Finding>) -> Terms {
    let mut terms = Terms::default();
    for fold in survivors.folds() {
        if fold.terms.version > terms.version {
            terms = fold.terms.clone();
        } else if fold.terms.version == terms.version && fold.terms != terms {
            findings.insert(Finding::TermsDiffer {
                version: terms.version,
            });
        }
    }
    if terms.version.0 == 0 {
        terms.sources.clone_from(&survivors.configured.sources);
    }
    for disk in &survivors.disks {
        if disk.terms <= terms.version {
            continue;
        }
        if terms.version.0 > 0 {
            findings.insert(Finding::TermsLost {
                node: disk.name.clone(),
                known: disk.terms,
                found: terms.version,
            });
        }
        for (app, since) in disk.apps.iter().filter(|(_, since)| since.0 > 0) {
            terms.apps.entry(app.clone()).or_insert(*since);
        }
    }
    let newest = survivors.disks.iter().map(|disk| disk.terms).max();
    terms.version = terms.version.max(newest.unwrap_or_default());
    terms
}

fn merge_closed(survivors: &Survivors, terms: &Terms) -> BTreeMap<Incarnation, StreamSeq> {
    let mut closed = BTreeMap::new();
    for incarnation in terms.sources.keys() {
        closed.insert(*incarnation, StreamSeq(0));
    }
    let folds = survivors.folds().flat_map(|fold| &fold.closed);
    let disks = survivors.disks.iter().flat_map(|disk| &disk.closed);
    for (incarnation, through) in folds.chain(disks) {
        let known = closed.entry(*incarnation).or_insert(StreamSeq(0));
        *known = (*known).max(*through);
    }
    closed
}

/// Of every history the most, so that a sequence given away twice is told whichever of them had seen it claimed.
fn merge_passed(survivors: &Survivors) -> BTreeMap<Incarnation, Passed> {
    let mut passed: BTreeMap<Incarnation, Passed> = BTreeMap::new();
    for (&incarnation, found) in survivors.folds().flat_map(|fold| &fold.passed) {
        let known = passed.entry(incarnation).or_insert(*found);
        known.claimed_through = known.claimed_through.max(found.claimed_through);
        known.newest_ns = known.newest_ns.max(found.newest_ns);
    }
    passed
}

fn merge_nodes(survivors: &Survivors) -> BTreeMap<NodeUuid, NodeEntry> {
    let mut nodes: BTreeMap<NodeUuid, NodeEntry> = BTreeMap::new();
    for (uuid, entry) in survivors.folds().flat_map(|fold| &fold.nodes) {
        let Some(known) = nodes.get_mut(uuid) else {
            nodes.insert(*uuid, entry.clone());
            continue;
        };
        known.done.union(&entry.done);
        let (ours, theirs) = (
            (known.epoch, known.state.code()),
            (entry.epoch, entry.state.code()),
        );
        if theirs > ours {
            let done = core::mem::take(&mut known.done);
            *known = NodeEntry {
                done,
                ..entry.clone()
            };
        }
    }
    for disk in survivors.disks.iter().filter(|disk| disk.epoch.0 > 0) {
        let entry = nodes.entry(disk.uuid).or_insert_with(|| NodeEntry {
            name: disk.name.clone(),
            epoch: disk.epoch,
            nonce: Nonce(0),
            hosts: disk.apps.keys().cloned().collect(),
            state: NodeState::Active,
            done: SeqSet::new(),
        });
        // An evacuated node's late word does not count, as in the fold.
        if entry.state == NodeState::Evacuated {
            continue;
        }
        entry.epoch = entry.epoch.max(disk.epoch);
        for &(first, last) in disk.done.ranges() {
            if entry.done.ranges().len() >= DONE_RANGES_MAX {
                break;
            }
            entry.done.insert_range(first, last);
        }
    }
    close_predecessors(&mut nodes);
    nodes
}

/// Of several data directories with one name the last one holds it, as in the fold.
fn close_predecessors(nodes: &mut BTreeMap<NodeUuid, NodeEntry>) {
    let mut holders: BTreeMap<String, Epoch> = BTreeMap::new();
    for node in nodes.values() {
        let last = holders.entry(node.name.clone()).or_default();
        *last = (*last).max(node.epoch);
    }
    for node in nodes.values_mut() {
        let last = holders.get(&node.name).copied().unwrap_or_default();
        if node.epoch < last && node.state != NodeState::Evacuated {
            node.state = NodeState::Closed;
        }
    }
}
