//! What a folded record or a loaded checkpoint means for this node.

#[cfg(test)]
mod tests;

use super::{Node, Phase, Stability};
use crate::batch::BatchState;
use crate::checkpoint::Complete;
use crate::effect::{Effect, Fact, FenceReason};
use crate::fold::{ApplyError, ClaimKey, Fold, Folded, Halt};
use crate::ids::{BatchNo, Epoch, LedgerSeq, NodeUuid, Tick};
use crate::mutants::{self, Mutant};
use crate::record::{EpochRecord, NodeState};

impl Node {
    pub(super) fn on_record(
        &mut self,
        now: Tick,
        position: LedgerSeq,
        subject: &str,
        bytes: &[u8],
        out: &mut Vec<Effect>,
    ) {
        if matches!(self.phase, Phase::Halted(_)) {
            return self.watch_record(now, position, subject, bytes, out);
        }
        if self.loading.is_some() {
            return;
        }
        if self.known_witness.position == position {
            // Looked at beforehand, so that a halt leaves the fold and the batches as they agree. Once in a life.
            let mut ahead = self.fold.clone();
            if ahead.apply(position, subject, bytes).is_ok()
                && let Err(halt) = self.compare_history(&ahead)
            {
                self.halt(halt, out);
                return self.watch_record(now, position, subject, bytes, out);
            }
        }
        match self.fold.read(position, subject, bytes) {
            Ok(None) => {}
            Ok(Some(record)) => {
                if let Err(halt) = self.judge_record(&record) {
                    self.halt(halt, out);
                    return self.watch_record(now, position, subject, bytes, out);
                }
                let folded = self.fold.take(position, record, bytes);
                self.on_folded(now, position, folded, out);
            }
            Err(ApplyError::Gap { expected, found }) => {
                self.loading = Some((expected, found));
                out.push(Effect::LoadCheckpoint);
            }
            Err(ApplyError::Halt(halt)) => {
                self.halt(halt, out);
                self.watch_record(now, position, subject, bytes, out);
            }
        }
    }

    /// What is read now must be what this disk's earlier life had read when it last decided a batch (P11). Otherwise the
    /// hub has lost records and grown again, and what was decided by them may be decided once more.
    fn compare_history(&self, fold: &Fold) -> Result<(), Halt> {
        let (known, found) = (self.known_witness, fold.witness());
        if known.position == found.position && known.hash != found.hash {
            return Err(Halt::HistoryChanged {
                position: known.position,
                disk: known.hash,
                ledger: found.hash,
            });
        }
        Ok(())
    }

    /// A checkpoint that covers what this node has read has grown out of it (I3), and shows what the node has read of itself: its
    /// epoch, and a claim of every batch that is decided and not done. Otherwise it is of another history (P11), and the
    /// records in between, whose witnesses would tell, are purged.
    fn compare_own(&self, loaded: &Fold) -> Result<(), Halt> {
        let uuid = self.identity.uuid;
        let epoch = self.epoch.filter(|&epoch| loaded.position() >= epoch);
        let shown = loaded.nodes().get(&uuid).map(|entry| entry.epoch);
        if (epoch.is_some() && shown < epoch) || !self.fold.may_become(loaded) {
            let (ours, theirs) = (self.fold.witness(), loaded.witness());
            return Err(Halt::HistoryChanged {
                position: ours.position,
                disk: ours.hash,
                ledger: theirs.hash,
            });
        }
        let decided = self.batches.iter().filter(|(_, batch)| {
            matches!(
                batch.state,
                BatchState::Resolving { .. } | BatchState::Published { unconfirmed: None }
            )
        });
        let mut unknown = decided.filter(|(number, _)| {
            let key = ClaimKey::new(uuid, number.0);
            !loaded.has_decided(key)
        });
        match unknown.next() {
            Some((&batch, _)) => Err(Halt::WonDiffers { batch }),
            None => Ok(()),
        }
    }

    /// A record lands behind everything that its writer had read before it was sent; otherwise the ledger has lost what stood
    /// there (P11). It is compared with what was read then and not with what is read now, for a confirmation may come long after
    /// the tail has shown the record. Believed at once: nobody but a leader with a majority behind it stores a record.
    pub(super) fn on_append_confirmed(&mut self, at: LedgerSeq, read: LedgerSeq, out: &mut Vec<Effect>) {
        if at <= read && !mutants::on(Mutant::IgnoresEarlyPositions) {
            self.halt(Halt::LedgerShrank { last: at, read }, out);
        }
    }

    fn on_folded(&mut self, now: Tick, position: LedgerSeq, folded: Folded, out: &mut Vec<Effect>) {
        match folded {
            Folded::Genesis | Folded::Repeat | Folded::CloseVoid => {}
            Folded::Terms(_) => {
                self.close.clear();
                self.on_terms(out);
                self.claim_waiting(now, out);
            }
            Folded::Epoch { uuid, record } => self.on_epoch(now, position, uuid, &record, out),
            Folded::Claim { key, won, .. } => {
                if matches!(self.policy.stability, Stability::After(_)) {
                    self.seen.insert(key, now);
                }
                self.note_won_by_others(key, &won);
                let earlier = mutants::on(Mutant::OwnEpochOnly) && self.phase == Phase::Joining;
                if key.node == self.identity.uuid && !earlier {
                    let terms = self.fold.terms().version;
                    self.resolve(now, key.batch, position, terms, won, out);
                }
            }
            Folded::ClaimRepeated(key)
                if mutants::on(Mutant::OwnEpochOnly) && self.phase == Phase::Active =>
            {
                if key.node == self.identity.uuid {
                    self.resolve(
                        now,
                        key.batch,
                        position,
                        self.fold.terms().version,
                        Default::default(),
                        out,
                    );
                }
            }
            Folded::ClaimRepeated(key) => self.expect_known(key, out),
            Folded::ClaimVoid(key, void) => {
                self.expect_known(key, out);
                let own = key.node == self.identity.uuid;
                let claiming = |state: &BatchState| matches!(state, BatchState::Claiming { .. });
                if own
                    && self
                        .batches
                        .get(&key.batch)
                        .is_some_and(|batch| claiming(&batch.state))
                {
                    out.push(Effect::Fact(Fact::ClaimVoid(void)));
                    self.try_claim(now, key.batch, out);
                }
            }
            Folded::Closed {
                incarnation, through, ..
            } => {
                self.on_closed(incarnation, through);
                if self.seen.len() > 1024 + 2 * self.fold.claims().len() {
                    let claims = self.fold.claims();
                    self.seen.retain(|key, _| claims.contains_key(key));
                }
            }
            Folded::Progress(uuid) => {
                if uuid == self.identity.uuid {
                    self.expect_known_progress(out);
                }
            }
            Folded::Checkpoint { of, part, parts } => self.upkeep.on_checkpoint_part(now, of, part, parts),
        }
    }

    /// A claim of this identity for a batch this disk never staged was sent by another body.
    fn expect_known(&mut self, key: ClaimKey, out: &mut Vec<Effect>) {
        if key.node == self.identity.uuid && !self.knows(key.batch) {
            self.fence(FenceReason::UnknownClaim { batch: key.batch }, out);
        }
    }

    fn knows(&self, batch: BatchNo) -> bool {
        self.done.contains(batch)
            || self
                .batches
                .get(&batch)
                .is_some_and(|batch| batch.state != BatchState::Staging)
    }

    fn expect_known_progress(&mut self, out: &mut Vec<Effect>) {
        let known = self
            .fold
            .nodes()
            .get(&self.identity.uuid)
            .is_none_or(|entry| self.done.durable.is_superset(&entry.done));
        if !known {
            self.fence(FenceReason::UnknownProgress, out);
        }
    }

    fn on_terms(&mut self, out: &mut Vec<Effect>) {
        let terms = self.fold.terms().clone();
        if terms.version.0 == 0 {
            return;
        }
        // Terms met on the way to the own EPOCH may have been replaced since: they are judged once it is reached.
        if self.phase == Phase::Active {
            self.check_sources(out);
        }
        out.push(Effect::TermsInForce(terms));
    }

    fn check_sources(&mut self, out: &mut Vec<Effect>) {
        let terms = self.fold.terms();
        let recreated = self.identity.sources.iter().find(|(incarnation, source)| {
            let other = |named: &crate::record::SourceTerms| named.stream == source.stream;
            !terms.sources.contains_key(incarnation) && terms.sources.values().any(other)
        });
        let accepts = self.policy.accept_terms || mutants::on(Mutant::IgnoresRecreatedSources);
        if let Some((_, source)) = recreated.filter(|_| !accepts) {
            let stream = source.stream.clone();
            self.halt(Halt::SourceRecreated { stream }, out);
        }
    }

    /// What this disk published must stand in the ledger by the time the tail has reached the own EPOCH: a claim is
    /// forgotten only when its batch is done, and done batches were not recovered. Otherwise the hub lost it.
    fn check_published(&mut self, out: &mut Vec<Effect>) {
        let missing = self
            .batches
            .iter()
            .find(|(_, batch)| matches!(batch.state, BatchState::Published { unconfirmed: Some(_) }));
        if let Some((&batch, _)) = missing.filter(|_| !mutants::on(Mutant::IgnoresLostClaims)) {
            self.halt(Halt::WonDiffers { batch }, out);
        }
    }

    fn on_epoch(
        &mut self,
        now: Tick,
        position: LedgerSeq,
        uuid: NodeUuid,
        record: &EpochRecord,
        out: &mut Vec<Effect>,
    ) {
        let own = uuid == self.identity.uuid;
        match self.epoch {
            Some(epoch) if position == epoch => self.check_joined(now, out),
            Some(epoch) => match self.fence_of(epoch, position, record) {
                Some(reason) => self.fence(reason, out),
                None => self.expect_known_epoch(position, own, record, out),
            },
            None => self.expect_known_epoch(position, own, record, out),
        }
    }

    /// Before the own epoch, every epoch of this identity must be one that this disk wrote.
    fn expect_known_epoch(
        &mut self,
        position: LedgerSeq,
        own: bool,
        record: &EpochRecord,
        out: &mut Vec<Effect>,
    ) {
        let known = position <= self.known_epoch
            || record.nonce == self.identity.nonce
            || self.intents.contains(&record.nonce);
        if own && !known {
            self.fence(FenceReason::ForeignEpoch { epoch: position }, out);
        }
    }

    pub(super) fn check_joined(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some(epoch) = self
            .epoch
            .filter(|_| self.phase == Phase::Joining)
            .filter(|&epoch| self.fold.position() >= epoch || mutants::on(Mutant::ActsBeforeItsEpoch))
        else {
            return;
        };
        if !mutants::on(Mutant::ActsBeforeItsEpoch) && !self.is_newest(epoch, out) {
            return;
        }
        self.expect_known_progress(out);
        if matches!(self.phase, Phase::Fenced(_)) {
            return;
        }
        self.phase = Phase::Active;
        out.push(Effect::Joined(epoch));
        if epoch <= self.known_witness.position {
            // The own EPOCH was appended after all that this disk had read.
            let read = self.known_witness.position;
            self.halt(Halt::LedgerShrank { last: epoch, read }, out);
        }
        self.check_sources(out);
        self.check_published(out);
        self.forget_damaged(out);
        self.claim_waiting(now, out);
    }

    /// A damaged batch that no valid claim has named by the own EPOCH will never have one: claims of older epochs are void
    /// from here on, and this life sent none. Its messages are the hub's to deliver again.
    fn forget_damaged(&mut self, out: &mut Vec<Effect>) {
        if self.phase != Phase::Active {
            return;
        }
        let damaged = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.state == BatchState::Damaged);
        for number in damaged.map(|(&number, _)| number).collect::<Vec<_>>() {
            out.push(Effect::Fact(Fact::DamagedForgotten(number)));
            self.on_finished(number, out);
        }
    }

    /// Fences the node when the fold knows a newer epoch of it, or its evacuation.
    fn is_newest(&mut self, epoch: Epoch, out: &mut Vec<Effect>) -> bool {
        let (found, state) = match self.fold.nodes().get(&self.identity.uuid) {
            Some(entry) => (entry.epoch, entry.state),
            None => return false,
        };
        if let Some(reason) = self.fence_in(&self.fold) {
            self.fence(reason, out);
        }
        found == epoch && state == NodeState::Active
    }

    /// Loads the complete checkpoint with the highest position, at the start or because the tail met a gap, and goes on
    /// right behind its *position*, never behind its record (P7).
    pub(super) fn on_checkpoint(
        &mut self,
        now: Tick,
        checkpoint: Option<Box<Complete>>,
        out: &mut Vec<Effect>,
    ) {
        if matches!(self.phase, Phase::Halted(_)) {
            return self.watch_checkpoint(checkpoint.as_deref(), out);
        }
        let gap = self.loading.take();
        let newer = checkpoint.filter(|found| found.witness.position > self.fold.position());
        match (newer, gap) {
            (Some(found), _) => match found.load() {
                Ok(fold) => {
                    if let Err(halt) = self
                        .compare_history(&fold)
                        .and_then(|()| self.compare_own(&fold))
                        .and_then(|()| self.judge_loaded(&fold))
                    {
                        self.halt(halt, out);
                        return self.watch_checkpoint(Some(&found), out);
                    }
                    self.fold = fold;
                    self.note_loaded_claims();
                    self.adopt_loaded(now, out);
                }
                Err(halt) => {
                    self.halt(halt, out);
                    return self.watch_checkpoint(None, out);
                }
            },
            (None, Some((expected, found))) => {
                let last = LedgerSeq(found.0.saturating_sub(1));
                self.halt(
                    Halt::Gap {
                        first: expected,
                        last,
                    },
                    out,
                );
                return self.watch_checkpoint(None, out);
            }
            (None, None) => {}
        }
        out.push(Effect::Tail {
            from: self.fold.position().next(),
        });
    }

    fn adopt_loaded(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.close.clear();
        self.upkeep.on_loaded(now, self.fold.position());
        if matches!(self.policy.stability, Stability::After(_)) {
            for key in self.fold.claims().keys() {
                self.seen.entry(*key).or_insert(now);
            }
        }
        self.on_terms(out);
        if matches!(self.phase, Phase::Halted(_)) {
            if let Some(reason) = self.fence_in(&self.fold) {
                self.fence(reason, out);
            }
            return;
        }
        match self.epoch {
            Some(epoch) if self.fold.position() >= epoch => {
                if !self.is_newest(epoch, out) {
                    return;
                }
            }
            Some(_) | None => self.check_old_epoch(out),
        }
        self.expect_known_progress(out);
        // Own batches resolve by what the checkpoint says they won, in the order in which their claims landed, so that
        // offsets come out as they would have from the tail.
        let mut own: Vec<_> = self
            .fold
            .claims()
            .range(ClaimKey::new(self.identity.uuid, 0)..=ClaimKey::new(self.identity.uuid, u64::MAX))
            .map(|(key, entry)| (entry.position, key.batch, entry.terms, entry.won()))
            .collect();
        own.sort_unstable_by_key(|claim| claim.0);
        for (position, batch, terms, won) in own {
            self.resolve(now, batch, position, terms, won, out);
        }
        if self.phase == Phase::Joining {
            self.check_joined(now, out);
        } else {
            self.claim_waiting(now, out);
        }
    }

    fn check_old_epoch(&mut self, out: &mut Vec<Effect>) {
        let Some(entry) = self.fold.nodes().get(&self.identity.uuid) else {
            return;
        };
        let known = entry.epoch <= self.known_epoch
            || entry.nonce == self.identity.nonce
            || self.intents.contains(&entry.nonce);
        if !known {
            let epoch = entry.epoch;
            self.fence(FenceReason::ForeignEpoch { epoch }, out);
        }
    }
}
