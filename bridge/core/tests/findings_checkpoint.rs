//! Goal: the second round of the model's counterexamples, about checkpoint and truncate (P7) and holes (P6), stays impossible.
//! Method: as in `findings`; names follow the table's rows.

mod support;

use fanin_core::effect::Fact;
use fanin_core::fold::Halt;
use fanin_core::ids::{BatchNo, LedgerSeq, StreamSeq};
use fanin_core::node::Phase;
use fanin_core::record::{Body as RecordBody, CheckpointPart, Close, Progress};
use fanin_core::seq_set::SeqSet;
use support::{A, B, C, World};

/// Round two: B's claim is valid and won nothing. A checkpoint with its won set says so; ranges alone would give it 1.
#[test]
fn checkpoint_with_ranges_no_won_sets() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.stage(B, &[1]);
    w.land(A);
    w.land(B);
    w.run(A);
    w.close_by(A);
    assert_eq!(w.closed(), StreamSeq(1));
    w.checkpoint_and_purge(A);
    w.run_all();
    assert!(w.bridges[B].loads > 0);
    assert_eq!(w.publishers("x", 1), [A]);
}

/// Round two: a done claim above W stays in the checkpoint, or a node that reads only that would win behind it.
#[test]
fn checkpoint_keeps_done_claims_above_the_watermark() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    let held = w.hold(B);
    w.stage(A, &[1]);
    w.run(A);
    w.finish_all(A);
    w.sync(A);
    w.later(A, 50);
    w.flights
        .retain(|flight| !matches!(flight.record.body, RecordBody::Close(_)));
    w.land_all(A);
    assert_eq!(w.closed(), StreamSeq(0));
    w.tail_all(A);
    let fold = w.node(A).fold();
    // It is kept for W, and waits for no application.
    assert_eq!((fold.claims().len(), fold.open_claims()), (1, 0));
    w.checkpoint_and_purge(A);
    w.tail_all(B);
    w.flush(&held[0]);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// Round two: a claim at or below W that is not done stays, or its owner would tombstone.
#[test]
fn checkpoint_keeps_unfinished_claims_below_the_watermark() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.land(B);
    w.tail_all(A);
    w.fetch(A, &[1]);
    w.close_by(A);
    assert_eq!(w.closed(), StreamSeq(1));
    assert_eq!(w.node(A).fold().open_claims(), 1);
    w.checkpoint_and_purge(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [B]);
}

/// Round two: a purge whose checkpoint never landed leaves an uncovered gap: halt, nothing lost, nothing sent.
#[test]
fn purge_without_its_checkpoint_halts() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    let claim = w.land(B);
    w.purge_through(claim);
    w.stage(A, &[1]);
    let first = LedgerSeq(5);
    w.tail_all(B);
    assert_eq!(*w.phase(B), Phase::Active, "nothing behind the gap was met yet");
    w.land(A);
    w.tail_all(B);
    assert_eq!(*w.phase(B), Phase::Halted(Halt::Gap { first, last: claim }));
    assert_eq!(w.node(B).unresolved(), 1);
    assert!(w.publishers("x", 1).is_empty());
}

/// Round two: the state's position is the last record its writer had folded, not where the checkpoint landed.
#[test]
fn checkpoint_position_is_not_where_it_landed() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let parts = fanin_core::checkpoint::write(w.node(B).fold()).unwrap();
    let position = w.node(B).fold().position();
    let claim = w.land(A);
    for part in &parts {
        w.put_record(part);
    }
    assert!(position < claim);
    w.purge_through(position);
    // B closes 1 over A's claim. A loads the older state and still meets its claim behind it.
    w.close_by(B);
    assert_eq!(w.closed(), StreamSeq(1));
    w.crash(A);
    w.start(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [A]);
}

/// Round two: a reader goes on right behind the checkpoint's position, so that it meets an EPOCH that lies before the
/// checkpoint's record, and a claim of the older epoch behind both is void for it too.
#[test]
fn reader_continues_behind_the_position() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let old = w.hold(A);
    w.crash(A);
    let parts = fanin_core::checkpoint::write(w.node(B).fold()).unwrap();
    let position = w.node(B).fold().position();
    w.boot(A).unwrap();
    for part in &parts {
        w.put_record(part);
    }
    w.flush(&old[0]);
    w.purge_through(position);
    w.crash(A);
    w.start(A);
    assert!(w.truth.decided.is_empty(), "the old claim is void");
    w.stage(B, &[1]);
    w.run(B);
    w.run_all();
    w.assert_once([1]);
}

/// Round two: the newest checkpoint is the one with the highest position, whatever landed last.
#[test]
fn newest_checkpoint_is_by_position() {
    let mut w = World::started(3, 2);
    let older = fanin_core::checkpoint::write(w.node(B).fold()).unwrap();
    w.stage(A, &[1]);
    w.run(A);
    w.checkpoint_and_purge(A);
    for part in &older {
        w.put_record(part);
    }
    w.tail_all(B);
    w.crash(C);
    w.start(C);
    w.run_all();
    for who in [A, B, C] {
        assert_eq!(*w.phase(who), Phase::Active);
    }
    w.stage(C, &[1, 2]);
    w.run_all();
    w.assert_once(1..=2);
    assert_eq!(w.publishers("x", 1), [A]);
}

/// Round two: a purge removed the last EPOCH of nobody: the compare-and-set of the next start finds it.
#[test]
fn last_epoch_is_kept() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.run_all();
    w.checkpoint_and_purge(B);
    w.run_all();
    w.crash(A);
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active);
}

/// Round two: a batch keeps its number over a crash; the claim of the old life is the claim of that batch.
#[test]
fn reclaim_keeps_the_batch_number() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.crash(A);
    w.land(A);
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active);
    w.run(A);
    w.assert_once([1]);
    assert_eq!(
        w.truth.decided.keys().map(|key| key.batch).collect::<Vec<_>>(),
        [BatchNo(1)]
    );
}

/// Round two: part 1 of 2 is no checkpoint. Nobody purges behind it, and a node that needs it halts rather than load it;
/// with part 2 the same node goes on.
#[test]
fn incomplete_checkpoint_is_not_used() {
    let mut w = World::started(2, 2);
    w.stage(B, &[1]);
    w.run_all();
    let whole = fanin_core::checkpoint::write(w.node(A).fold()).unwrap().remove(0);
    let RecordBody::Checkpoint(body) = whole.body else {
        panic!("a checkpoint")
    };
    let half = body.bytes.len() / 2;
    let part = |part: u32, bytes: &[u8]| {
        RecordBody::Checkpoint(CheckpointPart {
            part,
            parts: 2,
            bytes: bytes.to_vec(),
            ..body.clone()
        })
    };
    w.put(part(0, &body.bytes[..half]));
    w.tail_all(A);
    w.later(A, 100_000);
    assert!(w.bridges[A].purges.is_empty());
    w.purge_through(body.position);
    let mut cut_off = w.clone();
    cut_off.crash(A);
    cut_off.start(A);
    assert!(
        matches!(cut_off.phase(A), Phase::Halted(_)),
        "{:?}",
        cut_off.phase(A)
    );
    cut_off.fetch(A, &[1, 2]);
    assert!(cut_off.bridges[A].disk.unsynced.is_empty());
    w.put(part(1, &body.bytes[half..]));
    w.crash(A);
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active);
    w.stage(A, &[1, 2]);
    w.run_all();
    w.assert_once(1..=2);
    assert_eq!(w.publishers("x", 1), [B]);
}

/// Round two: without done sets a node would keep a re-sent copy of a done claim that others drop.
#[test]
fn copy_of_a_done_claim_is_dropped_by_all() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    w.later(A, 600);
    let copies = w.hold(A);
    w.flush(&copies[0]);
    w.run(A);
    w.close_by(A);
    w.checkpoint_and_purge(A);
    w.crash(B);
    w.start(B);
    assert!(w.node(B).fold().claims().is_empty());
    w.flush(&copies[1]);
    w.run_all();
    assert!(w.truth.fold.claims().is_empty());
    w.assert_once([1]);
}

/// Round two: a node loads a checkpoint that lies behind its own EPOCH: it knows its epoch and hosts from it.
#[test]
fn checkpoint_behind_the_own_epoch() {
    let mut w = World::started(2, 1);
    w.crash(A);
    w.boot(A).unwrap();
    w.checkpoint_and_purge(B);
    w.stage(B, &[1]);
    w.run(B);
    w.crash(A);
    w.auto_load = false;
    w.boot(A).unwrap();
    w.checkpoint_and_purge(B);
    w.auto_load = true;
    w.load(A);
    w.tail_all(A);
    assert_eq!(*w.phase(A), Phase::Active);
    w.source.publish(1, "s");
    w.stage(A, &[2]);
    w.run_all();
    w.assert_once(1..=2);
}

/// Round two: a node that has not reached its own EPOCH stages nothing, so no hole can take what it holds.
#[test]
fn hole_is_closed_without_asking_and_counts_what_was_staged() {
    let mut w = World::started(1, 1);
    w.source.messages.get_mut(&1).unwrap().gone = true;
    let late = World::new(2, &["x"], 0).bridges[B].clone();
    w.bridges.push(late);
    w.boot(B).unwrap();
    w.fetch(B, &[1]);
    assert!(w.bridges[B].disk.unsynced.is_empty());
    w.close_by(A);
    assert_eq!(w.closed(), StreamSeq(1));
    w.tail_all(B);
    w.fetch(B, &[1]);
    assert_eq!(w.bridges[B].settled, [1]);
}

/// Round two: a filter was narrowed while a staged copy waited. It is claimed in time and published, never dropped in
/// silence.
#[test]
fn narrowed_filter_keeps_what_was_staged() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.terms(&["x"], &["t"]);
    w.land(B);
    assert!(
        w.truth.decided.is_empty(),
        "claimed under terms that are no longer in force"
    );
    w.run_all();
    assert_eq!(w.publishers("x", 1), [B]);
}

/// Round two, the same row to its end: the source is closed over the hole before the staged copy is claimed. The copy is dropped
/// then, which is told and not silent, and no node publishes it.
#[test]
fn narrowed_filter_closed_before_the_claim() {
    let mut w = World::started(2, 1);
    w.stage(B, &[1]);
    w.hold(B);
    w.terms(&["x"], &["t"]);
    // Only a node whose configuration is that of the terms judges what is a hole.
    w.crash(A);
    w.bridges[A].sources = std::collections::BTreeMap::from([(support::INC, support::source_terms(&["t"]))]);
    w.start(A);
    for _ in 0..3 {
        w.tail_all(A);
        w.floor(A);
        w.later(A, 1_100);
        w.answer_audits(A);
        w.land_all(A);
    }
    assert_eq!(w.closed(), StreamSeq(1));
    assert!(
        w.bridges[A]
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::Holes { count: 1, .. }))
    );
    w.run_all();
    w.later(B, 600);
    w.run_all();
    assert_eq!(w.node(B).unresolved(), 0);
    assert!(w.publishers("x", 1).is_empty());
    let told = |fact: &Fact| matches!(fact, Fact::ClaimResolved { won: 0, lost: 0, .. });
    assert!(w.bridges[B].facts.iter().any(told), "{:?}", w.bridges[B].facts);
}

/// Round two: every node's hosts and state stand in a checkpoint, also of those that are not active: a reader that knows them
/// only from there decides as one that saw the records.
#[test]
fn checkpoint_has_hosts_and_states() {
    use fanin_core::ids::{NodeUuid, Nonce};
    use fanin_core::record::{EpochRecord, NodeState};
    let mut w = World::started(2, 1);
    w.crash(A);
    let states = [
        NodeState::Draining,
        NodeState::Closed,
        NodeState::Evacuated,
        NodeState::Active,
    ];
    for (n, &state) in states.iter().enumerate() {
        w.put(RecordBody::Epoch(EpochRecord {
            node_uuid: NodeUuid(50 + n as u128),
            node: format!("m{n}"),
            nonce: Nonce(5_000),
            hosts: support::names(&["x", "y"]),
            state,
        }));
    }
    w.tail_all(B);
    w.checkpoint_and_purge(B);
    w.start(A);
    assert_eq!(w.node(A).fold().nodes(), w.truth.fold.nodes());
    for (n, &state) in states.iter().enumerate() {
        let entry = &w.node(A).fold().nodes()[&NodeUuid(50 + n as u128)];
        assert_eq!((entry.state, &entry.hosts), (state, &support::names(&["x", "y"])));
    }
}

/// "A slow node whose claim was purged before it tailed it: void => absent, claims again, wins nothing at or below W."
#[test]
fn void_claim_purged_before_its_owner_read_it() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let void = w.hold(A);
    w.crash(A);
    w.boot(A).unwrap();
    w.flush(&void[0]);
    w.stage(B, &[1]);
    w.run(B);
    w.close_by(B);
    w.checkpoint_and_purge(B);
    w.tail_all(A);
    w.run_all();
    assert_eq!(w.publishers("x", 1), [B]);
    assert_eq!(w.node(A).unresolved(), 0);
}

/// "Late, repeated PROGRESS: done sets only grow."
#[test]
fn late_progress_changes_nothing() {
    let mut w = World::started(2, 2);
    for seq in [1, 2] {
        w.stage(A, &[seq]);
        w.run(A);
        w.finish_all(A);
        w.sync(A);
        w.later(A, 200);
    }
    let held = w.hold(A);
    for flight in held.iter().rev().chain(&held) {
        w.flush(flight);
    }
    w.run_all();
    let done = &w.truth.fold.nodes()[&w.bridges[A].uuid].done;
    assert_eq!(*done, SeqSet::range(1, 2));
}

/// A report of an unknown node, and a CLOSE of an unknown source, change nothing.
#[test]
fn records_about_nobody_change_nothing() {
    let mut w = World::started(1, 1);
    let node_uuid = fanin_core::ids::NodeUuid(99);
    w.put(RecordBody::Progress(Progress {
        node_uuid,
        epoch: LedgerSeq(1),
        done: SeqSet::range(1, 9),
    }));
    let incarnation = fanin_core::ids::Incarnation(99);
    let terms = w.truth.fold.terms().version;
    w.put(RecordBody::Close(Close {
        incarnation,
        through: StreamSeq(9),
        terms,
        ..Close::default()
    }));
    w.tail_all(A);
    assert_eq!(w.truth.fold.nodes().len(), 1);
    assert_eq!(w.truth.fold.closed(incarnation), StreamSeq(0));
}
