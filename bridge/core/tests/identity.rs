//! Goal: what the ledger says of this node and its disk does not know was done by another body: it stops (P8). Method: as in `findings`, with
//! records of this identity landed by hand; each case is a change of the node that no other test noticed (`docs/mutation-testing.md`).
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod support;

use fanin_core::effect::{Fact, FenceReason};
use fanin_core::fold::Halt;
use fanin_core::ids::{Attempt, BatchNo, LedgerSeq, NodeUuid, Nonce, TermsVersion};
use fanin_core::node::Phase;
use fanin_core::record::{Body, Claim, ClaimKind, EpochRecord, NodeState, Progress, content_hash};
use fanin_core::seq_set::SeqSet;
use support::{A, B, INC, Source, World, names};

const OWN: NodeUuid = NodeUuid(A as u128 + 1);

fn claim(node_uuid: NodeUuid, epoch: LedgerSeq, batch: u64, seq: u64, published_ns: i64) -> Body {
    let (seqs, times) = (SeqSet::range(seq, seq), (published_ns, published_ns));
    Body::Claim(Claim {
        node_uuid,
        epoch,
        batch: BatchNo(batch),
        attempt: Attempt(1),
        content_hash: content_hash(INC, &seqs, ClaimKind::Normal, times),
        incarnation: INC,
        seqs,
        terms: TermsVersion(1),
        kind: ClaimKind::Normal,
        published_ns: times,
    })
}

fn epoch(uuid: NodeUuid, node: &str, state: NodeState) -> Body {
    Body::Epoch(EpochRecord {
        node_uuid: uuid,
        node: node.to_owned(),
        nonce: Nonce(77_000),
        hosts: names(&["x"]),
        state,
    })
}

/// A claim of an old epoch is void; it tells all the same that another body has that identity, unless the batch is known: staged here, or
/// finished long ago.
#[test]
fn p8_void_claims_of_unknown_batches_fence() {
    let old = LedgerSeq(1);
    let mut w = World::started(1, 5);
    w.stage(A, &[1]);
    w.run(A);
    w.close_by(A);
    w.stage(A, &[2]);
    for batch in [1, 2] {
        w.put(claim(OWN, old, batch, batch, Source::published_ns(batch)));
        w.tail_all(A);
        assert_eq!(*w.phase(A), Phase::Active);
    }
    let batch = BatchNo(9);
    w.put(claim(OWN, old, batch.0, 3, Source::published_ns(3)));
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::UnknownClaim { batch }));
}

/// A void claim claims nothing, so that its times prove nothing either (P10).
#[test]
fn p10_void_claims_are_not_judged() {
    let mut w = World::started(2, 5);
    w.stage(A, &[1]);
    w.run_all();
    let void = claim(NodeUuid(77), LedgerSeq(1), 5, 1, Source::published_ns(1_000));
    w.put(void);
    w.run_all();
    assert_eq!((w.phase(A), w.phase(B)), (&Phase::Active, &Phase::Active));
}

/// Done batches that this disk never had.
#[test]
fn p8_unknown_progress_fences_at_once() {
    let mut w = World::started(2, 5);
    let epoch = w.node(A).epoch().unwrap();
    w.put(Body::Progress(Progress {
        node_uuid: OWN,
        epoch,
        done: SeqSet::range(9, 9),
    }));
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::UnknownProgress));
    w.tail_all(B);
    assert_eq!(*w.phase(B), Phase::Active, "it is not B's");
}

/// Another body began a life of this identity, under another name, so that no compare-and-set saw it.
#[test]
fn p8_a_foreign_epoch_before_the_own_one_fences() {
    let mut w = World::started(1, 5);
    w.crash(A);
    let epoch = w.put(epoch(OWN, "n9", NodeState::Active));
    w.boot(A).unwrap();
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
}

/// A node that acts and has missed records reads in a checkpoint what became of it meanwhile, and says which.
#[test]
fn p8_a_node_behind_a_gap_learns_why_it_must_stop() {
    for (uuid, node, state) in [
        (OWN, "n0", NodeState::Evacuated),
        (NodeUuid(99), "n0", NodeState::Active),
    ] {
        let mut w = World::started(2, 5);
        w.put(epoch(uuid, node, state));
        w.tail_all(B);
        let position = w.checkpoint_and_purge(B);
        w.stage(B, &[1]);
        w.run(B);
        w.bridges[A].cursor = Some(position.next());
        w.tail_all(A);
        let reason = if uuid == OWN {
            FenceReason::Evacuated
        } else {
            FenceReason::NameTaken { epoch: position }
        };
        assert_eq!(*w.phase(A), Phase::Fenced(reason));
    }
}

/// A checkpoint from before the own EPOCH decides the batches of earlier lives, although the node has not joined.
#[test]
fn p3_a_checkpoint_before_the_own_epoch_decides_old_batches() {
    let mut w = World::started(2, 3);
    w.stage(A, &[1]);
    w.land(A);
    w.crash(A);
    w.tail_all(B);
    w.boot(A).unwrap();
    let position = w.checkpoint_by(B);
    assert!(position < w.node(A).epoch().unwrap());
    w.purge_through(position);
    w.bridges[A].cursor = Some(position.next());
    w.run(A);
    assert_eq!((w.bridges[A].loads, w.phase(A)), (1, &Phase::Active));
    w.assert_once([1]);
    assert_eq!(w.publishers("x", 1), [A]);
}

/// A checkpoint of what was read already does not cover what is missing behind it.
#[test]
fn p7_a_checkpoint_must_cover_the_gap() {
    let mut w = World::started(2, 5);
    w.run_all();
    let position = w.checkpoint_by(B);
    assert_eq!(w.node(A).fold().position(), position);
    for seq in 1..=2 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    w.bridges[A].cursor = Some(w.ledger.last);
    let gap = Halt::Gap {
        first: position.next(),
        last: LedgerSeq(w.ledger.last.0 - 1),
    };
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Halted(gap));
}

/// What another node won of messages in hand is known from a checkpoint that shows its claim: nobody has given them up, whatever is
/// forgotten later.
#[test]
fn p6_what_a_checkpoint_shows_as_won_is_not_given_up() {
    let mut w = World::started(2, 2);
    w.stage(B, &[1, 2]);
    w.hold(B);
    w.crash(B);
    w.stage(A, &[1, 2]);
    w.run(A);
    w.checkpoint_and_purge(A);
    w.start(B);
    w.hold(B);
    w.close_by(A);
    w.tail_all(B);
    assert_eq!(w.closed().0, 2);
    w.later(B, 500);
    w.run(B);
    let resolved = w.bridges[B].facts.iter().find_map(|fact| {
        let Fact::ClaimResolved {
            won,
            lost,
            tombstoned,
            ..
        } = fact
        else {
            return None;
        };
        Some((*won, *lost, *tombstoned))
    });
    assert_eq!(resolved, Some((0, 2, 0)));
}
