//! Messages that the hub delivers again and again and that no node can take in: what the client library cannot read never
//! arrives, so nobody stages it, and it holds the acknowledgement floor, and with it W, back for ever.
//!
//! Above the floor an unclaimed message is usually just young. So a *mark* is kept: what the hub had delivered at some
//! moment. What is at or below the mark and not claimed although this node has been pulling for `stuck_ms` since was
//! delivered several times over and reached nobody: it is fetched by its sequence and claimed as *repair*. A mistake costs a
//! second copy on a disk and never a second delivery, since the first valid claim of a message wins (P2).
//!
//! What is claimed and still unacknowledged that long (its owner died before it settled, and a redelivery can not be read)
//! is acknowledged by its sequence, under the rules for a message met again (P5, P6).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{Node, Phase};
use crate::effect::{Effect, Fact};
use crate::ids::{Incarnation, StreamSeq, Tick};
use crate::limits::{
    CLOSE_STEPS_MAX, STUCK_AGAIN_DIVISOR, STUCK_LOOKS_MAX, STUCK_PASSED_MAX, STUCK_SETTLE_MAX,
};
use crate::seq_set::SeqSet;

/// The consumer's counters, as the shell read them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) floor: StreamSeq,
    pub(super) delivered: StreamSeq,
    pub(super) pulling: bool,
}

/// What is known of delivered messages that nobody has claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stuck {
    /// The floor as last read; unlike the one for holes it may go back.
    floor: StreamSeq,
    /// When that was, and whether this node was pulling then.
    read_at: Option<Tick>,
    pulling: bool,
    /// What had been delivered when `waited_ms` began to count.
    mark: StreamSeq,
    /// For how long this node has been pulling since.
    waited_ms: u64,
    /// Stuck messages were found under the mark before this one, and under this one.
    found_before: bool,
    found: bool,
    /// Not offered by the source: needs no second look under this mark.
    passed: SeqSet,
    /// Looks under way.
    asked: BTreeMap<u64, Tick>,
    /// Messages being fetched, staged and claimed.
    fetched: BTreeMap<u64, Tick>,
    /// Where the next acknowledgements by sequence begin, and when the last ones went out.
    settle_from: StreamSeq,
    settled_at: Option<Tick>,
}

impl Stuck {
    /// Takes a reading. `gap_ms` is the longest time between two readings that counts as waiting.
    pub(super) fn read(&mut self, now: Tick, reading: Reading, gap_ms: u64) {
        let since = self.read_at.map_or(0, |at| now.since(at));
        let went_back = reading.floor < self.floor || reading.delivered < self.mark;
        if reading.floor >= self.mark || went_back {
            *self = Stuck {
                mark: reading.delivered,
                found_before: self.found,
                ..Stuck::default()
            };
        } else if self.pulling && reading.pulling {
            self.waited_ms += since.min(gap_ms);
        }
        if reading.floor != self.floor {
            self.passed.remove_range(0, reading.floor.0);
            self.settle_from = reading.floor.next();
        }
        self.floor = reading.floor;
        self.pulling = reading.pulling;
        self.read_at = Some(now);
    }
}

impl Node {
    /// One round over every source. Done by the active node of the lowest rank, by another when it stays undone.
    pub(super) fn free_stuck(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(rank) = self.rank() else { return };
        let due = |stuck: &Stuck| {
            // Where some were found there are mostly more, and a whole run of them keeps the hub from delivering others.
            let shorter = if stuck.found_before {
                STUCK_AGAIN_DIVISOR
            } else {
                1
            };
            let wait_ms = self.policy.stuck_ms / shorter + rank * self.policy.takeover_ms;
            // An old reading says nothing: the consumer, or the stream itself, may be another one by now.
            let is_fresh = stuck
                .read_at
                .is_some_and(|at| now.since(at) < self.policy.resend_ms);
            is_fresh && stuck.pulling && stuck.floor < stuck.mark && stuck.waited_ms >= wait_ms
        };
        let sources: Vec<_> = self
            .close
            .iter()
            .filter(|(_, state)| due(&state.stuck))
            .map(|(&incarnation, _)| incarnation)
            .collect();
        for incarnation in sources {
            self.settle_stuck(now, incarnation, out);
            self.look_for_stuck(now, incarnation, out);
        }
    }

    /// Acknowledges what lies claimed right above the floor, a bounded number at a time, going round.
    fn settle_stuck(&mut self, now: Tick, incarnation: Incarnation, out: &mut Vec<Effect>) {
        let Some(state) = self.close.get(&incarnation) else {
            return;
        };
        let stuck = &state.stuck;
        let rests = |at: Tick| now.since(at) < self.policy.close_ms;
        if stuck.settled_at.is_some_and(rests) {
            return;
        }
        let start = stuck.floor.next().max(stuck.settle_from);
        let last = StreamSeq(stuck.mark.0.min(start.0.saturating_add(STUCK_SETTLE_MAX - 1)));
        let mut seqs = SeqSet::new();
        let closed = self.fold.closed(incarnation).0.min(last.0);
        let mut next = start.0;
        if next <= closed {
            seqs.insert_range(next, closed);
            next = closed + 1;
        }
        let from = StreamSeq(next);
        let owned = self
            .fold
            .owners(incarnation)
            .into_iter()
            .flat_map(move |owners| owners.from(from));
        for (first, end, _) in owned.take_while(|(first, ..)| first.0 <= last.0) {
            let first = first.0.max(next);
            // A sequence in between that the source does not offer needs no acknowledgement.
            if skip(&stuck.passed, next) < first || !self.may_settle(now, incarnation, StreamSeq(first)) {
                break;
            }
            let end = end.0.min(last.0);
            seqs.insert_range(first, end);
            next = end + 1;
        }
        let Some(state) = self.close.get_mut(&incarnation) else {
            return;
        };
        state.stuck.settle_from = StreamSeq(seqs.last().map_or(0, |last| last + 1));
        if !seqs.is_empty() {
            state.stuck.settled_at = Some(now);
            out.push(Effect::SettleBySeq { incarnation, seqs });
        }
    }

    /// Looks into the gaps between claimed messages, from the floor to the mark.
    fn look_for_stuck(&mut self, now: Tick, incarnation: Incarnation, out: &mut Vec<Effect>) {
        if self.may_pull(incarnation).is_err() {
            return;
        }
        let resend_ms = self.policy.resend_ms;
        let (fold, in_hand) = (&self.fold, self.in_hand.get(&incarnation));
        let closed = fold.closed(incarnation);
        let Some(state) = self.close.get_mut(&incarnation) else {
            return;
        };
        let floor = state.floor();
        let stuck = &mut state.stuck;
        stuck.asked.retain(|_, asked| now.since(*asked) < resend_ms);
        stuck.fetched.retain(|&seq, asked| {
            now.since(*asked) < resend_ms
                && seq > closed.0
                && fold.owner(incarnation, StreamSeq(seq)).is_none()
        });
        let mut firsts = Vec::new();
        let mut look_into = |first: u64, last: u64| {
            let mut seq = first;
            loop {
                let skipped = skip(&stuck.passed, in_hand.map_or(seq, |set| skip(set, seq)));
                if skipped == seq {
                    break;
                }
                seq = skipped;
            }
            if seq <= last && !stuck.fetched.contains_key(&seq) {
                firsts.push(seq);
            }
            firsts.len() < STUCK_LOOKS_MAX
        };
        let mut next = closed.max(floor).max(stuck.floor).0 + 1;
        let mut goes_on = true;
        let from = StreamSeq(next);
        let owned = fold
            .owners(incarnation)
            .into_iter()
            .flat_map(move |owners| owners.from(from));
        for (first, last, _) in owned.take(CLOSE_STEPS_MAX) {
            if first.0 > stuck.mark.0 || !goes_on {
                break;
            }
            if first.0 > next {
                goes_on = look_into(next, first.0 - 1);
            }
            next = last.0 + 1;
        }
        if goes_on && next <= stuck.mark.0 {
            look_into(next, stuck.mark.0);
        }
        for first in firsts {
            if stuck.asked.len() < STUCK_LOOKS_MAX && !stuck.asked.contains_key(&first) {
                stuck.asked.insert(first, now);
                out.push(Effect::Audit {
                    incarnation,
                    terms: fold.terms().version,
                    first: StreamSeq(first),
                });
            }
        }
    }

    /// The answer to a look into a gap above the floor. Says whether it was one.
    pub(super) fn on_stuck_audited(
        &mut self,
        now: Tick,
        incarnation: Incarnation,
        first: StreamSeq,
        next_matching: Option<StreamSeq>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(state) = self.close.get_mut(&incarnation) else {
            return false;
        };
        let stuck = &mut state.stuck;
        if stuck.asked.remove(&first.0).is_none() {
            return false;
        }
        let last = next_matching.map_or(stuck.mark.0, |seq| stuck.mark.0.min(seq.0.saturating_sub(1)));
        if first.0 <= last && stuck.passed.ranges().len() < STUCK_PASSED_MAX {
            stuck.passed.insert_range(first.0, last);
        }
        let unclaimed = |seq: &StreamSeq| {
            *seq > self.fold.closed(incarnation)
                && self.fold.owner(incarnation, *seq).is_none()
                && !self
                    .in_hand
                    .get(&incarnation)
                    .is_some_and(|seqs| seqs.contains(seq.0))
        };
        let found = next_matching.filter(|seq| *seq <= stuck.mark && unclaimed(seq));
        if let Some(seq) = found
            && stuck.fetched.len() < STUCK_LOOKS_MAX
            && !stuck.fetched.contains_key(&seq.0)
        {
            stuck.fetched.insert(seq.0, now);
            stuck.found = true;
            out.push(Effect::FetchRepair { incarnation, seq });
            // The gap may go on behind it.
            let behind = seq.next();
            if behind <= stuck.mark && stuck.asked.len() < STUCK_LOOKS_MAX && unclaimed(&behind) {
                stuck.asked.insert(behind.0, now);
                out.push(Effect::Audit {
                    incarnation,
                    terms: self.fold.terms().version,
                    first: behind,
                });
            }
        }
        true
    }

    /// What is staged of messages fetched by sequence and had been stuck is told, once each.
    pub(super) fn tell_stuck(&self, incarnation: Incarnation, staged: &SeqSet, out: &mut Vec<Effect>) {
        let Some(state) = self.close.get(&incarnation) else {
            return;
        };
        for &seq in state.stuck.fetched.keys().filter(|seq| staged.contains(**seq)) {
            let seq = StreamSeq(seq);
            out.push(Effect::Fact(Fact::Stuck { incarnation, seq }));
        }
    }

    /// Whether a message may be acknowledged to the hub now, as one met again may.
    fn may_settle(&self, now: Tick, incarnation: Incarnation, seq: StreamSeq) -> bool {
        self.phase == Phase::Active && self.settles(now, incarnation, seq)
    }
}

/// The first number at or behind `from` that is not in the set.
fn skip(set: &SeqSet, from: u64) -> u64 {
    let ranges = set.ranges();
    let at = ranges.partition_point(|&(_, last)| last < from);
    match ranges.get(at) {
        Some(&(first, last)) if first <= from => last + 1,
        Some(_) | None => from,
    }
}
