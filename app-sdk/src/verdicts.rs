//! What waits to be told to the bridge, and how it becomes request frames.

use std::collections::VecDeque;
use std::time::Duration;

use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::{Credit, DeliveryRange, Reject, Retry, SubscribeRequest, Verdicts};

use crate::limits::{RANGES_PER_FRAME_MAX, REASON_BYTES_MAX, REASONS_PER_FRAME_MAX};
use crate::table::{Freed, push_range};

/// What an application says about one delivery.
#[derive(Debug)]
pub(crate) enum Verdict {
    Ack,
    Retry { after: Option<Duration>, reason: String },
    Reject { reason: String },
    Release,
}

/// How soon the pending verdicts must go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing waits.
    Idle,
    /// With the next flush interval.
    Soon,
    /// Somebody waits for an answer, or the credit runs low.
    Now,
}

/// Verdicts and credit of one connection that are not yet written. Bounded by the credit: only what was delivered can
/// be answered, and what is answered is granted again only together with its verdict.
#[derive(Debug)]
pub(crate) struct Pending {
    begun_through: u64,
    acks: Vec<DeliveryRange>,
    retries: Vec<Retry>,
    rejects: Vec<Reject>,
    releases: Vec<DeliveryRange>,
    extends: Vec<DeliveryRange>,
    credit: Freed,
    due: Due,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            begun_through: 0,
            acks: Vec::new(),
            retries: Vec::new(),
            rejects: Vec::new(),
            releases: Vec::new(),
            extends: Vec::new(),
            credit: Freed::default(),
            due: Due::Idle,
        }
    }

    pub(crate) fn due(&self) -> Due {
        self.due
    }

    /// Asks for a flush. True when the writer has to be woken: it knows about earlier requests of this urgency.
    #[must_use]
    pub(crate) fn ask(&mut self, due: Due) -> bool {
        let wake = match (self.due, due) {
            (_, Due::Idle) | (Due::Now, _) | (Due::Soon, Due::Soon) => false,
            (Due::Idle, Due::Soon) | (Due::Idle | Due::Soon, Due::Now) => true,
        };
        if wake {
            self.due = due;
        }
        wake
    }

    pub(crate) fn begin(&mut self, delivery: u64) {
        self.begun_through = self.begun_through.max(delivery);
    }

    pub(crate) fn verdict(&mut self, delivery: u64, verdict: Verdict) {
        match verdict {
            Verdict::Ack => push_range(&mut self.acks, delivery),
            Verdict::Retry { after, reason } => self.retries.push(Retry {
                delivery,
                after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
                reason: shortened(reason),
            }),
            Verdict::Reject { reason } => self.rejects.push(Reject {
                delivery,
                reason: shortened(reason),
            }),
            Verdict::Release => push_range(&mut self.releases, delivery),
        }
    }

    pub(crate) fn release(&mut self, range: DeliveryRange) {
        self.releases.push(range);
    }

    pub(crate) fn extend(&mut self, ranges: impl IntoIterator<Item = DeliveryRange>) {
        // An extension starts every lease in it anew, so several that nobody has written yet are one.
        self.extends.extend(ranges);
        if self.extends.len() > RANGES_PER_FRAME_MAX {
            normalize(&mut self.extends);
        }
    }

    pub(crate) fn free(&mut self, freed: Freed) {
        self.credit.messages = self.credit.messages.saturating_add(freed.messages);
        self.credit.bytes = self.credit.bytes.saturating_add(freed.bytes);
    }

    pub(crate) fn credit(&self) -> Freed {
        self.credit
    }

    /// Moves everything that waits into request frames; credit only when `grant`.
    pub(crate) fn take_frames(&mut self, grant: bool, frames: &mut VecDeque<SubscribeRequest>) {
        self.due = Due::Idle;
        for ranges in [&mut self.acks, &mut self.releases, &mut self.extends] {
            normalize(ranges);
        }
        loop {
            let mut verdicts = Verdicts {
                begun_through: std::mem::take(&mut self.begun_through),
                extends: split(&mut self.extends, RANGES_PER_FRAME_MAX),
                ..Verdicts::default()
            };
            // Every extension goes before the verdicts: behind one it would find its delivery answered, and the bridge
            // would report a lost lease.
            if self.extends.is_empty() {
                verdicts.acks = split(&mut self.acks, RANGES_PER_FRAME_MAX);
                verdicts.retries = split(&mut self.retries, REASONS_PER_FRAME_MAX);
                verdicts.rejects = split(&mut self.rejects, REASONS_PER_FRAME_MAX);
                verdicts.releases = split(&mut self.releases, RANGES_PER_FRAME_MAX);
            }
            if verdicts == Verdicts::default() {
                break;
            }
            frames.push_back(request(Request::Verdicts(verdicts)));
        }
        if grant && self.credit != Freed::default() {
            let Freed { messages, bytes } = std::mem::take(&mut self.credit);
            frames.push_back(request(Request::Credit(Credit { bytes, messages })));
        }
    }
}

pub(crate) fn request(request: Request) -> SubscribeRequest {
    SubscribeRequest {
        request: Some(request),
    }
}

/// Takes up to `count` entries from the front.
fn split<T>(all: &mut Vec<T>, count: usize) -> Vec<T> {
    if all.len() <= count {
        return std::mem::take(all);
    }
    let rest = all.split_off(count);
    std::mem::replace(all, rest)
}

/// Sorts ranges and joins those that touch.
fn normalize(ranges: &mut Vec<DeliveryRange>) {
    if ranges.len() < 2 {
        return;
    }
    ranges.sort_unstable_by_key(|range| range.first);
    ranges.dedup_by(|next, range| {
        let touches = next.first <= range.last.saturating_add(1);
        if touches {
            range.last = range.last.max(next.last);
        }
        touches
    });
}

/// Cuts a reason to its limit, at a character boundary.
fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let mut end = REASON_BYTES_MAX;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
    }
    reason
}

#[cfg(test)]
mod tests {
    //! Goal: whatever was said goes out once, compactly and within the frame limits. Method: fill by hand, take frames.
    use super::*;

    fn frames(pending: &mut Pending, grant: bool) -> Vec<Request> {
        let mut frames = VecDeque::new();
        pending.take_frames(grant, &mut frames);
        frames.into_iter().filter_map(|frame| frame.request).collect()
    }

    #[test]
    fn acks_in_any_order_become_few_ranges() {
        let mut pending = Pending::new();
        for delivery in [4, 1, 3, 2, 9, 8] {
            pending.begin(delivery);
            pending.verdict(delivery, Verdict::Ack);
        }
        assert!(pending.ask(Due::Soon) && !pending.ask(Due::Soon) && pending.ask(Due::Now));
        pending.free(Freed {
            messages: 6,
            bytes: 60,
        });
        let taken = frames(&mut pending, true);
        let acks = vec![
            DeliveryRange { first: 1, last: 4 },
            DeliveryRange { first: 8, last: 9 },
        ];
        let verdicts = Verdicts {
            begun_through: 9,
            acks,
            ..Verdicts::default()
        };
        let credit = Credit {
            bytes: 60,
            messages: 6,
        };
        assert_eq!(taken, vec![Request::Verdicts(verdicts), Request::Credit(credit)]);
        assert_eq!((pending.due(), frames(&mut pending, true).len()), (Due::Idle, 0));
    }

    #[test]
    fn frames_keep_their_limits_and_credit_waits_for_its_permission() {
        let mut pending = Pending::new();
        let deliveries = 3 * RANGES_PER_FRAME_MAX as u64;
        for delivery in 1..=deliveries {
            let verdict = match delivery % 3 {
                0 => Verdict::Ack,
                1 => Verdict::Release,
                _ => Verdict::Retry {
                    after: None,
                    reason: "ü".repeat(REASON_BYTES_MAX),
                },
            };
            pending.verdict(delivery, verdict);
        }
        pending.free(Freed {
            messages: 1,
            bytes: 1,
        });
        let (mut acks, mut retries, mut releases) = (0, 0, 0);
        for frame in frames(&mut pending, false) {
            let Request::Verdicts(verdicts) = frame else {
                panic!("credit was not permitted")
            };
            assert!(
                verdicts.acks.len() <= RANGES_PER_FRAME_MAX
                    && verdicts.retries.len() <= REASONS_PER_FRAME_MAX
            );
            assert!(
                verdicts
                    .retries
                    .iter()
                    .all(|retry| retry.reason.len() <= REASON_BYTES_MAX)
            );
            acks += verdicts.acks.len() as u64;
            retries += verdicts.retries.len() as u64;
            releases += verdicts.releases.len() as u64;
        }
        assert_eq!(
            (acks, retries, releases),
            (deliveries / 3, deliveries / 3, deliveries / 3)
        );
        assert_eq!(frames(&mut pending, true).len(), 1);
    }

    #[test]
    fn extensions_never_follow_the_verdict_on_the_same_delivery() {
        let mut pending = Pending::new();
        let deliveries = 2 * RANGES_PER_FRAME_MAX as u64 + 2;
        for delivery in (1..=2 * deliveries).step_by(2) {
            pending.extend([DeliveryRange {
                first: delivery,
                last: delivery,
            }]);
            pending.verdict(delivery, Verdict::Ack);
        }
        let (mut extended, mut acked) = (0, 0);
        for frame in frames(&mut pending, false) {
            let Request::Verdicts(verdicts) = frame else {
                panic!("there is no credit")
            };
            extended += verdicts.extends.len() as u64;
            acked += verdicts.acks.len() as u64;
            assert!(
                verdicts.acks.is_empty() || extended == deliveries,
                "an ack overtook an extension"
            );
        }
        assert_eq!((extended, acked), (deliveries, deliveries));
    }
}
