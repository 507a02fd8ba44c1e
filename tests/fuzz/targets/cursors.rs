//! The durable position of an application.

use fanin_core::delivery::Cursor;
use fanin_core::ids::Offset;
use fanin_fuzz::{config, hostile, judges, number};
use proptest::prelude::*;

pub(crate) fn cursor() -> impl Strategy<Value = Cursor> {
    let offset = || number().prop_map(Offset);
    let range =
        (number(), 0_u64..5).prop_map(|(first, more)| (Offset(first), Offset(first.saturating_add(more))));
    let attempts = prop::collection::btree_map(offset(), any::<u32>(), 0..8);
    (offset(), prop::collection::vec(range, 0..8), attempts).prop_map(|(floor, finished, attempts)| Cursor {
        floor,
        finished,
        attempts,
    })
}

proptest! {
    #![proptest_config(config(1))]

    /// A cursor has one encoding; whatever a caller puts into one can be written and read.
    #[test]
    fn cursors_that_can_be_said_come_back(cursor in cursor()) {
        let bytes = cursor.encode();
        let read = Cursor::decode(&bytes);
        prop_assert!(read.is_ok(), "{:?} of {:?}", read, cursor);
        prop_assert_eq!(read.unwrap().encode(), bytes);
    }

    #[test]
    fn cursors_with_faults(bytes in hostile(cursor().prop_map(|cursor| cursor.encode()))) {
        judges::cursor(&bytes);
    }
}
