//! Goal: a source that was restored to an earlier copy, and gave sequences away again, halts every node that can know, before a
//! new message is taken for a copy of a claimed one (P10; B5, B6); nothing honest is taken for that. Method: as in `attacks`,
//! with publish times of the test's choice.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one fact among many"
)]

mod support;

use fanin_core::effect::Fact;
use fanin_core::fold::{Halt, Passed};
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_core::input::{FetchedMessage, Input};
use fanin_core::node::{Phase, SourceProbe};
use fanin_core::record::ClaimKind;
use fanin_core::seq_set::SeqSet;
use support::{A, B, INC, Source, World};

/// Messages arrive with these times.
fn arrive(w: &mut World, who: usize, messages: &[(u64, i64)]) {
    let message = |&(seq, published_ns): &(u64, i64)| FetchedMessage {
        seq: StreamSeq(seq),
        published_ns,
    };
    let input = Input::Fetched {
        ticket: 77,
        incarnation: INC,
        kind: ClaimKind::Normal,
        messages: messages.iter().map(message).collect(),
    };
    w.step(who, input);
}

/// The time of a message of the source's second life: behind everything of the first.
fn anew(seq: u64) -> i64 {
    Source::published_ns(1_000_000 + seq)
}

/// The source is looked at: what the node wanted to know, as of before.
fn see(w: &mut World, who: usize, last: u64, time_of: impl Fn(u64) -> Option<i64>) {
    let probe = w.node(who).source_probe(INC);
    let reaches = probe.reaches;
    let probes = probe.messages().filter_map(|seq| Some((seq, time_of(seq.0)?)));
    let probes = probes.collect();
    let last_ns = time_of(last).unwrap_or(0);
    let last = StreamSeq(last);
    w.step(
        who,
        Input::SourceSeen {
            incarnation: INC,
            reaches,
            last,
            last_ns,
            probes,
        },
    );
}

fn reused(w: &World, who: usize) -> (u64, (i64, i64), (i64, i64)) {
    let Phase::Halted(
        halt @ Halt::SequenceReused {
            stream,
            seq,
            found_ns,
            known_ns,
        },
    ) = w.phase(who)
    else {
        panic!("{:?}", w.phase(who));
    };
    let text = format!("{halt}; {}", halt.cure());
    for told in ["S", "published", "Z", "restore", "generation", "repair --source"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert_eq!(stream, "S");
    (seq.0, *found_ns, *known_ns)
}

fn times(first: u64, last: u64) -> (i64, i64) {
    (Source::published_ns(first), Source::published_ns(last))
}

/// What a halted node tells a repair: from where on the source holds other messages, and when what was there had been published,
/// with whether that is certain.
fn told(w: &World, who: usize) -> (u64, Option<(i64, bool)>) {
    let Some(found) = w.node(who).restored_source() else {
        panic!("no source is told");
    };
    assert_eq!(found.stream, "S");
    let known = found.known.map(|known| (known.ns, known.is_exact));
    (found.from.0, known)
}

/// A sequence that another node's claim owns above W.
#[test]
fn owned_by_another() {
    let mut w = World::started(2, 3);
    w.stage(A, &[1, 2, 3]);
    w.run_all();
    arrive(&mut w, B, &[(2, Source::published_ns(2))]);
    assert_eq!(w.bridges[B].settled, [2], "a copy is settled");
    arrive(&mut w, B, &[(4, anew(4)), (3, anew(3))]);
    assert_eq!(reused(&w, B), (3, (anew(3), anew(3)), times(1, 3)));
    // The batch also holds what was before the break: it may have been gathered while the restore came.
    assert_eq!(told(&w, B), (3, Some((Source::published_ns(3), false))));
    w.sync(B);
    assert_eq!(w.bridges[B].settled, [2]);
    assert!(w.hold(B).is_empty() && w.bridges[B].disk.image.batches.is_empty());
}

/// The owner itself meets it.
#[test]
fn owned_here() {
    let mut w = World::started(1, 3);
    w.stage(A, &[1, 2, 3]);
    w.run(A);
    let settled = w.bridges[A].settled.clone();
    arrive(&mut w, A, &[(1, anew(1))]);
    assert_eq!(reused(&w, A).0, 1);
    assert_eq!(told(&w, A), (1, Some((Source::published_ns(1), true))));
    assert_eq!(w.bridges[A].settled, settled);
}

/// The claimed one is staged and not decided.
#[test]
fn in_hand() {
    let mut w = World::started(1, 2);
    w.stage(A, &[1, 2]);
    arrive(&mut w, A, &[(1, Source::published_ns(1))]);
    assert_eq!(*w.phase(A), Phase::Active);
    arrive(&mut w, A, &[(1, anew(1))]);
    assert_eq!(reused(&w, A), (1, (anew(1), anew(1)), times(1, 2)));
}

/// The claims are finished, closed and forgotten: only what W passed is known, also behind a checkpoint.
#[test]
fn closed_and_forgotten() {
    for through_checkpoint in [false, true] {
        let mut w = World::started(2, 3);
        w.stage(A, &[1, 2, 3]);
        w.run_all();
        w.close_by(A);
        w.tail_all(B);
        assert!(w.node(B).fold().claims().is_empty());
        if through_checkpoint {
            w.checkpoint_and_purge(A);
            w.crash(B);
            w.start(B);
        }
        let passed = Passed {
            claimed_through: StreamSeq(3),
            newest_ns: Source::published_ns(3),
        };
        assert_eq!(w.node(B).fold().passed(INC), passed);
        arrive(&mut w, B, &[(2, Source::published_ns(2))]);
        assert_eq!(w.bridges[B].settled, [2]);
        arrive(&mut w, B, &[(1, anew(1))]);
        assert_eq!(
            reused(&w, B),
            (1, (anew(1), anew(1)), (i64::MIN, Source::published_ns(3)))
        );
        assert_eq!(told(&w, B), (1, Some((Source::published_ns(3), false))));
        assert_eq!(w.bridges[B].settled, [2]);
    }
}

/// Both messages of one sequence are staged, one here and one there. Whoever reads the second claim halts at it, with the batch
/// as it was, so that nothing is tombstoned; so does whoever has the other in hand.
#[test]
fn both_are_claimed() {
    let mut w = World::started(2, 2);
    w.stage(A, &[1, 2]);
    let held = w.hold(A);
    arrive(&mut w, B, &[(2, anew(2))]);
    w.sync(B);
    w.land_all(B);
    w.tail_all(A);
    assert_eq!(reused(&w, A), (2, (anew(2), anew(2)), times(1, 2)));
    assert_eq!(w.node(A).unresolved(), 1, "staged for whoever decides");
    w.tail_all(B);
    w.sync(B);
    assert_eq!(*w.phase(B), Phase::Active, "it cannot know yet");
    w.flush(&held[0]);
    w.tail_all(B);
    assert_eq!(reused(&w, B), (2, times(1, 2), (anew(2), anew(2))));
    for who in [A, B] {
        // Not that of the message that has come since, whichever of the two is in hand.
        assert_eq!(told(&w, who), (2, Some((Source::published_ns(2), false))));
    }
    assert_eq!(w.publishers("x", 2), [B]);
}

/// The same, known only from a checkpoint. With the generation raised the old source is not judged any more: the batch is
/// decided, and what the other message of its sequence took from it is told as given up.
#[test]
fn both_are_claimed_as_a_checkpoint_says() {
    let mut w = World::started(2, 3);
    w.stage(A, &[1, 2]);
    let held = w.hold(A);
    w.crash(A);
    arrive(&mut w, B, &[(2, anew(2))]);
    w.run(B);
    w.checkpoint_and_purge(B);
    w.start(A);
    assert_eq!(reused(&w, A).0, 2);
    w.flush(&held[0]);
    w.crash(A);
    let next = Incarnation(0xB2);
    w.bridges[A].sources = [(next, support::source_terms(&[]))].into();
    w.bridges[A].policy.accept_terms = true;
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active, "{:?}", w.phase(A));
    w.run(A);
    let told = w.bridges[A].facts.iter().find_map(|fact| match fact {
        Fact::ClaimResolved {
            won, lost, given_up, ..
        } => Some((*won, *lost, given_up.clone())),
        _ => None,
    });
    assert_eq!(told, Some((1, 0, SeqSet::range(2, 2))));
}

/// A stream that ends before what it had given, seen twice; seen once, it may have been a server of yesterday's.
#[test]
fn shrunk() {
    let mut w = World::started(2, 9);
    w.stage(A, &[1, 2, 3]);
    w.run_all();
    w.close_by(A);
    w.stage(A, &[8]);
    w.run_all();
    let audit_ms = w.bridges[A].policy.audit_ms;
    for who in [A, B] {
        assert_eq!(
            w.node(who).source_probe(INC),
            SourceProbe {
                reaches: StreamSeq(8),
                newest: Some(StreamSeq(8)),
                before: None,
                end: None,
            }
        );
        see(&mut w, who, 5, |_| None);
        w.advance(audit_ms - 1);
        see(&mut w, who, 5, |_| None);
        see(&mut w, who, 8, |_| None);
        assert_eq!(*w.phase(who), Phase::Active);
        see(&mut w, who, 7, |_| None);
        w.advance(audit_ms);
        assert_eq!(*w.phase(who), Phase::Active);
        see(&mut w, who, 7, |_| None);
        let expected = Halt::SourceShrank {
            stream: "S".to_owned(),
            last: StreamSeq(7),
            known: StreamSeq(8),
            known_ns: Source::published_ns(8),
        };
        assert_eq!(*w.phase(who), Phase::Halted(expected.clone()));
        assert_eq!(told(&w, who), (8, Some((Source::published_ns(8), true))));
        let text = format!("{expected}; {}", expected.cure());
        for told in ["stream S", "sequence 7", "but 8", "Z)", "generation"] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}

/// A stream that has grown beyond what was lost: nothing new is ever delivered here, the newest claimed message tells.
#[test]
fn regrown() {
    let mut w = World::started(2, 9);
    w.stage(A, &[1, 2, 3]);
    w.run_all();
    see(&mut w, B, 20, |seq| Some(anew(seq)));
    assert_eq!(reused(&w, B).0, 3);
    w.close_by(A);
    see(&mut w, A, 20, |seq| Some(Source::published_ns(seq)));
    assert_eq!(*w.phase(A), Phase::Active);
    see(&mut w, A, 20, |seq| Some(anew(seq)));
    assert_eq!(reused(&w, A).0, 3);
}

/// The newest claim may be of a message that has come since the source went back. The one that was looked at before tells.
#[test]
fn regrown_and_claimed_anew() {
    for claimed_before in [false, true] {
        let mut w = World::started(2, 9);
        w.stage(A, &[1]);
        if claimed_before {
            w.run_all();
        }
        see(&mut w, A, 1, |seq| Some(Source::published_ns(seq)));
        w.run_all();
        arrive(&mut w, B, &[(2, anew(2))]);
        w.run_all();
        w.close_by(A);
        assert_eq!(w.closed(), StreamSeq(2));
        see(&mut w, B, 2, |seq| Some(anew(seq)));
        assert_eq!(*w.phase(B), Phase::Active, "it has not looked before");
        see(&mut w, A, 2, |seq| (seq == 2).then(|| anew(seq)));
        assert_eq!(*w.phase(A), Phase::Active, "what is gone says nothing");
    }
    let mut w = World::started(2, 9);
    w.stage(A, &[1]);
    see(&mut w, A, 1, |seq| Some(Source::published_ns(seq)));
    w.run_all();
    arrive(&mut w, B, &[(2, anew(2))]);
    w.run_all();
    w.close_by(A);
    see(&mut w, A, 2, |seq| Some(anew(seq)));
    assert_eq!(reused(&w, A), (1, (anew(1), anew(1)), times(1, 1)));
    assert_eq!(told(&w, A), (1, Some((Source::published_ns(1), true))));
}

/// What W has passed may have come since the restore, so that its newest time shows nothing. What was looked at does, and so does a
/// claim that is kept.
#[test]
fn what_came_since_does_not_tell_when_the_restore_came() {
    for (looks, passes) in [(false, true), (true, true), (false, false)] {
        let mut w = World::started(2, 5);
        w.stage(A, &[1, 2]);
        w.run_all();
        w.stage(A, &[5]);
        w.run_all();
        if looks {
            see(&mut w, B, 5, |seq| Some(Source::published_ns(seq)));
        }
        // The stream goes back to 2. Nobody had claimed 3 and 4.
        arrive(&mut w, A, &[(3, anew(3)), (4, anew(4))]);
        w.run_all();
        if passes {
            w.close_by(A);
            w.run_all();
            assert_eq!(w.node(B).fold().passed(INC).newest_ns, anew(4));
            assert!(w.node(B).fold().claims().is_empty());
        }
        arrive(&mut w, B, &[(5, anew(5))]);
        let expected = if looks || !passes {
            (Source::published_ns(5), true)
        } else {
            (anew(4), false)
        };
        assert_eq!(told(&w, B), (5, Some(expected)));
    }
}

/// What is claimed while the source is being looked at plays no part: the answer is from before.
#[test]
fn a_slow_answer_is_no_cause() {
    let mut w = World::started(1, 9);
    for seq in 1..=4 {
        let SourceProbe { reaches, .. } = w.node(A).source_probe(INC);
        w.stage(A, &[seq]);
        w.run(A);
        w.advance(10_000);
        let input = Input::SourceSeen {
            incarnation: INC,
            reaches,
            last: StreamSeq(seq - 1),
            last_ns: 0,
            probes: Vec::new(),
        };
        w.step(A, input);
        assert_eq!(*w.phase(A), Phase::Active);
    }
}

/// A purged source keeps its last sequence; a deleted or expired message says nothing.
#[test]
fn a_purge_is_no_cause() {
    let mut w = World::started(1, 3);
    w.stage(A, &[1, 2, 3]);
    w.run(A);
    for _ in 0..3 {
        see(&mut w, A, 3, |_| None);
        w.advance(10_000);
    }
    assert_eq!(*w.phase(A), Phase::Active);
}

/// Everything is delivered again at every stage of its life, also as a repair, and is what it was.
#[test]
fn redelivery_is_no_cause() {
    let mut w = World::started(2, 4);
    w.stage(A, &[1, 2, 3]);
    w.stage(B, &[3, 4]);
    for _ in 0..3 {
        for who in [A, B] {
            w.fetch(who, &[1, 2, 3, 4]);
            w.fetch_as(who, &[2], ClaimKind::Repair);
        }
        w.run_all();
        w.close_by(A);
    }
    assert_eq!(w.closed(), StreamSeq(4));
    w.crash(B);
    w.start(B);
    w.fetch(B, &[1, 2, 3, 4]);
    assert_eq!((w.phase(A), w.phase(B)), (&Phase::Active, &Phase::Active));
    w.assert_once(1..=4);
}

/// The hub's clock goes back between messages: later sequences have earlier times. Batches that hold both, and W behind them.
#[test]
fn a_clock_that_goes_back_is_no_cause() {
    let mut w = World::started(2, 4);
    let sent = [(1, 500), (2, 900), (3, 100), (4, 200)];
    arrive(&mut w, A, &[sent[0], sent[2]]);
    w.sync(A);
    arrive(&mut w, B, &sent[1..]);
    w.sync(B);
    w.run_all();
    for _ in 0..2 {
        for who in [A, B] {
            arrive(&mut w, who, &sent);
            see(&mut w, who, 4, |seq| Some(sent[seq as usize - 1].1));
        }
        w.close_by(A);
        w.run_all();
    }
    assert_eq!(w.closed(), StreamSeq(4));
    let passed = Passed {
        claimed_through: StreamSeq(4),
        newest_ns: 900,
    };
    assert_eq!(w.node(B).fold().passed(INC), passed);
    assert_eq!((w.phase(A), w.phase(B)), (&Phase::Active, &Phase::Active));
    w.assert_once(1..=4);
}

/// A message that no filter had let pass lies below W as a hole, before the last claimed one or behind it. Wider filters let it
/// come: it is settled, as ever, and nobody halts.
#[test]
fn a_hole_under_wider_filters_is_no_cause() {
    let mut w = World::new(1, &["x"], 4);
    w.terms(&["x"], &["s"]);
    for hole in [2, 4] {
        w.source.messages.get_mut(&hole).unwrap().subject = "t";
    }
    w.bridges[A].sources = [(INC, support::source_terms(&["s"]))].into();
    w.start(A);
    w.stage(A, &[1, 3]);
    w.run(A);
    for _ in 0..3 {
        w.close_by(A);
    }
    assert_eq!(w.closed(), StreamSeq(4));
    assert_eq!(w.node(A).fold().passed(INC).claimed_through, StreamSeq(3));
    w.crash(A);
    w.terms(&["x"], &[]);
    w.bridges[A].sources = [(INC, support::source_terms(&[]))].into();
    w.start(A);
    w.fetch(A, &[2, 4]);
    assert_eq!(*w.phase(A), Phase::Active);
    assert_eq!(w.bridges[A].settled[w.bridges[A].settled.len() - 2..], [2, 4]);
}

/// What a node holds staged while another claims it, finishes it, and W passes it: lost to that one, not given up by anybody.
/// Behind a checkpoint that does not show the claim any more nobody can know, and it is told.
#[test]
fn what_another_finished_is_not_given_up() {
    for through_checkpoint in [false, true] {
        let mut w = World::started(2, 2);
        w.stage(B, &[1, 2]);
        let held = w.hold(B);
        if through_checkpoint {
            w.crash(B);
        }
        w.stage(A, &[1, 2]);
        w.run(A);
        w.close_by(A);
        assert_eq!(w.closed(), StreamSeq(2));
        if through_checkpoint {
            w.checkpoint_and_purge(A);
            w.start(B);
            w.land_all(B);
        } else {
            w.flush(&held[0]);
        }
        w.run(B);
        let told = w.bridges[B].facts.iter().find_map(|fact| match fact {
            Fact::ClaimResolved {
                won,
                lost,
                tombstoned,
                ..
            } => Some((*won, *lost, *tombstoned)),
            _ => None,
        });
        let expected = if through_checkpoint { (0, 0, 2) } else { (0, 2, 0) };
        assert_eq!(told, Some(expected));
        w.assert_once(1..=2);
    }
}
