//! Goal: upkeep comes when it is due, to both sides of each moment, and remembers what it must and no more. Method: a node whose fold and
//! memories are put there by hand.

use super::*;
use crate::fold::NodeEntry;
use crate::hash::Hash128;
use crate::ids::{Incarnation, NodeUuid};
use crate::node::{Identity, Phase, Policy};
use crate::record::SourceTerms;
use crate::recovery::{Disk, recover};

const OWN: NodeUuid = NodeUuid(5);
const NOW: Tick = Tick(100_000);

fn ago(ms: u64) -> Tick {
    Tick(NOW.0 - ms)
}

fn of(position: u64) -> Witness {
    Witness {
        position: LedgerSeq(position),
        hash: Hash128(1),
    }
}

fn entry(state: NodeState, hosts: &[&str]) -> NodeEntry {
    NodeEntry {
        state,
        hosts: hosts.iter().map(|&app| app.to_owned()).collect(),
        ..NodeEntry::default()
    }
}

fn source(stream: &str) -> SourceTerms {
    SourceTerms {
        stream: stream.to_owned(),
        filters: Vec::new(),
    }
}

/// A node that acts alone, at position 50.
fn node() -> Node {
    let identity = Identity {
        uuid: OWN,
        ..Identity::default()
    };
    let policy = Policy {
        stability: Stability::SyncAlways,
        ..Policy::default()
    };
    let mut node = recover(identity, policy, Disk::default());
    node.phase = Phase::Active;
    node.fold.position = LedgerSeq(50);
    node.fold.nodes.insert(OWN, entry(NodeState::Active, &[]));
    node
}

/// As `node`, behind an active one of lower rank.
fn second() -> Node {
    let mut node = node();
    node.fold.nodes.insert(NodeUuid(1), entry(NodeState::Active, &[]));
    node
}

#[test]
fn what_failed_is_asked_for_again_an_interval_later() {
    let mut upkeep = Upkeep {
        terms_sent: Some(ago(9)),
        checkpoint_sent: Some(NOW),
        ..Upkeep::default()
    };
    upkeep.on_append_failed(ago(5));
    let expected = Upkeep {
        terms_sent: Some(ago(5)),
        checkpoint_sent: Some(NOW),
        ..Upkeep::default()
    };
    assert_eq!(upkeep, expected);
}

/// Parts are kept until their checkpoint is complete, or a newer one is; and it is told once that one is complete.
#[test]
fn parts_are_forgotten_with_their_checkpoint() {
    let begun = || {
        let mut upkeep = Upkeep::default();
        for position in [10, 20, 30] {
            assert!(!upkeep.completes(NOW, of(position), 0, 2));
        }
        upkeep
    };
    let open = |upkeep: &Upkeep| {
        upkeep
            .parts
            .keys()
            .map(|(of, _)| of.position.0)
            .collect::<Vec<_>>()
    };
    let mut upkeep = begun();
    assert!(!upkeep.completes(NOW, of(20), 0, 2), "the same part");
    assert!(upkeep.completes(NOW, of(20), 1, 2));
    assert_eq!(
        (upkeep.complete, open(&upkeep)),
        (Some((LedgerSeq(20), NOW)), vec![30])
    );
    assert!(!upkeep.completes(NOW, of(20), 1, 2));
    assert!(!upkeep.completes(NOW, of(10), 1, 2));
    assert_eq!(open(&upkeep), [30]);
    let mut loaded = begun();
    loaded.on_loaded(NOW, LedgerSeq(20));
    let known = Some((LedgerSeq(20), NOW));
    assert_eq!((loaded.complete, loaded.candidate), (known, known));
    assert_eq!(open(&loaded), [30]);
    // A checkpoint that waits for its purge is not replaced.
    loaded.on_loaded(NOW, LedgerSeq(40));
    assert_eq!(loaded.candidate, known);
}

/// A new application enters the terms once every active node hosts it; a node that left plays no part (P9).
#[test]
fn applications_enter_when_all_host_them() {
    let enters = |version: u32, others: &[(NodeState, &[&str])]| {
        let mut node = node();
        node.identity.hosts = ["a".to_owned(), "b".to_owned()].into();
        node.fold.terms.version = TermsVersion(version);
        node.fold.terms.apps = [("a".to_owned(), TermsVersion(1))].into();
        node.fold.nodes.insert(OWN, entry(NodeState::Active, &["a", "b"]));
        for (uuid, (state, hosts)) in (10..).zip(others) {
            node.fold.nodes.insert(NodeUuid(uuid), entry(*state, hosts));
        }
        let terms = node.wanted_terms()?;
        assert_eq!(terms.version, TermsVersion(version + 1));
        terms.apps.get("b").copied()
    };
    assert_eq!(enters(1, &[]), Some(TermsVersion(2)));
    assert_eq!(
        enters(1, &[(NodeState::Active, &["a", "b"])]),
        Some(TermsVersion(2))
    );
    assert_eq!(enters(1, &[(NodeState::Active, &["a"])]), None);
    assert_eq!(enters(1, &[(NodeState::Closed, &["a"])]), Some(TermsVersion(2)));
    assert_eq!(enters(0, &[(NodeState::Active, &["a"])]), Some(TermsVersion(1)));
}

/// With the operator's word the configured incarnation takes the place of others of its stream, and of no other stream's; without it only a
/// stream that the terms lack enters.
#[test]
fn sources_are_replaced_by_their_stream() {
    let (old, new, other) = (Incarnation(1), Incarnation(2), Incarnation(3));
    let wanted = |accept_terms, configured: (Incarnation, &str)| {
        let mut node = node();
        node.policy.accept_terms = accept_terms;
        node.identity.sources = [(configured.0, source(configured.1))].into();
        node.fold.terms.version = TermsVersion(1);
        node.fold.terms.sources = [(old, source("S")), (other, source("T"))].into();
        let sources = node.wanted_terms()?.sources;
        Some(
            sources
                .keys()
                .map(|incarnation| incarnation.0)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(wanted(true, (new, "S")), Some(vec![2, 3]));
    assert_eq!(wanted(true, (old, "S")), None);
    assert_eq!(wanted(false, (new, "S")), None);
    assert_eq!(wanted(false, (new, "U")), Some(vec![1, 2, 3]));
    assert_eq!(wanted(true, (new, "U")), Some(vec![1, 2, 3]));
}

/// Whether a checkpoint is written now.
fn writes(mut node: Node) -> bool {
    let mut out = Vec::new();
    node.write_checkpoint(NOW, &mut out);
    out.contains(&Effect::Fact(Fact::CheckpointWritten(LedgerSeq(50))))
}

#[test]
fn checkpoints_come_when_so_many_records_are_behind_the_last() {
    let with = |records, last: Option<u64>, sent: Option<Tick>| {
        let mut node = node();
        node.policy.checkpoint_records = records;
        node.upkeep.complete = last.map(|position| (LedgerSeq(position), NOW));
        node.upkeep.checkpoint_sent = sent;
        writes(node)
    };
    assert!(with(50, None, None));
    assert!(!with(51, None, None));
    assert!(with(10, Some(40), None));
    assert!(!with(11, Some(40), None));
    assert!(!with(1, Some(60), None), "a newer one than was read");
    let policy = node().policy;
    let wait_ms = policy.resend_ms + policy.takeover_ms;
    assert!(!with(10, None, Some(ago(wait_ms - 1))));
    assert!(with(10, None, Some(ago(wait_ms))));
    for (ms, due) in [(policy.takeover_ms - 1, false), (policy.takeover_ms, true)] {
        let mut node = second();
        node.policy.checkpoint_records = 10;
        node.upkeep.checkpoint_due = Some(ago(ms));
        assert_eq!(writes(node), due);
    }
}

/// A checkpoint is purged behind once, when it is stable, by the node whose turn it is; then none waits.
#[test]
fn purges_come_when_the_checkpoint_is_stable() {
    const STABLE_MS: u64 = 700;
    let purges = |mut node: Node, known_ms: u64| {
        let known = Some((LedgerSeq(40), ago(known_ms)));
        (node.upkeep.complete, node.upkeep.candidate) = (known, known);
        let mut out = Vec::new();
        node.purge(NOW, &mut out);
        node.purge(NOW, &mut out);
        assert_eq!(node.upkeep.candidate.is_none(), !out.is_empty());
        assert!(out.len() <= 1, "once is enough");
        !out.is_empty()
    };
    assert!(purges(node(), 0));
    let takeover_ms = node().policy.takeover_ms;
    assert!(!purges(second(), takeover_ms - 1));
    assert!(purges(second(), takeover_ms));
    let lazy = |mut node: Node| {
        node.policy.stability = Stability::After(STABLE_MS);
        node
    };
    assert!(!purges(lazy(node()), STABLE_MS - 1));
    assert!(purges(lazy(node()), STABLE_MS));
    assert!(!purges(lazy(second()), STABLE_MS + takeover_ms - 1));
    assert!(purges(lazy(second()), STABLE_MS + takeover_ms));
}
