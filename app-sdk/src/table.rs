//! What became of each delivery of one connection, by delivery number.

use std::collections::{BTreeMap, VecDeque};

use fanin_proto::v1::DeliveryRange;

use crate::confirmation::Waiter;
use crate::limits::DENSE_SLOTS_MAX;

/// The state of one delivery.
#[derive(Debug)]
enum Slot {
    /// Received, not handed out.
    Buffered { cost: u32 },
    /// Handed out, without a verdict.
    Held { cost: u32 },
    /// Answered; somebody waits to hear that the verdict is durable.
    Awaiting(Waiter),
    /// Answered, lost or given back: nothing is owed any more.
    Gone,
}

/// Credit that deliveries give back when they are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

impl Freed {
    fn add(&mut self, cost: u32) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(u64::from(cost));
    }
}

/// The deliveries of one connection. Numbers are dense and mostly finish in order, so they live in a ring; one that
/// stays open while thousands pass by moves to the sparse map, so that the size follows what is open, not what passed.
#[derive(Debug)]
pub(crate) struct Table {
    /// Number of the first slot of `dense`.
    first: u64,
    dense: VecDeque<Slot>,
    sparse: BTreeMap<u64, Slot>,
    held: usize,
    awaiting: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            first: 1,
            dense: VecDeque::new(),
            sparse: BTreeMap::new(),
            held: 0,
            awaiting: 0,
        }
    }

    /// The number the next delivery must have.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.dense.len() as u64
    }

    /// Deliveries handed out and not answered.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Verdicts whose confirmation somebody waits for.
    pub(crate) fn awaiting(&self) -> usize {
        self.awaiting
    }

    /// Adds the next delivery, as received.
    pub(crate) fn push(&mut self, cost: u32) {
        self.dense.push_back(Slot::Buffered { cost });
        if self.dense.len() > DENSE_SLOTS_MAX {
            self.trim();
        }
    }

    /// Hands a received delivery out; false when it was lost or given back meanwhile.
    pub(crate) fn hand_out(&mut self, delivery: u64) -> bool {
        let Some(slot) = self.slot(delivery) else {
            return false;
        };
        let Slot::Buffered { cost } = *slot else {
            return false;
        };
        *slot = Slot::Held { cost };
        self.held += 1;
        true
    }

    pub(crate) fn is_held(&self, delivery: u64) -> bool {
        let slot = match delivery.checked_sub(self.first) {
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|index| self.dense.get(index)),
            None => self.sparse.get(&delivery),
        };
        matches!(slot, Some(Slot::Held { .. }))
    }

    /// Takes the verdict on a held delivery: the credit it frees, or the waiter back when it is not held.
    pub(crate) fn answer(&mut self, delivery: u64, waiter: Option<Waiter>) -> Result<Freed, Option<Waiter>> {
        let Some(slot) = self.slot(delivery) else {
            return Err(waiter);
        };
        let Slot::Held { cost } = *slot else {
            return Err(waiter);
        };
        let awaited = waiter.is_some();
        *slot = waiter.map_or(Slot::Gone, Slot::Awaiting);
        self.held -= 1;
        if awaited {
            self.awaiting += 1;
        } else {
            self.trim_finished(delivery);
        }
        let mut freed = Freed::default();
        freed.add(cost);
        Ok(freed)
    }

    /// The verdicts in the range are durable. Returns who waited for them.
    pub(crate) fn confirm(&mut self, range: &DeliveryRange, waiters: &mut Vec<Waiter>) {
        let mut confirmed = 0;
        self.for_each(range, |slot| {
            if let Slot::Awaiting(_) = slot
                && let Slot::Awaiting(waiter) = std::mem::replace(slot, Slot::Gone)
            {
                waiters.push(waiter);
                confirmed += 1;
            }
        });
        self.awaiting -= confirmed;
        self.trim_range(range);
    }

    /// The leases in the range are lost, or what it holds is given back. Returns who waited for verdicts on them.
    pub(crate) fn lose(&mut self, range: &DeliveryRange, waiters: &mut Vec<Waiter>) -> Freed {
        let (mut held, mut awaiting, mut freed) = (0, 0, Freed::default());
        self.for_each(range, |slot| match std::mem::replace(slot, Slot::Gone) {
            Slot::Buffered { cost } => freed.add(cost),
            Slot::Held { cost } => {
                held += 1;
                freed.add(cost);
            }
            Slot::Awaiting(waiter) => {
                awaiting += 1;
                waiters.push(waiter);
            }
            Slot::Gone => {}
        });
        self.held -= held;
        self.awaiting -= awaiting;
        self.trim_range(range);
        freed
    }

    /// Forgets what was received and not handed out. Returns the range of it, if any.
    pub(crate) fn give_back_buffered(&mut self) -> Option<DeliveryRange> {
        let (mut first, mut last) = (None, 0);
        let base = self.first;
        let sparse = self.sparse.iter_mut().map(|(delivery, slot)| (*delivery, slot));
        for (delivery, slot) in sparse.chain((base..).zip(self.dense.iter_mut())) {
            if matches!(slot, Slot::Buffered { .. }) {
                *slot = Slot::Gone;
                first.get_or_insert(delivery);
                last = delivery;
            }
        }
        // Deliveries are handed out in order, so everything behind the first buffered one is buffered or gone.
        let range = first.map(|first| DeliveryRange { first, last });
        if let Some(range) = &range {
            self.trim_range(range);
        }
        range
    }

    /// The ranges of all deliveries that are handed out and not answered.
    pub(crate) fn held_ranges(&self) -> Vec<DeliveryRange> {
        let mut ranges = Vec::new();
        let sparse = self.sparse.iter().map(|(delivery, slot)| (*delivery, slot));
        for (delivery, slot) in sparse.chain((self.first..).zip(self.dense.iter())) {
            if matches!(slot, Slot::Held { .. }) {
                push_range(&mut ranges, delivery);
            }
        }
        ranges
    }

    /// Empties the table. Returns everybody who waited.
    pub(crate) fn clear(&mut self) -> Vec<Waiter> {
        let table = std::mem::replace(self, Self::new());
        let slots = table.sparse.into_values().chain(table.dense);
        slots
            .filter_map(|slot| match slot {
                Slot::Awaiting(waiter) => Some(waiter),
                Slot::Buffered { .. } | Slot::Held { .. } | Slot::Gone => None,
            })
            .collect()
    }

    fn slot(&mut self, delivery: u64) -> Option<&mut Slot> {
        match delivery.checked_sub(self.first) {
            Some(index) => self.dense.get_mut(usize::try_from(index).ok()?),
            None => self.sparse.get_mut(&delivery),
        }
    }

    /// Visits the slots of a range; parts of it that are unknown are passed over.
    fn for_each(&mut self, range: &DeliveryRange, mut visit: impl FnMut(&mut Slot)) {
        if range.first > range.last {
            return;
        }
        for (_, slot) in self.sparse.range_mut(range.first..=range.last) {
            visit(slot);
        }
        let from = range.first.max(self.first);
        let to = range.last.saturating_add(1).min(self.next());
        if let (Ok(from), Ok(to)) = (
            usize::try_from(from - self.first),
            usize::try_from(to.saturating_sub(self.first)),
        ) && from < to
        {
            self.dense.range_mut(from..to).for_each(visit);
        }
    }

    fn trim_finished(&mut self, delivery: u64) {
        if delivery < self.first {
            self.sparse.remove(&delivery);
        } else if delivery == self.first {
            self.trim();
        }
    }

    /// Forgets finished deliveries of a range that was just visited, and whatever is finished at the front.
    fn trim_range(&mut self, range: &DeliveryRange) {
        if range.first < self.first && range.first <= range.last {
            let finished = self.sparse.range(range.first..=range.last);
            let finished = finished.filter(|(_, slot)| matches!(slot, Slot::Gone));
            let finished: Vec<u64> = finished.map(|(delivery, _)| *delivery).collect();
            for delivery in finished {
                self.sparse.remove(&delivery);
            }
        }
        self.trim();
    }

    fn trim(&mut self) {
        while let Some(front) = self.dense.front() {
            let gone = matches!(front, Slot::Gone);
            if !gone && self.dense.len() <= DENSE_SLOTS_MAX {
                return;
            }
            if let Some(slot) = self.dense.pop_front()
                && !gone
            {
                self.sparse.insert(self.first, slot);
            }
            self.first += 1;
        }
    }
}

/// Adds a delivery to ranges, joining it to the last one where it follows.
pub(crate) fn push_range(ranges: &mut Vec<DeliveryRange>, delivery: u64) {
    match ranges.last_mut() {
        Some(range) if range.last + 1 == delivery => range.last = delivery,
        _ => ranges.push(DeliveryRange {
            first: delivery,
            last: delivery,
        }),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each delivery is owned once, whatever the order of verdicts, and finished ones take no room.
    //! Method: drive the table by hand, with more deliveries than its dense part holds.
    use super::*;
    use crate::confirmation::Confirmation;

    fn range(first: u64, last: u64) -> DeliveryRange {
        DeliveryRange { first, last }
    }

    fn table(deliveries: u64) -> Table {
        let mut table = Table::new();
        (0..deliveries).for_each(|_| table.push(10));
        table
    }

    #[test]
    fn a_delivery_is_answered_once_and_only_after_hand_out() {
        let mut table = table(2);
        assert!(table.answer(1, None).is_err(), "not handed out yet");
        assert!(table.hand_out(1) && !table.hand_out(1));
        assert_eq!(
            table.answer(1, None).ok(),
            Some(Freed {
                messages: 1,
                bytes: 10
            })
        );
        assert!(table.answer(1, None).is_err(), "answered already");
        assert!(table.answer(99, None).is_err(), "never received");
        assert_eq!((table.held(), table.next()), (0, 3));
    }

    #[test]
    fn one_open_delivery_does_not_keep_the_others() {
        let total = 4 * DENSE_SLOTS_MAX as u64;
        let mut table = Table::new();
        for delivery in 1..=total {
            table.push(1);
            assert!(table.hand_out(delivery));
            if delivery != 7 {
                assert!(table.answer(delivery, None).is_ok());
            }
        }
        assert!(table.dense.len() <= DENSE_SLOTS_MAX && table.sparse.len() == 1);
        assert_eq!(table.held_ranges(), vec![range(7, 7)]);
        assert!(table.is_held(7));
        assert!(table.answer(7, None).is_ok());
        assert!(table.sparse.is_empty() && !table.is_held(7));
    }

    #[test]
    fn confirmations_and_losses_reach_their_waiters() {
        let mut table = table(4);
        (1..=3).for_each(|delivery| assert!(table.hand_out(delivery)));
        let (_first, waiter) = Confirmation::new();
        assert!(table.answer(2, Some(waiter)).is_ok());
        assert_eq!(table.awaiting(), 1);
        let mut waiters = Vec::new();
        table.confirm(&range(1, u64::MAX), &mut waiters);
        assert_eq!((waiters.len(), table.awaiting(), table.held()), (1, 0, 2));
        assert_eq!(
            table.lose(&range(0, 3), &mut waiters),
            Freed {
                messages: 2,
                bytes: 20
            }
        );
        assert_eq!((waiters.len(), table.held()), (1, 0));
        assert_eq!(table.give_back_buffered(), Some(range(4, 4)));
        assert!(!table.hand_out(4));
        assert_eq!(table.give_back_buffered(), None);
        table.lose(&range(5, 2), &mut waiters);
        assert_eq!(table.next(), 5);
    }
}
