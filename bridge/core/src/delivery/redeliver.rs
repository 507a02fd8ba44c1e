//! What happens to a message that was handed over and not finished: attempts, waiting, dead letters.

use std::collections::{BTreeMap, BTreeSet};

use super::AppDelivery;
use super::effect::{AttemptCause, DeadLetterReason, Effect, Outcome};
use super::limits::RETRY_DELAY_MS_MAX;
use super::policy::mix;
use super::window::{Slot, Window};
use crate::ids::{DeliveryNo, InstanceNo, Offset, Tick};

/// The verdict that leads to a dead letter, to be confirmed when that is durable.
type Verdict = Option<(InstanceNo, DeliveryNo)>;

/// The details of slots that are not simply leased or finished. Few messages are ever here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Redelivery {
    /// Counted attempts of unfinished offsets, only those above 0.
    attempts: BTreeMap<Offset, u32>,
    /// Offsets of available slots.
    available: BTreeSet<Offset>,
    /// Offsets of parked slots with their retry time, and the same by time.
    parked: BTreeMap<Offset, Tick>,
    parked_by_time: BTreeSet<(Tick, Offset)>,
    /// Offsets of dead-lettering slots.
    dead_lettering: BTreeMap<Offset, Verdict>,
    /// Those of them whose effect the next tick has to tell: they were found exhausted without a verdict. With the
    /// retry time they had, in case a higher `max_attempts` spares them before.
    untold: BTreeMap<Offset, Option<Tick>>,
}

impl Redelivery {
    pub(super) fn with_attempts(attempts: BTreeMap<Offset, u32>) -> Redelivery {
        Redelivery {
            attempts,
            ..Redelivery::default()
        }
    }

    pub(super) fn attempts(&self) -> &BTreeMap<Offset, u32> {
        &self.attempts
    }

    pub(super) fn attempts_of(&self, offset: Offset) -> u32 {
        self.attempts.get(&offset).copied().unwrap_or(0)
    }

    /// The oldest offset that was handed over before and can be again.
    pub(super) fn next(&self, now: Tick) -> Option<Offset> {
        let due = self.due(now).min();
        match (self.available.first().copied(), due) {
            (Some(available), Some(due)) => Some(available.min(due)),
            (available, due) => available.or(due),
        }
    }

    fn due(&self, now: Tick) -> impl Iterator<Item = Offset> + '_ {
        self.parked_by_time
            .iter()
            .take_while(move |&&(at, _)| at <= now)
            .map(|&(_, offset)| offset)
    }

    pub(super) fn next_retry(&self) -> Option<Tick> {
        self.parked_by_time.first().map(|&(at, _)| at)
    }

    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Moves parked offsets whose time has come to the available ones.
    pub(super) fn promote_due(&mut self, now: Tick, window: &mut Window) {
        while let Some(&(at, offset)) = self.parked_by_time.first() {
            if at > now {
                return;
            }
            self.unpark(offset);
            self.available.insert(offset);
            window.set(offset, Slot::Available);
        }
    }

    /// Drops the waiting state of an available or parked offset. Returns the retry time of a parked one.
    pub(super) fn take_waiting(&mut self, offset: Offset) -> Option<Tick> {
        if self.available.remove(&offset) {
            None
        } else {
            self.unpark(offset)
        }
    }

    fn park(&mut self, offset: Offset, at: Tick) {
        self.parked.insert(offset, at);
        self.parked_by_time.insert((at, offset));
    }

    fn unpark(&mut self, offset: Offset) -> Option<Tick> {
        let at = self.parked.remove(&offset)?;
        self.parked_by_time.remove(&(at, offset));
        Some(at)
    }

    /// Forgets the attempts of finished offsets.
    pub(super) fn finished(&mut self, first: Offset, last: Offset) {
        if self.attempts.is_empty() {
            return;
        }
        while let Some((&offset, _)) = self.attempts.range(first..=last).next() {
            self.attempts.remove(&offset);
        }
    }

    /// Notes that an offset has no attempt left, for the next tick to tell.
    pub(super) fn exhausted_silently(&mut self, offset: Offset, retry_at: Option<Tick>) {
        self.dead_lettering.insert(offset, None);
        self.untold.insert(offset, retry_at);
    }

    /// For the invariants: the tables name exactly the slots of their kind.
    pub(super) fn check(&self, window: &Window) -> Result<(), String> {
        let slots_of = |kind: Slot| {
            window
                .slots()
                .filter(move |&(_, slot)| slot == kind)
                .map(|(offset, _)| offset)
        };
        if !self.available.iter().copied().eq(slots_of(Slot::Available)) {
            return Err(format!(
                "available offsets {:?} are not the available slots",
                self.available
            ));
        }
        if !self.parked.keys().copied().eq(slots_of(Slot::Parked)) {
            return Err(format!(
                "parked offsets {:?} are not the parked slots",
                self.parked
            ));
        }
        let by_time: BTreeSet<_> = self.parked.iter().map(|(&offset, &at)| (at, offset)).collect();
        if by_time != self.parked_by_time {
            return Err(format!(
                "parked {:?}, by time {:?}",
                self.parked, self.parked_by_time
            ));
        }
        if !self
            .dead_lettering
            .keys()
            .copied()
            .eq(slots_of(Slot::DeadLettering))
        {
            return Err(format!(
                "dead letters {:?} are not the dead-lettering slots",
                self.dead_lettering
            ));
        }
        if let Some(offset) = self
            .untold
            .keys()
            .find(|offset| !self.dead_lettering.contains_key(offset))
        {
            return Err(format!("offset {offset} is to be told but not dead-lettering"));
        }
        Ok(())
    }
}

impl AppDelivery {
    /// Moves time forward: leases that ran out count an attempt, retries whose time has come become available, and
    /// messages that were found without an attempt left (after a restart, by a lower `max_attempts`) become dead
    /// letters. `jitter_seed` should differ from call to call.
    pub fn tick(&mut self, now: Tick, jitter_seed: u64, out: &mut Vec<Effect>) {
        while let Some((offset, _)) = self.redelivery.untold.pop_first() {
            let attempts = self.redelivery.attempts_of(offset);
            out.push(Effect::DeadLetter {
                offset,
                reason: DeadLetterReason::MaxAttempts,
                attempts,
                instance: None,
            });
        }
        self.redelivery.promote_due(now, &mut self.window);
        let mut lost = Vec::new();
        for instance in self.instances.iter_mut() {
            let no = instance.no;
            lost.extend(
                instance
                    .leases
                    .expire(now)
                    .into_iter()
                    .map(|(delivery, offset)| (no, delivery, offset)),
            );
        }
        for (instance, delivery, offset) in lost {
            out.push(Effect::LeaseLost {
                instance,
                delivery,
                offset,
            });
            let failure = Failure {
                cause: AttemptCause::LeaseExpired,
                instance,
                verdict: None,
                after_ms: None,
            };
            self.count_attempt(now, offset, failure, jitter_seed, out);
        }
    }

    /// The shell stored the dead letter durably: the offset is finished. Ignored for an offset that waits for none.
    pub fn dead_lettered(&mut self, offset: Offset, out: &mut Vec<Effect>) {
        let Some(verdict) = self.redelivery.dead_lettering.remove(&offset) else {
            return;
        };
        self.redelivery.untold.remove(&offset);
        self.redelivery.finished(offset, offset);
        self.window.set(offset, Slot::Finished);
        self.generation += 1;
        self.settle();
        out.push(Effect::Finished {
            offset,
            outcome: Outcome::DeadLettered,
            instance: verdict,
        });
    }

    /// Counts the attempt that a lease ended with: the offset parks, or has no attempt left.
    pub(super) fn count_attempt(
        &mut self,
        now: Tick,
        offset: Offset,
        failure: Failure,
        jitter_seed: u64,
        out: &mut Vec<Effect>,
    ) {
        let attempts = self.redelivery.attempts_of(offset).saturating_add(1);
        self.redelivery.attempts.insert(offset, attempts);
        self.generation += 1;
        if attempts >= self.policy.max_attempts {
            let verdict = failure.verdict.map(|delivery| (failure.instance, delivery));
            self.start_dead_letter(offset, verdict);
            out.push(Effect::DeadLetter {
                offset,
                reason: DeadLetterReason::MaxAttempts,
                attempts,
                instance: Some(failure.instance),
            });
            return;
        }
        // Messages that fail together must not come back together, hence the offset in the seed.
        let delay_ms = failure.after_ms.map_or_else(
            || self.policy.backoff.delay(attempts, jitter_seed ^ mix(offset.0)),
            |asked_ms| asked_ms.min(RETRY_DELAY_MS_MAX),
        );
        let retry_at = now.after(delay_ms);
        self.redelivery.park(offset, retry_at);
        self.window.set(offset, Slot::Parked);
        out.push(Effect::AttemptCounted {
            offset,
            attempts,
            cause: failure.cause,
            retry_at,
        });
    }

    /// The instance rejected it: a dead letter at once.
    pub(super) fn reject_offset(
        &mut self,
        offset: Offset,
        instance: InstanceNo,
        delivery: DeliveryNo,
        out: &mut Vec<Effect>,
    ) {
        // The attempt is told but not counted in the cursor: if the dead letter does not become durable, the message
        // is delivered again as the same attempt.
        let attempts = self.redelivery.attempts_of(offset).saturating_add(1);
        self.start_dead_letter(offset, Some((instance, delivery)));
        out.push(Effect::DeadLetter {
            offset,
            reason: DeadLetterReason::Rejected,
            attempts,
            instance: Some(instance),
        });
    }

    /// The candidate has no body any more: it becomes a dead letter without having been handed over. Returns whether it did;
    /// not when the offset is not to be handed over now.
    pub fn lose(&mut self, now: Tick, offset: Offset, out: &mut Vec<Effect>) -> bool {
        self.redelivery.promote_due(now, &mut self.window);
        match self.window.get(offset) {
            Some(Slot::Available) => {
                self.redelivery.take_waiting(offset);
                self.start_dead_letter(offset, None);
            }
            None if self.window.next_new() == Some(offset) => {
                self.window.push(Slot::Leased);
                self.start_dead_letter(offset, None);
                self.settle();
            }
            None | Some(Slot::Leased | Slot::Parked | Slot::DeadLettering | Slot::Finished) => return false,
        }
        out.push(Effect::DeadLetter {
            offset,
            reason: DeadLetterReason::Lost,
            attempts: self.redelivery.attempts_of(offset),
            instance: None,
        });
        true
    }

    /// Gives an offset back uncounted. One whose attempts a lowered `max_attempts` has used up goes no further.
    pub(super) fn release_offset(&mut self, offset: Offset, instance: InstanceNo, out: &mut Vec<Effect>) {
        let attempts = self.redelivery.attempts_of(offset);
        if attempts >= self.policy.max_attempts {
            self.start_dead_letter(offset, None);
            out.push(Effect::DeadLetter {
                offset,
                reason: DeadLetterReason::MaxAttempts,
                attempts,
                instance: Some(instance),
            });
        } else {
            self.redelivery.available.insert(offset);
            self.window.set(offset, Slot::Available);
        }
    }

    /// Judges waiting offsets anew after a change of `max_attempts`: those without an attempt left become dead letters,
    /// those that were about to but have some now go on waiting.
    pub(super) fn judge_waiting(&mut self) {
        let max_attempts = self.policy.max_attempts;
        let (exhausted, spared): (Vec<_>, Vec<_>) = self
            .redelivery
            .attempts
            .iter()
            .partition(|&(_, &attempts)| attempts >= max_attempts);
        let exhausted: Vec<Offset> = exhausted.into_iter().map(|(&offset, _)| offset).collect();
        let spared: Vec<Offset> = spared.into_iter().map(|(&offset, _)| offset).collect();
        for offset in exhausted {
            match self.window.get(offset) {
                Some(Slot::Available | Slot::Parked) => {
                    let retry_at = self.redelivery.take_waiting(offset);
                    self.window.set(offset, Slot::DeadLettering);
                    self.redelivery.exhausted_silently(offset, retry_at);
                }
                // A leased one is judged when its lease ends, one beyond the frontier when the frontier gets there.
                Some(Slot::Leased | Slot::DeadLettering | Slot::Finished) | None => (),
            }
        }
        for offset in spared {
            let Some(retry_at) = self.redelivery.untold.remove(&offset) else {
                continue;
            };
            self.redelivery.dead_lettering.remove(&offset);
            match retry_at {
                Some(at) => {
                    self.redelivery.park(offset, at);
                    self.window.set(offset, Slot::Parked);
                }
                None => {
                    self.redelivery.available.insert(offset);
                    self.window.set(offset, Slot::Available);
                }
            }
        }
    }

    fn start_dead_letter(&mut self, offset: Offset, verdict: Verdict) {
        self.redelivery.dead_lettering.insert(offset, verdict);
        self.window.set(offset, Slot::DeadLettering);
    }
}

/// How a counted attempt ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) cause: AttemptCause,
    pub(super) instance: InstanceNo,
    /// The delivery whose verdict ended it, if one did.
    pub(super) verdict: Option<DeliveryNo>,
    /// The wait that the instance asked for, in milliseconds.
    pub(super) after_ms: Option<u64>,
}
