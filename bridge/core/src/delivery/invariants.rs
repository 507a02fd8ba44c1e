//! What holds of a delivery machine between any two calls.

use std::collections::BTreeSet;

use super::lease::Held;
use super::limits::{INSTANCE_SPAN_MAX, INSTANCES_MAX, WINDOW_MAX};
use super::window::Slot;
use super::{AppDelivery, Cursor};
use crate::ids::{Offset, Tick};

/// Checks the invariants of one machine: I14 (the cursor passes no unfinished offset), one lease per offset at most,
/// and that every table agrees with every other. Takes time in proportion to the window; meant for tests, simulation
/// and debug builds.
///
/// # Errors
/// The first violation found, in words.
pub fn check(machine: &AppDelivery) -> Result<(), String> {
    check_window(machine)?;
    check_leases(machine)?;
    machine.redelivery.check(&machine.window)?;
    check_attempts(machine)?;
    check_cursor(machine)?;
    check_deadline(machine)
}

fn ensure(holds: bool, violation: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(violation()) }
}

fn check_window(machine: &AppDelivery) -> Result<(), String> {
    let window = &machine.window;
    let (floor, frontier, head) = (window.floor(), window.frontier(), window.head());
    ensure(floor <= frontier && frontier <= head, || {
        format!("floor {floor}, frontier {frontier}, head {head} are out of order")
    })?;
    ensure(frontier.0 - floor.0 <= WINDOW_MAX, || {
        format!("the window {floor} to {frontier} is too long")
    })?;
    ensure(window.get(floor) != Some(Slot::Finished), || {
        format!("the floor {floor} lags behind")
    })?;
    for kind in [
        Slot::Available,
        Slot::Leased,
        Slot::Parked,
        Slot::DeadLettering,
        Slot::Finished,
    ] {
        let count = window.slots().filter(|&(_, slot)| slot == kind).count() as u64;
        ensure(count == window.count(kind), || {
            format!("{count} slots are {kind:?}, counted {}", window.count(kind))
        })?;
    }
    let mut end = None;
    for (first, last) in window.ahead() {
        let apart = end.is_none_or(|end: Offset| first > end.plus(1));
        ensure(first >= frontier && first <= last && last < head && apart, || {
            format!("the range {first} to {last} ahead is misplaced (frontier {frontier}, head {head})")
        })?;
        ensure(first > frontier || frontier.0 - floor.0 == WINDOW_MAX, || {
            format!("the frontier {frontier} stopped at a finished range with room in the window")
        })?;
        end = Some(last);
    }
    Ok(())
}

fn check_leases(machine: &AppDelivery) -> Result<(), String> {
    let mut leased = BTreeSet::new();
    ensure(machine.instances.len() <= INSTANCES_MAX, || {
        "too many instances".to_owned()
    })?;
    for instance in machine.instances.iter() {
        let no = instance.no;
        ensure(instance.credit.is_sound(), || {
            format!("instance {no} has {:?}", instance.credit)
        })?;
        ensure(instance.leases.span() <= INSTANCE_SPAN_MAX, || {
            format!("instance {no} spans too many numbers")
        })?;
        instance
            .leases
            .check()
            .map_err(|violation| format!("instance {no}: {violation}"))?;
        for (delivery, held) in instance.leases.held() {
            let (offset, prefetched) = match held {
                Held::Prefetched(offset) => (offset, true),
                Held::Begun(offset, _) => (offset, false),
                Held::Gone => return Err(format!("instance {no} lists {delivery}, which is gone")),
            };
            ensure(!(instance.closing && prefetched), || {
                format!("closing instance {no} prefetched {offset}")
            })?;
            ensure(leased.insert(offset), || {
                format!("offset {offset} has two leases")
            })?;
        }
    }
    let slots = machine
        .window
        .slots()
        .filter(|&(_, slot)| slot == Slot::Leased)
        .map(|(offset, _)| offset);
    ensure(leased.iter().copied().eq(slots), || {
        format!("instances hold {leased:?}, the leased slots differ")
    })
}

fn check_attempts(machine: &AppDelivery) -> Result<(), String> {
    for (&offset, &attempts) in machine.redelivery.attempts() {
        ensure(attempts > 0, || format!("offset {offset} has a count of 0"))?;
        let exhausted = attempts >= machine.policy.max_attempts;
        match machine.window.get(offset) {
            Some(Slot::Available | Slot::Parked) => {
                ensure(!exhausted, || {
                    format!("offset {offset} waits after {attempts} attempts")
                })?;
            }
            Some(Slot::Leased | Slot::DeadLettering) => (),
            Some(Slot::Finished) => return Err(format!("finished offset {offset} keeps its attempts")),
            None => ensure(offset >= machine.window.frontier(), || {
                format!("offset {offset} below the floor keeps its attempts")
            })?,
        }
    }
    match machine.window.next_new() {
        Some(next) => ensure(
            machine.redelivery.attempts_of(next) < machine.policy.max_attempts,
            || format!("offset {next} is next without an attempt left"),
        ),
        None => Ok(()),
    }
}

fn check_cursor(machine: &AppDelivery) -> Result<(), String> {
    let cursor: Cursor = machine.cursor();
    ensure(cursor.canonical().as_ref() == &cursor, || {
        format!("the cursor {cursor:?} is not canonical")
    })?;
    for (offset, slot) in machine.window.slots() {
        ensure(cursor.is_finished(offset) == (slot == Slot::Finished), || {
            format!("the cursor is wrong about offset {offset}, which is {slot:?}")
        })?;
    }
    let above_floor: u64 = cursor
        .finished
        .iter()
        .map(|&(first, last)| last.0 - first.0 + 1)
        .sum();
    let backlog = machine.head().0 - cursor.floor.0 - above_floor;
    ensure(backlog == machine.stats().backlog, || {
        format!(
            "the cursor leaves {backlog} messages, counted {}",
            machine.stats().backlog
        )
    })
}

fn check_deadline(machine: &AppDelivery) -> Result<(), String> {
    let leases = machine
        .instances
        .iter()
        .flat_map(|instance| instance.leases.held())
        .filter_map(|(_, held)| match held {
            Held::Begun(_, deadline) => Some(deadline),
            Held::Prefetched(_) | Held::Gone => None,
        });
    let earliest = leases.chain(machine.redelivery.next_retry()).min();
    let expected = if machine.redelivery.has_untold() {
        Some(Tick(0))
    } else {
        earliest
    };
    ensure(machine.next_deadline() == expected, || {
        format!(
            "the next deadline is {:?}, expected {expected:?}",
            machine.next_deadline()
        )
    })
}
