//! Goal: what is remembered on the way to the next watermark is exactly what is still of use. Method: a node that has read nothing, with
//! such memories put into it by hand.

use super::*;
use crate::node::{Identity, Policy};
use crate::recovery::{Disk, recover};

const SOURCE: Incarnation = Incarnation(7);

fn node() -> Node {
    recover(Identity::default(), Policy::default(), Disk::default())
}

/// What W has passed is forgotten, so that memory stays bounded, and nothing else is.
#[test]
fn what_w_has_passed_is_forgotten() {
    let at = Tick(5);
    let mut node = node();
    let state = node.close.entry(SOURCE).or_default();
    state.floor = StreamSeq(30);
    state.sightings = [(1, (9, at)), (10, (10, at)), (11, (11, at))].into();
    state.holes = SeqSet::range(8, 12);
    state.suspects = [(9, at), (10, at), (11, at)].into();
    state.asked = state.suspects.clone();
    state.due_since = Some(at);
    state.sent_at = Some(at);
    node.on_closed(SOURCE, StreamSeq(10));
    let expected = CloseState {
        floor: StreamSeq(30),
        sightings: [(11, (11, at))].into(),
        holes: SeqSet::range(11, 12),
        suspects: [(11, at)].into(),
        asked: [(11, at)].into(),
        sent_at: Some(at),
        ..CloseState::default()
    };
    assert_eq!(node.close.get(&SOURCE), Some(&expected));
    // A gap that reaches above W is still seen there.
    let state = node.close.entry(SOURCE).or_default();
    state.sightings = [(1, (11, at))].into();
    node.on_closed(SOURCE, StreamSeq(10));
    assert_eq!(node.close[&SOURCE].sightings, [(1, (11, at))].into());
}

/// A gap is looked at when nobody has looked, when the answer was lost, and the second time when enough time has passed since the
/// first; not a moment sooner. Other gaps, and what was seen of other sequences, play no part.
#[test]
fn looks_come_when_they_are_due() {
    const AUDIT_MS: u64 = 100;
    const RESEND_MS: u64 = 30;
    let at = |ms: u64| Tick(1_000 + ms);
    let gaps = [(5, 9)];
    let mut asked = CloseState::default();
    let mut due = |ms| asked.due_audits(at(ms), &gaps, AUDIT_MS, RESEND_MS);
    assert_eq!(due(0), [5]);
    assert_eq!(due(RESEND_MS - 1), [0; 0]);
    assert_eq!(due(RESEND_MS), [5], "the answer was lost");
    assert_eq!(due(2 * RESEND_MS - 1), [0; 0]);

    // First and last of what was seen, and whether the gap's first sequence lies in it.
    for (first, last, seen) in [
        (3, 4, false),
        (3, 5, true),
        (5, 5, true),
        (4, 9, true),
        (6, 9, false),
    ] {
        let sighted = CloseState {
            sightings: [(first, (last, at(0)))].into(),
            ..CloseState::default()
        };
        let due = |ms| sighted.clone().due_audits(at(ms), &gaps, AUDIT_MS, RESEND_MS);
        let early: &[u64] = if seen { &[] } else { &[5] };
        for ms in [0, AUDIT_MS - 1] {
            assert_eq!(due(ms), early, "{first} to {last}");
        }
        assert_eq!(due(AUDIT_MS), [5]);
    }

    let suspect = CloseState {
        suspects: [(5, at(0))].into(),
        ..CloseState::default()
    };
    let due = |ms| suspect.clone().due_audits(at(ms), &gaps, AUDIT_MS, RESEND_MS);
    assert_eq!((due(0), due(AUDIT_MS - 1)), (vec![], vec![]));
    assert_eq!(due(AUDIT_MS), [5]);

    let many: Vec<_> = (1..=AUDITS_MAX as u64 + 2).map(|n| (n * 2, n * 2)).collect();
    let due = CloseState::default().due_audits(at(0), &many, AUDIT_MS, RESEND_MS);
    assert_eq!(due.len(), AUDITS_MAX);
}

/// A log line names so many ranges of holes; all of them are counted, and W passes all.
#[test]
fn a_fact_names_so_many_holes() {
    let holes: SeqSet = (1..=200).filter(|seq| seq % 2 == 0).collect();
    let state = CloseState {
        holes,
        ..CloseState::default()
    };
    let mut plan = Plan {
        through: StreamSeq(1),
        holes: 0,
        hole_seqs: SeqSet::new(),
        gaps: Vec::new(),
    };
    for seq in (2..=200).step_by(2) {
        assert!(plan.pass_gap(&state, seq, seq, true));
    }
    assert_eq!((plan.through, plan.holes), (StreamSeq(200), 100));
    assert_eq!(plan.hole_seqs.ranges().len(), FACT_RANGES_MAX);
}

/// Behind a found message the gap goes on, as long as there is room for another look.
#[test]
fn looks_behind_a_found_message_are_bounded() {
    for (asked, looks) in [(AUDITS_MAX - 1, 1), (AUDITS_MAX, 0)] {
        let mut node = node();
        node.phase = crate::node::Phase::Active;
        let state = node.close.entry(SOURCE).or_default();
        state.floor = StreamSeq(9);
        state.asked = (100..).take(asked).map(|seq| (seq, Tick(0))).collect();
        let mut out = Vec::new();
        let found = Some(StreamSeq(1));
        node.on_audited(Tick(0), SOURCE, StreamSeq(1), found, &mut out);
        let audits = out.iter().filter(|effect| matches!(effect, Effect::Audit { .. }));
        assert_eq!(audits.count(), looks);
    }
}
