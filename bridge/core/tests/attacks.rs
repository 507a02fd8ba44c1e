//! Goal: the interleavings B1 to B20 of the protocol review end well, as far as the core decides them.
//! Method: each is played on real nodes. Where the hub breaks its own promise, the node must notice and halt; where two
//! bodies use one identity, one of them must be refused or fenced. The harness checks every invariant after every step.
//!
//! B10 (a failed fsync is never tried again) is the local log's and is tested there.

mod support;

use std::collections::BTreeSet;

use fanin_core::effect::{Fact, FenceReason};
use fanin_core::epoch::Conflict;
use fanin_core::fold::Halt;
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq};
use fanin_core::input::Input;
use fanin_core::node::{Phase, Policy, Stability, Withheld};
use fanin_core::record::{Body as RecordBody, EpochRecord, NodeState};
use support::{A, B, INC, POLICY, World, names};

/// The stability interval of a hub that syncs lazily.
const LAZY_MS: u64 = 10_000;
const LAZY: Policy = Policy {
    stability: Stability::After(LAZY_MS),
    ..POLICY
};

/// B1: A claims, dies, stays down past every purge. Its claim waits in the checkpoint.
#[test]
fn b1_node_down_past_the_purge() {
    let mut w = World::started(2, 3);
    w.stage(A, &[1, 2, 3]);
    w.crash(A);
    w.land(A);
    w.run(B);
    w.fetch(B, &[1, 2, 3]);
    assert_eq!(w.bridges[B].settled, [1, 2, 3]);
    w.close_by(B);
    for _ in 0..3 {
        w.checkpoint_and_purge(B);
    }
    w.start(A);
    w.run_all();
    w.assert_once(1..=3);
}

/// B2: the claim is stuck in the client's buffer; the node hears of a failure, keeps the batch, and the flush wins.
#[test]
fn b2_claim_flushed_late() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let stuck = w.flights.clone();
    w.fail_at(0, false);
    w.later(A, 400);
    assert!(
        w.flights.is_empty(),
        "the outcome is unknown: a full interval passes first"
    );
    w.later(A, 200);
    assert_eq!(w.hold(A).len(), 1, "presumed retry");
    w.flush(&stuck[0]);
    w.stage(B, &[1]);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// B3: on a lazy hub nobody settles for another before that claim survives a power loss; so when it does not, the hub
/// delivers again, and the claimant, whose copy is staged, claims again.
#[test]
fn b3_unstable_claim_is_not_settled_by_others() {
    let mut w = World::new(2, &["x"], 1).with_policy(LAZY);
    w.start(A);
    w.start(B);
    let before = w.ledger.last;
    w.stage(A, &[1]);
    w.land(A);
    w.crash(A);
    w.tail_all(B);
    w.fetch(B, &[1]);
    assert_eq!(w.bridges[B].delayed, [(1, LAZY_MS)]);
    w.advance(LAZY_MS - 1);
    w.fetch(B, &[1]);
    assert_eq!(
        w.bridges[B].delayed[1],
        (1, 1_000),
        "never a shorter delay than a second"
    );
    assert!(w.source.acked.is_empty());
    w.lose_behind(before);
    w.start(A);
    w.tail_all(B);
    w.run(A);
    assert_eq!(w.publishers("x", 1), [A]);
}

/// B3: once the claim is as old as that, it is settled for its owner.
#[test]
fn b3_stable_claim_is_settled() {
    let mut w = World::new(2, &["x"], 1).with_policy(LAZY);
    w.start(A);
    w.start(B);
    w.stage(A, &[1]);
    w.run_all();
    w.advance(LAZY_MS);
    w.fetch(B, &[1]);
    assert_eq!(w.bridges[B].settled, [1]);
    // A claim known only from a checkpoint is as old as that.
    w.checkpoint_and_purge(A);
    w.crash(B);
    w.start(B);
    w.fetch(B, &[1]);
    assert_eq!(w.bridges[B].delayed, [(1, LAZY_MS)]);
}

/// B4: the dedupe window is over, a second copy of the own claim lands. It wins nothing and loses nothing.
#[test]
fn b4_second_copy_behind_the_dedupe_window() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    let sent = w.hold(A);
    w.flush(&sent[0]);
    w.flush(&sent[0]);
    w.run(A);
    w.assert_once([1]);
}

/// B5: the source was deleted and created again: its sequences mean other messages, the mapping halts.
#[test]
fn b5_source_recreated() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.run(A);
    w.crash(A);
    let again = Incarnation(0xB2);
    w.bridges[A].sources = [(again, support::source_terms(&[]))].into();
    w.start(A);
    assert_eq!(
        *w.phase(A),
        Phase::Halted(Halt::SourceRecreated {
            stream: "S".to_owned()
        })
    );
    // By the operator's word the new one enters the terms; what was won of the old one stays published.
    w.crash(A);
    w.bridges[A].policy.accept_terms = true;
    w.start(A);
    w.later(A, 1_000);
    w.run(A);
    assert_eq!(w.node(A).may_pull(again), Ok(()));
    assert!(w.node(A).may_pull(INC).is_err());
    w.assert_once([1]);
}

/// B5: terms that an operator replaced long ago do not halt a node that reads the ledger from its beginning.
#[test]
fn b5_replaced_terms_are_history() {
    let mut w = World::started(1, 0);
    let again = Incarnation(0xB2);
    w.crash(A);
    w.bridges[A].sources = [(again, support::source_terms(&[]))].into();
    w.bridges[A].policy.accept_terms = true;
    w.start(A);
    w.later(A, 1_000);
    w.run(A);
    w.crash(A);
    w.bridges[A].policy.accept_terms = false;
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active);
    assert_eq!(w.node(A).may_pull(again), Ok(()));
}

/// B6: a late acknowledgement of nobody's removes a message from the hub's list. It decides nothing: the message is below
/// the floor, unclaimed, and repaired.
#[test]
fn b6_stale_acknowledgement_of_an_unclaimed_message() {
    let mut w = World::started(2, 1);
    w.fetch(B, &[1]);
    w.crash(B);
    w.source.acked.insert(1);
    for _ in 0..3 {
        w.close_by(A);
    }
    assert_eq!(w.closed(), StreamSeq(1));
    assert_eq!(w.publishers("x", 1), [A]);
}

/// B7: the consumer was reset forward. What it skipped is found, fetched by sequence and claimed, before W passes it.
#[test]
fn b7_consumer_skips_forward() {
    let mut w = World::started(1, 10);
    w.source.skipped.extend(1..=8);
    w.stage(A, &[9, 10]);
    w.run(A);
    assert_eq!(w.closed(), StreamSeq(0));
    for _ in 0..12 {
        w.close_by(A);
    }
    let repairs = w.bridges[A]
        .facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Repair { .. }))
        .count();
    assert!(repairs >= 8, "{repairs}");
    assert_eq!(w.closed(), StreamSeq(10));
    w.assert_once(1..=10);
}

/// B8: a node that lacks an application of the app set neither pulls nor wins.
#[test]
fn b8_node_without_an_application() {
    let mut w = World::new(2, &["x", "y"], 1);
    w.bridges[A].hosts = names(&["x"]);
    w.start(A);
    w.start(B);
    assert!(matches!(w.node(A).may_pull(INC), Err(Withheld::Void(_))));
    w.stage(A, &[1]);
    w.later(A, 1_000);
    w.run(A);
    assert!(w.truth.decided.is_empty());
    w.stage(B, &[1]);
    w.run_all();
    assert_eq!((w.publishers("x", 1), w.publishers("y", 1)), (vec![B], vec![B]));
}

/// B9: two bodies, one identity, one batch number, other contents. The older body's claim is void, and it is fenced.
#[test]
fn b9_two_bodies_one_batch_number() {
    let mut w = World::started(1, 2);
    let copy = w.copy_disk(A);
    w.stage(A, &[1]);
    w.start(copy);
    w.stage(copy, &[2]);
    let numbers: Vec<_> = w
        .flights
        .iter()
        .map(|flight| flight.record.body.clone())
        .collect();
    assert_eq!(numbers.len(), 2);
    w.land_at(0);
    w.run(copy);
    assert_eq!(w.publishers("x", 2), [copy]);
    w.tail_all(A);
    assert!(matches!(
        w.phase(A),
        Phase::Fenced(FenceReason::ForeignEpoch { .. })
    ));
    // The message of the fenced body was never claimed: the hub delivers it again.
    w.stage(copy, &[1]);
    w.run(copy);
    w.assert_once(1..=2);
}

/// B11: frozen between stage and claim, past W and every purge. Its late claim is void for what is closed.
#[test]
fn b11_frozen_after_stage() {
    let mut w = World::started(2, 2);
    w.stage(A, &[1, 2]);
    let frozen = w.hold(A);
    w.stage(B, &[1]);
    w.run(B);
    w.close_by(B);
    assert_eq!(w.closed(), StreamSeq(1));
    w.checkpoint_and_purge(B);
    w.flush(&frozen[0]);
    w.run_all();
    assert_eq!((w.publishers("x", 1), w.publishers("x", 2)), (vec![B], vec![A]));
}

/// B12: the floor goes back to 1 and everything is delivered again, to other nodes too.
#[test]
fn b12_everything_is_delivered_again() {
    let mut w = World::started(2, 20);
    let all: Vec<u64> = (1..=20).collect();
    for (who, chunk) in [A, B, A, B].iter().zip(all.chunks(5)) {
        w.stage(*who, chunk);
        w.run_all();
    }
    w.finish_all(B);
    w.run_all();
    w.close_by(A);
    w.checkpoint_and_purge(A);
    w.source.acked.clear();
    for who in [B, A] {
        w.step(
            who,
            Input::Floor {
                incarnation: INC,
                floor: StreamSeq(0),
                delivered: StreamSeq(0),
                pulling: false,
            },
        );
        w.stage(who, &all);
    }
    w.run_all();
    assert_eq!(w.closed(), StreamSeq(20));
    w.assert_once(1..=20);
}

/// B13: on a lazy hub nothing is purged before the checkpoint that covers it survives a power loss.
#[test]
fn b13_purge_waits_for_a_stable_checkpoint() {
    let mut w = World::new(1, &["x"], 1).with_policy(LAZY);
    w.start(A);
    w.stage(A, &[1]);
    w.run(A);
    let through = w.checkpoint_by(A);
    w.tail_all(A);
    w.later(A, LAZY_MS - 1);
    assert!(w.bridges[A].purges.is_empty());
    w.later(A, 1);
    assert_eq!(w.bridges[A].purges[0].0, through);
    w.purge(A);
    w.crash(A);
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active);
}

/// P7: the purge is another node's when the first one is down.
#[test]
fn purge_is_taken_over() {
    let mut w = World::started(2, 1);
    w.crash(A);
    let through = w.checkpoint_by(B);
    w.tail_all(B);
    w.tick(B);
    w.later(B, POLICY.takeover_ms);
    assert_eq!(w.bridges[B].purges.first().map(|purge| purge.0), Some(through));
}

/// B14: the ledger lost its end and grew again with other records. The first record whose witness lies on the other
/// history halts its reader.
#[test]
fn b14_ledger_truncated_and_regrown() {
    let mut w = World::started(2, 5);
    let kept = w.ledger.last;
    w.stage(A, &[1]);
    w.run(A);
    w.stage(A, &[2]);
    w.run(A);
    assert_eq!(w.node(A).fold().position(), LedgerSeq(kept.0 + 2));
    w.lose_behind(kept);
    for seq in [3, 4] {
        w.stage(B, &[seq]);
        w.run(B);
    }
    // A reads on where it was: the lost positions are repeats for it, unless a writer's witness gives the lie away.
    w.bridges[A].cursor = Some(w.ledger.last.next());
    w.stage(B, &[5]);
    w.run(B);
    w.tail_all(A);
    assert!(
        matches!(w.phase(A), Phase::Halted(Halt::Diverged { .. })),
        "{:?}",
        w.phase(A)
    );
    w.fetch(A, &[4]);
    assert!(w.flights.is_empty());
}

/// B15: the tail was opened behind the end and skips what was rewritten: a gap no checkpoint covers halts.
#[test]
fn b15_tail_skips_records() {
    let mut w = World::started(2, 2);
    w.stage(B, &[1]);
    w.run(B);
    w.bridges[A].cursor = Some(w.ledger.last.next());
    w.stage(B, &[2]);
    w.run(B);
    w.tail_all(A);
    assert!(
        matches!(w.phase(A), Phase::Halted(Halt::Gap { .. })),
        "{:?}",
        w.phase(A)
    );
}

/// B16: a lazy hub lost the winner's claim after it published. The winner's disk knows better than the ledger: after its
/// restart it halts instead of going on in silence.
#[test]
fn b16_ledger_lost_a_published_claim() {
    let mut w = World::started(1, 1);
    let kept = w.ledger.last;
    w.stage(A, &[1]);
    w.run(A);
    w.crash(A);
    // The disk's witness would see it as well (`witness` tests).
    w.bridges[A].disk.image.witness = Default::default();
    w.lose_behind(kept);
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Halted(Halt::WonDiffers { batch: BatchNo(1) }));
}

/// B16: the same while the winner is up. It reads no more than the adapter's finding, and halts on it.
#[test]
fn b16_adapter_finds_the_ledger_shorter() {
    let mut w = World::started(1, 2);
    w.stage(A, &[1]);
    w.run(A);
    w.stage(A, &[2]);
    let halt = Halt::LedgerShrank {
        last: LedgerSeq(2),
        read: w.node(A).fold().position(),
    };
    w.step(A, Input::HubBroken(halt.clone()));
    assert_eq!(*w.phase(A), Phase::Halted(halt));
    w.hold(A);
    // What was won keeps flowing to its applications; nothing is sent.
    w.finish_all(A);
    w.sync(A);
    w.later(A, 10_000);
    assert!(w.flights.is_empty());
    assert_eq!(w.node(A).unresolved(), 1);
}

/// B17: two nodes read two histories. The first record that crosses over halts its reader.
#[test]
fn b17_split_tails() {
    let mut left = World::started(2, 2);
    let mut right = left.clone();
    left.stage(A, &[1]);
    left.run(A);
    right.stage(B, &[1]);
    right.run(B);
    right.source.publish(1, "s");
    right.stage(B, &[2]);
    let crossing = right.hold(B)[0].record.clone();
    let at = left.ledger.last.next();
    left.put_record(&crossing);
    left.tail_all(A);
    let position = crossing.witness.position;
    let ours = left.node(A).fold().hash_at(position).unwrap();
    assert_eq!(
        *left.phase(A),
        Phase::Halted(Halt::Diverged {
            at,
            position,
            ours,
            theirs: crossing.witness.hash
        })
    );
}

/// B18: a cloned machine starts. The older body sees the foreign EPOCH and stops at once.
#[test]
fn b18_clone_of_a_running_node() {
    let mut w = World::started(1, 1);
    let copy = w.copy_disk(A);
    let epoch = w.start(copy);
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
    w.crash(A);
    assert!(matches!(w.boot(A), Err(Conflict::Refuse { same_uuid: true, .. })));
}

/// B18: it also stops when it learns of the other body from a checkpoint only.
#[test]
fn b18_foreign_epoch_seen_in_a_checkpoint() {
    let mut w = World::started(2, 0);
    let copy = w.copy_disk(A);
    let epoch = w.start(copy);
    w.checkpoint_and_purge(B);
    // The EPOCH itself is kept; it is the checkpoint that A loads first.
    w.bridges[A].cursor = Some(w.ledger.last);
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::ForeignEpoch { epoch }));
}

/// B19: a restored backup remembers an older epoch: refused. So is another data directory under a name still in use.
#[test]
fn b19_restored_backup() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.run(A);
    let backup = w.copy_disk(A);
    w.crash(A);
    let epoch = w.start(A);
    assert_eq!(
        w.boot(backup),
        Err(Conflict::Refuse {
            same_uuid: true,
            epoch,
            state: NodeState::Active
        })
    );
    let mut stranger = World::new(1, &["x"], 0).bridges[A].clone();
    stranger.uuid = NodeUuid(77);
    w.bridges.push(stranger);
    assert_eq!(
        w.boot(2),
        Err(Conflict::Refuse {
            same_uuid: false,
            epoch,
            state: NodeState::Active
        })
    );
}

/// B20: a paused node wakes up after its evacuation: fenced, by record or by checkpoint; a fresh directory may follow.
#[test]
fn b20_evacuated_while_paused() {
    for by_checkpoint in [false, true] {
        let mut w = World::started(2, 1);
        w.stage(A, &[1]);
        let late = w.hold(A);
        let evacuated = EpochRecord {
            node_uuid: w.bridges[A].uuid,
            node: w.bridges[A].name.clone(),
            nonce: Nonce(99),
            hosts: BTreeSet::new(),
            state: NodeState::Evacuated,
        };
        let at = w.put(RecordBody::Epoch(evacuated));
        w.flush(&late[0]);
        assert!(w.truth.decided.is_empty());
        if by_checkpoint {
            w.checkpoint_and_purge(B);
        }
        w.tail_all(A);
        assert_eq!(*w.phase(A), Phase::Fenced(FenceReason::Evacuated));
        w.crash(A);
        let refused = Conflict::Refuse {
            same_uuid: true,
            epoch: at,
            state: NodeState::Evacuated,
        };
        assert_eq!(w.boot(A), Err(refused));
        let mut fresh = World::new(1, &["x"], 0).bridges[A].clone();
        fresh.uuid = NodeUuid(77);
        w.bridges.push(fresh);
        w.start(2);
        w.stage(2, &[1]);
        w.run(2);
        assert_eq!(w.publishers("x", 1), [2]);
    }
}
