//! Goal: named values survive the turnover of segments, and damage to them is neither hidden nor invented. Method: damage chosen
//! places of the files of a log that was killed.

use crate::support::{append, crash, flip, ids, open, put, segment_file, write};
use fanin_store::{SegmentLog, format::FRAMES_START};
use std::sync::Arc;
use tempfile::TempDir;

const SEGMENT: u64 = 16 * 1024;

/// Segments 1 and 2, with values set in segment 1 and copied into the head of segment 2.
async fn two_segments(dir: &TempDir) -> Arc<SegmentLog> {
    let (log, _) = open(dir.path(), SEGMENT);
    write(&*log, vec![put("a", "1"), put("b", "2"), append(1, 10_000)]).await;
    let at = write(&*log, vec![append(2, 10_000)]).await;
    assert_eq!(at[0].segment, 2);
    write(&*log, vec![put("b", "3")]).await;
    log
}

#[tokio::test]
async fn values_survive_their_segment() {
    let dir = TempDir::new().unwrap();
    let log = two_segments(&dir).await;
    write(&*log, vec![crate::support::release(1)]).await;
    crate::support::eventually("segment 1 goes", || !segment_file(dir.path(), 1).exists());
    let copy = crash(dir.path());
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(
        (&recovered.values["a"][..], &recovered.values["b"][..]),
        (&b"1"[..], &b"3"[..])
    );
}

#[tokio::test]
async fn a_damaged_head_is_rebuilt_from_the_segment_before() {
    let dir = TempDir::new().unwrap();
    let _log = two_segments(&dir).await;
    let copy = crash(dir.path());
    flip(copy.path(), 2, FRAMES_START + 20);
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(
        (&recovered.values["a"][..], &recovered.values["b"][..]),
        (&b"1"[..], &b"3"[..])
    );
    assert!(recovered.damaged.is_empty(), "{:?}", recovered.damaged);
    assert_eq!(ids(&recovered), [1, 2]);
}

#[tokio::test]
async fn a_damaged_head_that_cannot_be_rebuilt_is_reported_at_every_start() {
    let dir = TempDir::new().unwrap();
    let _log = two_segments(&dir).await;
    let copy = crash(dir.path());
    std::fs::remove_file(segment_file(copy.path(), 1)).unwrap();
    flip(copy.path(), 2, FRAMES_START + 20);
    for start in 0..2 {
        let (_log, recovered) = open(copy.path(), SEGMENT);
        assert_eq!(
            recovered.damaged.len(),
            1,
            "start {start}: {:?}",
            recovered.damaged
        );
        assert_eq!(
            (recovered.damaged[0].segment, recovered.damaged[0].key),
            (2, None)
        );
        assert_eq!(ids(&recovered), [2]);
    }
}

/// Flips every byte of the frame of `b = 3` in turn: it is reported, by name unless its header is hit, and again until forgotten.
#[tokio::test]
async fn a_damaged_value_is_reported_until_it_is_forgotten() {
    let dir = TempDir::new().unwrap();
    let log = two_segments(&dir).await;
    let before = write(&*log, vec![append(3, 10)]).await[0];
    write(&*log, vec![put("b", "4")]).await;
    write(&*log, vec![append(4, 10)]).await;
    let at = before.position + 48 + 6 + 10;
    let start = at.next_multiple_of(8);
    for position in [start + 5, start + 30, start + 48, start + 49] {
        let copy = crash(dir.path());
        flip(copy.path(), 2, position);
        for round in 0..3 {
            let (log, recovered) = open(copy.path(), SEGMENT);
            assert_eq!(ids(&recovered), [1, 2, 3, 4], "records around it stay");
            if round == 2 {
                assert!(recovered.damaged.is_empty(), "forgotten: {:?}", recovered.damaged);
                continue;
            }
            assert_eq!(
                recovered.damaged.len(),
                1,
                "at {position}: {:?}",
                recovered.damaged
            );
            let named = recovered.damaged[0].what.contains("\"b\"");
            assert_eq!(named, position == start + 49, "{:?}", recovered.damaged[0].what);
            assert_eq!(recovered.damaged[0].segment, 2);
            if round == 1 {
                log.forget_damage(2);
                for id in [2, 3, 4] {
                    write(&*log, vec![crate::support::release(id)]).await;
                }
                crate::support::eventually("segment 2 goes", || !segment_file(copy.path(), 2).exists());
                write(&*log, vec![append(2, 1), append(3, 1), append(4, 1)]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_damaged_value_that_was_set_again_does_not_matter() {
    let dir = TempDir::new().unwrap();
    let log = two_segments(&dir).await;
    let before = write(&*log, vec![append(3, 10)]).await[0];
    write(&*log, vec![put("b", "4")]).await;
    write(&*log, vec![put("b", "5")]).await;
    write(&*log, vec![append(4, 10)]).await;
    let copy = crash(dir.path());
    flip(
        copy.path(),
        2,
        (before.position + 48 + 6 + 10).next_multiple_of(8) + 49,
    );
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert!(recovered.damaged.is_empty(), "{:?}", recovered.damaged);
    assert_eq!(recovered.values["b"], "5");
}

/// A cleanly closed log whose value is hit in its header: the footer knows the records, but not that a value lay there.
#[tokio::test]
async fn an_unreadable_value_in_a_sealed_segment_is_reported_at_every_start() {
    let dir = TempDir::new().unwrap();
    let log = two_segments(&dir).await;
    let before = write(&*log, vec![append(3, 10)]).await[0];
    write(&*log, vec![put("b", "4")]).await;
    write(&*log, vec![append(4, 10)]).await;
    drop(log);
    flip(
        dir.path(),
        2,
        (before.position + 48 + 6 + 10).next_multiple_of(8) + 9,
    );
    for start in 0..3 {
        let (_log, recovered) = open(dir.path(), SEGMENT);
        assert_eq!(ids(&recovered), [1, 2, 3, 4]);
        assert_eq!(
            recovered.damaged.len(),
            1,
            "start {start}: {:?}",
            recovered.damaged
        );
        assert_eq!(
            (recovered.damaged[0].segment, recovered.damaged[0].key),
            (2, None)
        );
    }
}
