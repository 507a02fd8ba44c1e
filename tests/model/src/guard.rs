//! The invariants that a step can break: what a node may ask for, and what must hold of it afterwards.

use fanin_core::effect::Effect;
use fanin_core::fold::ClaimKey;
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, StreamSeq, TermsVersion};
use fanin_core::invariants;
use fanin_core::node::Phase;
use fanin_core::record::{Body, NodeState, Record};
use fanin_core::seq_set::SeqSet;

use crate::hub::Entry;
use crate::properties::Invariant;
use crate::world::{Exec, NAMES};

impl Exec<'_> {
    /// What a node may ask for, given the phase it was in, and in the order in which it asks.
    pub(crate) fn guard(&mut self, who: usize, before: &Phase, effects: &[Effect]) {
        let mut acts = matches!(before, Phase::Active);
        for effect in effects {
            if matches!(before, Phase::Fenced(_)) {
                return self.fail(Invariant::FencedIsSilent, format!("{}: {effect:?}", NAMES[who]));
            }
            let allowed = match effect {
                Effect::Joined(_) => {
                    acts = true;
                    true
                }
                Effect::Halt(_) | Effect::Fence(_) => {
                    acts = false;
                    true
                }
                Effect::Append { .. }
                | Effect::Audit { .. }
                | Effect::FetchRepair { .. }
                | Effect::Purge { .. }
                | Effect::Settle { .. }
                | Effect::SettleBySeq { .. }
                | Effect::Stage { .. } => acts && self.has_read_its_epoch(who),
                Effect::Turned { settle, delay, .. } => acts || (settle.is_empty() && delay.is_empty()),
                Effect::Resolve { .. } => acts || matches!(before, Phase::Joining),
                Effect::Fact(_)
                | Effect::LoadCheckpoint
                | Effect::PersistDone(_)
                | Effect::Release(_)
                | Effect::Tail { .. }
                | Effect::TermsInForce(_) => true,
            };
            if !allowed {
                let text = format!("{} was {before:?}, and asks for {effect:?}", NAMES[who]);
                return self.fail(Invariant::HaltedIsSilent, text);
            }
            self.guard_effect(who, effect);
            self.guard_sameness(who, effect);
        }
    }

    /// Whether there is a history to compare a body with: not when it read what the hub lost, nor behind a record that
    /// somebody wrote who had.
    pub(crate) fn knows_truth(&self, who: usize) -> bool {
        !self.w.bridges[who].astray && self.w.truth.ended.is_none()
    }

    /// Whether the tail has reached the own EPOCH, whatever the node thinks.
    fn has_read_its_epoch(&self, who: usize) -> bool {
        self.w.bridges[who]
            .node()
            .is_some_and(|node| node.epoch().is_some_and(|epoch| node.fold().position() >= epoch))
    }

    fn guard_effect(&mut self, who: usize, effect: &Effect) {
        match effect {
            Effect::Append { record, .. } => self.guard_append(who, record),
            Effect::Settle { batch, won } => {
                let kept = self.w.bridges[who].disk.batches.get(batch);
                let resolution = kept.and_then(|kept| kept.resolution.as_ref());
                if resolution.is_none_or(|found| found.won != *won) {
                    let text = format!(
                        "{} settles batch {batch} before it is durably published",
                        NAMES[who]
                    );
                    self.fail(Invariant::SettledIsPublished, text);
                }
            }
            Effect::Turned { settle, .. } | Effect::SettleBySeq { seqs: settle, .. } => {
                let incarnation = self.w.hub.source.incarnation();
                for seq in settle.iter() {
                    self.guard_settle(who, incarnation, seq);
                }
            }
            Effect::Resolve {
                batch, won, terms, ..
            } => self.guard_resolve(who, *batch, won, *terms),
            Effect::Purge { through, .. } => self.guard_purge(who, *through),
            Effect::Audit { .. }
            | Effect::Fact(_)
            | Effect::Fence(_)
            | Effect::FetchRepair { .. }
            | Effect::Halt(_)
            | Effect::Joined(_)
            | Effect::LoadCheckpoint
            | Effect::PersistDone(_)
            | Effect::Release(_)
            | Effect::Stage { .. }
            | Effect::Tail { .. }
            | Effect::TermsInForce(_) => {}
        }
    }

    fn guard_append(&mut self, who: usize, record: &Record) {
        let disk = &self.w.bridges[who].disk;
        match &record.body {
            Body::Claim(claim) => {
                let kept = disk.batches.get(&claim.batch);
                if kept.is_none_or(|kept| kept.seqs != claim.seqs) {
                    let text = format!("{} claims {:?} without a durable stage", NAMES[who], claim.seqs);
                    self.fail(Invariant::ClaimedIsStaged, text);
                }
            }
            Body::Progress(progress) => {
                if !disk.done.is_superset(&progress.done) {
                    let text = format!(
                        "{} reports {:?}, durable is {:?}",
                        NAMES[who], progress.done, disk.done
                    );
                    self.fail(Invariant::ReportedIsDurable, text);
                }
            }
            Body::Genesis(_)
            | Body::Terms(_)
            | Body::Epoch(_)
            | Body::Handoff(_)
            | Body::Close(_)
            | Body::Checkpoint(_) => {}
        }
    }

    fn guard_resolve(&mut self, who: usize, batch: BatchNo, won: &SeqSet, terms: TermsVersion) {
        let bridge = &self.w.bridges[who];
        if !self.knows_truth(who) {
            return;
        }
        let key = ClaimKey {
            node: bridge.uuid,
            batch,
        };
        let Some(decided) = self.w.truth.decided.get(&key).cloned() else {
            let text = format!("{} resolves batch {batch} without a valid claim", NAMES[who]);
            return self.fail(Invariant::DroppedIsLost, text);
        };
        let staged = bridge
            .disk
            .batches
            .get(&batch)
            .map(|kept| kept.seqs.clone())
            .unwrap_or_default();
        let incarnation = bridge
            .disk
            .batches
            .get(&batch)
            .map(|kept| kept.incarnation)
            .unwrap_or_default();
        if !staged.is_superset(won) || decided.terms != terms || !decided.won.is_superset(won) {
            let text = format!(
                "{} publishes {won:?} of batch {batch} {staged:?}, the ledger says {decided:?}",
                NAMES[who]
            );
            return self.fail(Invariant::VisibleIsWon, text);
        }
        let closed = self.w.truth.fold.closed(incarnation);
        for seq in staged.difference(won).iter() {
            let owner = self.w.truth.owner_of.get(&(incarnation, seq));
            let own = owner == Some(&key);
            let other = owner.is_some() && !own;
            if own || !(other || StreamSeq(seq) <= closed) {
                let text = format!(
                    "{} drops message {seq} of batch {batch}, its owner is {owner:?}",
                    NAMES[who]
                );
                return self.fail(Invariant::DroppedIsLost, text);
            }
        }
        for seq in decided.lost.iter() {
            let other = self
                .w
                .truth
                .owner_of
                .get(&(incarnation, seq))
                .is_some_and(|&owner| owner != key);
            if !other && StreamSeq(seq) > closed {
                let text = format!(
                    "message {seq} is lost to batch {batch} of {} and has no owner",
                    NAMES[who]
                );
                return self.fail(Invariant::DroppedIsLost, text);
            }
        }
    }

    /// I8 for own messages met again, I9 for everybody else's. At or below W everything is finished business (P6).
    pub(crate) fn guard_settle(&mut self, who: usize, incarnation: Incarnation, seq: u64) {
        let bridge = &self.w.bridges[who];
        let Some(node) = bridge.node().filter(|_| self.knows_truth(who)) else {
            return;
        };
        let known = node.fold().closed(incarnation);
        let truth = &self.w.truth;
        if known > truth.fold.closed(incarnation) {
            let text = format!("{} knows W = {known}, which nobody wrote", NAMES[who]);
            return self.fail(Invariant::OneState, text);
        }
        if StreamSeq(seq) <= known {
            return;
        }
        let owner = truth.owner_of.get(&(incarnation, seq)).copied();
        if let Some(key) = owner.filter(|key| key.node == bridge.uuid) {
            let kept = bridge.disk.batches.get(&key.batch);
            let visible = match kept {
                Some(kept) => kept.resolution.is_some(),
                None => bridge.disk.done.contains(key.batch.0),
            };
            if !visible {
                let text = format!("{} settles its message {seq} before it is published", NAMES[who]);
                self.fail(Invariant::SettledIsPublished, text);
            }
            return;
        }
        if !truth.may_settle(self.w.now, self.setup.config.lazy_hub, incarnation, seq) {
            let text = format!(
                "{} settles message {seq}, owner {owner:?}: not a stable claim",
                NAMES[who]
            );
            self.fail(Invariant::SettledIsStable, text);
        }
    }

    /// A purge may only take what a complete, stable checkpoint in the ledger covers.
    fn guard_purge(&mut self, who: usize, through: LedgerSeq) {
        let lazy = self.setup.config.lazy_hub;
        let mut parts = std::collections::BTreeMap::<_, std::collections::BTreeSet<u32>>::new();
        let stable = self
            .w
            .truth
            .history
            .values()
            .filter(|entry| !lazy || entry.landed < self.w.now);
        for entry in stable.filter(|entry| &*entry.subject == "checkpoint") {
            if let Ok(Record {
                body: Body::Checkpoint(part),
                ..
            }) = Record::decode(&entry.bytes)
            {
                parts
                    .entry((part.position, part.parts))
                    .or_default()
                    .insert(part.part);
            }
        }
        let complete = parts
            .iter()
            .any(|(&(position, count), seen)| position >= through && seen.len() == count as usize);
        if !complete && self.knows_truth(who) {
            let text = format!(
                "{} purges through {through} without a stable checkpoint there",
                NAMES[who]
            );
            self.fail(Invariant::PurgedIsKept, text);
        }
    }

    /// What must hold of a node after a step.
    pub(crate) fn inspect(&mut self, who: usize) {
        let bridge = std::sync::Arc::clone(&self.w.bridges[who]);
        let Some(node) = bridge.node() else { return };
        if matches!(node.phase(), Phase::Fenced(_)) {
            if self.setup.config.is_kind() {
                self.fail(Invariant::Healthy, format!("{}: {:?}", NAMES[who], node.phase()));
            }
            return;
        }
        if let Err(broken) = invariants::check(node) {
            self.fail(Invariant::Consistent, format!("{}: {broken}", NAMES[who]));
        }
        let position = node.fold().position();
        if self.knows_truth(who) {
            let ours = node.fold().hash_at(position);
            let truth = self.w.truth.fold.hash_at(position);
            if truth.is_some() && ours.is_some() && truth != ours {
                let text = format!("{} differs from the history at {position}", NAMES[who]);
                self.fail(Invariant::OneState, text);
            }
        }
        if let Phase::Halted(halt) = node.phase() {
            if self.setup.config.is_kind() {
                self.fail(Invariant::Healthy, format!("{}: {halt}", NAMES[who]));
            }
            return;
        }
        let judged = self.setup.config.faults.power_losses == 0;
        if judged && self.w.truth.ended.is_some_and(|ended| position >= ended) {
            let text = format!(
                "{} folded the record at {position}, of which it knows nothing",
                NAMES[who]
            );
            self.fail(Invariant::Distrusts, text);
        }
        if *node.phase() == Phase::Active {
            self.inspect_active(who);
        }
    }

    fn inspect_active(&mut self, who: usize) {
        let bridge = std::sync::Arc::clone(&self.w.bridges[who]);
        let Some(node) = bridge.node() else { return };
        let fold = node.fold();
        if !self.has_read_its_epoch(who) {
            let text = format!("{} is active before its tail has reached its EPOCH", NAMES[who]);
            return self.fail(Invariant::HaltedIsSilent, text);
        }
        if let Some(entry) = fold.nodes().get(&bridge.uuid) {
            let fenced =
                node.epoch().is_some_and(|epoch| entry.epoch > epoch) || entry.state == NodeState::Evacuated;
            if fenced {
                let text = format!("{} goes on behind its fence at {}", NAMES[who], entry.epoch);
                self.fail(Invariant::FencedIsSilent, text);
            }
        }
        let known =
            |batch: BatchNo| node.batches().contains_key(&batch) || bridge.disk.done.contains(batch.0);
        let unknown = fold
            .claims()
            .keys()
            .find(|key| key.node == bridge.uuid && !known(key.batch));
        if let Some(key) = unknown {
            let text = format!(
                "{} goes on although its disk lacks batch {}",
                NAMES[who], key.batch
            );
            self.fail(Invariant::KnowsItself, text);
        }
        let has_claim = |batch: BatchNo| {
            let key = ClaimKey {
                node: bridge.uuid,
                batch,
            };
            fold.claims().contains_key(&key)
        };
        for (&batch, kept) in &bridge.disk.batches {
            let finished = bridge.disk.acked.contains(&batch) || bridge.disk.done.contains(batch.0);
            let visible = kept
                .resolution
                .as_ref()
                .is_some_and(|found| !found.won.is_empty());
            if visible && !finished && !has_claim(batch) {
                let text = format!(
                    "{} published batch {batch}, and its ledger lacks the claim",
                    NAMES[who]
                );
                self.fail(Invariant::KnowsItself, text);
            }
        }
        let configured = node.identity().sources.keys().next();
        let named = fold.terms().sources.keys().next();
        if configured != named {
            let text = format!(
                "{} goes on although its source is not the one of the terms",
                NAMES[who]
            );
            self.fail(Invariant::Distrusts, text);
        }
    }

    /// P11: whoever folded a record whose writer knew another history must have halted at it.
    pub(crate) fn guard_history(&mut self, who: usize, position: LedgerSeq, entry: &Entry) {
        let Some(node) = self.w.bridges[who]
            .node()
            .filter(|_| self.w.bridges[who].is_well())
        else {
            return;
        };
        let Ok(record) = Record::decode(&entry.bytes) else {
            return;
        };
        let ours = node.fold().hash_at(record.witness.position);
        if node.fold().position() == position && ours.is_some_and(|ours| ours != record.witness.hash) {
            let text = format!(
                "{} folded {position}, whose writer knew another history",
                NAMES[who]
            );
            self.fail(Invariant::Distrusts, text);
        }
    }
}
