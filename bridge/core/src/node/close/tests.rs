//! Goal: what is remembered on the way to the next watermark is exactly what is still of use. Method: a node that has read nothing, with
//! such memories put into it by hand.

use super::*;
use crate::node::{Identity, Policy};
use crate::recovery::{Disk, recover};

const SOURCE: Incarnation = Incarnation(7);

fn node() -> Node {
    recover(Identity::default(), Policy::default(), Disk::default())
}

/// What W has passed is forgotten, so that memory stays bounded, and nothing else is.
#[test]
fn what_w_has_passed_is_forgotten() {
    let at = Tick(5);
    let mut node = node();
    let state = node.close.entry(SOURCE).or_default();
    state.floor = StreamSeq(30);
    state.sightings = [(1, (9, at)), (10, (10, at)), (11, (11, at))].into();
    state.holes = SeqSet::range(8, 12);
    state.suspects = [(9, at), (10, at), (11, at)].into();
    state.asked = state.suspects.clone();
    state.due_since = Some(at);
    state.sent_at = Some(at);
    node.on_closed(SOURCE, StreamSeq(10));
    let expected = CloseState {
        floor: StreamSeq(30),
        sightings: [(11, (11, at))].into(),
        holes: SeqSet::range(11, 12),
        suspects: [(11, at)].into(),
        asked: [(11, at)].into(),
        sent_at: Some(at),
        ..CloseState::default()
    };
    assert_eq!(node.close.get(&SOURCE), Some(&expected));
    // A gap that reaches above W is still seen there.
    let state = node.close.entry(SOURCE).or_default();
    state.sightings = [(1, (11, at))].into();
    node.on_closed(SOURCE, StreamSeq(10));
    assert_eq!(node.close[&SOURCE].sightings, [(1, (11, at))].into());
}
