//! The offsets an application is working on: one byte of state for each between floor and frontier.
//!
//! Below the floor everything is finished. At and above the frontier nothing was handed over yet; ranges that are
//! finished there all the same (skipped, or known from the cursor after a restart) wait in `ahead`.

use std::collections::{BTreeMap, VecDeque};

use super::limits::{AHEAD_RANGES_MAX, WINDOW_MAX};
use crate::ids::Offset;

/// The state of one offset between floor and frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Was handed over before and can be again at once.
    Available,
    /// Some instance holds it.
    Leased,
    /// Waits for its retry time.
    Parked,
    /// Waits for its dead letter to be durable.
    DeadLettering,
    /// Needs nothing more.
    Finished,
}

const SLOT_KINDS: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    floor: Offset,
    head: Offset,
    slots: VecDeque<Slot>,
    /// Slots per kind, indexed by `Slot as usize`.
    counts: [u64; SLOT_KINDS],
    /// Finished ranges at or above the frontier, first to last inclusive; disjoint, not touching, below the head.
    ahead: BTreeMap<Offset, Offset>,
    finished_ahead: u64,
}

impl Window {
    pub(super) fn new(floor: Offset, head: Offset) -> Window {
        Window {
            floor,
            head: head.max(floor),
            slots: VecDeque::new(),
            counts: [0; SLOT_KINDS],
            ahead: BTreeMap::new(),
            finished_ahead: 0,
        }
    }

    pub(super) fn floor(&self) -> Offset {
        self.floor
    }

    pub(super) fn head(&self) -> Offset {
        self.head
    }

    pub(super) fn frontier(&self) -> Offset {
        self.floor.plus(self.slots.len() as u64)
    }

    pub(super) fn extend_head(&mut self, head: Offset) {
        self.head = self.head.max(head);
    }

    pub(super) fn count(&self, slot: Slot) -> u64 {
        self.counts[slot as usize]
    }

    /// Unfinished offsets below the head.
    pub(super) fn backlog(&self) -> u64 {
        self.head.0 - self.floor.0 - self.count(Slot::Finished) - self.finished_ahead
    }

    /// The state of an offset between floor and frontier.
    pub(super) fn get(&self, offset: Offset) -> Option<Slot> {
        let index = offset.0.checked_sub(self.floor.0)?;
        self.slots.get(usize::try_from(index).ok()?).copied()
    }

    /// Changes an offset between floor and frontier. Callers look it up before, or know it from a lease.
    pub(super) fn set(&mut self, offset: Offset, slot: Slot) {
        debug_assert!(
            offset >= self.floor && offset < self.frontier(),
            "{offset} is outside the window"
        );
        let Some(entry) = self.slots.get_mut((offset.0.wrapping_sub(self.floor.0)) as usize) else {
            return;
        };
        self.counts[*entry as usize] -= 1;
        self.counts[slot as usize] += 1;
        *entry = slot;
    }

    /// The offset to hand over for the first time next, if one is visible and fits the window.
    pub(super) fn next_new(&self) -> Option<Offset> {
        let frontier = self.frontier();
        (frontier < self.head && (self.slots.len() as u64) < WINDOW_MAX).then_some(frontier)
    }

    /// Takes the offset [`next_new`](Window::next_new) gave into the window.
    pub(super) fn push(&mut self, slot: Slot) {
        self.slots.push_back(slot);
        self.counts[slot as usize] += 1;
    }

    /// Finishes a range at or above the frontier. Returns whether anything changed: not when all of it was finished,
    /// nor when it would be one separate range too many.
    pub(super) fn finish_ahead(&mut self, first: Offset, last: Offset) -> bool {
        let room = (self.ahead.len() as u64) < AHEAD_RANGES_MAX;
        self.insert_ahead(first, last, room || first == self.frontier())
    }

    /// Takes over a finished range of the cursor, before anything is handed over.
    pub(super) fn restore_finished(&mut self, first: Offset, last: Offset) {
        self.head = self.head.max(last.plus(1));
        self.insert_ahead(first, last, true);
    }

    fn insert_ahead(&mut self, first: Offset, last: Offset, may_add: bool) -> bool {
        let (mut low, mut high) = (first, last);
        if let Some((&before_first, &before_last)) = self.ahead.range(..=first).next_back()
            && before_last.0 + 1 >= first.0
        {
            low = before_first;
            if before_last >= last {
                return false;
            }
        }
        let mut joins = false;
        while let Some((&other_first, &other_last)) = self.ahead.range(low..=high.plus(1)).next() {
            self.ahead.remove(&other_first);
            self.finished_ahead -= span(other_first, other_last);
            high = high.max(other_last);
            joins = true;
        }
        if !joins && !may_add {
            return false;
        }
        self.ahead.insert(low, high);
        self.finished_ahead += span(low, high);
        true
    }

    /// Moves the floor over what is finished, and the frontier over finished ranges that begin there.
    pub(super) fn advance(&mut self) {
        loop {
            while self.slots.front() == Some(&Slot::Finished) {
                self.slots.pop_front();
                self.counts[Slot::Finished as usize] -= 1;
                self.floor = self.floor.plus(1);
            }
            let frontier = self.frontier();
            let Some((&first, &last)) = self.ahead.first_key_value() else {
                return;
            };
            if first != frontier {
                return;
            }
            if self.slots.is_empty() {
                self.ahead.remove(&first);
                self.finished_ahead -= span(first, last);
                self.floor = last.plus(1);
                continue;
            }
            let room = WINDOW_MAX - self.slots.len() as u64;
            let taken = room.min(span(first, last));
            if taken == 0 {
                return;
            }
            self.ahead.remove(&first);
            self.finished_ahead -= taken;
            if first.plus(taken) <= last {
                self.ahead.insert(first.plus(taken), last);
            }
            self.slots.extend((0..taken).map(|_| Slot::Finished));
            self.counts[Slot::Finished as usize] += taken;
        }
    }

    /// Every finished range above the floor, ascending, not touching.
    pub(super) fn finished_ranges(&self) -> Vec<(Offset, Offset)> {
        let mut ranges: Vec<(Offset, Offset)> = Vec::new();
        let mut add = |first: Offset, last: Offset| match ranges.last_mut() {
            Some(before) if before.1.plus(1) == first => before.1 = last,
            Some(_) | None => ranges.push((first, last)),
        };
        if self.count(Slot::Finished) > 0 {
            for (offset, slot) in self.slots() {
                if slot == Slot::Finished {
                    add(offset, offset);
                }
            }
        }
        for (&first, &last) in &self.ahead {
            add(first, last);
        }
        ranges
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = (Offset, Slot)> + '_ {
        (self.floor.0..).map(Offset).zip(self.slots.iter().copied())
    }

    pub(super) fn ahead(&self) -> impl Iterator<Item = (Offset, Offset)> + '_ {
        self.ahead.iter().map(|(&first, &last)| (first, last))
    }
}

/// Offsets from first to last, both inclusive.
fn span(first: Offset, last: Offset) -> u64 {
    last.0 - first.0 + 1
}
