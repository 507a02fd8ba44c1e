//! Goal: every counterexample that an exhaustive model found against looser rules stays impossible under the present ones.
//! Method: each trace is played step by step on real nodes; the harness checks every invariant after every step, the test
//! says where the message must end up. Names follow the rows of the model's table; T1 to T8 are its traces.

mod support;

use std::collections::BTreeSet;

use fanin_core::effect::{Fact, FenceReason};
use fanin_core::epoch::Conflict;
use fanin_core::fold::Void;
use fanin_core::ids::{BatchNo, StreamSeq};
use fanin_core::node::{Phase, Withheld};
use fanin_core::record::{Body as RecordBody, NodeState};
use fanin_core::seq_set::SeqSet;
use support::{A, B, C, INC, World, names};

/// P1: no claim before the stage is durable. A crash before the sync leaves nothing that could win.
#[test]
fn p1_claim_only_after_a_durable_stage() {
    let mut w = World::started(2, 1);
    w.fetch(B, &[1]);
    assert!(w.flights.is_empty());
    w.crash(B);
    w.start(B);
    assert_eq!(w.node(B).unresolved(), 0);
    w.stage(A, &[1]);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// P3: a restart never aborts. The copy of the old life lands late and is void, the claim of the new life wins.
#[test]
fn p3_restart_claims_again() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.later(B, 600);
    let sent = w.hold(B);
    assert_eq!(sent.len(), 2);
    w.crash(B);
    w.start(B);
    assert!(w.flush(&sent[0]).is_some());
    w.tail_all(A);
    w.fetch(A, &[1]);
    assert!(w.bridges[A].settled.is_empty(), "a void claim owns nothing");
    w.run_all();
    w.flush(&sent[1]);
    w.run_all();
    w.assert_once([1]);
}

/// P3: the copy that lands between crash and restart decides; the new life needs no claim of its own.
#[test]
fn p3_claim_lands_while_the_node_is_down() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.crash(B);
    w.land(B);
    w.stage(A, &[1]);
    w.run(A);
    w.start(B);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [B]);
}

/// P4: a second copy of the own claim is not a loss against oneself, in whatever order they are seen.
#[test]
fn p4_own_copy_is_no_loss() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.later(A, 600);
    w.land_all(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
    assert_eq!(w.node(A).unresolved(), 0);
}

/// T1: the claim of the old life won; W passed it before the node came back. Its own win is a win.
#[test]
fn t1_reclaim_after_crash_and_close() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.crash(A);
    w.land(A);
    w.tail_all(B);
    w.fetch(B, &[1]);
    w.close_by(B);
    assert_eq!(w.closed(), StreamSeq(1));
    w.start(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
    w.assert_once([1]);
}

/// T1, with a second copy of the old life's claim landing behind the new EPOCH: void, and nothing is lost by it.
#[test]
fn t1_second_copy_behind_the_new_epoch() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.later(A, 600);
    let sent = w.hold(A);
    w.flush(&sent[0]);
    w.crash(A);
    w.run(B);
    w.fetch(B, &[1]);
    w.close_by(B);
    w.boot(A).unwrap();
    w.flush(&sent[1]);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// T2: the state at the new EPOCH has forgotten nothing that the node still needs: its claim is in the checkpoint.
#[test]
fn t2_owner_below_the_watermark_is_not_forgotten() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.crash(A);
    w.land(A);
    w.tail_all(B);
    w.fetch(B, &[1]);
    w.close_by(B);
    assert_eq!(w.closed(), StreamSeq(1));
    w.checkpoint_and_purge(B);
    w.start(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// P5: the owner settles when its publication is durable, not when staged and not when won.
#[test]
fn p5_owner_settles_after_publish() {
    let mut w = World::started(1, 3);
    w.stage(A, &[2, 3]);
    w.fetch(A, &[2]);
    w.land(A);
    w.tail_all(A);
    w.fetch(A, &[2]);
    assert!(w.source.acked.is_empty(), "won, but not yet visible");
    w.sync(A);
    assert_eq!(w.source.acked, BTreeSet::from([2, 3]));
}

/// P5 and P6: what W passed is settled at once, also by its owner whose publication is not durable yet. A crash then
/// loses nothing: the copy is staged, the claim stays in the ledger until the batch is done.
#[test]
fn p6_owner_settles_below_the_watermark_before_it_published() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.land(A);
    w.tail_all(B);
    w.fetch(B, &[1]);
    w.close_by(B);
    assert_eq!(w.closed(), StreamSeq(1));
    w.tail_all(A);
    w.fetch(A, &[1]);
    assert_eq!(w.bridges[A].settled, [1]);
    assert!(w.publishers("x", 1).is_empty());
    w.crash(A);
    w.checkpoint_and_purge(B);
    w.start(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// P5: a void claim owns nothing, so a redelivery is staged, not settled.
#[test]
fn p5_void_claim_is_not_settled() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let old = w.hold(A);
    w.crash(A);
    w.boot(A).unwrap();
    w.flush(&old[0]);
    w.tail_all(B);
    w.fetch(B, &[1]);
    assert!(w.bridges[B].settled.is_empty());
    w.run_all();
    w.assert_once([1]);
}

/// P6 without W: the winner's claim is purged, a staged copy elsewhere must not win behind it.
#[test]
fn p6_claim_behind_a_purged_winner() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let held = w.hold(A);
    w.stage(B, &[1]);
    w.run(B);
    w.finish_all(B);
    w.close_by(B);
    w.flush(&held[0]);
    w.checkpoint_and_purge(B);
    w.run_all();
    assert!(w.bridges[A].loads > 0, "the tail of A met the gap");
    assert_eq!(w.publishers("x", 1), [B]);
    assert_eq!(w.node(A).unresolved(), 0);
}

/// P6: W voids. The hub forgets its acknowledgements and delivers again what was closed and purged.
#[test]
fn p6_watermark_survives_lost_acknowledgements() {
    let mut w = World::started(2, 3);
    w.stage(B, &[1, 2, 3]);
    w.run_all();
    w.close_by(B);
    w.checkpoint_and_purge(B);
    w.run_all();
    assert_eq!(w.closed(), StreamSeq(3));
    w.source.acked.clear();
    w.fetch(A, &[1, 2, 3]);
    assert_eq!(w.bridges[A].settled, [1, 2, 3]);
    w.run_all();
    w.assert_once(1..=3);
}

/// P6: W is not the floor. The server skips a message; it is repaired, and only then passed.
#[test]
fn p6_skipped_message_is_repaired() {
    let mut w = World::started(2, 2);
    w.source.skipped.insert(1);
    w.stage(B, &[2]);
    w.run_all();
    w.floor(A);
    w.later(A, 10);
    w.answer_audits(A);
    w.run_all();
    assert_eq!(w.closed(), StreamSeq(0));
    w.close_by(A);
    assert!(w.bridges[A].facts.contains(&Fact::Repair {
        incarnation: INC,
        seq: StreamSeq(1)
    }));
    w.run_all();
    w.close_by(A);
    assert_eq!(w.closed(), StreamSeq(2));
    w.assert_once(1..=2);
}

/// P7: A's claim was closed by B and purged before A tailed it. A loads what it won and publishes that.
#[test]
fn p7_claim_purged_before_its_owner_read_it() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.land(A);
    w.tail_all(B);
    w.fetch(B, &[1]);
    w.close_by(B);
    w.checkpoint_and_purge(B);
    w.run_all();
    assert!(w.bridges[A].loads > 0);
    assert_eq!(w.publishers("x", 1), [A]);
}

/// T3: A is done, W passes, B's valid claim landed in between, A's claim is purged. B must not own 1.
#[test]
fn t3_late_claim_of_a_node_that_meets_the_gap() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.stage(B, &[1]);
    let b = w.hold(B);
    w.run(A);
    w.finish_all(A);
    w.sync(A);
    w.floor(A);
    w.later(A, 1_000);
    let closing = w.hold(A);
    w.flush(&b[0]);
    for flight in &closing {
        w.flush(flight);
    }
    assert_eq!(w.closed(), StreamSeq(1));
    w.checkpoint_and_purge(A);
    w.run_all();
    assert!(w.bridges[B].loads > 0);
    assert_eq!(w.publishers("x", 1), [A]);
    // A fresh node reads the same.
    let late = World::new(3, &["x"], 0).bridges[C].clone();
    w.bridges.push(late);
    w.start(C);
    w.fetch(C, &[1]);
    assert_eq!(w.bridges[C].settled, [1]);
}

/// T4: the EPOCH that makes A's claim valid is purged by subject; the checkpoint knows what the claim won.
#[test]
fn t4_old_epoch_purged() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.stage(B, &[1]);
    w.land(A);
    w.crash(A);
    w.land(B);
    w.boot(A).unwrap();
    w.checkpoint_and_purge(B);
    w.crash(A);
    w.start(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
    assert_eq!(w.node(B).unresolved(), 0);
}

/// P7: progress names batches of one node; what batch 1 finished says nothing of batch 2.
#[test]
fn p7_progress_is_by_batch() {
    let mut w = World::started(2, 2);
    w.stage(A, &[1]);
    w.run(A);
    w.finish_all(A);
    w.stage(A, &[2]);
    w.later(A, 200);
    w.land_all(A);
    w.crash(A);
    w.close_by(B);
    w.checkpoint_and_purge(B);
    w.start(A);
    w.run_all();
    w.assert_once(1..=2);
    assert_eq!(w.publishers("x", 2), [A]);
}

/// P8: an EPOCH that landed before a crash, and that the disk never heard of, is adopted by its nonce.
#[test]
fn p8_epoch_with_intent_is_adopted() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.crash(A);
    // The record lands, the process dies before the disk remembers its position; twice.
    for _ in 0..2 {
        w.append_epoch(A).unwrap();
    }
    w.start(A);
    w.run(A);
    w.assert_once([1]);
}

/// P8: a restored disk remembers an older epoch: refused.
#[test]
fn p8_restored_disk_is_refused() {
    let mut w = World::started(1, 1);
    let backup = w.copy_disk(A);
    w.crash(A);
    let epoch = w.start(A);
    let refused = Conflict::Refuse {
        same_uuid: true,
        epoch,
        state: NodeState::Active,
    };
    assert_eq!(w.boot(backup), Err(refused));
}

/// T5: the copy of a disk succeeds with the compare-and-set, then meets a claim whose bodies it has not got.
#[test]
fn t5_copy_meets_a_claim_it_does_not_know() {
    let mut w = World::started(1, 1);
    let copy = w.copy_disk(A);
    w.stage(A, &[1]);
    w.land(A);
    w.start(copy);
    assert_eq!(
        *w.phase(copy),
        Phase::Fenced(FenceReason::UnknownClaim { batch: BatchNo(1) })
    );
    w.tail_all(A);
    let epoch = w.ledger.last;
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
    assert!(w.publishers("x", 1).len() <= 1);
}

/// T6: every claim is known to the copy, but the original's progress is not: it must not deliver the same backlog.
#[test]
fn t6_copy_meets_progress_it_does_not_know() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    let copy = w.copy_disk(A);
    w.run(A);
    w.finish_all(A);
    w.sync(A);
    w.later(A, 200);
    w.land_all(A);
    w.crash(A);
    w.allow_duplicates = true;
    w.start(copy);
    assert_eq!(*w.phase(copy), Phase::Fenced(FenceReason::UnknownProgress));
    assert!(
        w.bridges[copy]
            .disk
            .image
            .batches
            .values()
            .all(|kept| kept.resolution.is_none())
    );
    assert_eq!(w.publishers("x", 1), [A]);
}

/// P8: a claim of an older epoch that lands behind the new one is void.
#[test]
fn p8_old_epoch_claims_are_void() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    let old = w.hold(A);
    w.crash(A);
    w.start(A);
    w.flush(&old[0]);
    assert!(w.truth.decided.is_empty());
    w.tail_all(A);
    assert!(w.bridges[A].facts.contains(&Fact::ClaimVoid(Void::OldEpoch)));
    w.run(A);
    w.assert_once([1]);
}

/// T7: a node that is not at its tail stages nothing, so that its old claim cannot decide a new copy.
#[test]
fn t7_nothing_is_pulled_before_the_own_epoch() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    let old = w.hold(B);
    w.stage(A, &[1]);
    w.land(A);
    w.crash(B);
    w.flush(&old[0]);
    w.boot(B).unwrap();
    assert_eq!(w.node(B).may_pull(INC), Err(Withheld::Phase));
    w.fetch(B, &[1]);
    assert!(w.bridges[B].disk.unsynced.is_empty() && w.bridges[B].settled.is_empty());
    w.run(A);
    w.close_by(A);
    w.checkpoint_and_purge(A);
    w.run_all();
    w.fetch(B, &[1]);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// T8: terms that name an application land between the claim's sending and its landing: void, sent again under them
/// only when the node hosts it.
#[test]
fn t8_app_set_changes_under_a_claim() {
    let mut w = World::started(2, 1);
    w.crash(A);
    w.start(A);
    w.stage(A, &[1]);
    w.terms(&["x", "y"], &[]);
    w.land(A);
    w.run(A);
    assert_eq!(w.publishers("x", 1), [0_usize; 0]);
    assert_eq!(w.node(A).may_pull(INC), Err(Withheld::Void(Void::NotHosted)));
    w.crash(B);
    w.bridges[B].hosts = names(&["x", "y"]);
    w.start(B);
    w.stage(B, &[1]);
    w.run_all();
    assert_eq!((w.publishers("x", 1), w.publishers("y", 1)), (vec![B], vec![B]));
}

/// H9: a node restarts with fewer applications. Its backlog waits, whole, until it hosts them again.
#[test]
fn p9_shrunk_hosts_hold_their_batches() {
    let mut w = World::new(1, &["x", "y"], 1);
    w.start(A);
    w.stage(A, &[1]);
    w.hold(A);
    w.crash(A);
    w.bridges[A].hosts = names(&["x"]);
    w.start(A);
    w.later(A, 1_000);
    assert!(
        w.flights
            .iter()
            .all(|flight| !matches!(flight.record.body, RecordBody::Claim(_)))
    );
    assert_eq!(w.node(A).unresolved(), 1);
    w.crash(A);
    w.bridges[A].hosts = names(&["x", "y"]);
    w.start(A);
    w.run(A);
    w.assert_once([1]);
}

/// Resolved by batch: a sequence that stands in two batches of one disk is visible once.
#[test]
fn p2_same_sequence_in_two_own_batches() {
    for first in [0, 1] {
        let mut w = World::new(1, &["x"], 2);
        // Two batches with message 1 on one disk: an older life may have left them.
        w.start(A);
        w.stage(A, &[1]);
        w.crash(A);
        let mut kept = w.bridges[A].disk.image.batches[&BatchNo(1)].clone();
        kept.seqs = [1, 2].into_iter().collect();
        w.bridges[A].disk.image.batches.insert(BatchNo(2), kept);
        w.hold(A);
        w.start(A);
        assert_eq!(w.node(A).unresolved(), 2);
        // Only one of both lands at first.
        let held = w.hold(A);
        assert_eq!(held.len(), 2);
        w.flush(&held[first]);
        w.tail_all(A);
        w.sync(A);
        assert_eq!(w.node(A).unresolved(), 1);
        w.flush(&held[1 - first]);
        w.run(A);
        w.assert_once(1..=2);
    }
}

/// P6: the source deleted what B holds staged, and W passed it: tombstoned, counted, nothing else.
#[test]
fn p6_staged_copy_of_a_hole_is_tombstoned_and_counted() {
    let mut w = World::started(2, 2);
    w.stage(A, &[2]);
    w.run(A);
    w.stage(B, &[1]);
    let held = w.hold(B);
    w.source.messages.get_mut(&1).unwrap().gone = true;
    w.close_by(A);
    assert_eq!(w.closed(), StreamSeq(2));
    assert!(w.bridges[A].facts.contains(&Fact::Holes {
        incarnation: INC,
        count: 1,
        seqs: SeqSet::range(1, 1),
    }));
    w.flush(&held[0]);
    w.run(B);
    let tombstoned = |fact: &Fact| {
        matches!(
            fact,
            Fact::ClaimResolved {
                won: 0,
                lost: 0,
                tombstoned: 1,
                given_up,
                ..
            } if *given_up == SeqSet::range(1, 1)
        )
    };
    assert!(
        w.bridges[B].facts.iter().any(tombstoned),
        "{:?}",
        w.bridges[B].facts
    );
    assert!(w.publishers("x", 1).is_empty());
}

/// P6: a staged copy claimed in time is published, though the source has deleted the message.
#[test]
fn p6_deleted_message_claimed_in_time_is_published() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.source.messages.get_mut(&1).unwrap().gone = true;
    w.floor(A);
    w.later(A, 10);
    w.answer_audits(A);
    // Seen once only: W does not move, and B's claim lands.
    w.run(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [B]);
}

/// H6: a CLOSE whose evidence was gathered under an older filter is void.
#[test]
fn p6_close_of_older_terms_is_void() {
    let mut w = World::new(2, &["x"], 0);
    w.source.publish(1, "s");
    w.source.publish(1, "t");
    w.terms(&["x"], &["t"]);
    for bridge in &mut w.bridges {
        bridge.sources.insert(INC, support::source_terms(&["t"]));
    }
    w.start(A);
    w.stage(A, &[2]);
    w.run(A);
    // Message 1 does not match: a hole under terms 2. The CLOSE is sent, then the filter is widened.
    for _ in 0..3 {
        w.finish_all(A);
        w.sync(A);
        w.floor(A);
        w.later(A, 1_100);
        w.answer_audits(A);
    }
    let held: Vec<_> = w.hold(A);
    let close = held
        .iter()
        .rev()
        .find(|flight| matches!(flight.record.body, RecordBody::Close(_)));
    let close = close.expect("a CLOSE over the hole").clone();
    w.terms(&["x"], &[]);
    w.flush(&close);
    assert_eq!(w.closed(), StreamSeq(0));
    w.bridges[B].sources.insert(INC, support::source_terms(&[]));
    w.start(B);
    w.stage(B, &[1]);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [B]);
}
