//! Goal: the window bounds what is tracked, and skipped ranges cost nothing however long. Method: fill it, jump it,
//! fragment it.

use super::*;
use crate::delivery::limits::{AHEAD_RANGES_MAX, CURSOR_BYTES_MAX, WINDOW_MAX};

/// Hands over without the invariant check per step, which takes time in proportion to the window.
fn hand_over_quickly(rig: &mut Rig) -> u64 {
    let mut count = 0;
    while let Some(candidate) = rig.machine.poll_next(rig.now) {
        rig.machine.grant(ONE, 1, 1);
        rig.machine
            .hand_over(rig.now, candidate.offset, 1)
            .expect("there is room");
        count += 1;
    }
    count
}

#[test]
fn a_full_window_stops_new_messages_but_not_retries() {
    let mut rig = Rig::new(WINDOW_MAX + 10);
    rig.next(1).expect("offset 0");
    rig.retry(1, Some(50));
    assert_eq!(hand_over_quickly(&mut rig), WINDOW_MAX - 1);
    rig.ack(ONE, 2, WINDOW_MAX);
    assert_eq!(rig.machine.poll_next(rig.now), None, "offset 0 holds the window");
    assert_eq!(rig.machine.stats().backlog, 11);
    rig.advance(50);
    let (candidate, given) = rig.next(1).expect("the retry is due");
    assert_eq!(candidate.offset, Offset(0));
    rig.ack(ONE, given.delivery.0, given.delivery.0);
    assert_eq!(rig.floor(), WINDOW_MAX);
    assert_eq!(hand_over_quickly(&mut rig), 10);
}

#[test]
fn a_long_skip_is_one_step_and_one_effect() {
    let mut rig = Rig::new(1_000_000_000_000);
    assert!(rig.skip(0, 999_999_999_989));
    assert_eq!(rig.effects(), [finished(999_999_999_989, Outcome::Skipped, None)]);
    assert_eq!(rig.floor(), 999_999_999_990);
    assert_eq!(rig.machine.stats().backlog, 10);
    assert!(!rig.skip(0, 500), "all of it is finished");
    assert_eq!(rig.effects(), []);
}

#[test]
fn a_long_skip_behind_a_held_message_is_remembered_beyond_the_window() {
    let mut rig = Rig::new(10_000_000);
    rig.next(1).expect("offset 0");
    assert!(rig.skip(1, 8_999_999));
    assert_eq!(rig.machine.cursor().finished, [(Offset(1), Offset(8_999_999))]);
    assert_eq!(rig.machine.stats().backlog, 1_000_001);
    assert_eq!(rig.machine.poll_next(rig.now), None, "the window is full");
    rig.ack(ONE, 1, 1);
    assert_eq!(rig.floor(), 9_000_000);
    assert_eq!(
        rig.next(1).map(|(candidate, _)| candidate.offset),
        Some(Offset(9_000_000))
    );
}

#[test]
fn a_skip_takes_what_waits_and_leaves_what_is_in_someones_hands() {
    let mut rig = Rig::new(6);
    rig.hand_over_all();
    rig.retry(2, None);
    rig.release(ONE, 3, 3);
    rig.machine
        .reject(rig.now, ONE, DeliveryNo(4), &mut rig.out)
        .expect("held");
    rig.effects();
    rig.machine.extend_head(Offset(8));
    // 0, 4 and 5 are leased, 1 is parked, 2 is available, 3 is dead-lettering, 6 and 7 are new.
    assert!(rig.skip(0, u64::MAX));
    assert_eq!(rig.effects(), [finished(7, Outcome::Skipped, None)]);
    assert_eq!(
        rig.machine.cursor().finished,
        [(1, 2), (6, 7)].map(|(a, b)| (Offset(a), Offset(b)))
    );
    assert!(rig.machine.cursor().attempts.is_empty());
    assert_eq!(rig.machine.next_deadline(), None);
    rig.release(ONE, 1, 1);
    assert_eq!(rig.hand_over_all(), [0]);
    rig.dead_lettered(3);
    assert_eq!(rig.ack(ONE, 5, 7), []);
    assert_eq!(rig.floor(), 8);
}

#[test]
fn skips_ahead_join_and_their_number_is_bounded() {
    let mut rig = Rig::new(1_000_000);
    assert!(rig.skip(10, 19) && rig.skip(30, 39) && rig.skip(20, 24));
    assert_eq!(
        rig.machine.cursor().finished,
        [(10, 24), (30, 39)].map(|(a, b)| (Offset(a), Offset(b)))
    );
    assert!(rig.skip(22, 35));
    assert!(!rig.skip(12, 30));
    assert_eq!(rig.machine.cursor().finished, [(Offset(10), Offset(39))]);
    for range in 1..AHEAD_RANGES_MAX {
        assert!(
            rig.machine
                .skip(Offset(100 * range), Offset(100 * range), &mut rig.out)
        );
    }
    rig.effects();
    assert!(!rig.skip(900_000, 900_009), "one separate range too many");
    assert_eq!(rig.effects(), []);
    assert!(rig.skip(0, 9), "what touches the floor needs no memory");
    assert_eq!(rig.floor(), 40);
    assert!(rig.skip(900_000, 900_009), "that made room");
    // Whatever was remembered, handing over the rest meets each other offset once.
    let mut expected = 1_000_000 - 40 - (AHEAD_RANGES_MAX - 1) - 10;
    assert_eq!(rig.machine.stats().backlog, expected);
    let mut acked = 0;
    while let Some(candidate) = rig.machine.poll_next(rig.now) {
        rig.machine.grant(ONE, 1, 1);
        let given = rig
            .machine
            .hand_over(rig.now, candidate.offset, 1)
            .expect("there is room");
        rig.machine.ack(ONE, given.delivery, given.delivery, &mut rig.out);
        rig.out.clear();
        acked += 1;
        if acked == 50_000 {
            // The rest is not needed to make the point.
            let last = Offset(899_999);
            let before = rig.machine.stats().backlog;
            rig.machine.skip(rig.machine.floor(), last, &mut rig.out);
            expected -= before - rig.machine.stats().backlog;
        }
    }
    assert_eq!(acked, expected);
    assert_eq!(rig.floor(), 1_000_000);
}

#[test]
fn the_worst_cursor_keeps_to_its_limit_and_restarts() {
    // Every second offset of a full window is acked, the others failed with a large count to write.
    let patient = Policy {
        max_attempts: u32::MAX,
        ..policy()
    };
    let mut rig = Rig::with(patient, Cursor::default(), WINDOW_MAX * 4);
    rig.connect(ONE);
    assert_eq!(hand_over_quickly(&mut rig), WINDOW_MAX);
    for delivery in (1..=WINDOW_MAX).map(DeliveryNo) {
        if delivery.0 % 2 == 0 {
            rig.machine.ack(ONE, delivery, delivery, &mut rig.out);
        } else {
            rig.machine
                .retry(rig.now, ONE, delivery, None, SEED, &mut rig.out)
                .expect("held");
        }
    }
    for range in 0..AHEAD_RANGES_MAX {
        let offset = Offset(WINDOW_MAX + 1 + 3 * range);
        assert!(rig.machine.skip(offset, offset, &mut rig.out));
    }
    rig.effects();
    let mut cursor = rig.machine.cursor();
    cursor
        .attempts
        .values_mut()
        .for_each(|attempts| *attempts = u32::MAX - 1);
    let bytes = cursor.encode();
    assert!(bytes.len() <= CURSOR_BYTES_MAX, "{} bytes", bytes.len());
    let again = Rig::with(patient, Cursor::decode(&bytes).expect("readable"), WINDOW_MAX * 4);
    assert_eq!(again.machine.cursor(), cursor);
}
