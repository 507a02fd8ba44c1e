//! Goal: sequences of one source say nothing of another's, and what may not be judged is not. Method: a node with batches of two sources in
//! hand, under the same sequences, put there by hand.

use super::*;
use crate::batch::BatchState;
use crate::fold::ClaimEntry;
use crate::ids::NodeUuid;
use crate::node::Policy;
use crate::record::{ClaimKind, SourceTerms};
use crate::recovery::{Disk, recover};

const X: Incarnation = Incarnation(7);
const Y: Incarnation = Incarnation(8);
const OTHER: NodeUuid = NodeUuid(99);

fn source(stream: &str) -> SourceTerms {
    SourceTerms {
        stream: stream.to_owned(),
        filters: Vec::new(),
    }
}

/// Batch 1 of X, published at 10 to 20, and batch 2 of Y, at 1000 to 1100; both hold 1 and 2, staged.
fn node() -> Node {
    let identity = Identity {
        uuid: NodeUuid(1),
        sources: [(X, source("X")), (Y, source("Y"))].into(),
        ..Identity::default()
    };
    let mut node = recover(identity, Policy::default(), Disk::default());
    node.phase = Phase::Active;
    for (number, incarnation, times) in [(1, X, (10, 20)), (2, Y, (1_000, 1_100))] {
        let seqs = SeqSet::range(1, 2);
        let mut batch = Batch::new(incarnation, ClaimKind::Normal, seqs.clone(), times);
        batch.state = BatchState::Staged;
        node.batches.insert(BatchNo(number), batch);
        node.in_hand.insert(incarnation, seqs);
        node.unresolved += 1;
    }
    node
}

#[test]
fn times_are_compared_within_one_source() {
    let node = node();
    assert_eq!(node.judge_one(X, StreamSeq(1), 15), Ok(()));
    assert_eq!(node.judge_one(Y, StreamSeq(1), 1_050), Ok(()));
    assert_eq!(node.judge_one(Y, StreamSeq(3), 15), Ok(()), "not in hand");
    let reused = |incarnation, at| node.judge_one(incarnation, StreamSeq(1), at).is_err();
    assert!(reused(X, 1_050) && reused(Y, 15));
}

/// Another node's claim of Y, published at such times, was folded: what it won is noted for the batch of Y that may hold the same messages.
#[test]
fn what_others_won_is_noted_within_one_source() {
    for (times, noted) in [((900, 1_000), SeqSet::range(2, 2)), ((10, 20), SeqSet::new())] {
        let mut node = node();
        let key = ClaimKey::new(OTHER, 5);
        let entry = ClaimEntry {
            incarnation: Y,
            seqs: SeqSet::range(2, 3),
            published_ns: times,
            ..ClaimEntry::default()
        };
        node.fold.claims.insert(key, entry);
        let mut loaded = node.clone();
        node.note_won_by_others(key, &SeqSet::range(2, 3));
        // A loaded checkpoint that shows the claim tells the same.
        loaded.note_loaded_claims();
        for node in [node, loaded] {
            assert_eq!(node.batches[&BatchNo(1)].won_by_others, SeqSet::new());
            assert_eq!(node.batches[&BatchNo(2)].won_by_others, noted);
        }
    }
}

/// A node's own claim tells nothing of its own batch.
#[test]
fn what_the_batch_won_itself_is_not_noted() {
    let mut node = node();
    let key = ClaimKey::new(NodeUuid(1), 2);
    let entry = ClaimEntry {
        incarnation: Y,
        seqs: SeqSet::range(1, 2),
        published_ns: (1_000, 1_100),
        ..ClaimEntry::default()
    };
    node.fold.claims.insert(key, entry);
    node.note_won_by_others(key, &SeqSet::range(1, 2));
    assert_eq!(node.batches[&BatchNo(2)].won_by_others, SeqSet::new());
}

/// Before the own EPOCH nothing is judged, nor is a source that is not configured: nothing halts, and nothing is remembered.
#[test]
fn only_what_is_served_is_looked_at() {
    let anew = [(StreamSeq(1), 1_000_000)];
    let seen = |node: &mut Node, incarnation| {
        let mut out = Vec::new();
        let ends = (StreamSeq(1), StreamSeq(1));
        let look = Look {
            reaches: ends.0,
            last: ends.1,
            last_ns: 0,
            probes: &anew,
        };
        node.on_source_seen(Tick(0), incarnation, &look, &mut out);
        (node.looked.len(), matches!(node.phase, Phase::Halted(_)))
    };
    let mut active = node();
    assert_eq!(seen(&mut active, X), (0, true));
    let mut joining = node();
    joining.phase = Phase::Joining;
    assert_eq!(seen(&mut joining, X), (0, false));
    let mut elsewhere = node();
    elsewhere.identity.sources.remove(&X);
    assert_eq!(seen(&mut elsewhere, X), (0, false));
}
