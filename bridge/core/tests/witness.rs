//! Goal: a node whose disk remembers more of the ledger than the hub has now, or something else, halts, also when everything it
//! had won was long finished and forgotten; otherwise the hub's redelivery of it would be won and delivered a second time in
//! silence (P11, design section 8). Method: as in `attacks`, with a hub that loses what it had confirmed.

mod support;

use fanin_core::fold::Halt;
use fanin_core::ids::LedgerSeq;
use fanin_core::input::Input;
use fanin_core::node::Phase;
use support::{A, B, World};

/// Everything of a message is done on node A, up to the report.
fn finish(w: &mut World, seq: u64) {
    w.stage(A, &[seq]);
    w.run(A);
    w.finish_all(A);
    w.later(A, 2_000);
    w.run(A);
    assert!(w.node(A).batches().is_empty());
}

/// The hub loses records behind a position, and the acknowledgements.
fn roll_back(w: &mut World, last: LedgerSeq) {
    w.lose_behind(last);
    w.source.acked.clear();
}

/// A lazy hub lost power. Its ledger ends where the node's last epoch stands, so the next EPOCH's compare-and-set succeeds.
#[test]
fn finished_work_that_the_ledger_lost_is_not_done_again() {
    let mut w = World::started(1, 3);
    finish(&mut w, 1);
    let kept = w.ledger.last;
    finish(&mut w, 2);
    finish(&mut w, 3);
    let read = w.bridges[A].disk.image.witness.position;
    assert!(read > kept);
    w.crash(A);
    roll_back(&mut w, kept);
    let last = w.start(A);
    assert_eq!(*w.phase(A), Phase::Halted(Halt::LedgerShrank { last, read }));
    w.fetch(A, &[2]);
    w.sync(A);
    assert!(w.hold(A).is_empty(), "nothing is sent");
}

/// The same, and another node has made the ledger grow beyond it meanwhile.
#[test]
fn a_ledger_that_grew_again_is_another_one() {
    let mut w = World::started(2, 6);
    let kept = w.ledger.last;
    finish(&mut w, 1);
    let known = w.bridges[A].disk.image.witness;
    w.crash(A);
    w.crash(B);
    roll_back(&mut w, kept);
    w.start(B);
    for seq in 2..=5 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    assert!(w.ledger.last > known.position);
    w.start(A);
    let Phase::Halted(Halt::HistoryChanged {
        position,
        disk,
        ledger,
    }) = w.phase(A)
    else {
        panic!("{:?}", w.phase(A));
    };
    assert_eq!((*position, *disk), (known.position, known.hash));
    assert_ne!(ledger, disk);
    // Its EPOCH tells everybody.
    w.tail_all(B);
    let Phase::Halted(Halt::Diverged { position, theirs, .. }) = w.phase(B) else {
        panic!("{:?}", w.phase(B));
    };
    assert_eq!((*position, *theirs), (known.position, known.hash));
}

/// The same while the node is up and its tail has not noticed: a claim sent from what was read is confirmed in the middle of it.
#[test]
fn a_record_confirmed_where_another_was_read_halts_its_writer() {
    let mut w = World::started(1, 3);
    let kept = w.ledger.last;
    w.stage(A, &[1]);
    w.run(A);
    let read = w.node(A).fold().position();
    assert!(read > kept);
    w.stage(A, &[2]);
    w.lose_behind(kept);
    let last = w.land(A);
    assert!(last <= read);
    assert_eq!(*w.phase(A), Phase::Halted(Halt::LedgerShrank { last, read }));
    w.fetch(A, &[3]);
    w.sync(A);
    w.later(A, 10_000);
    assert!(w.hold(A).is_empty(), "nothing is sent");
}

/// A confirmation may come long after the tail has shown the record, and more behind it: it is compared with what was read when
/// the record was made.
#[test]
fn a_late_confirmation_is_no_cause() {
    let mut w = World::started(2, 6);
    w.stage(A, &[1]);
    let read = w.node(A).fold().position();
    let at = w.land(A);
    for seq in 2..=4 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    w.tail_all(A);
    assert!(w.node(A).fold().position() > at);
    w.step(A, Input::AppendConfirmed { at, read });
    assert_eq!(*w.phase(A), Phase::Active);
}

/// The hub split, and the half that this node read is given up. What the other half holds in its place is purged behind a
/// checkpoint, so no record's witness tells: the checkpoint does, which does not show what this node has won.
#[test]
fn a_checkpoint_of_another_half_is_not_taken_up() {
    let mut w = World::started(2, 4);
    let kept = w.ledger.last;
    w.stage(A, &[1]);
    w.run(A);
    w.lose_behind(kept);
    for seq in 2..=4 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    w.checkpoint_and_purge(B);
    w.tail_all(A);
    let Phase::Halted(Halt::WonDiffers { batch }) = w.phase(A) else {
        panic!("{:?}", w.phase(A));
    };
    assert!(w.node(A).batches().contains_key(batch));
}

/// The same when it has won nothing there, but began a life.
#[test]
fn a_checkpoint_without_the_own_epoch_is_not_taken_up() {
    let mut w = World::started(2, 4);
    w.crash(A);
    let kept = w.ledger.last;
    w.start(A);
    w.lose_behind(kept);
    for seq in 2..=4 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    w.checkpoint_and_purge(B);
    w.tail_all(A);
    assert!(
        matches!(w.phase(A), Phase::Halted(Halt::HistoryChanged { .. })),
        "{:?}",
        w.phase(A)
    );
}

/// The same when everything that it has won there is done and forgotten: done sets only grow, and what it has read of its own is
/// not in the checkpoint's. Otherwise the hub's redelivery of it would be won by the other half's nodes in silence.
#[test]
fn a_checkpoint_without_what_was_done_is_not_taken_up() {
    let mut w = World::started(2, 8);
    let kept = w.ledger.last;
    finish(&mut w, 1);
    let read = w.node(A).fold().position();
    w.lose_behind(kept);
    for seq in 2..=8 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    assert!(w.checkpoint_and_purge(B) > read);
    w.tail_all(A);
    let Phase::Halted(Halt::HistoryChanged { position, .. }) = w.phase(A) else {
        panic!("{:?}", w.phase(A));
    };
    assert_eq!(*position, read);
}

/// What this disk has read is still there: nothing to see, restart after restart, with and without a checkpoint.
#[test]
fn an_honest_ledger_is_no_cause() {
    let mut w = World::started(2, 9);
    for seq in 1..=3 {
        finish(&mut w, seq);
        w.crash(A);
        w.start(A);
        assert_eq!(*w.phase(A), Phase::Active);
    }
    w.tail_all(B);
    w.checkpoint_by(B);
    w.land_all(B);
    w.crash(A);
    w.start(A);
    assert_eq!(*w.phase(A), Phase::Active);
}

/// The same before the node has read its own EPOCH: the checkpoint covers the position and does not show the life that begins there.
#[test]
fn a_checkpoint_that_passes_over_the_own_epoch_is_not_taken_up() {
    let mut w = World::started(2, 4);
    w.run_all();
    let kept = w.ledger.last;
    w.crash(A);
    let epoch = w.boot(A).unwrap();
    w.tail_to(A, kept);
    w.lose_behind(kept);
    for seq in 2..=4 {
        w.stage(B, &[seq]);
        w.run(B);
    }
    assert!(w.checkpoint_and_purge(B) >= epoch && w.node(A).fold().position() < epoch);
    w.tail_all(A);
    assert!(
        matches!(w.phase(A), Phase::Halted(Halt::HistoryChanged { .. })),
        "{:?}",
        w.phase(A)
    );
}
