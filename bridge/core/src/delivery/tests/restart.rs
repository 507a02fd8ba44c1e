//! Goal: a machine made of a cursor delivers exactly what is unfinished. Method: bring a machine into a mixed state,
//! encode and decode its cursor, and let a fresh instance take everything.

use super::*;
use crate::delivery::DeadLetterReason;

#[test]
fn a_restart_delivers_exactly_the_unfinished_in_order_with_their_attempts() {
    let mut rig = Rig::new(10);
    rig.hand_over_all();
    rig.begin(ONE, 10);
    rig.ack(ONE, 1, 2);
    rig.ack(ONE, 5, 6);
    rig.ack(ONE, 9, 9);
    rig.retry(4, None);
    rig.retry(7, None);
    rig.skip(12, 14);
    let cursor = rig.machine.cursor();
    assert_eq!(cursor.floor, Offset(2));
    assert_eq!(cursor.attempts, [(Offset(3), 1), (Offset(6), 1)].into());

    let mut again = Rig::with(policy(), Cursor::decode(&cursor.encode()).expect("readable"), 12);
    assert_eq!(again.machine.cursor(), cursor);
    assert_eq!(again.machine.generation(), 0);
    again.connect(TWO);
    let given: Vec<_> = std::iter::from_fn(|| again.next(1))
        .map(|(c, given)| (c.offset.0, given.attempt))
        .collect();
    assert_eq!(given, [(2, 1), (3, 2), (6, 2), (7, 1), (9, 1), (10, 1), (11, 1)]);
    assert_eq!(again.ack(TWO, 1, 7), []);
    assert_eq!(again.floor(), 12);
}

#[test]
fn finished_offsets_were_visible_whatever_the_head_says() {
    let finished = vec![(Offset(20), Offset(29))];
    let rig = Rig::with(
        policy(),
        Cursor {
            floor: Offset(10),
            finished,
            ..Cursor::default()
        },
        5,
    );
    assert_eq!(rig.machine.head(), Offset(30));
    assert_eq!(rig.machine.stats().backlog, 10);
}

#[test]
fn a_cursor_in_a_loose_form_means_the_same() {
    let ranges = [(12, 14), (5, 5), (0, 4), (15, 15), (13, 20), (9, 8)];
    let loose = Cursor {
        floor: Offset(3),
        finished: ranges.map(|(first, last)| (Offset(first), Offset(last))).into(),
        attempts: [(2, 1), (7, 0), (8, 4), (13, 1)]
            .map(|(offset, n)| (Offset(offset), n))
            .into(),
    };
    let strict = Cursor {
        floor: Offset(6),
        finished: vec![(Offset(12), Offset(20))],
        attempts: [(Offset(8), 4)].into(),
    };
    assert_eq!(Cursor::decode(&loose.encode()), Ok(strict.clone()));
    let patient = Policy {
        max_attempts: 9,
        ..policy()
    };
    assert_eq!(
        Rig::with(patient, loose, 30).machine,
        Rig::with(patient, strict, 30).machine
    );
}

#[test]
fn a_dead_letter_under_way_at_the_crash_is_told_again_and_not_delivered() {
    let mut rig = Rig::new(3);
    for _ in 0..3 {
        let (_, given) = rig.next(1).expect("offset 0");
        rig.retry(given.delivery.0, Some(0));
    }
    let mut again = Rig::with(policy(), rig.machine.cursor(), 3);
    again.connect(ONE);
    assert_eq!(again.machine.next_deadline(), Some(Tick(0)));
    assert_eq!(again.hand_over_all(), [1, 2]);
    again.advance(0);
    let reason = DeadLetterReason::MaxAttempts;
    let letter = Effect::DeadLetter {
        offset: Offset(0),
        reason,
        attempts: 3,
        instance: None,
    };
    assert_eq!(again.effects(), [letter]);
    assert_eq!(again.machine.next_deadline(), None);
    again.dead_lettered(0);
    assert_eq!(again.effects(), [finished(0, Outcome::DeadLettered, None)]);
    assert_eq!(again.floor(), 1);
}

#[test]
fn the_head_never_moves_back() {
    let mut rig = Rig::new(5);
    rig.machine.extend_head(Offset(2));
    assert_eq!(rig.machine.head(), Offset(5));
    rig.machine.extend_head(Offset(6));
    assert_eq!(rig.hand_over_all(), [0, 1, 2, 3, 4, 5]);
}
