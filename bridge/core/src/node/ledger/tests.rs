//! Goal: a body acts only as the newest life of its node, and what it does not know of itself stops it (P8). Method: a node whose fold, disk
//! and epoch are put there by hand, one thing off at a time.

use super::*;
use crate::fold::{ClaimEntry, NodeEntry};
use crate::ids::{Incarnation, Nonce, StreamSeq, TermsVersion};
use crate::node::{Identity, Policy};
use crate::record::{SourceTerms, Terms};
use crate::recovery::{Disk, recover};

const OWN: NodeUuid = NodeUuid(1);
const OTHER: NodeUuid = NodeUuid(2);
const EPOCH: Epoch = LedgerSeq(20);

/// A life with nonce 7 whose disk remembers epoch 10, and nonce 6 that it never heard of again.
fn node() -> Node {
    let identity = Identity {
        uuid: OWN,
        nonce: Nonce(7),
        ..Identity::default()
    };
    let disk = Disk {
        epoch: LedgerSeq(10),
        intents: [Nonce(6)].into(),
        ..Disk::default()
    };
    recover(identity, Policy::default(), disk)
}

fn entry(epoch: u64, nonce: u64, state: NodeState) -> NodeEntry {
    NodeEntry {
        epoch: LedgerSeq(epoch),
        nonce: Nonce(nonce),
        state,
        ..NodeEntry::default()
    }
}

/// An epoch of this identity is known by its position, as this life's or by its nonce on the disk; any other is a foreign one, met as a record
/// or in a checkpoint.
#[test]
fn epochs_that_the_disk_does_not_know_are_foreign() {
    let table = [
        (10, 1, true),
        (11, 1, false),
        (11, 7, true),
        (11, 6, true),
        (9, 6, true),
    ];
    for (epoch, nonce, known) in table {
        let at = LedgerSeq(epoch);
        let expected = if known {
            Phase::Joining
        } else {
            Phase::Fenced(FenceReason::ForeignEpoch { epoch: at })
        };
        let record = EpochRecord {
            node_uuid: OWN,
            nonce: Nonce(nonce),
            ..EpochRecord::default()
        };
        let mut met = node();
        met.expect_known_epoch(at, true, &record, &mut Vec::new());
        assert_eq!(met.phase, expected, "{epoch} {nonce}");
        let mut others = node();
        others.expect_known_epoch(at, false, &record, &mut Vec::new());
        assert_eq!(others.phase, Phase::Joining, "of another node");
        let mut loaded = node();
        let shown = entry(epoch, nonce, NodeState::Active);
        loaded.fold.nodes.insert(OWN, shown);
        loaded.check_old_epoch(&mut Vec::new());
        assert_eq!(loaded.phase, expected, "{epoch} {nonce}");
    }
}

/// A node joins once the fold shows its own EPOCH as its newest one, active.
#[test]
fn a_node_joins_with_its_own_epoch() {
    let table = [
        (Some(entry(20, 7, NodeState::Active)), true),
        (Some(entry(20, 7, NodeState::Draining)), false),
        (Some(entry(19, 7, NodeState::Active)), false),
        (None, false),
    ];
    for (shown, joins) in table {
        let mut node = node();
        node.epoch = Some(EPOCH);
        node.fold.position = EPOCH;
        node.fold.nodes.extend(shown.clone().map(|entry| (OWN, entry)));
        let mut out = Vec::new();
        node.check_joined(Tick(0), &mut out);
        assert_eq!(node.phase == Phase::Active, joins, "{shown:?}");
        assert_eq!(out.contains(&Effect::Joined(EPOCH)), joins, "{shown:?}");
    }
}

/// Terms in force are told, and judged once the node acts.
#[test]
fn terms_are_told() {
    let mut node = node();
    let mut out = Vec::new();
    node.on_terms(&mut out);
    assert_eq!(out, [], "there are none yet");
    let source = SourceTerms {
        stream: "S".to_owned(),
        filters: Vec::new(),
    };
    node.fold.terms = Terms {
        version: TermsVersion(1),
        sources: [(Incarnation(8), source.clone())].into(),
        ..Terms::default()
    };
    node.identity.sources = [(Incarnation(9), source)].into();
    node.on_terms(&mut out);
    assert_eq!(out, [Effect::TermsInForce(node.fold.terms.clone())]);
    assert_eq!(node.phase, Phase::Joining);
    node.phase = Phase::Active;
    node.on_terms(&mut out);
    let stream = "S".to_owned();
    assert_eq!(node.phase, Phase::Halted(Halt::SourceRecreated { stream }));
}

/// What is remembered of claims is forgotten with them, not at every step.
#[test]
fn what_was_seen_is_bounded_by_the_claims() {
    for (seen, kept) in [(1_026, 1_026), (1_027, 1)] {
        let mut node = node();
        node.fold
            .claims
            .insert(ClaimKey::new(OTHER, 1), ClaimEntry::default());
        node.seen = (1..=seen)
            .map(|batch| (ClaimKey::new(OTHER, batch), Tick(0)))
            .collect();
        let closed = Folded::Closed {
            incarnation: Incarnation(8),
            from: StreamSeq(0),
            through: StreamSeq(1),
        };
        node.on_folded(Tick(0), LedgerSeq(1), closed, &mut Vec::new());
        assert_eq!(node.seen.len(), kept);
    }
}
