//! Goal: the cursor's bytes stay readable for ever and nothing else is taken for a cursor. Method: golden bytes, each
//! kind of damage, and random cursors there and back.

use super::*;
use crate::delivery::CursorDecodeError as E;
use proptest::prelude::*;

fn sample() -> Cursor {
    Cursor {
        floor: Offset(300),
        finished: vec![(Offset(302), Offset(302)), (Offset(500), Offset(999))],
        attempts: [(Offset(300), 2), (Offset(303), 200)].into(),
    }
}

#[test]
fn golden_bytes() {
    assert_eq!(Cursor::default().encode(), [1, 0, 0, 0]);
    let bytes = [1, 0xac, 2, 2, 2, 0, 0xc5, 1, 0xf3, 3, 2, 0, 2, 3, 0xc8, 1];
    assert_eq!(sample().encode(), bytes);
    assert_eq!(Cursor::decode(&bytes), Ok(sample()));
}

#[test]
fn is_finished_knows_floor_ranges_and_gaps() {
    let cursor = sample();
    for offset in [0, 299, 302, 500, 999] {
        assert!(cursor.is_finished(Offset(offset)), "{offset}");
    }
    for offset in [300, 301, 303, 499, 1_000, u64::MAX] {
        assert!(!cursor.is_finished(Offset(offset)), "{offset}");
    }
}

#[test]
fn damage_is_named() {
    let bytes = sample().encode();
    for length in 0..bytes.len() {
        assert_eq!(
            Cursor::decode(&bytes[..length]),
            Err(E::Truncated),
            "{length} bytes"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(Cursor::decode(&longer), Err(E::TrailingBytes(1)));
    assert_eq!(Cursor::decode(&[2, 0, 0, 0]), Err(E::UnknownVersion(2)));
    // A range that touches the floor; a count of 0; the same offset twice; a count for a finished offset.
    for bytes in [
        &[1, 0, 1, 0, 0, 0][..],
        &[1, 0, 0, 1, 0, 0],
        &[1, 0, 0, 2, 1, 1, 0, 1],
        &[1, 0, 1, 1, 0, 1, 1, 1],
    ] {
        assert_eq!(Cursor::decode(bytes), Err(E::NotCanonical), "{bytes:?}");
    }
    // A number written in more bytes than it needs, and one of more than 64 bits.
    assert_eq!(Cursor::decode(&[1, 0x80, 0, 0, 0]), Err(E::NotCanonical));
    let huge = [&[1][..], &[0xff; 9], &[2, 0, 0]].concat();
    assert_eq!(Cursor::decode(&huge), Err(E::Overflow));
    // A range to the end of all offsets, and a count of ranges that no memory would hold.
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(
        Cursor::decode(&[&[1, 0, 1, 1][..], &max, &[0]].concat()),
        Err(E::Overflow)
    );
    assert_eq!(Cursor::decode(&[&[1, 0][..], &max].concat()), Err(E::Truncated));
}

/// Each loose form alone means what it says, and has the bytes of the one form that is encoded.
#[test]
fn loose_forms_have_one_meaning() {
    const MAX: u64 = u64::MAX;
    let offsets = |ranges: &[(u64, u64)]| -> Vec<_> {
        let offsets = ranges.iter().map(|&(first, last)| (Offset(first), Offset(last)));
        offsets.collect()
    };
    let is_taken_as_it_is = matches!(sample().canonical(), std::borrow::Cow::Borrowed(_));
    assert!(is_taken_as_it_is, "what a machine gives costs no copy");
    type Ranges = &'static [(u64, u64)];
    let table: [(Ranges, u64, Ranges); 12] = [
        (&[(12, 14), (16, 16)], 10, &[(12, 14), (16, 16)]),
        (&[(11, MAX - 1)], 10, &[(11, MAX - 1)]),
        (&[(10, 12)], 13, &[]),
        (&[(5, 8)], 10, &[]),
        (&[(5, 12)], 13, &[]),
        (&[(5, 9)], 10, &[]),
        (&[(20, 15)], 10, &[]),
        (&[(20, MAX)], 10, &[]),
        (&[(12, 14), (15, 16)], 10, &[(12, 16)]),
        (&[(12, 14), (13, 20)], 10, &[(12, 20)]),
        (&[(12, 20), (13, 14)], 10, &[(12, 20)]),
        (&[(20, 22), (12, 14)], 10, &[(12, 14), (20, 22)]),
    ];
    for (ranges, floor, expected) in table {
        let loose = Cursor {
            floor: Offset(10),
            finished: offsets(ranges),
            ..Cursor::default()
        };
        let meant = Cursor {
            floor: Offset(floor),
            finished: offsets(expected),
            ..Cursor::default()
        };
        assert_eq!(*loose.canonical(), meant, "{ranges:?}");
        assert_eq!(Cursor::decode(&loose.encode()), Ok(meant), "{ranges:?}");
    }
    for (offset, count, kept) in [(15, 1, true), (15, 0, false), (13, 1, false), (3, 1, false)] {
        let loose = Cursor {
            floor: Offset(10),
            finished: offsets(&[(12, 14)]),
            attempts: [(Offset(offset), count), (Offset(40), 7)].into(),
        };
        let mut meant = loose.clone();
        meant.attempts.retain(|&at, _| kept || at == Offset(40));
        assert_eq!(*loose.canonical(), meant, "{offset} {count}");
    }
}

proptest! {
    #[test]
    fn any_cursor_comes_back(
        floor in 0u64..1 << 40,
        gaps in prop::collection::vec((1u64..1 << 20, 0u64..1 << 20), 0..50),
        attempts in prop::collection::btree_map(0u64..1 << 21, 1u32.., 0..50),
    ) {
        let mut cursor = Cursor { floor: Offset(floor), ..Cursor::default() };
        let mut at = floor;
        for (gap, more) in gaps {
            cursor.finished.push((Offset(at + gap), Offset(at + gap + more)));
            at += gap + more + 1;
        }
        for (distance, count) in attempts {
            let offset = Offset(floor + distance);
            if !cursor.is_finished(offset) {
                cursor.attempts.insert(offset, count);
            }
        }
        prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
    }

    #[test]
    fn any_bytes_are_refused_or_mean_themselves(bytes in prop::collection::vec(0u8..8, 0..40)) {
        if let Ok(cursor) = Cursor::decode(&bytes) {
            prop_assert_eq!(cursor.encode(), bytes);
        }
    }
}
