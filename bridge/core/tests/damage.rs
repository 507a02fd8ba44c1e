//! Goal: a staged batch whose body the disk lost is never claimed again; what an earlier life had won with it resolves like
//! any other batch, and the rest goes back to the hub (design section 5). Method: as in `attacks`, with a disk that forgets
//! everything of a batch but its number.

mod support;

use fanin_core::batch::BatchState;
use fanin_core::ids::BatchNo;
use support::{A, B, World};

/// The claim had landed: the batch resolves by the ledger, with exactly what it won, and keeps its place in the topic.
#[test]
fn a_claimed_batch_resolves_by_the_ledger() {
    let mut w = World::started(2, 4);
    w.stage(B, &[2]);
    w.land(B);
    w.stage(A, &[1, 2, 3]);
    w.land(A);
    w.stage(A, &[4]);
    w.land(A);
    w.crash(A);
    assert!(w.damage(A, 0));
    w.start(A);
    assert!(
        w.hold(A).iter().all(|flight| flight.claim.is_none()),
        "nothing is claimed again"
    );
    w.sync(A);
    let image = &w.bridges[A].disk.image;
    let found = image.batches[&BatchNo(1)].resolution.as_ref().unwrap();
    assert_eq!((found.base.0, found.won.ranges()), (0, &[(1, 1), (3, 3)][..]));
    let behind = image.batches[&BatchNo(2)].resolution.as_ref().unwrap();
    assert_eq!(behind.base.0, 2);
    assert_eq!(w.publishers("x", 1), [A]);
}

/// The same from a checkpoint, behind which the claim itself was purged.
#[test]
fn a_claimed_batch_resolves_by_a_checkpoint() {
    let mut w = World::started(2, 2);
    w.stage(A, &[1, 2]);
    w.land(A);
    w.tail_all(B);
    w.crash(A);
    assert!(w.damage(A, 0));
    w.checkpoint_by(B);
    w.land_all(B);
    w.tail_all(B);
    w.start(A);
    w.sync(A);
    assert_eq!(w.publishers("x", 2), [A]);
}

/// No claim had landed: the number is used up, and the message is anybody's.
#[test]
fn an_unclaimed_batch_is_forgotten() {
    let mut w = World::started(2, 1);
    w.stage(A, &[1]);
    let late = w.hold(A);
    w.crash(A);
    assert!(w.damage(A, 0));
    w.start(A);
    let node = w.node(A);
    assert!(
        node.batches()
            .values()
            .all(|batch| batch.state == BatchState::Finished)
    );
    w.sync(A);
    assert!(w.bridges[A].disk.image.done.contains(1));

    // The claim of the earlier life lands at last: its epoch is over.
    w.flush(&late[0]);
    w.tail_all(A);
    w.tail_all(B);
    w.stage(B, &[1]);
    w.run(B);
    assert_eq!(w.publishers("x", 1), [B]);
    w.tail_all(A);
    w.stage(A, &[1]);
    assert!(
        w.hold(A).iter().all(|flight| flight.claim.is_none()),
        "it has its owner"
    );
    assert!(!w.bridges[A].disk.image.batches.contains_key(&BatchNo(1)));
}

/// Before the own EPOCH a claim may still be met: nothing is forgotten until then, also not by a second crash.
#[test]
fn nothing_is_forgotten_before_the_own_epoch() {
    let mut w = World::started(1, 1);
    w.stage(A, &[1]);
    w.land(A);
    w.crash(A);
    assert!(w.damage(A, 0));
    w.boot(A).unwrap();
    assert_eq!(w.node(A).batches()[&BatchNo(1)].state, BatchState::Damaged);
    w.crash(A);
    w.start(A);
    w.sync(A);
    assert_eq!(w.publishers("x", 1), [A]);
}
