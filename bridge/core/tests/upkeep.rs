//! Goal: upkeep that any node may do for all is done by one that may judge, and gets done under steady load. Method: as in
//! `findings`; time passes in small steps, so that every due moment is met.

mod support;

use std::collections::BTreeMap;

use fanin_core::effect::Fact;
use fanin_core::ids::{LedgerSeq, StreamSeq, Tick};
use fanin_core::node::{Phase, Policy, Stability, Withheld};
use fanin_core::record::{Body as RecordBody, CheckpointPart};
use fanin_core::seq_set::SeqSet;
use support::{A, B, INC, POLICY, World, source_terms};

/// Milliseconds after which a record is stable on the lazy hub of these tests.
const STABLE_MS: u64 = 1_000;

/// How many looks for holes a node has asked for, and whether a CLOSE of it is on its way.
fn judges(w: &World, who: usize) -> (usize, bool) {
    let close = w
        .flights
        .iter()
        .any(|flight| flight.from == who && matches!(flight.record.body, RecordBody::Close(_)));
    (w.bridges[who].audits.len(), close)
}

/// One round of upkeep by both nodes; `A` must not judge in it.
fn round_without_a(w: &mut World) {
    for who in [A, B] {
        w.finish_all(who);
        w.run(who);
        w.floor(who);
    }
    w.advance(150);
    for who in [A, B] {
        w.tick(who);
        if who == A {
            assert_eq!(judges(w, A), (0, false), "a node with other filters judged");
        }
        w.answer_audits(who);
        w.serve_repairs(who);
        w.run(who);
    }
}

/// P9, P10: a node whose configuration names more than a TERMS record can hold writes none, says why, and goes on under
/// the terms in force; the guard of these tests reads every record that is sent. Method: sources of other streams, with more
/// subjects than one may have, then more sources than there may be, then more bytes than a record has.
#[test]
fn p9_terms_that_nobody_could_read_are_never_written() {
    use fanin_core::ids::Incarnation;
    use fanin_core::limits::{FILTERS_MAX, SOURCES_MAX, SUBJECT_BYTES_MAX};
    use fanin_core::record::SourceTerms;
    use fanin_core::wire::DecodeError;
    let source = |n: u64, filters: usize, length: usize| {
        let stream = format!("T{n}");
        let filters = (0..filters).map(|f| format!("{f:0length$}")).collect();
        (Incarnation(1_000 + n), SourceTerms { stream, filters })
    };
    let one = |filters| vec![source(1, filters, 4)];
    let many = |count: usize| (1..=count as u64).map(|n| source(n, 1, 4)).collect::<Vec<_>>();
    let long = |count: u64| {
        (1..=count)
            .map(|n| source(n, 60, SUBJECT_BYTES_MAX))
            .collect::<Vec<_>>()
    };
    // The source of the tests is one of them.
    let table = [
        (one(FILTERS_MAX), None),
        (one(FILTERS_MAX + 1), Some("filters of a source")),
        (many(SOURCES_MAX - 1), None),
        (many(SOURCES_MAX), Some("sources of the terms")),
        (long(4), None),
        (long(5), Some("bytes of the terms")),
    ];
    for (sources, refused) in table {
        let first = sources[0].0;
        let mut w = World::new(1, &["x"], 1);
        w.bridges[A].sources.extend(sources);
        w.start(A);
        for _ in 0..4 {
            w.later(A, 600);
            w.run(A);
        }
        assert_eq!(*w.phase(A), Phase::Active);
        let expected = refused.map(|limit| Withheld::TermsUnfit(DecodeError::Limit(limit)));
        assert_eq!(w.node(A).may_pull(first).err(), expected);
        assert_eq!(w.node(A).may_pull(INC), Ok(()), "the terms in force stay");
        w.stage(A, &[1]);
        w.run(A);
        w.assert_once([1]);
    }
}

/// P6, P9: a node whose configuration filters otherwise than the terms say neither looks for holes nor closes, though its
/// rank is the lowest; the next one does both, and finds the message that the hub skipped. Configured alike again, the first
/// one closes at once.
#[test]
fn p6_a_node_configured_otherwise_leaves_closing_to_the_others() {
    let mut w = World::new(2, &["x"], 3);
    w.source.messages.get_mut(&2).unwrap().subject = "t";
    w.bridges[A].sources = BTreeMap::from([(INC, source_terms(&["s"]))]);
    w.start(A);
    w.start(B);
    w.source.skipped.insert(2);
    assert_eq!(w.node(A).may_pull(INC), Err(Withheld::FilterDiffers));
    w.stage(B, &[1, 3]);
    w.run_all();
    for _ in 0..40 {
        round_without_a(&mut w);
    }
    let repaired = Fact::Repair {
        incarnation: INC,
        seq: StreamSeq(2),
    };
    assert!(w.bridges[B].facts.contains(&repaired));
    assert_eq!(w.closed(), StreamSeq(3));
    w.assert_once(1..=3);
    assert_eq!(w.publishers("x", 2), [B]);

    w.crash(A);
    w.bridges[A].sources = BTreeMap::from([(INC, source_terms(&[]))]);
    w.start(A);
    w.source.publish(1, "s");
    w.stage(A, &[4]);
    w.run_all();
    w.later(A, 150);
    assert!(judges(&w, A).1, "the lowest rank closes at once");
}

/// P6: the same under terms that name fewer messages than the node's configuration: what is a hole for all is none for it,
/// and again it leaves that to a node which may say so.
#[test]
fn p6_a_wider_configuration_does_not_judge_either() {
    let mut w = World::new(2, &["x"], 3);
    w.terms(&["x"], &["s"]);
    w.source.messages.get_mut(&2).unwrap().subject = "t";
    w.bridges[B].sources = BTreeMap::from([(INC, source_terms(&["s"]))]);
    w.start(A);
    w.start(B);
    w.stage(B, &[1, 3]);
    w.run_all();
    for _ in 0..40 {
        round_without_a(&mut w);
    }
    assert_eq!(w.closed(), StreamSeq(3));
    assert!(w.publishers("x", 2).is_empty());
    let holes = Fact::Holes {
        incarnation: INC,
        count: 1,
        seqs: SeqSet::range(2, 2),
    };
    assert!(w.bridges[B].facts.contains(&holes));
}

/// P7: under steady load on a lazy hub a newer checkpoint is always there before the last one is stable. The ledger is
/// truncated all the same, behind stable ones only, and stays small.
#[test]
fn p7_the_ledger_is_truncated_under_steady_load() {
    let policy = Policy {
        stability: Stability::After(STABLE_MS),
        checkpoint_records: 4,
        ..POLICY
    };
    let mut w = World::new(1, &["x"], 0).with_policy(policy);
    w.start(A);
    // When each checkpoint was complete, by its position.
    let mut complete: BTreeMap<LedgerSeq, Tick> = BTreeMap::new();
    let mut through = Vec::new();
    let mut longest = 0;
    // The load ends at a moment with two checkpoints that are not stable yet.
    let unstable = |complete: &BTreeMap<LedgerSeq, Tick>, now: Tick| {
        complete.values().filter(|at| now.since(**at) < STABLE_MS).count()
    };
    while w.source.last() < 200 || unstable(&complete, w.now) < 2 {
        assert!(w.source.last() < 300, "one checkpoint at a time: {complete:?}");
        w.source.publish(1, "s");
        w.stage(A, &[w.source.last()]);
        w.run(A);
        w.finish_all(A);
        w.run(A);
        w.floor(A);
        w.later(A, 100);
        w.run(A);
        if let Some(found) = w.ledger.checkpoint() {
            complete.entry(found.witness.position).or_insert(w.now);
        }
        for (position, _) in &w.bridges[A].purges {
            let age_ms = w.now.since(complete[position]);
            assert!(
                age_ms >= STABLE_MS,
                "purges behind {position}, which is {age_ms} ms old"
            );
            let newest = complete.last_key_value().unwrap();
            assert!(
                newest.0 == position || w.now.since(*newest.1) < STABLE_MS,
                "a newer stable checkpoint is passed over"
            );
            through.push(*position);
        }
        w.purge(A);
        longest = longest.max(w.ledger.entries.len());
    }
    assert!(complete.len() > 15, "the load was not steady: {complete:?}");
    assert!(through.len() >= 8, "truncated {} times only", through.len());
    assert!(through.is_sorted_by(|a, b| a < b), "{through:?}");
    let appended = w.ledger.last.0;
    assert!(
        longest < 150 && appended > 500,
        "{longest} of {appended} records were there at once"
    );

    // The newest checkpoint becomes stable in the end, and nobody has to write another one for that.
    let newest = *complete.last_key_value().unwrap().0;
    assert!(through.last() < Some(&newest), "the newest one is not stable yet");
    w.later(A, STABLE_MS);
    w.later(A, STABLE_MS);
    assert_eq!(w.bridges[A].purges.last().map(|purge| purge.0), Some(newest));
    w.purge(A);
    w.crash(A);
    w.start(A);
    w.assert_once(1..=w.source.last());
}

/// P7: two writers may cut one state into different numbers of parts. Parts of the one never complete the other: nobody purges
/// behind such a mixture, and nobody loads it.
#[test]
fn p7_parts_of_two_cuts_do_not_mix() {
    let mut w = World::started(2, 2);
    w.stage(B, &[1]);
    w.run_all();
    let whole = fanin_core::checkpoint::write(w.node(A).fold()).unwrap().remove(0);
    let RecordBody::Checkpoint(body) = whole.body else {
        panic!("a checkpoint")
    };
    let part = |part: u32, parts: u32| {
        let cut = |at: u32| body.bytes.len() * at as usize / parts as usize;
        RecordBody::Checkpoint(CheckpointPart {
            part,
            parts,
            bytes: body.bytes[cut(part)..cut(part + 1)].to_vec(),
            ..body.clone()
        })
    };
    for (number, of) in [(0, 3), (1, 3), (0, 2)] {
        w.put(part(number, of));
    }
    w.tail_all(A);
    w.later(A, 100_000);
    assert!(w.bridges[A].purges.is_empty());
    w.crash(B);
    w.start(B);
    assert_eq!(*w.phase(B), Phase::Active);

    w.put(part(1, 2));
    w.run_all();
    w.purge_by(A);
    w.crash(B);
    w.start(B);
    assert_eq!(*w.phase(B), Phase::Active);
    assert_eq!(w.bridges[B].loads, 0, "loaded at the start, not in a gap");
    w.stage(A, &[1, 2]);
    w.run_all();
    w.assert_once(1..=2);
    assert_eq!(w.publishers("x", 1), [B]);
}
