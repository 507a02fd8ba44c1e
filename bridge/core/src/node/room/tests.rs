//! Goal: a checkpoint is worth its place exactly where it is, and that is judged again after a while. Method: sizes at each bound.

use super::*;
use crate::node::{Identity, Policy};
use crate::recovery::{Disk, recover};

#[test]
fn a_checkpoint_must_fit_and_free_its_part() {
    let gains = |bytes, max, state| {
        let room = Room {
            bytes,
            max: Some(max),
            ..Room::default()
        };
        room.gains(state)
    };
    let size = |state: usize, parts: usize| (state + parts * CHECKPOINT_OVERHEAD_BYTES) as u64;
    // One eighth of 8 000 bytes is freed, or one byte less.
    let state = 7_000 - CHECKPOINT_OVERHEAD_BYTES;
    assert!(gains(8_000, 15_000, state));
    assert!(!gains(8_000, 15_000, state + 1));
    assert!(!gains(8_000, 14_999, state), "it does not fit");
    // Three parts, the last one with one byte.
    let state = 2 * CHECKPOINT_PART_BYTES + 1;
    let bytes = 8 * size(state, 3) / 7 + 1;
    assert!(gains(bytes, bytes + size(state, 3), state));
    assert!(!gains(bytes, bytes + size(state, 3) - 1, state));
}

#[test]
fn whether_a_checkpoint_pays_is_judged_again() {
    let policy = Policy::default();
    let mut node = recover(Identity::default(), policy, Disk::default());
    let at = |ms| Tick(10).after(ms);
    node.room.note(999_999, Some(1_000_000));
    assert!(!node.checkpoint_pays(at(0)), "no place");
    node.room.note(600_000, Some(1_000_000));
    assert!(!node.checkpoint_pays(at(policy.resend_ms - 1)), "judged just now");
    assert!(node.checkpoint_pays(at(policy.resend_ms)));
    node.room.note(999_999, Some(1_000_000));
    assert!(node.checkpoint_pays(at(2 * policy.resend_ms - 1)));
    assert!(!node.checkpoint_pays(at(2 * policy.resend_ms)));
}
