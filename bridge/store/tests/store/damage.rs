//! Goal: a torn tail is cut silently, damage before the last synced point is reported with its key, and its neighbours stay.
//! Method: copy the files of a live log, cut or flip bytes one by one, open the copy.

use crate::support::{append, body, crash, flip, ids, key, open, options, segment_file, write};
use bytes::Bytes;
use fanin_store::{
    Location, Op, Options, ReadError, Recovered, SegmentLog, Store,
    format::{FRAME_HEADER, SEGMENT_HEADER_COPY, frame_len},
};
use std::sync::Arc;
use tempfile::TempDir;

const SEGMENT: u64 = 64 * 1024;

fn end_of(at: Location) -> u64 {
    at.position + frame_len(u64::from(at.head_len), u64::from(at.body_len))
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_and_the_rest_stays() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), SEGMENT);
    write(&*log, vec![append(1, 50)]).await;
    // The last group: one commit of three records.
    let last = write(&*log, vec![append(2, 20), append(3, 0), append(4, 33)]).await;
    let (start, end) = (last[0].position, end_of(last[2]));
    let whole = std::fs::read(segment_file(dir.path(), 1)).unwrap();
    for cut in start..end {
        for shorter_file in [true, false] {
            let copy = crash(dir.path());
            let mut bytes = whole.clone();
            bytes[cut as usize..].fill(0);
            if shorter_file {
                bytes.truncate(cut as usize);
            }
            std::fs::write(segment_file(copy.path(), 1), &bytes).unwrap();
            let (log, recovered) = open(copy.path(), SEGMENT);
            assert!(
                recovered.damaged.is_empty(),
                "cut at {cut}: {:?}",
                recovered.damaged
            );
            // The last bytes of a frame may be padding, which a cut does not change.
            let padding = !shorter_file && bytes == whole[..bytes.len()];
            let expected = if ids(&recovered).len() == 4 && (padding || end - cut < 8) {
                4
            } else {
                1
            };
            assert_eq!(
                ids(&recovered),
                (1..=expected).collect::<Vec<_>>(),
                "cut at {cut}"
            );
            assert!(
                recovered.torn_bytes <= cut - start,
                "cut at {cut}: {} bytes torn",
                recovered.torn_bytes
            );
            assert!(
                cut < start + 8 || expected == 4 || recovered.torn_bytes > 0,
                "cut at {cut}"
            );
            assert_eq!(log.read_body(recovered.records[0].at).unwrap(), body(1, 50));
            // The log goes on behind the cut.
            write(&*log, vec![append(9, 9)]).await;
            drop(log);
            let (_log, again) = open(copy.path(), SEGMENT);
            assert_eq!((ids(&again).last(), again.torn_bytes), (Some(&9), 0));
        }
    }
}

/// Three groups in the active segment; the middle one is the victim.
async fn three_groups(dir: &TempDir) -> (Arc<SegmentLog>, Vec<Location>) {
    let (log, _) = open(dir.path(), SEGMENT);
    let mut at = write(&*log, vec![append(1, 40)]).await;
    at.extend(write(&*log, vec![append(2, 40)]).await);
    at.extend(write(&*log, vec![append(3, 40)]).await);
    (log, at)
}

fn assert_neighbours(log: &SegmentLog, recovered: &Recovered, what: &str) {
    assert_eq!(ids(recovered), [1, 3], "{what}");
    for record in &recovered.records {
        assert_eq!(
            log.read_body(record.at).unwrap(),
            body(record.key.id, 40),
            "{what}"
        );
    }
    assert_eq!(recovered.torn_bytes, 0, "{what}");
}

#[tokio::test]
async fn a_flipped_bit_in_the_middle_is_reported_and_its_neighbours_stay() {
    let dir = TempDir::new().unwrap();
    let (_log, at) = three_groups(&dir).await;
    let victim = at[1];
    let data_end = victim.position + FRAME_HEADER as u64 + u64::from(victim.head_len + victim.body_len);
    for position in victim.position..data_end {
        let copy = crash(dir.path());
        flip(copy.path(), 1, position);
        // Nothing is forgotten by a further start.
        for start in 0..2 {
            let (log, recovered) = open(copy.path(), SEGMENT);
            assert_neighbours(&log, &recovered, &format!("flipped {position}, start {start}"));
            assert_eq!(recovered.damaged.len(), 1);
            let damage = &recovered.damaged[0];
            assert_eq!((damage.segment, damage.position), (1, victim.position));
            let header_hit = position < victim.position + FRAME_HEADER as u64;
            assert_eq!(damage.key, (!header_hit).then_some(key(2)));
            let head_hit =
                !header_hit && position < victim.position + FRAME_HEADER as u64 + u64::from(victim.head_len);
            assert!(head_hit || matches!(log.read_body(victim), Err(ReadError::Damaged { .. })));
        }
    }
}

#[tokio::test]
async fn a_release_ends_the_report_of_damage() {
    let dir = TempDir::new().unwrap();
    let (_log, at) = three_groups(&dir).await;
    let copy = crash(dir.path());
    flip(copy.path(), 1, end_of(at[1]) - 8);
    let (log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(recovered.damaged[0].key, Some(key(2)));
    write(&*log, vec![crate::support::release(2)]).await;
    drop(log);
    let (log, recovered) = open(copy.path(), SEGMENT);
    assert!(recovered.damaged.is_empty(), "{:?}", recovered.damaged);
    assert_neighbours(&log, &recovered, "after the release");
}

/// The last group is known to be synced once the idle log has marked it.
#[tokio::test]
async fn damage_to_a_marked_last_group_is_not_taken_for_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    let (_log, at) = three_groups(&dir).await;
    let marked = || {
        let bytes = std::fs::read(segment_file(dir.path(), 1)).unwrap();
        bytes[end_of(at[2]) as usize] != 0 || bytes[end_of(at[2]) as usize + 8] != 0
    };
    crate::support::eventually("the marker is written", marked);
    let copy = crash(dir.path());
    flip(copy.path(), 1, end_of(at[2]) - 8);
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(
        (ids(&recovered), recovered.damaged[0].key),
        (vec![1, 2], Some(key(3)))
    );
    assert_eq!(recovered.torn_bytes, 0);
}

/// Bodies are chosen by others: one that looks like a frame must not be taken for one when a search passes over it.
#[tokio::test]
async fn a_frame_inside_a_body_is_not_believed() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), SEGMENT);
    write(&*log, vec![append(1, 40)]).await;
    let other = TempDir::new().unwrap();
    let (foreign, _) = open(other.path(), SEGMENT);
    write(&*foreign, vec![append(66, 40)]).await;
    let mut forged = std::fs::read(segment_file(other.path(), 1)).unwrap();
    forged.truncate(2048);
    let op = Op::Append {
        key: key(2),
        kind: 0,
        head: Bytes::new(),
        body: vec![forged.into()],
    };
    let victim = write(&*log, vec![op]).await[0];
    write(&*log, vec![append(3, 40)]).await;
    let copy = crash(dir.path());
    flip(copy.path(), 1, victim.position + 9);
    let (log, recovered) = open(copy.path(), SEGMENT);
    assert_neighbours(&log, &recovered, "forged frames");
    assert_eq!(recovered.damaged.len(), 1);
}

/// Segment 1 is sealed and no longer the last; its records are known from its footer.
async fn sealed(dir: &TempDir) -> Vec<Location> {
    let (log, at) = three_groups(dir).await;
    drop(log);
    drop(open(dir.path(), SEGMENT));
    at
}

#[tokio::test]
async fn a_sealed_segment_names_what_is_damaged_even_if_the_header_is_hit() {
    let dir = TempDir::new().unwrap();
    let at = sealed(&dir).await;
    for position in at[1].position..end_of(at[1]) - 2 {
        let copy = crash(dir.path());
        flip(copy.path(), 1, position);
        // A start trusts the footer; the read finds the damage.
        let (log, recovered) = open(copy.path(), SEGMENT);
        assert_eq!((ids(&recovered), recovered.damaged.len()), (vec![1, 2, 3], 0));
        let head = position >= at[1].position + FRAME_HEADER as u64
            && position < at[1].position + FRAME_HEADER as u64 + u64::from(at[1].head_len);
        let read = log.read_body(at[1]);
        assert!(
            head || matches!(read, Err(ReadError::Damaged { segment: 1, .. })),
            "{read:?}"
        );
        drop(log);
        // A full check finds it at once, and every start after it.
        for scan_all in [true, false, false] {
            let (log, recovered) = SegmentLog::open(Options {
                scan_all,
                ..options(copy.path(), SEGMENT)
            })
            .unwrap();
            assert_neighbours(&log, &recovered, &format!("flipped {position}"));
            assert_eq!(
                (recovered.damaged.len(), recovered.damaged[0].key),
                (1, Some(key(2)))
            );
        }
    }
}

#[tokio::test]
async fn a_damaged_footer_costs_only_a_scan() {
    let dir = TempDir::new().unwrap();
    let at = sealed(&dir).await;
    let len = std::fs::metadata(segment_file(dir.path(), 1)).unwrap().len();
    for position in end_of(at[2])..len {
        let copy = crash(dir.path());
        flip(copy.path(), 1, position);
        let (log, recovered) = open(copy.path(), SEGMENT);
        assert_eq!(ids(&recovered), [1, 2, 3], "flipped {position}");
        assert!(
            recovered.damaged.is_empty(),
            "flipped {position}: {:?}",
            recovered.damaged
        );
        assert_eq!(log.read_body(at[1]).unwrap(), body(2, 40));
    }
}

#[tokio::test]
async fn one_copy_of_the_segment_header_is_enough_and_none_is_reported() {
    let dir = TempDir::new().unwrap();
    let _log = three_groups(&dir).await;
    for position in [3, 30, SEGMENT_HEADER_COPY as u64 + 3] {
        let copy = crash(dir.path());
        flip(copy.path(), 1, position);
        let (_log, recovered) = open(copy.path(), SEGMENT);
        assert_eq!((ids(&recovered), recovered.damaged.len()), (vec![1, 2, 3], 0));
    }
    let copy = crash(dir.path());
    flip(copy.path(), 1, 20);
    flip(copy.path(), 1, SEGMENT_HEADER_COPY as u64 + 20);
    for _ in 0..2 {
        let (_log, recovered) = open(copy.path(), SEGMENT);
        assert_eq!((recovered.damaged.len(), recovered.damaged[0].key), (1, None));
        assert!(
            segment_file(copy.path(), 1).exists(),
            "damaged data is kept for the operator"
        );
    }
}
