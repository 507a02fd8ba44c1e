//! Goal: what is told of a restored source comes of that source, and of what was there before. Method: a node with such batches and claims,
//! put there by hand.

use super::*;
use crate::batch::{Batch, BatchState};
use crate::ids::BatchNo;
use crate::node::{Identity, Policy};
use crate::record::ClaimKind;
use crate::recovery::{Disk, recover};

const X: Incarnation = Incarnation(7);
const Y: Incarnation = Incarnation(8);

/// A node with these batches, each of sequences 5 to 6.
fn node(batches: &[(Incarnation, BatchState, i64)]) -> Node {
    let mut node = recover(Identity::default(), Policy::default(), Disk::default());
    for (number, (incarnation, state, at)) in (1..).zip(batches) {
        let mut batch = Batch::new(*incarnation, ClaimKind::Normal, SeqSet::range(5, 6), (*at, *at));
        batch.state = state.clone();
        node.batches.insert(BatchNo(number), batch);
    }
    node
}

fn twice() -> Shown {
    Shown::Twice {
        older: (80, 90),
        newer: (100, 100),
    }
}

#[test]
fn only_open_batches_of_the_source_tell() {
    let told = KnownTime {
        ns: 90,
        is_exact: false,
    };
    let nothing = node(&[]);
    assert_eq!(nothing.known_before(X, StreamSeq(5), &twice()), Some(told));
    let open = node(&[(X, BatchState::Staged, 70)]);
    let exact = KnownTime {
        ns: 70,
        is_exact: true,
    };
    assert_eq!(open.known_before(X, StreamSeq(5), &twice()), Some(exact));
    for other in [(Y, BatchState::Staged, 70), (X, BatchState::Finished, 70)] {
        let other = node(&[other]);
        assert_eq!(other.known_before(X, StreamSeq(5), &twice()), Some(told));
    }
}

#[test]
fn no_claim_is_no_time() {
    let short = |newest_ns| Shown::Short {
        known: StreamSeq(9),
        newest_ns,
    };
    let node = node(&[]);
    assert_eq!(node.known_before(X, StreamSeq(5), &short(0)), None);
    let told = KnownTime {
        ns: 70,
        is_exact: false,
    };
    assert_eq!(node.known_before(X, StreamSeq(5), &short(70)), Some(told));
}
