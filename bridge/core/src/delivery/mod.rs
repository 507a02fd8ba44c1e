//! The delivery machine: which message of a topic goes to which instance of an application, and when it is finished.
//!
//! One [`AppDelivery`] per (topic, application). It knows offsets, sizes and time, never payloads. What is durable of
//! it is its [`Cursor`]; everything else is made anew after a restart.

mod credit;
mod cursor;
mod effect;
mod instance;
pub mod invariants;
mod lease;
pub mod limits;
mod policy;
mod redeliver;
#[cfg(test)]
mod tests;
mod verdicts;
mod window;

pub use cursor::{Cursor, CursorDecodeError};
pub use effect::{AttemptCause, ConnectError, DeadLetterReason, Effect, Outcome, VerdictError};
pub use policy::{Backoff, Policy};

use crate::ids::{DeliveryNo, InstanceNo, Offset, Tick};
use instance::Instances;
use lease::Held;
use redeliver::Redelivery;
use window::{Slot, Window};

/// The next offset to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the topic.
    pub offset: Offset,
    /// The attempt this will be, from 1.
    pub attempt: u32,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// The instance that gets it.
    pub instance: InstanceNo,
    /// Its number on that instance's stream.
    pub delivery: DeliveryNo,
    /// The attempt this is, from 1.
    pub attempt: u32,
}

/// Counts of messages, and of instances, as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Unfinished below the head, the next three included.
    pub backlog: u64,
    /// Held by instances.
    pub in_flight: u64,
    /// Waiting for their retry time.
    pub parked: u64,
    /// Waiting for their dead letter to be durable.
    pub dead_lettering: u64,
    /// Connected instances, closing ones included.
    pub instances: u64,
}

/// The delivery of one topic to one application.
///
/// # Contract
/// - Pure: time and randomness are arguments. `now` must not go back from one call to the next.
/// - The shell calls [`extend_head`](Self::extend_head) when messages become visible, and then, as long as it has
///   time: [`poll_next`](Self::poll_next); judge the message (filters, terms); [`skip`](Self::skip) it or
///   [`hand_over`](Self::hand_over) and send it. `None` from either means: stop until something else was called, or
///   until [`next_deadline`](Self::next_deadline).
/// - What instances say goes to [`connect`](Self::connect), [`grant`](Self::grant), [`begin`](Self::begin),
///   [`ack`](Self::ack), [`retry`](Self::retry), [`reject`](Self::reject), [`release`](Self::release),
///   [`extend`](Self::extend), [`close`](Self::close), [`disconnect`](Self::disconnect).
/// - [`tick`](Self::tick) is called at [`next_deadline`](Self::next_deadline), or a little later.
/// - Effects come in order and each is for the shell to execute. When [`generation`](Self::generation) has grown,
///   [`cursor`](Self::cursor) is made durable, and only then are verdicts confirmed to instances (I13). After
///   [`Effect::DeadLetter`] the shell stores the copy and calls [`dead_lettered`](Self::dead_lettered).
///
/// # What it holds to
/// - An offset has at most one lease, and is finished once.
/// - The floor passes no unfinished offset (I14); a machine made of a cursor delivers exactly what the cursor does not
///   call finished.
/// - First deliveries are in topic order; a message that failed steps aside. None is handed over more often than
///   `max_attempts`, released deliveries not counted.
/// - State is bounded by [`limits`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppDelivery {
    policy: Policy,
    window: Window,
    redelivery: Redelivery,
    instances: Instances,
    paused: bool,
    generation: u64,
}

impl AppDelivery {
    /// A machine that continues from a durable cursor: nothing is leased, and what the cursor does not call finished
    /// below `head` is to be delivered in order, with its attempts kept.
    #[must_use]
    pub fn new(policy: Policy, cursor: Cursor, head: Offset) -> Self {
        let cursor = cursor.canonical().into_owned();
        let mut window = Window::new(cursor.floor, head);
        for (first, last) in cursor.finished {
            window.restore_finished(first, last);
        }
        let mut machine = AppDelivery {
            policy: policy.bounded(),
            window,
            redelivery: Redelivery::with_attempts(cursor.attempts),
            instances: Instances::default(),
            paused: false,
            generation: 0,
        };
        machine.settle();
        machine
    }

    /// Offsets below `head` are visible. A smaller head than before changes nothing.
    pub fn extend_head(&mut self, head: Offset) {
        self.window.extend_head(head);
        self.settle();
    }

    /// A new instance, without credit.
    ///
    /// # Errors
    /// When an instance of this number is connected, or too many are.
    pub fn connect(&mut self, instance: InstanceNo) -> Result<(), ConnectError> {
        self.instances.connect(instance)
    }

    /// The instance allows this much more; grants add up to [`limits::CREDIT_BYTES_MAX`] and
    /// [`limits::CREDIT_MESSAGES_MAX`].
    pub fn grant(&mut self, instance: InstanceNo, bytes: u64, messages: u32) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.credit.grant(bytes, messages);
        }
    }

    /// What to hand over next: what was handed over before and is due again, oldest offset first, then new offsets in
    /// order. None when there is nothing, when no instance has credit and room, when a limit is reached, or when
    /// paused.
    #[must_use]
    pub fn poll_next(&self, now: Tick) -> Option<Candidate> {
        if !self.may_hand_over() || !self.instances.any_has_room(self.policy.instance_in_flight_max) {
            return None;
        }
        let offset = self.redelivery.next(now).or_else(|| self.window.next_new())?;
        Some(Candidate {
            offset,
            attempt: self.redelivery.attempts_of(offset) + 1,
        })
    }

    fn may_hand_over(&self) -> bool {
        !self.paused && self.window.count(Slot::Leased) < u64::from(self.policy.in_flight_max)
    }

    /// Leases the candidate, a message of `size` bytes, to the instance that holds fewest; equals take turns. A
    /// message above the credit of every instance goes alone to one that holds nothing, so that no size blocks for
    /// ever. None when no instance can take it now, or when the offset is not to be handed over now.
    pub fn hand_over(&mut self, now: Tick, offset: Offset, size: u64) -> Option<HandOver> {
        if !self.may_hand_over() {
            return None;
        }
        self.redelivery.promote_due(now, &mut self.window);
        let is_new = match self.window.get(offset) {
            Some(Slot::Available) => false,
            None if self.window.next_new() == Some(offset) => true,
            None | Some(Slot::Leased | Slot::Parked | Slot::DeadLettering | Slot::Finished) => return None,
        };
        let instance = self.instances.pick(size, self.policy.instance_in_flight_max)?;
        instance.credit.spend(size);
        let (instance, delivery) = (instance.no, instance.leases.push(offset));
        if is_new {
            self.window.push(Slot::Leased);
            self.settle();
        } else {
            self.redelivery.take_waiting(offset);
            self.window.set(offset, Slot::Leased);
        }
        Some(HandOver {
            instance,
            delivery,
            attempt: self.redelivery.attempts_of(offset) + 1,
        })
    }

    /// `first` to `last` (inclusive) are not for this application: finished at once, told by one [`Effect::Finished`]
    /// of the last offset. Offsets at or above the head are left out, and so are leased and dead-lettering ones: their
    /// verdict is under way, and if they come back they are candidates again.
    ///
    /// A range beyond the frontier is remembered unless [`limits::AHEAD_RANGES_MAX`] separate ones are already; then
    /// it comes up as candidates later. Returns whether anything was finished.
    pub fn skip(&mut self, first: Offset, last: Offset, out: &mut Vec<Effect>) -> bool {
        let first = first.max(self.window.floor());
        let Some(head_last) = self.window.head().0.checked_sub(1) else {
            return false;
        };
        let last = last.min(Offset(head_last));
        if first > last {
            return false;
        }
        let frontier = self.window.frontier();
        let mut finished = false;
        for offset in (first.0..frontier.0.min(last.0 + 1)).map(Offset) {
            match self.window.get(offset) {
                Some(Slot::Available | Slot::Parked) => {
                    self.redelivery.take_waiting(offset);
                    self.redelivery.finished(offset, offset);
                    self.window.set(offset, Slot::Finished);
                    finished = true;
                }
                Some(Slot::Leased | Slot::DeadLettering | Slot::Finished) | None => (),
            }
        }
        let beyond = first.max(frontier);
        if beyond <= last && self.window.finish_ahead(beyond, last) {
            self.redelivery.finished(beyond, last);
            finished = true;
        }
        if finished {
            self.generation += 1;
            self.settle();
            out.push(Effect::Finished {
                offset: last,
                outcome: Outcome::Skipped,
                instance: None,
            });
        }
        finished
    }

    /// Stops or resumes handing over. Leases, verdicts and retries go on.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether handing over is stopped.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// New rules from now on. Running leases and waits keep their times; a message that has used up the new
    /// `max_attempts` is handed over no more: it becomes a dead letter at the next tick (a higher limit before it spares
    /// it), or when its lease ends.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy.bounded();
        self.judge_waiting();
        self.settle();
    }

    /// The rules in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// When [`tick`](Self::tick) has something to do: the earliest end of a lease or of a wait. It may lie in the past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Tick> {
        if self.redelivery.has_untold() {
            return Some(Tick(0));
        }
        let leases = self
            .instances
            .iter()
            .filter_map(|instance| instance.leases.next_deadline());
        leases.chain(self.redelivery.next_retry()).min()
    }

    /// What is to be durable now. Takes time in proportion to the window, so take it once per group of verdicts.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor {
            floor: self.window.floor(),
            finished: self.window.finished_ranges(),
            attempts: self.redelivery.attempts().clone(),
        }
    }

    /// Grows with each change of the durable cursor, from 0.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every offset below is finished.
    #[must_use]
    pub fn floor(&self) -> Offset {
        self.window.floor()
    }

    /// Every offset below is visible.
    #[must_use]
    pub fn head(&self) -> Offset {
        self.window.head()
    }

    /// The oldest offset that is visible and not finished.
    #[must_use]
    pub fn oldest_unfinished(&self) -> Option<Offset> {
        // The floor itself is never finished while it is below the head.
        (self.window.floor() < self.window.head()).then_some(self.window.floor())
    }

    /// The counts of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            backlog: self.window.backlog(),
            in_flight: self.window.count(Slot::Leased),
            parked: self.window.count(Slot::Parked),
            dead_lettering: self.window.count(Slot::DeadLettering),
            instances: self.instances.len() as u64,
        }
    }

    /// What an instance holds, by delivery number, each with whether it has begun.
    #[must_use]
    pub fn held_by(&self, instance: InstanceNo) -> Vec<(DeliveryNo, Offset, bool)> {
        let Some(instance) = self.instances.get(instance) else {
            return Vec::new();
        };
        let held = instance.leases.held().filter_map(|(delivery, held)| match held {
            Held::Prefetched(offset) => Some((delivery, offset, false)),
            Held::Begun(offset, _) => Some((delivery, offset, true)),
            Held::Gone => None,
        });
        held.collect()
    }

    /// How many deliveries an instance holds.
    #[must_use]
    pub fn held_count(&self, instance: InstanceNo) -> u32 {
        self.instances
            .get(instance)
            .map_or(0, |instance| instance.leases.live())
    }

    /// The offset of a delivery that the instance holds.
    #[must_use]
    pub fn offset_of(&self, instance: InstanceNo, delivery: DeliveryNo) -> Option<Offset> {
        self.instances.get(instance)?.leases.offset_of(delivery).ok()
    }

    /// The delivery number given last to a connected instance, 0 before the first.
    #[must_use]
    pub fn last_delivery(&self, instance: InstanceNo) -> Option<DeliveryNo> {
        self.instances
            .get(instance)
            .map(|instance| instance.leases.last())
    }

    /// Brings floor and frontier to where they belong after a change.
    fn settle(&mut self) {
        loop {
            self.window.advance();
            let Some(next) = self.window.next_new() else {
                return;
            };
            if self.redelivery.attempts_of(next) < self.policy.max_attempts {
                return;
            }
            self.window.push(Slot::DeadLettering);
            self.redelivery.exhausted_silently(next, None);
        }
    }
}
