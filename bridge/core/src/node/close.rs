//! How the watermark moves (P6): over stable valid claims and proven holes, never over a matching message that nobody
//! claimed. Such a message below the acknowledgement floor is repaired.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::Node;
use super::stuck::{Reading, Stuck};
use crate::effect::{Effect, Fact};
use crate::ids::{Incarnation, StreamSeq, Tick};
use crate::limits::{AUDITS_MAX, CLOSE_STEPS_MAX, FACT_RANGES_MAX};
use crate::mutants::{self, Mutant};
use crate::record::{Body, Close};
use crate::seq_set::SeqSet;

/// What is known of a source on the way to its next watermark, under the terms in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseState {
    /// The consumer's acknowledgement floor as last read.
    floor: StreamSeq,
    /// Gaps seen once not to match: first sequence to (last, when).
    sightings: BTreeMap<u64, (u64, Tick)>,
    /// Gaps seen twice, far enough apart.
    holes: SeqSet,
    /// Matching messages below the floor that nobody claimed, with when they were seen first.
    suspects: BTreeMap<u64, Tick>,
    /// Looks under way.
    asked: BTreeMap<u64, Tick>,
    /// When a CLOSE was sent last.
    sent_at: Option<Tick>,
    /// Since when a higher watermark has been possible, or a gap has been waiting.
    due_since: Option<Tick>,
    /// Messages above the floor that nobody can take in.
    pub(super) stuck: Stuck,
}

/// The next watermark, and the gaps that hold back the one after it.
struct Plan {
    through: StreamSeq,
    holes: u64,
    /// The first of them, at most `limits::FACT_RANGES_MAX` ranges.
    hole_seqs: SeqSet,
    gaps: Vec<(u64, u64)>,
}

impl Node {
    pub(super) fn on_floor(&mut self, now: Tick, incarnation: Incarnation, reading: Reading) {
        let state = self.close.entry(incarnation).or_default();
        // The hub can lose acknowledgement state; what was shown below an earlier floor stays shown.
        state.floor = state.floor.max(reading.floor);
        state.stuck.read(now, reading, self.policy.resend_ms);
    }

    pub(super) fn on_closed(&mut self, incarnation: Incarnation, through: StreamSeq) {
        let Some(state) = self.close.get_mut(&incarnation) else {
            return;
        };
        state.due_since = None;
        state.holes.remove_range(0, through.0);
        state.sightings.retain(|_, (last, _)| *last > through.0);
        state.suspects.retain(|&seq, _| seq > through.0);
        state.asked.retain(|&seq, _| seq > through.0);
    }

    /// Whether a close or an audit is this node's to do now: the lowest ranked active node's at once, another's later.
    pub(super) fn close_up(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(rank) = self.rank() else { return };
        let sources: Vec<_> = self.fold.terms().sources.keys().copied().collect();
        for incarnation in sources {
            // A node that is configured otherwise than the terms say leaves the judgement to the others.
            if self.identity.sources.get(&incarnation) != self.fold.terms().sources.get(&incarnation) {
                continue;
            }
            let plan = self.plan_close(now, incarnation);
            let advances = plan.through > self.fold.closed(incarnation);
            let state = self.close.entry(incarnation).or_default();
            if !advances && plan.gaps.is_empty() {
                state.due_since = None;
                continue;
            }
            let due_since = *state.due_since.get_or_insert(now);
            if now.since(due_since) < rank * self.policy.takeover_ms {
                continue;
            }
            let asks = state.due_audits(now, &plan.gaps, self.policy.audit_ms, self.policy.resend_ms);
            let terms = self.fold.terms().version;
            for first in asks {
                out.push(Effect::Audit {
                    incarnation,
                    terms,
                    first: StreamSeq(first),
                });
            }
            if advances
                && state
                    .sent_at
                    .is_none_or(|sent| now.since(sent) >= self.policy.close_ms)
            {
                state.sent_at = Some(now);
                let (floor, holes) = (state.floor, plan.holes);
                if holes > 0 {
                    out.push(Effect::Fact(Fact::Holes {
                        incarnation,
                        count: holes,
                        seqs: plan.hole_seqs,
                    }));
                }
                self.append(
                    Body::Close(Close {
                        incarnation,
                        through: plan.through,
                        terms,
                        floor,
                        holes,
                    }),
                    None,
                    out,
                );
            }
        }
    }

    fn plan_close(&self, now: Tick, incarnation: Incarnation) -> Plan {
        let closed = self.fold.closed(incarnation);
        let none = CloseState::default();
        let state = self.close.get(&incarnation).unwrap_or(&none);
        let mut plan = Plan {
            through: closed,
            holes: 0,
            hole_seqs: SeqSet::new(),
            gaps: Vec::new(),
        };
        let mut advancing = true;
        let mut next = closed.0 + 1;
        let owned = self
            .fold
            .owners(incarnation)
            .into_iter()
            .flat_map(|owners| owners.from(closed.next()));
        for (steps, (first, last, key)) in owned.enumerate() {
            if first.0 > next {
                advancing = plan.pass_gap(state, next, first.0 - 1, advancing);
            }
            if advancing && (self.stable_in(now, key) == 0 || mutants::on(Mutant::ClosesUnstable)) {
                plan.through = last;
            } else {
                advancing = false;
            }
            next = last.0 + 1;
            if steps >= CLOSE_STEPS_MAX
                || (!advancing && (next > state.floor.0 || plan.gaps.len() >= AUDITS_MAX))
            {
                return plan;
            }
        }
        if next <= state.floor.0 {
            plan.pass_gap(state, next, state.floor.0, advancing);
        }
        plan
    }

    pub(super) fn on_audited(
        &mut self,
        now: Tick,
        incarnation: Incarnation,
        first: StreamSeq,
        next_matching: Option<StreamSeq>,
        out: &mut Vec<Effect>,
    ) {
        if self.phase != super::Phase::Active {
            return;
        }
        if self.on_stuck_audited(now, incarnation, first, next_matching, out) {
            return;
        }
        let audit_ms = self.policy.audit_ms;
        let in_hand = |seq: u64| {
            self.in_hand
                .get(&incarnation)
                .is_some_and(|seqs| seqs.contains(seq))
        };
        let unclaimed = next_matching.filter(|&seq| {
            seq > self.fold.closed(incarnation)
                && self.fold.owner(incarnation, seq).is_none()
                && !in_hand(seq.0)
        });
        let Some(state) = self.close.get_mut(&incarnation) else {
            return;
        };
        state.asked.remove(&first.0);
        let floor = state.floor;
        let last = next_matching.map_or(floor.0, |seq| floor.0.min(seq.0 - 1));
        state.sight(now, first.0, last, audit_ms);
        let Some(found) = unclaimed.filter(|&seq| seq <= floor) else {
            return;
        };
        let since = *state.suspects.entry(found.0).or_insert(now);
        if now.since(since) >= audit_ms {
            state.suspects.insert(found.0, now);
            out.push(Effect::Fact(Fact::Repair {
                incarnation,
                seq: found,
            }));
            out.push(Effect::FetchRepair {
                incarnation,
                seq: found,
            });
        }
        // Behind the found message the gap goes on.
        if found < floor && state.asked.len() < AUDITS_MAX {
            let first = found.next();
            if self.fold.owner(incarnation, first).is_none() {
                state.asked.insert(first.0, now);
                out.push(Effect::Audit {
                    incarnation,
                    terms: self.fold.terms().version,
                    first,
                });
            }
        }
    }
}

impl Plan {
    /// Walks over an unowned range. Returns whether the watermark may still advance behind it.
    fn pass_gap(&mut self, state: &CloseState, first: u64, last: u64, advancing: bool) -> bool {
        let mut open = SeqSet::range(first, last).difference(&state.holes);
        if mutants::on(Mutant::HolesByFloor) {
            open.remove_range(0, state.floor.0);
        }
        if advancing {
            let through = open.first().map_or(last, |seq| seq - 1);
            self.holes += (through + 1).saturating_sub(first);
            if self.hole_seqs.ranges().len() < FACT_RANGES_MAX {
                self.hole_seqs.insert_range(first, through);
            }
            self.through = self.through.max(StreamSeq(through));
        }
        let clear = open.is_empty();
        // Above the floor a message may simply not have been delivered yet.
        open.remove_range(state.floor.0 + 1, u64::MAX);
        let room = AUDITS_MAX.saturating_sub(self.gaps.len());
        self.gaps.extend(open.ranges().iter().take(room));
        advancing && clear
    }
}

impl CloseState {
    /// The highest acknowledgement floor ever read.
    pub(super) fn floor(&self) -> StreamSeq {
        self.floor
    }

    #[cfg(feature = "mutants")]
    pub(super) fn blur(&mut self) {
        self.sent_at = None;
        self.due_since = None;
    }

    /// The gaps to look at now: never looked at, or looked at once long enough ago.
    fn due_audits(&mut self, now: Tick, gaps: &[(u64, u64)], audit_ms: u64, resend_ms: u64) -> Vec<u64> {
        self.asked.retain(|_, asked| now.since(*asked) < resend_ms);
        let mut due = Vec::new();
        for &(first, _) in gaps {
            let sighted = self
                .sightings
                .range(..=first)
                .next_back()
                .filter(|&(_, &(last, _))| last >= first);
            let waits = sighted.is_some_and(|(_, &(_, seen))| now.since(seen) < audit_ms);
            let suspect = self
                .suspects
                .get(&first)
                .is_some_and(|&seen| now.since(seen) < audit_ms);
            if !waits && !suspect && !self.asked.contains_key(&first) && self.asked.len() < AUDITS_MAX {
                self.asked.insert(first, now);
                due.push(first);
            }
        }
        due
    }

    /// Nothing in `first..=last` matches now. What was seen so long enough ago is a hole.
    fn sight(&mut self, now: Tick, first: u64, last: u64, audit_ms: u64) {
        if first > last {
            return;
        }
        let mut fresh = SeqSet::range(first, last);
        let mut holes = Vec::new();
        if mutants::on(Mutant::HolesSeenOnce) {
            holes.push((first, last));
        }
        for (&start, &(end, seen)) in self.sightings.range(..=last) {
            if end >= first {
                let (from, to) = (start.max(first), end.min(last));
                fresh.remove_range(from, to);
                if now.since(seen) >= audit_ms {
                    holes.push((from, to));
                }
            }
        }
        for (from, to) in holes {
            self.holes.insert_range(from, to);
        }
        for &(from, to) in fresh.ranges() {
            self.sightings.insert(from, (to, now));
        }
    }
}
