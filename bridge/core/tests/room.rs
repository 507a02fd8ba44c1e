//! Goal: a ledger that is nearly full stops claims and nothing else, and is emptied in time (design section 4). Method: as in `attacks`,
//! with sizes of the ledger given by hand.

mod support;

use fanin_core::ids::LedgerSeq;
use fanin_core::input::Input;
use fanin_core::node::{Policy, Stability, Withheld};
use fanin_core::record::Body as RecordBody;
use support::{A, B, INC, POLICY, World};

fn size(w: &mut World, who: usize, bytes: u64, max: Option<u64>) {
    w.step(who, Input::LedgerSize { bytes, max });
}

/// What the ledger really holds, bytes.
fn held(w: &World) -> u64 {
    w.ledger
        .entries
        .values()
        .map(|entry| entry.bytes.len() as u64)
        .sum()
}

fn flying(w: &World, wanted: impl Fn(&RecordBody) -> bool) -> usize {
    w.flights
        .iter()
        .filter(|flight| wanted(&flight.record.body))
        .count()
}

fn claims(w: &World) -> usize {
    flying(w, |body| matches!(body, RecordBody::Claim(_)))
}

fn checkpoints(w: &World) -> usize {
    flying(w, |body| matches!(body, RecordBody::Checkpoint(_)))
}

/// No claim goes out, neither a new one nor one whose outcome is unknown; the records that empty the ledger do; with room the
/// claims go out by themselves.
#[test]
fn claims_wait_and_the_rest_goes_on() {
    let mut w = World::started(1, 4);
    w.stage(A, &[1]);
    w.run(A);
    w.stage(A, &[2]);
    w.fail_at(0, false);
    size(&mut w, A, 750, Some(1_000));
    w.stage(A, &[3]);
    w.later(A, 10_000);
    assert_eq!(claims(&w), 0);
    let withheld = Withheld::LedgerFull {
        bytes: 750,
        max: 1_000,
    };
    assert_eq!(w.node(A).may_pull(INC), Err(withheld));
    w.finish_all(A);
    w.sync(A);
    w.later(A, 10_000);
    assert!(flying(&w, |body| matches!(body, RecordBody::Progress(_))) > 0);
    assert!(flying(&w, |body| matches!(body, RecordBody::Close(_))) > 0);
    w.run(A);
    // At the mark itself claims do not stop and start with every record.
    size(&mut w, A, 630, Some(1_000));
    w.later(A, 10_000);
    assert_eq!(claims(&w), 0);
    size(&mut w, A, 624, Some(1_000));
    assert_eq!(claims(&w), 2, "the waiting claims go out at once");
    assert!(w.node(A).may_pull(INC).is_ok());
    w.run(A);
    w.assert_once(1..=3);
}

/// Below the mark, and without a limit, nothing is withheld; a raised limit is room.
#[test]
fn the_limit_decides() {
    let mut w = World::started(1, 1);
    for (bytes, max) in [
        (0, Some(0)),
        (749, Some(1_000)),
        (u64::MAX, None),
        (u64::MAX / 2, Some(u64::MAX)),
    ] {
        let mut w = w.clone();
        size(&mut w, A, bytes, max);
        assert_eq!(
            w.node(A).ledger_short().is_some(),
            max == Some(0),
            "{bytes} {max:?}"
        );
    }
    size(&mut w, A, 999, Some(1_000));
    assert_eq!(w.node(A).ledger_short(), Some((999, 1_000)));
    size(&mut w, A, 999, Some(2_000));
    assert_eq!(w.node(A).ledger_short(), None);
    size(&mut w, A, 1_900, Some(2_000));
    size(&mut w, A, 1_900, None);
    assert_eq!(w.node(A).ledger_short(), None);
}

/// A node that starts behind a nearly full ledger claims nothing of what it had staged before there is room.
#[test]
fn a_restarted_node_looks_first() {
    let mut w = World::started(1, 2);
    w.stage(A, &[1]);
    w.hold(A);
    w.crash(A);
    w.boot(A).unwrap();
    size(&mut w, A, 800, Some(1_000));
    w.run(A);
    w.later(A, 10_000);
    assert!(w.node(A).ledger_short().is_some());
    assert_eq!((claims(&w), w.node(A).unresolved()), (0, 1));
    size(&mut w, A, 100, Some(1_000));
    w.run(A);
    w.assert_once([1]);
}

/// Twenty finished batches of one message: many records, a small state.
fn finished(w: &mut World) {
    for seq in 1..=20 {
        w.stage(A, &[seq]);
        w.run_all();
    }
    w.close_by(A);
    w.run_all();
    assert_eq!(w.closed().0, 20);
}

/// From half of the limit on a checkpoint is written although few records call for it, by the first node, and only once before the
/// purge behind it is seen in the size.
#[test]
fn a_large_ledger_is_truncated_early() {
    let mut w = World::started(2, 20);
    finished(&mut w);
    let before = held(&w);
    size(&mut w, A, before, Some(3 * before));
    w.later(A, 60_000);
    assert_eq!(checkpoints(&w), 0, "a third is not large");
    size(&mut w, A, before, Some(before * 8 / 5));
    size(&mut w, B, before, Some(before * 8 / 5));
    w.later(B, 1);
    assert_eq!(checkpoints(&w), 0, "the first node comes first");
    w.tick(A);
    assert_eq!(checkpoints(&w), 1);
    w.run(A);
    w.tick(A);
    w.purge(A);
    let after = held(&w);
    assert!(after < before / 2, "{after} of {before} bytes are left");
    w.tick(A);
    assert_eq!(checkpoints(&w), 0, "the size is older than the purge");
    size(&mut w, A, after, Some(after * 8 / 5));
    w.later(A, 60_000);
    assert_eq!(checkpoints(&w), 0, "nothing more to gain");
    w.run(B);
    w.crash(B);
    w.start(B);
    assert!(w.node(B).fold().position() > LedgerSeq(20));
}

/// No second checkpoint while the first one is not stable: each takes room, and none gives any before a purge.
#[test]
fn one_checkpoint_waits_for_its_purge() {
    let policy = Policy {
        stability: Stability::After(60_000),
        ..POLICY
    };
    let mut w = World::new(1, &["x"], 20).with_policy(policy);
    w.start(A);
    for seq in 1..=20 {
        w.stage(A, &[seq]);
        w.run(A);
    }
    w.advance(60_000);
    w.close_by(A);
    let bytes = held(&w);
    size(&mut w, A, bytes, Some(bytes * 4 / 3));
    w.tick(A);
    assert_eq!(checkpoints(&w), 1);
    w.run(A);
    for _ in 0..50 {
        w.later(A, 1_000);
        assert_eq!(checkpoints(&w), 0);
    }
    w.later(A, 20_000);
    assert_eq!(w.bridges[A].purges.len(), 1);
}

/// A checkpoint that does not fit, or whose purge would free next to nothing, is not written.
#[test]
fn a_checkpoint_must_pay() {
    let mut w = World::started(1, 20);
    finished(&mut w);
    let bytes = held(&w);
    size(&mut w, A, bytes, Some(bytes + 10));
    w.later(A, 60_000);
    assert_eq!(checkpoints(&w), 0, "no place for it");

    let mut w = World::started(1, 300);
    for seq in (1..=300).step_by(100) {
        // Scattered, and nobody finishes them: the state is as large as the records.
        let seqs: Vec<_> = (seq..seq + 100).step_by(2).collect();
        w.stage(A, &seqs);
        w.run(A);
    }
    let bytes = held(&w);
    size(&mut w, A, bytes, Some(bytes * 4 / 3));
    w.later(A, 60_000);
    assert_eq!(checkpoints(&w), 0, "nothing to gain");
}
