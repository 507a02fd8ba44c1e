//! Goal: a batch's claim is sent as often as it must be, each time as another attempt, and what a disk says of a batch is held against
//! what the ledger says. Method: as in `findings`; each case is a change of the node that no other test noticed
//! (`docs/mutation-testing.md`).
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod support;

use fanin_core::batch::BatchState;
use fanin_core::fold::Halt;
use fanin_core::ids::{Attempt, BatchNo, Offset};
use fanin_core::node::Phase;
use fanin_core::seq_set::SeqSet;
use support::{A, POLICY, World};

/// The attempts of the claims that are on their way.
fn attempts(w: &World) -> Vec<u32> {
    let claims = w.flights.iter().filter_map(|flight| flight.claim);
    claims.map(|(_, Attempt(attempt))| attempt).collect()
}

/// P4: every attempt has a number of its own, since the hub drops what it takes for a repetition; and none is sent early.
#[test]
fn p4_every_attempt_has_its_own_number() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    assert_eq!(attempts(&w), [1]);
    for attempt in 2..=4 {
        w.later(A, POLICY.resend_ms - 1);
        assert_eq!(attempts(&w).len() as u32, attempt - 1, "not due");
        w.later(A, 1);
        assert_eq!(attempts(&w), (1..=attempt).collect::<Vec<_>>());
    }
    w.run(A);
    w.assert_once([1]);
    w.later(A, POLICY.resend_ms);
    assert_eq!(attempts(&w), [0; 0], "it is decided");
}

/// P3: a claim whose outcome is not known may have landed: a full interval passes before the next attempt.
#[test]
fn p3_an_unconfirmed_claim_waits() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.advance(POLICY.resend_ms - 1);
    w.fail_at(0, false);
    w.later(A, 1);
    w.later(A, POLICY.resend_ms - 2);
    assert_eq!(attempts(&w), [0; 0], "sent before the interval has passed");
    w.later(A, 1);
    assert_eq!(attempts(&w), [2]);
}

/// A batch that was published is delivered until its applications have finished it, however often the node starts.
#[test]
fn a_start_finishes_nothing() {
    let mut w = World::started(1, 3);
    w.stage(A, &[1, 2, 3]);
    w.run(A);
    assert_eq!(w.node(A).next_offset(), Offset(3));
    for _ in 0..2 {
        w.crash(A);
        w.start(A);
        w.run(A);
        let batch = &w.node(A).batches()[&BatchNo(1)];
        assert_eq!(batch.state, BatchState::Published { unconfirmed: None });
        assert!(w.node(A).done().is_empty());
        assert_eq!(w.node(A).next_offset(), Offset(3));
    }
    w.close_by(A);
    assert!(w.node(A).batches().is_empty() && w.node(A).done().contains(1));
}

/// P11: the disk and the ledger name different messages as won by one batch: one of them was rolled back or damaged.
#[test]
fn p11_what_a_batch_won_is_compared() {
    let mut w = World::started(1, 3);
    w.stage(A, &[1, 2, 3]);
    w.run(A);
    w.crash(A);
    let kept = w.bridges[A].disk.image.batches.get_mut(&BatchNo(1));
    let resolution = kept.and_then(|kept| kept.resolution.as_mut()).unwrap();
    resolution.won = SeqSet::range(1, 2);
    w.start(A);
    let differs = Halt::WonDiffers { batch: BatchNo(1) };
    assert_eq!(*w.phase(A), Phase::Halted(differs));
}
