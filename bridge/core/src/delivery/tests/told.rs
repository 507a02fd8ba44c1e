//! Goal: what the machine tells of itself is so, and what it is told wrongly changes nothing. Method: a few steps, every answer before and
//! after; each case is a change of the machine that no other test noticed (`docs/mutation-testing.md`).

use super::*;

#[test]
fn only_the_candidate_is_handed_over() {
    let mut rig = Rig::new(6);
    rig.next(1).expect("offset 0");
    let before = rig.machine.clone();
    for offset in [0, 2, 5, 6, 100] {
        assert_eq!(
            rig.machine.hand_over(rig.now, Offset(offset), 1),
            None,
            "{offset}"
        );
    }
    assert!(rig.machine == before);
    assert!(rig.machine.hand_over(rig.now, Offset(1), 1).is_some());
}

#[test]
fn held_deliveries_are_told() {
    let mut rig = Rig::new(3);
    rig.hand_over_all();
    rig.begin(ONE, 1);
    let held = |rig: &Rig| {
        let machine = &rig.machine;
        let offset = |delivery| {
            machine
                .offset_of(ONE, DeliveryNo(delivery))
                .map(|offset| offset.0)
        };
        (
            [1, 2, 3, 4].map(offset),
            machine.held_count(ONE),
            machine.held_by(ONE).len(),
        )
    };
    assert_eq!(held(&rig), ([Some(0), Some(1), Some(2), None], 3, 3));
    rig.ack(ONE, 2, 2);
    assert_eq!(held(&rig), ([Some(0), None, Some(2), None], 2, 2));
    assert_eq!(rig.machine.held_count(TWO), 0);
    let begun: Vec<_> = rig.machine.held_by(ONE).iter().map(|held| held.2).collect();
    assert_eq!(begun, [true, false]);
    assert_eq!(rig.machine.last_delivery(ONE), Some(DeliveryNo(3)));
}

/// Each change of the durable cursor is a new generation, and nothing else is.
#[test]
fn generations_follow_the_cursor() {
    let mut rig = Rig::new(9);
    let mut before = (rig.machine.generation(), rig.machine.cursor());
    assert_eq!(before.0, 0);
    let steps: [(bool, fn(&mut Rig)); 9] = [
        (true, |rig| assert!(rig.skip(0, 0))),
        (true, |rig| assert!(rig.skip(5, 5))),
        (false, |rig| assert!(!rig.skip(5, 5))),
        (false, |rig| {
            assert_eq!(rig.hand_over_all(), [1, 2, 3, 4, 6, 7, 8])
        }),
        (true, |rig| assert!(rig.ack(ONE, 1, 1).is_empty())),
        (false, |rig| assert!(!rig.ack(ONE, 1, 1).is_empty())),
        (true, |rig| rig.retry(2, None)),
        (false, |rig| assert!(rig.release(ONE, 3, 3).is_empty())),
        (true, |rig| assert!(rig.skip(3, 3))),
    ];
    for (at, (changes, step)) in steps.into_iter().enumerate() {
        step(&mut rig);
        let now = (rig.machine.generation(), rig.machine.cursor());
        assert_eq!(
            (now.0 > before.0, now.1 != before.1),
            (changes, changes),
            "step {at}"
        );
        before = now;
    }
}

#[test]
fn a_pause_is_told() {
    let mut rig = Rig::new(1);
    assert!(!rig.machine.is_paused());
    rig.machine.set_paused(true);
    assert!(rig.machine.is_paused());
    rig.machine.set_paused(false);
    assert!(!rig.machine.is_paused());
}

/// A skip takes each waiting message in its range, the first and the last one too, and none beside it.
#[test]
fn a_skip_takes_its_range_exactly() {
    for (first, last) in [(0, 0), (0, 4), (1, 2), (2, 2), (3, 9), (4, 4)] {
        let mut rig = Rig::new(5);
        rig.hand_over_all();
        rig.release(ONE, 1, 5);
        assert!(rig.skip(first, last));
        let rest: Vec<u64> = (0..5)
            .filter(|offset| *offset < first || *offset > last)
            .collect();
        assert_eq!(rig.hand_over_all(), rest);
    }
}

#[test]
fn instances_are_counted() {
    let mut rig = Rig::with(policy(), Cursor::default(), 1);
    let count = |rig: &Rig| rig.machine.stats().instances;
    assert_eq!(count(&rig), 0);
    rig.connect(ONE);
    rig.connect(TWO);
    assert_eq!(count(&rig), 2);
    rig.disconnect(ONE);
    assert_eq!(count(&rig), 1);
}

/// Among instances that hold as many and have as much credit the one that waited longest is next.
#[test]
fn equals_take_turns() {
    let mut rig = Rig::new(9);
    rig.connect(TWO);
    rig.connect(InstanceNo(3));
    let mut served = Vec::new();
    while let Some((_, given)) = rig.next(0) {
        served.push(given.instance.0);
        assert_eq!(rig.ack(given.instance, given.delivery.0, given.delivery.0), []);
    }
    assert_eq!(served, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
}
