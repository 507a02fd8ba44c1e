//! Goal: messages that no node can take in as the hub delivers them (the client library cannot read them) are found,
//! claimed once, acknowledged, and passed by W; healthy ones are left alone. Method: as in `findings`: scripted steps on
//! real nodes, every invariant checked after every step.

mod support;

use fanin_core::effect::Fact;
use fanin_core::ids::StreamSeq;
use fanin_core::limits::{STUCK_LOOKS_MAX, STUCK_SETTLE_MAX};
use fanin_core::node::{Policy, Stability};
use support::{A, B, INC, POLICY, World};

/// A round of a node's life: the hub delivers what is open, the floor is read, time passes, looks and fetches are served.
fn round(w: &mut World, who: usize) {
    let open: Vec<u64> = (1..=w.source.last())
        .filter(|seq| !w.source.acked.contains(seq))
        .collect();
    // One at a time, so that a healthy message behind an unreadable one arrives.
    for seq in open {
        w.fetch(who, &[seq]);
    }
    w.run(who);
    w.finish_all(who);
    w.floor(who);
    w.later(who, 250);
    w.answer_audits(who);
    w.serve_repairs(who);
    w.run_all();
}

fn stuck(w: &World, who: usize) -> Vec<u64> {
    let facts = w.bridges[who].facts.iter();
    facts
        .filter_map(|fact| {
            let Fact::Stuck { seq, .. } = fact else {
                return None;
            };
            Some(seq.0)
        })
        .collect()
}

/// Rounds on one node until its watermark reaches the end of the source.
fn until_closed(w: &mut World, who: usize, rounds_max: usize) {
    for _ in 0..rounds_max {
        if w.closed().0 == w.source.last() {
            return;
        }
        round(w, who);
    }
    panic!("W is {} of {}", w.closed(), w.source.last());
}

/// Several unreadable messages, one behind the other and apart, among healthy ones: each is staged once, told once,
/// acknowledged, and W reaches the end.
#[test]
fn unreadable_messages_are_fetched_claimed_and_closed() {
    let mut w = World::started(2, 30);
    w.source.poison.extend([1, 10, 11, 12, 30]);
    until_closed(&mut w, A, 60);
    w.assert_once(1..=30);
    let mut told = stuck(&w, A);
    told.sort_unstable();
    assert_eq!(told, [1, 10, 11, 12, 30]);
    assert_eq!(w.source.acked.len(), 30);
}

/// More of them than may be looked for at once: they are taken in turn.
#[test]
fn a_whole_stream_of_unreadable_messages_is_freed() {
    let count = 5 * STUCK_LOOKS_MAX as u64;
    let mut w = World::started(1, count);
    w.source.poison.extend(1..=count);
    until_closed(&mut w, A, 100);
    w.assert_once(1..=count);
    assert_eq!(stuck(&w, A).len() as u64, count);
}

/// Where some were found, the next ones are taken sooner: a publisher that writes one such message writes many.
#[test]
fn the_next_ones_are_taken_sooner() {
    let mut w = World::started(1, 2);
    w.source.poison.extend([1, 2]);
    let mut taken_ms = Vec::new();
    for seq in [1, 2] {
        let start = w.now;
        while stuck(&w, A).len() < seq {
            w.source.delivered = seq as u64;
            w.floor(A);
            w.later(A, 50);
            w.answer_audits(A);
            w.serve_repairs(A);
            w.run_all();
            assert!(w.now.since(start) < 10 * POLICY.stuck_ms);
        }
        taken_ms.push(w.now.since(start));
    }
    assert!(taken_ms[0] >= POLICY.stuck_ms, "{taken_ms:?}");
    assert!(taken_ms[1] < POLICY.stuck_ms, "{taken_ms:?}");
}

/// A message that is merely in another node's hands is left alone while that node may still claim it.
#[test]
fn young_messages_are_left_alone() {
    let mut w = World::started(2, 3);
    w.stage(B, &[1]);
    w.fetch(A, &[2, 3]);
    w.run(A);
    for _ in 0..5 {
        w.floor(A);
        w.later(A, 250);
    }
    assert!(w.bridges[A].audits.is_empty() && w.bridges[A].repairs.is_empty());
    w.run_all();
    until_closed(&mut w, A, 10);
    assert_eq!(stuck(&w, A), []);
}

/// A node that is not pulling has no right to judge: what it would have met is simply not delivered.
#[test]
fn a_node_that_does_not_pull_does_not_judge() {
    let mut w = World::started(1, 2);
    w.source.delivered = 2;
    w.bridges[A].pulling = false;
    for _ in 0..40 {
        w.floor(A);
        w.later(A, 250);
    }
    assert!(w.bridges[A].audits.is_empty());
    w.bridges[A].pulling = true;
    for _ in 0..5 {
        w.floor(A);
        w.later(A, 250);
        assert!(
            w.bridges[A].audits.is_empty(),
            "the time without pulling does not count"
        );
    }
}

/// Counters that are not read any more say nothing: the consumer, or the source, may be another one.
#[test]
fn an_old_reading_is_no_evidence() {
    let mut w = World::started(1, 2);
    w.source.delivered = 2;
    // Long enough to count, and nobody has looked yet.
    for _ in 0..=POLICY.stuck_ms / 250 {
        w.floor(A);
        w.advance(250);
    }
    w.advance(POLICY.resend_ms);
    for _ in 0..40 {
        w.later(A, POLICY.resend_ms);
    }
    assert!(w.bridges[A].audits.is_empty());
}

/// One node at a time does it; when that one cannot, the next one does, later.
#[test]
fn another_node_takes_over() {
    let mut w = World::started(2, 2);
    w.source.poison.insert(1);
    w.fetch(B, &[1]);
    w.fetch(B, &[2]);
    w.run_all();
    let (mut first_ms, start) = (0, w.now);
    for _ in 0..20 {
        w.floor(B);
        w.later(B, 100);
        if first_ms == 0 && !w.bridges[B].audits.is_empty() {
            first_ms = w.now.since(start);
        }
    }
    assert!(first_ms >= POLICY.stuck_ms + POLICY.takeover_ms, "{first_ms}");
    w.answer_audits(B);
    w.serve_repairs(B);
    w.run_all();
    assert_eq!((w.publishers("x", 1), stuck(&w, B)), (vec![B], vec![1]));
}

/// Both nodes fetch it: the first valid claim wins, the other copy is dropped.
#[test]
fn two_nodes_at_once_publish_once() {
    let mut w = World::started(2, 1);
    w.source.poison.insert(1);
    for who in [A, B] {
        w.fetch(who, &[1]);
        for _ in 0..12 {
            w.floor(who);
            w.later(who, 200);
        }
        w.answer_audits(who);
        w.serve_repairs(who);
        w.sync(who);
    }
    w.run_all();
    w.assert_once([1]);
    assert_eq!((stuck(&w, A), stuck(&w, B)), (vec![1], vec![1]));
}

/// The owner dies between publishing and settling, and no redelivery can be read: the claim answers, by sequence.
#[test]
fn a_claimed_message_is_acknowledged_by_its_sequence() {
    let mut w = World::started(2, 4);
    w.source.poison.extend([2, 4]);
    until_closed(&mut w, A, 40);
    // The acknowledgements never got there, and W is behind, as for everybody who has just started.
    for seq in [2, 4] {
        w.source.acked.remove(&seq);
    }
    w.crash(A);
    w.start(A);
    let told = stuck(&w, A);
    for _ in 0..20 {
        round(&mut w, A);
    }
    assert_eq!(w.source.acked.len(), 4);
    assert_eq!(stuck(&w, A), told, "nothing is fetched again");
    w.assert_once(1..=4);
}

/// The same above W: the own claim answers when its publication is durable, another node's when it is stable.
#[test]
fn above_the_watermark_only_what_may_be_settled_is() {
    const LAZY_MS: u64 = 10_000;
    let policy = Policy {
        stability: Stability::After(LAZY_MS),
        ..POLICY
    };
    let mut w = World::new(2, &["x"], 2).with_policy(policy);
    w.start(A);
    w.start(B);
    w.stage(B, &[1, 2]);
    w.land(B);
    w.source.delivered = 2;
    w.source.poison.extend([1, 2]);
    w.tail_all(A);
    for _ in 0..20 {
        w.floor(A);
        w.later(A, 250);
    }
    assert_eq!(w.bridges[A].settled, [] as [u64; 0], "B's claim is not stable");
    w.run(B);
    assert_eq!(w.bridges[B].settled, [1, 2]);
    w.source.acked.clear();
    for _ in 0..40 {
        w.floor(A);
        w.later(A, 250);
    }
    assert_eq!(w.bridges[A].settled, [1, 2]);
}

/// Acknowledgements by sequence go out in bounded portions, and go on where the last one ended when the floor does not
/// follow them.
#[test]
fn acknowledgements_by_sequence_are_bounded_and_go_on() {
    let count = 2 * STUCK_SETTLE_MAX + 500;
    let mut w = World::started(1, count);
    let all: Vec<u64> = (1..=count).collect();
    for chunk in all.chunks(500) {
        w.stage(A, chunk);
        w.run(A);
    }
    w.bridges[A].settled.clear();
    w.source.delivered = count;
    for seq in &all {
        w.source.acked.remove(seq);
    }
    let mut portions = Vec::new();
    for _ in 0..12 {
        let before = w.bridges[A].settled.len();
        w.floor(A);
        w.later(A, 250);
        portions.push((w.bridges[A].settled.len() - before) as u64);
        // The hub has lost all of it again.
        w.source.acked.clear();
    }
    portions.retain(|&portion| portion > 0);
    assert_eq!(
        portions[..4],
        [STUCK_SETTLE_MAX, STUCK_SETTLE_MAX, 500, STUCK_SETTLE_MAX]
    );
}

/// What does not match the filter is not fetched, and more such gaps than may be looked into at once do not keep what
/// lies behind them from being found.
#[test]
fn the_filter_in_force_counts() {
    let last = 6 * STUCK_LOOKS_MAX as u64;
    let mut w = World::new(1, &["x"], 0);
    for _ in 0..last / 2 {
        w.source.publish(1, "t");
        w.source.publish(1, "s");
    }
    w.terms(&["x"], &["s"]);
    w.bridges[A].sources.insert(INC, support::source_terms(&["s"]));
    w.start(A);
    w.source.poison.extend([2, last]);
    for seq in (2..=last).step_by(2) {
        w.fetch(A, &[seq]);
    }
    w.run(A);
    for _ in 0..20 {
        w.floor(A);
        w.later(A, 100);
        w.answer_audits(A);
    }
    // Not served yet, so the floor is still below the first one.
    assert_eq!(w.bridges[A].repairs, [2, last].map(StreamSeq));
    for _ in 0..20 {
        w.serve_repairs(A);
        w.run(A);
        w.floor(A);
        w.later(A, 250);
        w.answer_audits(A);
    }
    assert_eq!(stuck(&w, A), [2, last]);
    w.assert_once((2..=last).step_by(2));
    assert_eq!(w.source.floor(w.truth.fold.terms()), StreamSeq(last));
}

/// A full log refuses the copy: nothing is lost, it is fetched again when there is room.
#[test]
fn a_full_log_delays_it() {
    let mut w = World::started(1, 1);
    w.source.poison.insert(1);
    w.bridges[A].disk.full = true;
    for _ in 0..12 {
        round(&mut w, A);
    }
    assert_eq!(w.closed(), StreamSeq(0));
    w.bridges[A].disk.full = false;
    until_closed(&mut w, A, 20);
    w.assert_once([1]);
}
