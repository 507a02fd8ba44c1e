//! What instances say about the deliveries they hold.

use super::AppDelivery;
use super::effect::{AttemptCause, Effect, Outcome, VerdictError};
use super::lease::report_late;
use super::redeliver::Failure;
use super::window::Slot;
use crate::ids::{DeliveryNo, InstanceNo, Tick};

/// Verbs over ranges (`first` to `last`, inclusive) return the deliveries of the range that the instance does not
/// hold, at most [`LATE_REPORT_MAX`](super::limits::LATE_REPORT_MAX): those it lost or judged before. Numbers never
/// given to it are not among them; compare with [`last_delivery`](AppDelivery::last_delivery) to refuse such a client.
impl AppDelivery {
    /// Starts the lease clock of every held delivery up to `through` that has none yet.
    pub fn begin(&mut self, now: Tick, instance: InstanceNo, through: DeliveryNo) {
        let deadline = now.after(self.policy.lease_ms);
        if let Some(holder) = self.instances.get_mut(instance) {
            holder.leases.begin(through, deadline);
        }
    }

    /// The instance is done with these: each becomes [`Effect::Finished`].
    pub fn ack(
        &mut self,
        instance: InstanceNo,
        first: DeliveryNo,
        last: DeliveryNo,
        out: &mut Vec<Effect>,
    ) -> Vec<DeliveryNo> {
        let mut late = Vec::new();
        let Some(holder) = self.instances.get_mut(instance) else {
            report_late(first, last, &mut late);
            return late;
        };
        let (window, redelivery) = (&mut self.window, &mut self.redelivery);
        let told = out.len();
        holder
            .leases
            .take_range(first, last, &mut late, |delivery, offset| {
                window.set(offset, Slot::Finished);
                redelivery.finished(offset, offset);
                out.push(Effect::Finished {
                    offset,
                    outcome: Outcome::Acked,
                    instance: Some((instance, delivery)),
                });
            });
        if out.len() > told {
            self.generation += 1;
            self.settle();
        }
        late
    }

    /// The attempt failed: it counts, and the message comes back after `after_ms` milliseconds (at most
    /// [`RETRY_DELAY_MS_MAX`](super::limits::RETRY_DELAY_MS_MAX)), or after the back-off when None; or it becomes a
    /// dead letter when this was its last attempt.
    ///
    /// # Errors
    /// When the instance does not hold the delivery; nothing changed then.
    pub fn retry(
        &mut self,
        now: Tick,
        instance: InstanceNo,
        delivery: DeliveryNo,
        after_ms: Option<u64>,
        jitter_seed: u64,
        out: &mut Vec<Effect>,
    ) -> Result<(), VerdictError> {
        let holder = self
            .instances
            .get_mut(instance)
            .ok_or(VerdictError::UnknownDelivery)?;
        let offset = holder.leases.take(delivery)?;
        let failure = Failure {
            cause: AttemptCause::Retry,
            instance,
            verdict: Some(delivery),
            after_ms,
        };
        self.count_attempt(now, offset, failure, jitter_seed, out);
        Ok(())
    }

    /// The message can never succeed: it becomes a dead letter at once.
    ///
    /// # Errors
    /// When the instance does not hold the delivery; nothing changed then.
    pub fn reject(
        &mut self,
        _now: Tick,
        instance: InstanceNo,
        delivery: DeliveryNo,
        out: &mut Vec<Effect>,
    ) -> Result<(), VerdictError> {
        let holder = self
            .instances
            .get_mut(instance)
            .ok_or(VerdictError::UnknownDelivery)?;
        let offset = holder.leases.take(delivery)?;
        self.reject_offset(offset, instance, delivery, out);
        Ok(())
    }

    /// Gives deliveries back, begun or not: uncounted and available to any instance at once.
    pub fn release(
        &mut self,
        instance: InstanceNo,
        first: DeliveryNo,
        last: DeliveryNo,
        out: &mut Vec<Effect>,
    ) -> Vec<DeliveryNo> {
        let mut late = Vec::new();
        let Some(holder) = self.instances.get_mut(instance) else {
            report_late(first, last, &mut late);
            return late;
        };
        let mut released = Vec::new();
        holder
            .leases
            .take_range(first, last, &mut late, |_, offset| released.push(offset));
        for offset in released {
            self.release_offset(offset, instance, out);
        }
        late
    }

    /// Starts the lease of begun deliveries anew. Held ones that have not begun have no clock yet and stay so.
    pub fn extend(
        &mut self,
        now: Tick,
        instance: InstanceNo,
        first: DeliveryNo,
        last: DeliveryNo,
    ) -> Vec<DeliveryNo> {
        let deadline = now.after(self.policy.lease_ms);
        let mut late = Vec::new();
        match self.instances.get_mut(instance) {
            Some(holder) => holder.leases.extend(first, last, deadline, &mut late),
            None => report_late(first, last, &mut late),
        }
        late
    }

    /// The instance takes nothing more: what it has not begun is released uncounted, what it has begun stays leased
    /// until its verdict. Nothing is left when [`held_count`](AppDelivery::held_count) is 0; then
    /// [`disconnect`](AppDelivery::disconnect) it.
    pub fn close(&mut self, instance: InstanceNo, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get_mut(instance) else {
            return;
        };
        holder.closing = true;
        for offset in holder.leases.take_prefetched() {
            self.release_offset(offset, instance, out);
        }
    }

    /// The connection is gone, and the instance forgotten: what it had not begun is released uncounted, what it had
    /// begun counts an attempt.
    pub fn disconnect(&mut self, now: Tick, instance: InstanceNo, jitter_seed: u64, out: &mut Vec<Effect>) {
        let Some(mut gone) = self.instances.remove(instance) else {
            return;
        };
        for offset in gone.leases.take_prefetched() {
            self.release_offset(offset, instance, out);
        }
        let failure = Failure {
            cause: AttemptCause::ConnectionLost,
            instance,
            verdict: None,
            after_ms: None,
        };
        gone.leases.take_all(|_, offset| {
            self.count_attempt(now, offset, failure, jitter_seed, out);
        });
    }
}
