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
    for offset in [0, 2, 5, 6, 100] {
        assert!(
            !rig.machine.lose(rig.now, Offset(offset), &mut rig.out),
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
    type Step = (bool, fn(&mut Rig));
    let steps: [Step; 11] = [
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
        (false, |rig| {
            let reject = rig.machine.reject(rig.now, ONE, DeliveryNo(4), &mut rig.out);
            reject.expect("held");
        }),
        (true, |rig| rig.dead_lettered(4)),
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

/// Rules out of their range are taken as the nearest that are in it.
#[test]
fn rules_are_pulled_into_range() {
    use crate::delivery::limits::LEASE_MS_MAX;
    let taken = |max_attempts, lease_ms| {
        let asked = Policy {
            max_attempts,
            lease_ms,
            ..policy()
        };
        let taken = Rig::with(asked, Cursor::default(), 0).machine.policy();
        assert_eq!(
            (taken.backoff, taken.in_flight_max),
            (asked.backoff, asked.in_flight_max)
        );
        (taken.max_attempts, taken.lease_ms)
    };
    assert_eq!(taken(0, 0), (1, 1));
    assert_eq!(taken(7, LEASE_MS_MAX), (7, LEASE_MS_MAX));
    assert_eq!(taken(1, u64::MAX), (1, LEASE_MS_MAX));
}

/// Where nothing is left to begin no clock runs.
#[test]
fn nothing_begun_has_no_deadline() {
    let mut rig = Rig::new(2);
    rig.hand_over_all();
    rig.release(ONE, 2, 2);
    rig.begin(ONE, 1);
    rig.ack(ONE, 1, 1);
    rig.begin(ONE, 2);
    assert_eq!(rig.machine.next_deadline(), None);
    let mut rig = Rig::new(2);
    rig.hand_over_all();
    rig.begin(ONE, 1);
    let deadline = rig.machine.next_deadline();
    rig.release(ONE, 2, 2);
    rig.now = rig.now.after(10);
    rig.begin(ONE, 2);
    rig.ack(ONE, 1, 1);
    assert!(deadline.is_some() && rig.machine.next_deadline().is_none());
}

/// Messages that fail together do not come back together, whatever the seed of the call.
#[test]
fn jitter_differs_from_message_to_message() {
    for seed in [0, SEED, u64::MAX] {
        let mut policy = policy();
        (policy.backoff.jitter_percent, policy.backoff.initial_ms) = (100, 1_000);
        let mut rig = Rig::with(policy, Cursor::default(), 20);
        rig.connect(ONE);
        rig.hand_over_all();
        for delivery in (1..=20).map(DeliveryNo) {
            let failed = rig
                .machine
                .retry(rig.now, ONE, delivery, None, seed, &mut rig.out);
            failed.expect("held");
        }
        let times: std::collections::BTreeSet<_> = rig
            .effects()
            .into_iter()
            .filter_map(|effect| {
                let Effect::AttemptCounted { retry_at, .. } = effect else {
                    return None;
                };
                Some(retry_at)
            })
            .collect();
        assert!(times.len() > 10, "seed {seed}: {times:?}");
    }
}

/// Ranges ahead that join another one need no place of their own, however many there are.
#[test]
fn joining_ranges_need_no_room() {
    use crate::delivery::limits::AHEAD_RANGES_MAX;
    let mut rig = Rig::new(100 * AHEAD_RANGES_MAX + 100);
    for range in 1..=AHEAD_RANGES_MAX {
        let offset = Offset(100 * range);
        assert!(rig.machine.skip(offset, offset, &mut rig.out));
    }
    assert!(!rig.skip(150, 150), "one separate range too many");
    assert!(rig.skip(101, 101) && rig.skip(199, 199));
    assert!(rig.skip(102, 198), "between two");
    assert!(rig.skip(350, 350), "that made room");
}
