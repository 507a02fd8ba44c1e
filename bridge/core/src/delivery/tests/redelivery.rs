//! Goal: a failing message steps aside, comes back as often as the policy allows, and ends as a dead letter, never as
//! a loop or a loss. Method: fail messages in each possible way and follow them to their end.

use super::*;
use crate::delivery::{AttemptCause, DeadLetterReason};

#[test]
fn a_retry_steps_aside_and_comes_back_in_its_time() {
    let mut rig = Rig::new(3);
    rig.next(1).expect("offset 0");
    rig.retry(1, None);
    let retry_at = rig.now.after(100);
    let cause = AttemptCause::Retry;
    assert_eq!(
        rig.effects(),
        [Effect::AttemptCounted {
            offset: Offset(0),
            attempts: 1,
            cause,
            retry_at
        }]
    );
    assert_eq!(rig.machine.next_deadline(), Some(retry_at));
    assert_eq!(
        rig.machine.hand_over(rig.now, Offset(0), 1),
        None,
        "not before its time"
    );
    let (candidate, _) = rig.next(1).expect("the next message does not wait");
    assert_eq!(candidate.offset, Offset(1));
    rig.now = retry_at;
    // Due retries go before new messages, with or without a tick in between.
    assert_eq!(
        rig.machine.poll_next(rig.now),
        Some(Candidate {
            offset: Offset(0),
            attempt: 2
        })
    );
    rig.advance(0);
    assert_eq!(rig.hand_over_all(), [0, 2]);
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn the_oldest_due_offset_goes_first_whatever_its_retry_time() {
    let mut rig = Rig::new(3);
    rig.hand_over_all();
    rig.retry(1, Some(30));
    rig.retry(2, Some(20));
    rig.retry(3, Some(10));
    rig.now = rig.now.after(20);
    assert_eq!(rig.hand_over_all(), [1, 2]);
    rig.now = rig.now.after(10);
    assert_eq!(rig.hand_over_all(), [0]);
}

#[test]
fn the_asked_wait_is_bounded() {
    let mut rig = Rig::new(1);
    rig.next(1).expect("offset 0");
    rig.retry(1, Some(u64::MAX));
    let bound = rig.now.after(crate::delivery::limits::RETRY_DELAY_MS_MAX);
    assert_eq!(rig.machine.next_deadline(), Some(bound));
}

#[test]
fn the_last_attempt_ends_in_a_dead_letter_and_only_then_the_floor_moves() {
    let mut rig = Rig::new(2);
    for attempt in 1..=3 {
        let (_, given) = rig.next(1).expect("the poison comes");
        assert_eq!(given.attempt, attempt);
        rig.effects();
        rig.retry(given.delivery.0, Some(0));
    }
    let reason = DeadLetterReason::MaxAttempts;
    let letter = Effect::DeadLetter {
        offset: Offset(0),
        reason,
        attempts: 3,
        instance: Some(ONE),
    };
    assert_eq!(rig.effects(), [letter]);
    assert_eq!(rig.machine.stats().dead_lettering, 1);
    assert_eq!(rig.hand_over_all(), [1]);
    rig.ack(ONE, 4, 4);
    rig.effects();
    assert_eq!(rig.floor(), 0);
    rig.dead_lettered(0);
    // The last retry is what the shell confirms now.
    assert_eq!(
        rig.effects(),
        [finished(0, Outcome::DeadLettered, Some((ONE, 3)))]
    );
    assert_eq!(rig.floor(), 2);
    assert!(rig.machine.cursor().attempts.is_empty());
    rig.dead_lettered(0);
    assert_eq!(rig.effects(), [], "a second time changes nothing");
}

#[test]
fn a_reject_is_a_dead_letter_at_once() {
    let mut rig = Rig::new(1);
    rig.hand_over_all();
    rig.machine
        .reject(rig.now, ONE, DeliveryNo(1), &mut rig.out)
        .expect("held");
    let reason = DeadLetterReason::Rejected;
    let letter = Effect::DeadLetter {
        offset: Offset(0),
        reason,
        attempts: 1,
        instance: Some(ONE),
    };
    assert_eq!(rig.effects(), [letter]);
    assert_eq!(rig.machine.generation(), 0, "nothing is durable yet");
    assert_eq!(rig.ack(ONE, 1, 1), [1]);
    rig.disconnect(ONE);
    rig.dead_lettered(0);
    assert_eq!(
        rig.effects(),
        [finished(0, Outcome::DeadLettered, Some((ONE, 1)))]
    );
    assert_eq!(rig.floor(), 1);
}

#[test]
fn poison_never_loops_whatever_ends_its_attempts() {
    // The handler of offset 0 in turn loses its lease and its connection, for ever; the bridge restarts in between.
    let mut rig = Rig::with(
        Policy {
            max_attempts: 5,
            ..policy()
        },
        Cursor::default(),
        1,
    );
    let mut handed_over = 0;
    for round in 0..100 {
        let instance = InstanceNo(round + 1);
        rig.connect(instance);
        if let Some((candidate, given)) = rig.next(1) {
            handed_over += 1;
            assert_eq!(candidate.attempt, handed_over);
            rig.begin(instance, given.delivery.0);
            if round % 2 == 0 {
                rig.advance(1_000);
            }
        }
        rig.disconnect(instance);
        rig.advance(1_000);
        let cursor = Cursor::decode(&rig.machine.cursor().encode()).expect("the own cursor is readable");
        rig.machine = AppDelivery::new(rig.machine.policy(), cursor, Offset(1));
    }
    assert_eq!(handed_over, 5);
    rig.effects();
    rig.advance(0);
    let reason = DeadLetterReason::MaxAttempts;
    let letter = Effect::DeadLetter {
        offset: Offset(0),
        reason,
        attempts: 5,
        instance: None,
    };
    assert_eq!(rig.effects(), [letter]);
    rig.dead_lettered(0);
    assert_eq!(rig.floor(), 1);
}

#[test]
fn a_lower_attempt_limit_holds_for_waiting_leased_and_released_messages() {
    let mut rig = Rig::new(3);
    rig.hand_over_all();
    for delivery in [1, 2, 3] {
        rig.retry(delivery, Some(0));
    }
    assert_eq!(
        rig.next(1).map(|(candidate, _)| candidate.offset),
        Some(Offset(0))
    );
    rig.effects();
    rig.machine.set_policy(Policy {
        max_attempts: 1,
        ..policy()
    });
    assert_eq!(rig.machine.next_deadline(), Some(Tick(0)));
    assert_eq!(rig.machine.poll_next(rig.now), None);
    rig.machine.set_policy(Policy {
        max_attempts: 2,
        ..policy()
    });
    assert_eq!(
        rig.machine.poll_next(rig.now).map(|candidate| candidate.offset),
        Some(Offset(1)),
        "spared"
    );
    rig.machine.set_policy(Policy {
        max_attempts: 1,
        ..policy()
    });
    rig.advance(0);
    let letter = |offset, instance| Effect::DeadLetter {
        offset: Offset(offset),
        reason: DeadLetterReason::MaxAttempts,
        attempts: 1,
        instance,
    };
    assert_eq!(rig.effects(), [letter(1, None), letter(2, None)]);
    rig.release(ONE, 4, 4);
    assert_eq!(rig.effects(), [letter(0, Some(ONE))]);
    for offset in 0..3 {
        rig.dead_lettered(offset);
    }
    assert_eq!(rig.floor(), 3);
}

#[test]
fn back_off_grows_to_its_maximum_and_jitter_stays_within_bounds() {
    let plain = Backoff {
        initial_ms: 100,
        factor_milli: 2_000,
        max_ms: 1_000,
        jitter_percent: 0,
    };
    let delays: Vec<u64> = (1..=6).map(|attempt| plain.delay(attempt, SEED)).collect();
    assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!(plain.delay(u32::MAX, SEED), 1_000);
    assert_eq!(plain.delay(0, SEED), 100);

    let jittered = Backoff {
        jitter_percent: 25,
        ..plain
    };
    let delays: Vec<u64> = (0..10_000).map(|seed| jittered.delay(3, seed)).collect();
    assert_eq!(delays.iter().min(), Some(&300));
    assert_eq!(delays.iter().max(), Some(&400));
    assert_eq!(jittered.delay(3, 42), jittered.delay(3, 42));
    let mean = delays.iter().sum::<u64>() / 10_000;
    assert!(
        (345..=355).contains(&mean),
        "jitter spreads evenly, the mean is {mean}"
    );
}

#[test]
fn odd_back_off_values_end_and_stay_in_range() {
    let extremes = [0, 1, 1_000, 2_000, u64::MAX];
    for initial_ms in extremes {
        for max_ms in extremes {
            for factor_milli in [0, 999, 1_000, 1_001, u32::MAX] {
                for jitter_percent in [0, 50, 100, u8::MAX] {
                    let backoff = Backoff {
                        initial_ms,
                        factor_milli,
                        max_ms,
                        jitter_percent,
                    };
                    for attempt in [0, 1, 2, 1_000, u32::MAX] {
                        let cap = max_ms.min(crate::delivery::limits::RETRY_DELAY_MS_MAX);
                        assert!(
                            backoff.delay(attempt, SEED) <= cap,
                            "{backoff:?} attempt {attempt}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_lost_message_becomes_a_dead_letter_without_a_delivery() {
    let mut rig = Rig::new(3);
    rig.next(1).expect("offset 0");
    rig.retry(1, None);
    rig.effects();
    let mut effects = Vec::new();
    assert!(rig.machine.lose(rig.now, Offset(1), &mut effects), "a new one");
    assert!(!rig.machine.lose(rig.now, Offset(1), &mut effects), "once");
    assert!(
        !rig.machine.lose(rig.now, Offset(0), &mut effects),
        "not before its time"
    );
    rig.now = rig.machine.next_deadline().expect("a retry");
    assert!(rig.machine.lose(rig.now, Offset(0), &mut effects), "a due one");
    let reason = DeadLetterReason::Lost;
    let dead = |offset, attempts| Effect::DeadLetter {
        offset: Offset(offset),
        reason,
        attempts,
        instance: None,
    };
    assert_eq!(effects, [dead(1, 0), dead(0, 1)]);
    assert_eq!(
        rig.machine.floor(),
        Offset(0),
        "not finished before the copy is durable"
    );
    assert_eq!(rig.hand_over_all(), [2]);
    rig.machine.dead_lettered(Offset(0), &mut effects);
    rig.machine.dead_lettered(Offset(1), &mut effects);
    assert_eq!(rig.machine.floor(), Offset(2));
    crate::delivery::invariants::check(&rig.machine).unwrap();
}
