//! Goal: what a source loses before anybody has taken it is told once, by the sequences that were there (P10); nothing that is
//! there, was taken, or may be an answer from before is told. Method: looks at a source of the test's choice, as in `reused`.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one fact among many"
)]

mod support;

use fanin_core::effect::Fact;
use fanin_core::ids::StreamSeq;
use fanin_core::input::Input;
use fanin_core::node::Phase;
use support::{A, B, INC, Source, World};

/// The times of a source's second life: behind everything of the first.
fn anew(seq: u64) -> i64 {
    Source::published_ns(1_000_000 + seq)
}

/// One look: the stream ends at `last`, and has these times.
fn see(w: &mut World, who: usize, last: u64, time_of: impl Fn(u64) -> i64) {
    let probe = w.node(who).source_probe(INC);
    let there = probe.messages().filter(|seq| seq.0 <= last);
    let input = Input::SourceSeen {
        incarnation: INC,
        reaches: probe.reaches,
        last: StreamSeq(last),
        last_ns: if last == 0 { 0 } else { time_of(last) },
        probes: there.map(|seq| (seq, time_of(seq.0))).collect(),
    };
    w.step(who, input);
    assert_eq!(*w.phase(who), Phase::Active);
}

/// What was told of the source's losses.
fn lost(w: &World, who: usize) -> Vec<(u64, u64)> {
    let facts = w.bridges[who].facts.iter();
    facts
        .filter_map(|fact| match fact {
            Fact::SourceLost { first, last, .. } => Some((first.0, last.0)),
            _ => None,
        })
        .collect()
}

/// The stream ends earlier, and stays so for `audit_ms`: what nobody had taken is told, once. Where it ends now says nothing of what
/// it lost, for it may have grown again since.
#[test]
fn a_shorter_stream() {
    let mut w = World::started(2, 20);
    let audit_ms = w.bridges[A].policy.audit_ms;
    w.stage(A, &[1, 2, 3]);
    w.run_all();
    for who in [A, B] {
        see(&mut w, who, 20, Source::published_ns);
        see(&mut w, who, 15, Source::published_ns);
        w.advance(audit_ms - 1);
        see(&mut w, who, 14, Source::published_ns);
        assert_eq!(lost(&w, who), []);
        w.advance(1);
        see(&mut w, who, 14, Source::published_ns);
        assert_eq!(lost(&w, who), [(4, 20)]);
        for _ in 0..3 {
            w.advance(audit_ms);
            see(&mut w, who, 14, Source::published_ns);
        }
        assert_eq!(lost(&w, who), [(4, 20)]);
    }
}

/// A leader that is being replaced answers from before, and then the stream is as long as it was.
#[test]
fn an_answer_from_before() {
    let mut w = World::started(1, 20);
    for last in [20, 12, 20, 12, 25, 7, 25] {
        see(&mut w, A, last, Source::published_ns);
        w.advance(w.bridges[A].policy.audit_ms - 1);
    }
    assert_eq!(lost(&w, A), []);
}

/// The stream has grown again between two looks: the message at its old end is another one. What was taken by then is not among
/// what is told, for claims and batches in hand tell by themselves.
#[test]
fn grown_again() {
    for taken in [0, 1, 3] {
        let mut w = World::started(1, 9);
        if taken > 0 {
            w.stage(A, &(1..=taken).collect::<Vec<_>>());
            w.run_all();
        }
        see(&mut w, A, 9, Source::published_ns);
        let time_of = |seq: u64| {
            if seq > 6 {
                anew(seq)
            } else {
                Source::published_ns(seq)
            }
        };
        see(&mut w, A, 30, time_of);
        assert_eq!(lost(&w, A), [(taken + 1, 9)]);
        see(&mut w, A, 31, time_of);
        assert_eq!(lost(&w, A).len(), 1);
    }
}

/// It was seen shorter once before it grew beyond its old end, and had grown by then already: all of it may be lost.
#[test]
fn seen_shorter_and_grown_again() {
    let mut w = World::started(1, 9);
    let time_of = |seq: u64| {
        if seq > 4 {
            anew(seq)
        } else {
            Source::published_ns(seq)
        }
    };
    see(&mut w, A, 9, Source::published_ns);
    see(&mut w, A, 6, time_of);
    see(&mut w, A, 12, time_of);
    assert_eq!(lost(&w, A), [(1, 9)]);
}

/// It grows beyond its old end while it is looked at: the message there was looked for before, and the end asked for behind that.
#[test]
fn grown_again_during_a_look() {
    let mut w = World::started(1, 9);
    let time_of = |seq: u64| {
        if seq > 6 {
            anew(seq)
        } else {
            Source::published_ns(seq)
        }
    };
    see(&mut w, A, 9, Source::published_ns);
    let input = Input::SourceSeen {
        incarnation: INC,
        reaches: w.node(A).source_probe(INC).reaches,
        last: StreamSeq(12),
        last_ns: time_of(12),
        probes: Vec::new(),
    };
    w.step(A, input);
    assert_eq!(lost(&w, A), []);
    see(&mut w, A, 14, time_of);
    assert_eq!(lost(&w, A), [(1, 9)]);
}

/// The last message is deleted, expires or is purged: the stream keeps its end, and what is not there says nothing.
#[test]
fn deleted_is_not_lost() {
    let mut w = World::started(1, 9);
    see(&mut w, A, 9, Source::published_ns);
    for last in [9, 12, 15, 15] {
        let probe = w.node(A).source_probe(INC);
        let input = Input::SourceSeen {
            incarnation: INC,
            reaches: probe.reaches,
            last: StreamSeq(last),
            last_ns: Source::published_ns(last),
            probes: Vec::new(),
        };
        w.step(A, input);
        w.advance(w.bridges[A].policy.audit_ms);
    }
    assert_eq!(
        w.node(A).source_probe(INC).end,
        Some(StreamSeq(15)),
        "it goes on from there"
    );
    assert_eq!(lost(&w, A), []);
}

/// A hub that does not say when the last message was stored: another message there shows nothing.
#[test]
fn no_time_is_no_proof() {
    let mut w = World::started(1, 9);
    let input = Input::SourceSeen {
        incarnation: INC,
        reaches: StreamSeq(0),
        last: StreamSeq(9),
        last_ns: 0,
        probes: Vec::new(),
    };
    w.step(A, input);
    see(&mut w, A, 12, anew);
    assert_eq!(lost(&w, A), []);
}

/// A source that never had a message: there is nothing to ask for, and the first ones are no loss.
#[test]
fn an_empty_source() {
    let mut w = World::started(1, 9);
    see(&mut w, A, 0, Source::published_ns);
    assert_eq!(w.node(A).source_probe(INC).messages().count(), 0);
    see(&mut w, A, 5, Source::published_ns);
    see(&mut w, A, 9, anew);
    assert_eq!(lost(&w, A), [(1, 5)]);
}
