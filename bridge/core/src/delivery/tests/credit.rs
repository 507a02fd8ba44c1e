//! Goal: instances get what they asked for, in bytes and messages, no more, and no size blocks for ever. Method: small
//! credits, and who gets what.

use super::*;

fn rig(head: u64, credits: &[(u64, u32)]) -> Rig {
    let mut rig = Rig::with(policy(), Cursor::default(), head);
    for (instance, &(bytes, messages)) in (1..).zip(credits) {
        rig.machine
            .connect(InstanceNo(instance))
            .expect("a new instance connects");
        rig.machine.grant(InstanceNo(instance), bytes, messages);
    }
    rig
}

/// The instance that gets the next message of this size.
fn taker(rig: &mut Rig, size: u64) -> Option<u64> {
    rig.next(size).map(|(_, given)| given.instance.0)
}

#[test]
fn nothing_goes_out_without_credit_of_both_kinds() {
    let mut rig = rig(9, &[(0, 5), (5, 0)]);
    assert_eq!(rig.machine.poll_next(rig.now), None);
    rig.machine.grant(ONE, 2, 0);
    assert_eq!(taker(&mut rig, 2), Some(1));
    assert_eq!(taker(&mut rig, 1), None);
    rig.machine.grant(TWO, 0, 1);
    assert_eq!(taker(&mut rig, 1), Some(2));
    assert_eq!(taker(&mut rig, 1), None, "message credit is spent");
    rig.machine.grant(InstanceNo(99), 1, 1);
}

#[test]
fn grants_add_up_to_a_named_limit() {
    let mut rig = rig(1, &[(u64::MAX, u32::MAX)]);
    rig.machine.grant(ONE, u64::MAX, u32::MAX);
    rig.check();
    assert_eq!(
        taker(&mut rig, crate::delivery::limits::CREDIT_BYTES_MAX),
        Some(1)
    );
    assert_eq!(taker(&mut rig, 1), None);
}

#[test]
fn who_holds_least_wins_then_most_free_credit_and_equals_take_turns() {
    let mut rig = rig(100, &[(100, 50), (100, 50), (130, 50)]);
    let takers: Vec<_> = (0..6).filter_map(|_| taker(&mut rig, 10)).collect();
    assert_eq!(takers, [3, 1, 2, 3, 1, 2]);
    // Messages without a body cost no bytes; they go round all the same.
    rig.machine.grant(ONE, 30, 0);
    let takers: Vec<_> = (0..6).filter_map(|_| taker(&mut rig, 0)).collect();
    assert_eq!(takers[..3], takers[3..]);
    // Who is done gets the next ones.
    rig.ack(TWO, 1, 4);
    let takers: Vec<_> = (0..4).filter_map(|_| taker(&mut rig, 1)).collect();
    assert_eq!(takers, [2, 2, 2, 2]);
}

/// Goal: an instance that grants without end and finishes nothing does not take everything. Method: it stands beside one with little
/// credit that finishes each message at once.
#[test]
fn endless_credit_is_no_claim_to_everything() {
    let mut rig = rig(200, &[(u64::MAX, u32::MAX), (20, 200)]);
    let mut of_two = 0;
    for _ in 0..100 {
        if taker(&mut rig, 10) == Some(2) {
            of_two += 1;
            rig.ack(TWO, of_two, of_two);
            rig.machine.grant(TWO, 10, 0);
        }
    }
    assert!(of_two >= 98, "the one that works got {of_two} of 100");
}

#[test]
fn a_message_above_the_whole_credit_goes_alone_and_is_paid_back_first() {
    let mut rig = rig(4, &[(100, 10)]);
    assert_eq!(taker(&mut rig, 40), Some(1));
    assert_eq!(taker(&mut rig, 500), None, "the instance holds something");
    assert!(
        rig.machine.poll_next(rig.now).is_some(),
        "it is next all the same"
    );
    rig.ack(ONE, 1, 1);
    assert_eq!(taker(&mut rig, 500), Some(1));
    rig.ack(ONE, 2, 2);
    // 440 bytes were sent on top of the credit: that much has to be granted before anything else goes out.
    rig.machine.grant(ONE, 440, 1);
    assert_eq!(taker(&mut rig, 1), None);
    rig.machine.grant(ONE, 1, 0);
    assert_eq!(taker(&mut rig, 1), Some(1));
}

#[test]
fn a_large_message_goes_to_the_instance_that_has_room_for_it() {
    let mut rig = rig(2, &[(100, 10), (300, 10)]);
    assert_eq!(taker(&mut rig, 50), Some(2));
    assert_eq!(
        taker(&mut rig, 200),
        Some(2),
        "an empty instance with too little credit is no better choice"
    );
}

#[test]
fn in_flight_limits_hold_for_an_instance_and_for_all() {
    let limited = Policy {
        in_flight_max: 5,
        instance_in_flight_max: 3,
        ..policy()
    };
    let mut rig = Rig::with(limited, Cursor::default(), 100);
    rig.connect(ONE);
    assert_eq!(rig.hand_over_all(), [0, 1, 2]);
    rig.connect(TWO);
    assert_eq!(rig.hand_over_all(), [3, 4]);
    assert_eq!(rig.machine.hand_over(rig.now, Offset(5), 1), None);
    assert_eq!(rig.machine.stats().in_flight, 5);
    rig.ack(TWO, 1, 1);
    assert_eq!(rig.hand_over_all(), [5]);
    // A lower limit takes nothing back.
    rig.machine.set_policy(Policy {
        in_flight_max: 1,
        ..limited
    });
    assert_eq!(rig.ack(ONE, 1, 3), []);
    assert_eq!(rig.hand_over_all(), []);
    assert_eq!(rig.ack(TWO, 2, 3), []);
    assert_eq!(rig.hand_over_all(), [6]);
}

#[test]
fn an_instance_that_sits_on_an_old_delivery_gets_a_bounded_number_more() {
    let mut rig = Rig::with(policy(), Cursor::default(), 2);
    rig.machine.connect(ONE).expect("a new instance connects");
    rig.machine.grant(ONE, 1 << 30, 65_536);
    rig.next(1).expect("offset 0 stays held");
    let mut given = 1;
    while let Some(candidate) = rig.machine.poll_next(rig.now) {
        let handed = rig
            .machine
            .hand_over(rig.now, candidate.offset, 1)
            .expect("there is room");
        rig.machine
            .release(ONE, handed.delivery, handed.delivery, &mut rig.out);
        rig.machine.grant(ONE, 1, 1);
        given += 1;
    }
    assert_eq!(given, crate::delivery::limits::INSTANCE_SPAN_MAX);
    rig.ack(ONE, 1, 1);
    assert_eq!(rig.hand_over_all(), [1]);
}
