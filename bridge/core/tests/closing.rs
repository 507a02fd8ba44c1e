//! Goal: W moves when it may, as far as it may and by the node whose turn it is; what is looked at, repaired and told on the way is
//! exactly what must be (P6). Method: as in `findings`, with every due moment met from both sides; each case is a change of the node
//! that no other test noticed (`docs/mutation-testing.md`).
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod support;

use fanin_core::effect::Fact;
use fanin_core::ids::StreamSeq;
use fanin_core::input::Input;
use fanin_core::node::{Policy, Stability};
use fanin_core::record::Body as RecordBody;
use support::{A, B, INC, POLICY, World, source_terms};

/// The CLOSE records on their way, as (through, holes).
fn closes(w: &World) -> Vec<(u64, u64)> {
    let bodies = w.flights.iter().map(|flight| &flight.record.body);
    bodies
        .filter_map(|body| match body {
            RecordBody::Close(close) => Some((close.through.0, close.holes)),
            RecordBody::Checkpoint(_)
            | RecordBody::Claim(_)
            | RecordBody::Epoch(_)
            | RecordBody::Genesis(_)
            | RecordBody::Handoff(_)
            | RecordBody::Progress(_)
            | RecordBody::Terms(_) => None,
        })
        .collect()
}

/// The sequences from which on a node wants to have a look.
fn asked(w: &World, who: usize) -> Vec<u64> {
    w.bridges[who].audits.iter().map(|(_, first)| first.0).collect()
}

/// The oldest look asked for is answered: this is the first message offered at or behind its sequence.
fn answer(w: &mut World, who: usize) {
    let (terms, first) = w.bridges[who].audits.remove(0);
    let next_matching = w.source.next_matching(w.truth.fold.terms(), first);
    let incarnation = INC;
    let input = Input::Audited {
        incarnation,
        terms,
        first,
        next_matching,
    };
    w.step(who, input);
}

/// A source of which every second message passes the filter.
fn filtered(policy: Policy, messages: u64) -> World {
    let mut w = World::new(1, &["x"], messages).with_policy(policy);
    for hole in (2..=messages).step_by(2) {
        w.source.messages.get_mut(&hole).unwrap().subject = "t";
    }
    w.terms(&["x"], &["s"]);
    w.bridges[A].sources = [(INC, source_terms(&["s"]))].into();
    w.start(A);
    w
}

/// The node of the next rank waits its turn, and not longer.
#[test]
fn the_second_node_waits_its_turn() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.run_all();
    w.tick(B);
    w.later(B, POLICY.takeover_ms - 1);
    assert_eq!(closes(&w), []);
    w.later(B, 1);
    assert_eq!(closes(&w), [(1, 0)]);
}

/// One CLOSE in each interval; holes are told only where there are some.
#[test]
fn closes_keep_their_interval() {
    let mut w = World::started(1, 2);
    w.stage(A, &[1]);
    w.run(A);
    w.tick(A);
    assert_eq!(closes(&w), [(1, 0)]);
    w.run(A);
    w.stage(A, &[2]);
    w.run(A);
    w.later(A, POLICY.close_ms - 1);
    assert_eq!(closes(&w), []);
    w.later(A, 1);
    assert_eq!(closes(&w), [(2, 0)]);
    let holes = |fact: &Fact| matches!(fact, Fact::Holes { .. });
    assert!(!w.bridges[A].facts.iter().any(holes), "{:?}", w.bridges[A].facts);
}

/// W does not need the hub's floor where everything is claimed: one CLOSE passes all stable claims.
#[test]
fn stable_claims_are_passed_at_once() {
    let mut w = World::started(1, 3);
    for seq in 1..=3 {
        w.stage(A, &[seq]);
        w.run(A);
    }
    w.tick(A);
    assert_eq!(closes(&w), [(3, 0)]);
}

/// Gaps below the floor are looked at while a claim before them is not stable yet: the times to wait go on side by side.
#[test]
fn gaps_behind_an_unstable_claim_are_looked_at() {
    let policy = Policy {
        stability: Stability::After(10_000),
        ..POLICY
    };
    // The floor is the hole itself, or lies behind it.
    for (claimed, floor) in [(vec![1], 2), (vec![1, 3], 4)] {
        let mut w = filtered(policy, 5);
        for &seq in &claimed {
            w.stage(A, &[seq]);
            w.run(A);
        }
        w.source.acked.extend(&claimed);
        w.floor(A);
        w.tick(A);
        assert_eq!(asked(&w, A), (2..=floor).step_by(2).collect::<Vec<_>>());
        assert_eq!(closes(&w), []);
    }
}

/// A hole seen twice is passed together with the claim behind it, and neither that claim nor anything else is repaired.
#[test]
fn a_hole_and_the_claim_behind_it_are_passed_at_once() {
    let mut w = filtered(POLICY, 3);
    w.stage(A, &[1, 3]);
    w.run(A);
    w.floor(A);
    w.tick(A);
    assert_eq!((asked(&w, A), closes(&w)), (vec![2], vec![(1, 0)]));
    w.run(A);
    answer(&mut w, A);
    w.later(A, POLICY.audit_ms - 1);
    assert_eq!(asked(&w, A), []);
    w.later(A, 1);
    assert_eq!(asked(&w, A), [2]);
    answer(&mut w, A);
    w.run(A);
    w.tick(A);
    assert_eq!((asked(&w, A), closes(&w)), (vec![], vec![(3, 1)]));
    let repair = |fact: &Fact| matches!(fact, Fact::Repair { .. });
    assert!(!w.bridges[A].facts.iter().any(repair) && w.bridges[A].repairs.is_empty());
}

/// A message that the hub skipped is fetched when it was seen twice, far enough apart; behind it the gap goes on, up to the floor.
#[test]
fn skipped_messages_are_fetched_at_the_second_look() {
    // Behind the skipped ones lies a claimed message, or one that is not delivered yet.
    for claimed in [true, false] {
        let mut w = World::started(1, 3);
        w.source.skipped.extend([1, 2]);
        if claimed {
            w.stage(A, &[3]);
            w.run(A);
        }
        w.floor(A);
        w.tick(A);
        assert_eq!(asked(&w, A), [1]);
        answer(&mut w, A);
        assert_eq!(asked(&w, A), [2]);
        answer(&mut w, A);
        assert_eq!((asked(&w, A), &w.bridges[A].repairs), (vec![], &vec![]));
        w.later(A, POLICY.audit_ms - 1);
        assert_eq!(asked(&w, A), []);
        w.later(A, 1);
        assert_eq!(asked(&w, A), [1]);
        answer(&mut w, A);
        assert_eq!(
            (asked(&w, A), &w.bridges[A].repairs),
            (vec![2], &vec![StreamSeq(1)])
        );
        answer(&mut w, A);
        assert_eq!(w.bridges[A].repairs, [1, 2].map(StreamSeq));
        w.serve_repairs(A);
        w.run(A);
        w.assert_once(1..=2);
    }
}

/// An answer that comes when W has passed the message means nothing any more.
#[test]
fn a_late_answer_repairs_nothing() {
    let mut w = World::started(1, 2);
    w.stage(A, &[1, 2]);
    w.run(A);
    w.close_by(A);
    assert_eq!(w.closed(), StreamSeq(2));
    for _ in 0..2 {
        let late = Input::Audited {
            incarnation: INC,
            terms: w.truth.fold.terms().version,
            first: StreamSeq(1),
            next_matching: Some(StreamSeq(2)),
        };
        w.step(A, late);
        w.advance(POLICY.audit_ms);
    }
    assert_eq!(w.bridges[A].repairs, []);
}
