//! What becomes of messages that arrive: staged, settled, handed back, or dropped because they are in hand.

#[cfg(test)]
mod tests;

use super::{Node, Phase, Stability};
use crate::batch::{Batch, BatchState};
use crate::effect::Effect;
use crate::fold::ClaimKey;
use crate::ids::{BatchNo, Incarnation, StreamSeq, Tick};
use crate::input::FetchedMessage;
use crate::limits::{BATCH_MESSAGES_MAX, UNRESOLVED_BATCHES_MAX};
use crate::mutants::{self, Mutant};
use crate::record::ClaimKind;
use crate::seq_set::SeqSet;

/// Shortest delay asked of the hub when a message is handed back, in milliseconds.
const DELAY_MS_MIN: u64 = 1_000;

enum Turn {
    Stage,
    Settle,
    Delay(u64),
    Drop,
}

impl Node {
    pub(super) fn on_fetched(
        &mut self,
        now: Tick,
        ticket: u64,
        incarnation: Incarnation,
        kind: ClaimKind,
        messages: &[FetchedMessage],
        out: &mut Vec<Effect>,
    ) {
        let mut stage = SeqSet::new();
        let mut settle = SeqSet::new();
        let mut delay = Vec::new();
        let mut published_ns = (i64::MAX, i64::MIN);
        if let Err(halt) = self.judge_arrivals(incarnation, messages) {
            self.halt(halt, out);
        }
        // A node that may not act leaves everything to the hub's redelivery; I15 forbids even settling.
        let acts = self.phase == Phase::Active;
        let room = self.unresolved < UNRESOLVED_BATCHES_MAX;
        for message in messages.iter().filter(|_| acts) {
            match self.turn(now, incarnation, message.seq) {
                Turn::Stage
                    if room && stage.len() < BATCH_MESSAGES_MAX as u64 && !stage.contains(message.seq.0) =>
                {
                    stage.insert(message.seq.0);
                    published_ns.0 = published_ns.0.min(message.published_ns);
                    published_ns.1 = published_ns.1.max(message.published_ns);
                }
                Turn::Stage | Turn::Drop => {}
                Turn::Settle => settle.insert(message.seq.0),
                Turn::Delay(ms) => delay.push((message.seq, ms)),
            }
        }
        if !stage.is_empty() {
            let number = self.next_batch;
            self.next_batch = number.next();
            self.in_hand.entry(incarnation).or_default().union(&stage);
            self.unresolved += 1;
            self.batches
                .insert(number, Batch::new(incarnation, kind, stage.clone(), published_ns));
            if kind == ClaimKind::Repair {
                self.tell_stuck(incarnation, &stage, out);
            }
            out.push(Effect::Stage {
                ticket,
                batch: number,
                incarnation,
                kind,
                seqs: stage,
            });
        }
        out.push(Effect::Turned {
            ticket,
            settle,
            delay,
        });
    }

    /// Whether a message met again would be acknowledged to the hub.
    pub(super) fn settles(&self, now: Tick, incarnation: Incarnation, seq: StreamSeq) -> bool {
        matches!(self.turn(now, incarnation, seq), Turn::Settle)
    }

    fn turn(&self, now: Tick, incarnation: Incarnation, seq: StreamSeq) -> Turn {
        if seq <= self.fold.closed(incarnation) {
            return Turn::Settle;
        }
        if self
            .in_hand
            .get(&incarnation)
            .is_some_and(|seqs| seqs.contains(seq.0) && !mutants::on(Mutant::StagesInHand))
        {
            return Turn::Drop;
        }
        match self.fold.owner(incarnation, seq) {
            None => Turn::Stage,
            Some(key) if key.node == self.identity.uuid => {
                match self.batches.get(&key.batch).map(|batch| &batch.state) {
                    // Own messages are settled only when their publication is durable (P5).
                    Some(BatchState::Published { .. } | BatchState::Finished) | None => Turn::Settle,
                    Some(_) if mutants::on(Mutant::SettlesUnresolved) => Turn::Settle,
                    Some(
                        BatchState::Damaged
                        | BatchState::Staging
                        | BatchState::Staged
                        | BatchState::Claiming { .. }
                        | BatchState::Resolving { .. },
                    ) => Turn::Drop,
                }
            }
            Some(key) => match self.stable_in(now, key) {
                _ if mutants::on(Mutant::SettlesUnstable) => Turn::Settle,
                0 => Turn::Settle,
                ms => Turn::Delay(ms.max(DELAY_MS_MIN)),
            },
        }
    }

    /// Milliseconds until a claim is stable; 0 when it is.
    pub(crate) fn stable_in(&self, now: Tick, key: ClaimKey) -> u64 {
        match self.policy.stability {
            Stability::SyncAlways => 0,
            Stability::After(ms) => self
                .seen
                .get(&key)
                .map_or(ms, |&seen| ms.saturating_sub(now.since(seen))),
        }
    }

    pub(super) fn on_staged(&mut self, now: Tick, number: BatchNo, out: &mut Vec<Effect>) {
        let Some(batch) = self.batches.get_mut(&number) else {
            return;
        };
        if batch.state == BatchState::Staging {
            batch.state = BatchState::Staged;
            self.try_claim(now, number, out);
        }
    }

    pub(super) fn on_stage_refused(&mut self, number: BatchNo, out: &mut Vec<Effect>) {
        let Some(batch) = self
            .batches
            .get(&number)
            .filter(|batch| batch.state == BatchState::Staging)
        else {
            return;
        };
        if let Some(in_hand) = self.in_hand.get_mut(&batch.incarnation) {
            *in_hand = in_hand.difference(&batch.seqs);
        }
        self.unresolved -= 1;
        // Nothing was claimed under this number and nothing ever will be.
        self.on_finished(number, out);
    }
}
