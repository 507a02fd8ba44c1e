//! The deliveries one instance holds, by number, and when their leases run out.

use core::mem;
use std::collections::{BTreeMap, VecDeque};

use super::effect::VerdictError;
use super::limits::LATE_REPORT_MAX;
use crate::ids::{DeliveryNo, Offset, Tick};

/// One delivery number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// Has its verdict, or the lease was lost.
    Gone,
    /// Sent, but not in a handler's hands yet: no lease clock.
    Prefetched(Offset),
    /// In a handler's hands until the tick.
    Begun(Offset, Tick),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leases {
    /// The number of the first entry.
    base: u64,
    /// Entries by number without gaps. The first is never gone.
    entries: VecDeque<Held>,
    live: u32,
    /// Entries up to this number are begun or gone, those behind it are prefetched or gone.
    begun_through: u64,
    /// Begun deliveries per deadline. Deliveries that begin together share an entry, so that the hot path touches the
    /// map once per batch.
    deadlines: BTreeMap<Tick, u32>,
}

impl Leases {
    pub(super) fn new() -> Leases {
        Leases {
            base: 1,
            entries: VecDeque::new(),
            live: 0,
            begun_through: 0,
            deadlines: BTreeMap::new(),
        }
    }

    /// Deliveries held.
    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// Delivery numbers from the oldest held to the newest given.
    pub(super) fn span(&self) -> usize {
        self.entries.len()
    }

    /// The number given last, 0 before the first.
    pub(super) fn last(&self) -> DeliveryNo {
        DeliveryNo(self.next() - 1)
    }

    fn next(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.deadlines.first_key_value().map(|(&tick, _)| tick)
    }

    pub(super) fn push(&mut self, offset: Offset) -> DeliveryNo {
        let number = self.next();
        self.entries.push_back(Held::Prefetched(offset));
        self.live += 1;
        DeliveryNo(number)
    }

    fn index(&self, delivery: DeliveryNo) -> Result<usize, VerdictError> {
        if delivery.0 == 0 || delivery.0 >= self.next() {
            return Err(VerdictError::UnknownDelivery);
        }
        // The difference is below the number of entries.
        delivery
            .0
            .checked_sub(self.base)
            .map(|index| index as usize)
            .ok_or(VerdictError::NotHeld)
    }

    pub(super) fn offset_of(&self, delivery: DeliveryNo) -> Result<Offset, VerdictError> {
        match self.entries[self.index(delivery)?] {
            Held::Gone => Err(VerdictError::NotHeld),
            Held::Prefetched(offset) | Held::Begun(offset, _) => Ok(offset),
        }
    }

    /// Ends one lease.
    pub(super) fn take(&mut self, delivery: DeliveryNo) -> Result<Offset, VerdictError> {
        let offset = self.offset_of(delivery)?;
        self.take_range(delivery, delivery, &mut Vec::new(), |_, _| ());
        Ok(offset)
    }

    /// Ends the leases of the held deliveries of a range; the others of it that were ever given go to `late`.
    pub(super) fn take_range(
        &mut self,
        first: DeliveryNo,
        last: DeliveryNo,
        late: &mut Vec<DeliveryNo>,
        mut taken: impl FnMut(DeliveryNo, Offset),
    ) {
        let (from, to) = self.clip(first, last, late);
        let mut run = Run::default();
        for (number, entry) in (self.base + from as u64..).zip(self.entries.range_mut(from..to)) {
            match mem::replace(entry, Held::Gone) {
                Held::Gone => late.push(DeliveryNo(number)),
                Held::Prefetched(offset) => {
                    self.live -= 1;
                    taken(DeliveryNo(number), offset);
                }
                Held::Begun(offset, deadline) => {
                    self.live -= 1;
                    run.ended(deadline, &mut self.deadlines);
                    taken(DeliveryNo(number), offset);
                }
            }
        }
        run.flush(&mut self.deadlines);
        self.trim();
    }

    /// Starts the clock of every prefetched delivery up to `through`.
    pub(super) fn begin(&mut self, through: DeliveryNo, deadline: Tick) {
        let through = through.0.min(self.next() - 1);
        let from = (self.begun_through + 1).max(self.base);
        if through < from {
            return;
        }
        let (from, to) = ((from - self.base) as usize, (through + 1 - self.base) as usize);
        let mut begun = 0;
        for entry in self.entries.range_mut(from..to) {
            if let Held::Prefetched(offset) = *entry {
                *entry = Held::Begun(offset, deadline);
                begun += 1;
            }
        }
        if begun > 0 {
            *self.deadlines.entry(deadline).or_insert(0) += begun;
        }
        self.begun_through = through;
    }

    /// Gives the begun deliveries of a range a new deadline. Prefetched ones have no clock yet and stay as they are.
    pub(super) fn extend(
        &mut self,
        first: DeliveryNo,
        last: DeliveryNo,
        deadline: Tick,
        late: &mut Vec<DeliveryNo>,
    ) {
        let (from, to) = self.clip(first, last, late);
        let mut run = Run::default();
        let mut extended = 0;
        for (number, entry) in (self.base + from as u64..).zip(self.entries.range_mut(from..to)) {
            match *entry {
                Held::Gone => late.push(DeliveryNo(number)),
                Held::Prefetched(_) => (),
                Held::Begun(offset, before) => {
                    run.ended(before, &mut self.deadlines);
                    *entry = Held::Begun(offset, deadline);
                    extended += 1;
                }
            }
        }
        run.flush(&mut self.deadlines);
        if extended > 0 {
            *self.deadlines.entry(deadline).or_insert(0) += extended;
        }
    }

    /// Ends every lease whose deadline has come.
    pub(super) fn expire(&mut self, now: Tick) -> Vec<(DeliveryNo, Offset)> {
        let mut expired = Vec::new();
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return expired;
        }
        for (number, entry) in (self.base..).zip(self.entries.iter_mut()) {
            if let Held::Begun(offset, deadline) = *entry
                && deadline <= now
            {
                *entry = Held::Gone;
                self.live -= 1;
                expired.push((DeliveryNo(number), offset));
            }
        }
        self.deadlines.retain(|&deadline, _| deadline > now);
        self.trim();
        expired
    }

    /// Gives up what no handler has begun.
    pub(super) fn take_prefetched(&mut self) -> Vec<Offset> {
        let mut taken = Vec::new();
        let first = DeliveryNo((self.begun_through + 1).max(self.base));
        self.take_range(first, self.last(), &mut Vec::new(), |_, offset| {
            taken.push(offset)
        });
        taken
    }

    /// Ends every lease.
    pub(super) fn take_all(&mut self, taken: impl FnMut(DeliveryNo, Offset)) {
        self.take_range(DeliveryNo(self.base), self.last(), &mut Vec::new(), taken);
    }

    /// Held deliveries in order of number.
    pub(super) fn held(&self) -> impl Iterator<Item = (DeliveryNo, Held)> + '_ {
        (self.base..)
            .map(DeliveryNo)
            .zip(self.entries.iter().copied())
            .filter(|&(_, held)| held != Held::Gone)
    }

    /// The entries of a range as indices; numbers of it that were trimmed long ago go to `late`.
    fn clip(&self, first: DeliveryNo, last: DeliveryNo, late: &mut Vec<DeliveryNo>) -> (usize, usize) {
        let last = last.0.min(self.next() - 1);
        report_late(first, DeliveryNo(last.min(self.base - 1)), late);
        let first = first.0.max(self.base);
        if first > last {
            return (0, 0);
        }
        ((first - self.base) as usize, (last + 1 - self.base) as usize)
    }

    fn trim(&mut self) {
        while self.entries.front() == Some(&Held::Gone) {
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// For the invariants: what is wrong with this table by itself.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut deadlines: BTreeMap<Tick, u32> = BTreeMap::new();
        let mut live = 0;
        for (delivery, held) in self.held() {
            live += 1;
            match held {
                Held::Begun(_, deadline) if delivery.0 <= self.begun_through => {
                    *deadlines.entry(deadline).or_insert(0) += 1;
                }
                Held::Prefetched(_) if delivery.0 > self.begun_through => (),
                Held::Gone | Held::Begun(..) | Held::Prefetched(_) => {
                    return Err(format!(
                        "delivery {delivery} is {held:?}, begun through {}",
                        self.begun_through
                    ));
                }
            }
        }
        if live != self.live {
            return Err(format!("{live} deliveries held, counted {}", self.live));
        }
        if deadlines != self.deadlines {
            return Err(format!(
                "deadlines {:?}, held ones have {deadlines:?}",
                self.deadlines
            ));
        }
        if self.entries.front() == Some(&Held::Gone) {
            return Err("the oldest entry is gone but not trimmed".to_owned());
        }
        Ok(())
    }
}

/// Appends a range of delivery numbers, at most the last [`LATE_REPORT_MAX`] of it: a client may name any numbers.
pub(super) fn report_late(first: DeliveryNo, last: DeliveryNo, late: &mut Vec<DeliveryNo>) {
    let first = first.0.max(1).max(last.0.saturating_sub(LATE_REPORT_MAX - 1));
    late.extend((first..=last.0).map(DeliveryNo));
}

/// Ended leases of one deadline, taken out of the map together.
#[derive(Default)]
struct Run {
    deadline: Tick,
    count: u32,
}

impl Run {
    fn ended(&mut self, deadline: Tick, deadlines: &mut BTreeMap<Tick, u32>) {
        if deadline != self.deadline {
            self.flush(deadlines);
            self.deadline = deadline;
        }
        self.count += 1;
    }

    fn flush(&mut self, deadlines: &mut BTreeMap<Tick, u32>) {
        if self.count == 0 {
            return;
        }
        if let Some(left) = deadlines.get_mut(&self.deadline) {
            *left -= self.count;
            if *left == 0 {
                deadlines.remove(&self.deadline);
            }
        }
        self.count = 0;
    }
}
