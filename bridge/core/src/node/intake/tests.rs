//! Goal: no more is taken in than there may be. Method: a node that acts and has read nothing, at each bound.

use super::*;
use crate::node::{Identity, Policy};
use crate::recovery::{Disk, recover};

const SOURCE: Incarnation = Incarnation(7);

/// What is staged of arrived messages (sequence, publish time), by a node with so many batches that are not resolved.
fn staged(unresolved: usize, messages: impl IntoIterator<Item = (u64, i64)>) -> Option<Batch> {
    let mut node = recover(Identity::default(), Policy::default(), Disk::default());
    node.phase = Phase::Active;
    node.unresolved = unresolved;
    let message = |(seq, published_ns)| FetchedMessage {
        seq: StreamSeq(seq),
        published_ns,
    };
    let messages: Vec<_> = messages.into_iter().map(message).collect();
    let mut out = Vec::new();
    node.on_fetched(Tick(0), 1, SOURCE, ClaimKind::Normal, &messages, &mut out);
    node.batches.into_values().next()
}

#[test]
fn a_batch_is_bounded_and_holds_each_message_once() {
    let max = BATCH_MESSAGES_MAX as u64;
    let some = |count: u64| (1..=count).map(|seq| (seq, 100 + i64::try_from(seq).unwrap()));
    let batch = staged(0, some(max)).unwrap();
    assert_eq!(batch.seqs, SeqSet::range(1, max));
    let batch = staged(0, some(max + 5)).unwrap();
    assert_eq!(batch.seqs, SeqSet::range(1, max), "the rest comes again");
    assert_eq!(batch.published_ns, (101, 100 + BATCH_MESSAGES_MAX as i64));
    let batch = staged(0, [(4, 20), (5, 10), (4, 30)]).unwrap();
    assert_eq!((batch.seqs, batch.published_ns), (SeqSet::range(4, 5), (10, 20)));
}

#[test]
fn batches_that_wait_for_their_claims_are_bounded() {
    assert!(staged(UNRESOLVED_BATCHES_MAX - 1, [(1, 1)]).is_some());
    assert!(staged(UNRESOLVED_BATCHES_MAX, [(1, 1)]).is_none());
}
