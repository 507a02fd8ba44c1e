//! Goal: each verb does what its contract says, on held deliveries and on those that are not. Method: a few messages,
//! one call at a time, whole effect lists compared.

use super::*;
use crate::delivery::{AttemptCause, ConnectError, VerdictError};

#[test]
fn acks_finish_in_any_order_and_the_floor_follows() {
    let mut rig = Rig::new(4);
    assert_eq!(rig.hand_over_all(), [0, 1, 2, 3]);
    assert_eq!(rig.ack(ONE, 2, 3), []);
    assert_eq!(
        rig.effects(),
        [
            finished(1, Outcome::Acked, Some((ONE, 2))),
            finished(2, Outcome::Acked, Some((ONE, 3)))
        ]
    );
    assert_eq!(rig.floor(), 0);
    assert_eq!(rig.machine.oldest_unfinished(), Some(Offset(0)));
    rig.ack(ONE, 1, 1);
    assert_eq!(rig.floor(), 3);
    rig.ack(ONE, 4, 4);
    assert_eq!((rig.floor(), rig.machine.oldest_unfinished()), (4, None));
    assert_eq!(
        rig.machine.stats(),
        crate::delivery::Stats {
            instances: 1,
            ..Default::default()
        }
    );
}

#[test]
fn ack_of_a_range_with_a_hole_reports_the_hole() {
    let mut rig = Rig::new(5);
    rig.hand_over_all();
    rig.retry(3, None);
    rig.effects();
    assert_eq!(rig.ack(ONE, 1, 5), [3]);
    let acked: Vec<_> = [(0, 1), (1, 2), (3, 4), (4, 5)]
        .map(|(offset, delivery)| finished(offset, Outcome::Acked, Some((ONE, delivery))))
        .into();
    assert_eq!(rig.effects(), acked);
    assert_eq!(rig.floor(), 2);
    // All numbers are behind the table by now, and are still known as judged.
    assert_eq!(rig.ack(ONE, 0, 5), [1, 2, 3, 4, 5]);
    assert_eq!(rig.effects(), []);
}

#[test]
fn numbers_never_given_change_nothing_and_cost_nothing() {
    let mut rig = Rig::new(2);
    rig.hand_over_all();
    assert_eq!(rig.machine.last_delivery(ONE), Some(DeliveryNo(2)));
    assert_eq!(rig.ack(ONE, 3, u64::MAX), []);
    assert_eq!(rig.release(ONE, 5, 4), []);
    let late = rig
        .machine
        .ack(InstanceNo(99), DeliveryNo(1), DeliveryNo(u64::MAX), &mut rig.out);
    assert_eq!(late.len() as u64, crate::delivery::limits::LATE_REPORT_MAX);
    let unknown = Err(VerdictError::UnknownDelivery);
    for delivery in [0, 3, u64::MAX].map(DeliveryNo) {
        assert_eq!(rig.machine.reject(rig.now, ONE, delivery, &mut rig.out), unknown);
        assert_eq!(
            rig.machine
                .retry(rig.now, ONE, delivery, None, SEED, &mut rig.out),
            unknown
        );
    }
    assert_eq!(
        rig.machine.reject(rig.now, TWO, DeliveryNo(1), &mut rig.out),
        unknown
    );
    assert_eq!(rig.effects(), []);
    assert_eq!(rig.ack(ONE, 1, u64::MAX), []);
    assert_eq!(rig.floor(), 2);
}

#[test]
fn a_late_verdict_after_a_lost_lease_is_refused() {
    let mut rig = Rig::new(2);
    rig.hand_over_all();
    rig.begin(ONE, 1);
    assert_eq!(rig.machine.next_deadline(), Some(rig.now.after(1_000)));
    rig.advance(999);
    assert_eq!(rig.effects(), []);
    rig.advance(1);
    let retry_at = rig.now.after(100);
    let lost = Effect::LeaseLost {
        instance: ONE,
        delivery: DeliveryNo(1),
        offset: Offset(0),
    };
    let cause = AttemptCause::LeaseExpired;
    assert_eq!(
        rig.effects(),
        [
            lost,
            Effect::AttemptCounted {
                offset: Offset(0),
                attempts: 1,
                cause,
                retry_at
            }
        ]
    );
    assert_eq!(rig.ack(ONE, 1, 1), [1]);
    let verdict = rig
        .machine
        .retry(rig.now, ONE, DeliveryNo(1), None, SEED, &mut rig.out);
    assert_eq!(verdict, Err(VerdictError::NotHeld));
    assert_eq!(rig.effects(), []);
    assert_eq!(rig.floor(), 0);
    // The second was prefetched only: no lease clock ran for it.
    assert_eq!(rig.machine.held_by(ONE), [(DeliveryNo(2), Offset(1), false)]);
    // It comes back under a new number, and that one counts.
    rig.advance(100);
    let (candidate, given) = rig.next(1).expect("the retry is due");
    assert_eq!(
        (candidate.offset, given.delivery, given.attempt),
        (Offset(0), DeliveryNo(3), 2)
    );
    assert_eq!(rig.ack(ONE, 1, 3), [1]);
    assert_eq!(rig.floor(), 2);
}

#[test]
fn extend_starts_begun_leases_anew() {
    let mut rig = Rig::new(3);
    rig.hand_over_all();
    rig.begin(ONE, 2);
    rig.advance(600);
    let late = rig.machine.extend(rig.now, ONE, DeliveryNo(2), DeliveryNo(3));
    assert_eq!(late, []);
    rig.advance(400);
    assert_eq!(rig.effects().len(), 2, "delivery 1 is lost and counted");
    assert_eq!(
        rig.machine.extend(rig.now, ONE, DeliveryNo(1), DeliveryNo(1)),
        [DeliveryNo(1)]
    );
    rig.advance(599);
    assert_eq!(rig.effects(), []);
    rig.advance(1);
    assert_eq!(rig.effects().len(), 2, "delivery 2 is lost and counted");
    rig.advance(1_000_000);
    assert_eq!(rig.effects(), [], "delivery 3 has not begun");
}

#[test]
fn begin_never_moves_back_and_leaves_running_clocks_alone() {
    let mut rig = Rig::new(3);
    rig.hand_over_all();
    rig.begin(ONE, 2);
    let first = rig.machine.next_deadline();
    rig.now = rig.now.after(500);
    rig.begin(ONE, 1);
    rig.begin(ONE, u64::MAX);
    assert_eq!(rig.machine.next_deadline(), first);
    rig.ack(ONE, 1, 2);
    assert_eq!(rig.machine.next_deadline(), Some(rig.now.after(1_000)));
    rig.ack(ONE, 3, 3);
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn a_release_is_uncounted_and_at_once_available_oldest_first() {
    let mut rig = Rig::new(4);
    rig.connect(TWO);
    rig.hand_over_all();
    let held = rig.machine.held_by(ONE);
    rig.begin(ONE, 1);
    assert_eq!(rig.release(ONE, 1, 2), []);
    assert_eq!(rig.release(ONE, 1, 2), [1, 2]);
    assert_eq!(rig.effects(), []);
    assert_eq!(rig.machine.generation(), 0, "a release changes nothing durable");
    rig.machine.extend_head(Offset(5));
    let offsets = rig.hand_over_all();
    assert_eq!(offsets, [held[0].1.0, held[1].1.0, 4]);
    assert!(rig.machine.cursor().attempts.is_empty());
}

#[test]
fn close_releases_the_prefetched_and_waits_for_the_begun() {
    let mut rig = Rig::new(3);
    rig.hand_over_all();
    rig.begin(ONE, 1);
    rig.machine.close(ONE, &mut rig.out);
    assert_eq!(rig.machine.held_by(ONE), [(DeliveryNo(1), Offset(0), true)]);
    assert_eq!(rig.machine.poll_next(rig.now), None, "nobody takes anything");
    rig.connect(TWO);
    assert_eq!(rig.hand_over_all(), [1, 2]);
    assert_eq!(rig.ack(ONE, 1, 3), [2, 3]);
    assert_eq!(rig.machine.held_count(ONE), 0);
    rig.disconnect(ONE);
    rig.ack(TWO, 1, 2);
    assert_eq!(rig.floor(), 3);
}

#[test]
fn disconnect_counts_what_was_begun_only() {
    let mut rig = Rig::new(4);
    rig.hand_over_all();
    rig.begin(ONE, 2);
    rig.ack(ONE, 1, 1);
    rig.effects();
    rig.disconnect(ONE);
    let retry_at = rig.now.after(100);
    let cause = AttemptCause::ConnectionLost;
    assert_eq!(
        rig.effects(),
        [Effect::AttemptCounted {
            offset: Offset(1),
            attempts: 1,
            cause,
            retry_at
        }]
    );
    assert_eq!(rig.machine.cursor().attempts, [(Offset(1), 1)].into());
    assert_eq!(rig.machine.last_delivery(ONE), None);
    rig.connect(TWO);
    assert_eq!(rig.hand_over_all(), [2, 3], "the prefetched come back at once");
    rig.advance(100);
    assert_eq!(rig.hand_over_all(), [1]);
}

#[test]
fn connecting_is_bounded_and_unambiguous() {
    let mut rig = Rig::new(0);
    assert_eq!(rig.machine.connect(ONE), Err(ConnectError::AlreadyConnected));
    for instance in 2..=crate::delivery::limits::INSTANCES_MAX as u64 {
        rig.connect(InstanceNo(instance));
    }
    let more = InstanceNo(10_000);
    assert_eq!(rig.machine.connect(more), Err(ConnectError::TooManyInstances));
    rig.disconnect(TWO);
    assert_eq!(rig.machine.connect(more), Ok(()));
}

#[test]
fn pausing_stops_handing_over_and_nothing_else() {
    let mut rig = Rig::new(3);
    rig.next(1).expect("the first message goes out");
    rig.machine.set_paused(true);
    assert!(rig.machine.is_paused());
    assert_eq!(rig.machine.poll_next(rig.now), None);
    assert_eq!(rig.machine.hand_over(rig.now, Offset(1), 1), None);
    assert_eq!(rig.ack(ONE, 1, 1), []);
    rig.machine.set_paused(false);
    assert_eq!(rig.hand_over_all(), [1, 2]);
}
