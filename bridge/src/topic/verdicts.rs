//! What an instance says about its deliveries, checked before the delivery machine hears of it, and what follows.

use std::collections::BTreeMap;

use fanin_core::{
    delivery::{AttemptCause, DeadLetterReason, Effect, Outcome},
    ids::{DeliveryNo, InstanceNo, Offset},
};
use fanin_proto::v1::{DeliveryRange, Verdicts};

use super::{
    app::AppTask,
    dead_writer::Job,
    instance::join_one,
    limits::{REASON_BYTES_MAX, VERDICT_DELIVERIES_MAX, VERDICTS_PER_FRAME_MAX},
};
use crate::codes::{Code, Refusal};

/// Refuses a request with more verdicts than allowed. Asked before the request is queued: decoded, an empty verdict takes thirty
/// times its two bytes on the wire.
pub(super) fn check_count(verdicts: &Verdicts) -> Result<(), Refusal> {
    let Verdicts {
        begun_through: _,
        acks,
        retries,
        rejects,
        releases,
        extends,
    } = verdicts;
    let count = acks.len() + retries.len() + rejects.len() + releases.len() + extends.len();
    if count > VERDICTS_PER_FRAME_MAX {
        return Err(Refusal::new(
            Code::Malformed,
            format!("one request holds {count} verdicts; at most {VERDICTS_PER_FRAME_MAX} are allowed"),
        ));
    }
    Ok(())
}

/// Refuses what no correct client sends. Only this bounds the work that a request can ask for.
fn check(verdicts: &Verdicts, last_given: u64) -> Result<(), Refusal> {
    let Verdicts {
        begun_through,
        acks,
        retries,
        rejects,
        releases,
        extends,
    } = verdicts;
    let malformed = |text: String| Err(Refusal::new(Code::Malformed, text));
    let given = |delivery: u64| 1 <= delivery && delivery <= last_given;
    if *begun_through > last_given {
        return malformed(format!(
            "begun_through is {begun_through}, but the last delivery was {last_given}"
        ));
    }
    let mut named = 0_u64;
    for DeliveryRange { first, last } in acks.iter().chain(releases).chain(extends) {
        if !given(*first) || !given(*last) || first > last {
            return malformed(format!(
                "{first} to {last} is no range of deliveries; the last delivery was {last_given}"
            ));
        }
        named += last - first + 1;
        if named > VERDICT_DELIVERIES_MAX {
            return malformed(format!(
                "one request names more than {VERDICT_DELIVERIES_MAX} deliveries"
            ));
        }
    }
    let single = retries
        .iter()
        .map(|retry| retry.delivery)
        .chain(rejects.iter().map(|reject| reject.delivery));
    for delivery in single {
        if !given(delivery) {
            return malformed(format!(
                "there is no delivery {delivery}; the last one was {last_given}"
            ));
        }
    }
    Ok(())
}

/// At most `bytes_max` bytes of a text, cut between characters.
pub(super) fn shortened(text: &str, bytes_max: usize) -> &str {
    let cut = (0..=bytes_max.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..cut.unwrap_or_default()]
}

impl AppTask {
    /// Executes one request, in the order: begun, extends, acks, retries, rejects, releases. What the instance does not
    /// hold any more is answered with `LeasesLost`.
    pub(super) fn verdicts(&mut self, no: InstanceNo, verdicts: Verdicts) {
        let Some(last_given) = self.instances.get(&no).map(|instance| instance.last_delivery) else {
            return;
        };
        if let Err(refusal) = check(&verdicts, last_given) {
            tracing::warn!(code = refusal.code.info().code, topic = %self.topic.name, app = %self.spec.name, instance = %no, %refusal, "a client is refused");
            self.disconnect(no, Some(refusal));
            return;
        }
        let now = self.now();
        let seed = self.topic.ambient.random();
        if verdicts.begun_through > 0 {
            self.machine.begin(now, no, DeliveryNo(verdicts.begun_through));
        }
        let mut lost: Vec<DeliveryRange> = Vec::new();
        let mut late = |deliveries: Vec<DeliveryNo>| {
            for delivery in deliveries {
                join_one(&mut lost, delivery.0);
            }
        };
        for range in &verdicts.extends {
            late(
                self.machine
                    .extend(now, no, DeliveryNo(range.first), DeliveryNo(range.last)),
            );
        }
        for range in &verdicts.acks {
            late(self.machine.ack(
                no,
                DeliveryNo(range.first),
                DeliveryNo(range.last),
                &mut self.effects,
            ));
        }
        let mut retried = 0;
        self.run_effects("");
        for retry in &verdicts.retries {
            let delivery = DeliveryNo(retry.delivery);
            match self.machine.retry(
                now,
                no,
                delivery,
                retry.after_ms,
                seed ^ delivery.0,
                &mut self.effects,
            ) {
                Ok(()) => {
                    retried += 1;
                    self.run_effects(shortened(&retry.reason, REASON_BYTES_MAX));
                }
                Err(_) => late(vec![delivery]),
            }
        }
        for reject in &verdicts.rejects {
            let delivery = DeliveryNo(reject.delivery);
            match self.machine.reject(now, no, delivery, &mut self.effects) {
                Ok(()) => self.run_effects(shortened(&reject.reason, REASON_BYTES_MAX)),
                Err(_) => late(vec![delivery]),
            }
        }
        let mut released = 0;
        for range in &verdicts.releases {
            let missed = self.machine.release(
                no,
                DeliveryNo(range.first),
                DeliveryNo(range.last),
                &mut self.effects,
            );
            released += (range.last - range.first + 1).saturating_sub(missed.len() as u64);
            // Nothing is lost by giving back what is not held.
        }
        self.run_effects("released");
        self.metrics.retried.increment(retried);
        self.metrics.released.increment(released);
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.lost(lost);
        }
    }

    /// Executes what the machine has asked for. `text` is the error text of a dead letter among it.
    pub(super) fn run_effects(&mut self, text: &str) {
        if self.effects.is_empty() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let mut acked = Acked::default();
        let mut lost: BTreeMap<InstanceNo, Vec<DeliveryRange>> = BTreeMap::new();
        for effect in effects.drain(..) {
            match effect {
                Effect::Finished {
                    offset,
                    outcome,
                    instance,
                } => {
                    if let Some((no, delivery)) = instance
                        && self.instances.contains_key(&no)
                    {
                        self.keeper.note(no, delivery);
                    }
                    match outcome {
                        Outcome::Acked => acked.add(offset, instance.map(|(no, _)| no)),
                        Outcome::DeadLettered => self.metrics.dead_lettered.increment(1),
                        Outcome::Skipped => self.metrics.skipped.increment(1),
                    }
                }
                Effect::LeaseLost {
                    instance, delivery, ..
                } => {
                    join_one(lost.entry(instance).or_default(), delivery.0);
                }
                Effect::DeadLetter {
                    offset,
                    reason,
                    attempts,
                    instance,
                } => {
                    self.dead_letter(offset, reason, attempts, instance, text);
                }
                Effect::AttemptCounted { offset, cause, .. } => {
                    let now_ms = self.topic.ambient.now_ms();
                    self.first_failures.entry(offset).or_insert(now_ms);
                    match cause {
                        AttemptCause::Retry => self.metrics.redelivered_retry.increment(1),
                        AttemptCause::LeaseExpired => self.metrics.redelivered_lease.increment(1),
                        AttemptCause::ConnectionLost => self.metrics.redelivered_connection.increment(1),
                    }
                }
            }
        }
        self.effects = effects;
        for (no, ranges) in lost {
            self.metrics
                .lease_lost
                .increment(ranges.iter().map(|range| range.last - range.first + 1).sum());
            if let Some(instance) = self.instances.get_mut(&no) {
                instance.lost(ranges);
            }
        }
        self.count_acked(&acked);
    }

    fn count_acked(&mut self, acked: &Acked) {
        let Some(sample) = acked.last else { return };
        self.totals.acked += acked.count;
        self.metrics.acked.increment(acked.count);
        if let Some(instance) = acked.instance.and_then(|no| self.instances.get_mut(&no)) {
            instance.acked += acked.count;
        }
        // One sample a request, and the batch's first time for all its messages: exact enough for a histogram, and no
        // work per message.
        if let Some(published_ns) = self.topic.published_ns(sample) {
            let age_ns = self.topic.ambient.now_ns().saturating_sub(published_ns).max(0);
            self.metrics.latency.record(age_ns as f64 / 1e9);
        }
    }

    fn dead_letter(
        &mut self,
        offset: Offset,
        reason: DeadLetterReason,
        attempts: u32,
        instance: Option<InstanceNo>,
        text: &str,
    ) {
        match reason {
            DeadLetterReason::MaxAttempts => self.metrics.dead_max_attempts.increment(1),
            DeadLetterReason::Rejected => self.metrics.dead_rejected.increment(1),
            DeadLetterReason::Lost => self.metrics.dead_lost.increment(1),
        }
        let last_ms = self.topic.ambient.now_ms();
        let first_ms = self.first_failures.remove(&offset).unwrap_or(last_ms);
        let name = instance
            .and_then(|no| self.instances.get(&no))
            .map(|instance| instance.name.to_string());
        self.letters.add(Job {
            offset,
            reason,
            attempts,
            instance,
            instance_name: name.unwrap_or_default(),
            error: text.to_owned(),
            first_ms,
            last_ms,
        });
    }
}

/// Acknowledged messages of one request: they all come from one instance.
#[derive(Default)]
struct Acked {
    count: u64,
    instance: Option<InstanceNo>,
    last: Option<Offset>,
}

impl Acked {
    fn add(&mut self, offset: Offset, instance: Option<InstanceNo>) {
        self.count += 1;
        self.instance = instance;
        self.last = Some(offset);
    }
}

#[cfg(test)]
mod tests {
    //! Goal: nothing that a client can write makes the bridge work without bound. Method: a table of bad requests.

    use fanin_proto::v1::{Reject, Retry};

    use super::*;

    #[test]
    fn bad_requests_are_refused() {
        let range = |first, last| vec![DeliveryRange { first, last }];
        let none = Verdicts::default;
        let bad = [
            Verdicts {
                begun_through: 101,
                ..none()
            },
            Verdicts {
                acks: range(0, 5),
                ..none()
            },
            Verdicts {
                acks: range(5, 4),
                ..none()
            },
            Verdicts {
                acks: range(1, u64::MAX),
                ..none()
            },
            Verdicts {
                releases: range(1, 101),
                ..none()
            },
            Verdicts {
                extends: range(101, 101),
                ..none()
            },
            Verdicts {
                retries: vec![Retry {
                    delivery: 0,
                    after_ms: None,
                    reason: String::new(),
                }],
                ..none()
            },
            Verdicts {
                rejects: vec![Reject {
                    delivery: 101,
                    reason: String::new(),
                }],
                ..none()
            },
            Verdicts {
                acks: vec![DeliveryRange { first: 1, last: 100 }; 10_000],
                ..none()
            },
        ];
        for verdicts in bad {
            let refusal = check(&verdicts, 100).expect_err("must be refused");
            assert_eq!(refusal.code, Code::Malformed);
        }
        let good = Verdicts {
            begun_through: 100,
            acks: range(1, 100),
            extends: range(7, 7),
            ..none()
        };
        assert_eq!(check(&good, 100), Ok(()));
        let mut many = Verdicts {
            acks: vec![DeliveryRange { first: 1, last: 1 }; VERDICTS_PER_FRAME_MAX],
            ..none()
        };
        assert_eq!(check_count(&many), Ok(()));
        many.releases = range(1, 1);
        let refusal = check_count(&many).expect_err("must be refused");
        assert_eq!(refusal.code, Code::Malformed);
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let long = "ü".repeat(REASON_BYTES_MAX);
        assert_eq!(shortened(&long, REASON_BYTES_MAX).len(), REASON_BYTES_MAX);
        let odd = format!("a{long}");
        assert_eq!(shortened(&odd, REASON_BYTES_MAX).len(), REASON_BYTES_MAX - 1);
    }
}
