//! The work that any bridge may do for all: terms, progress, watermarks, checkpoints, purges. Each is done by the active
//! node of the lowest rank, by another when it stays undone.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Stability};
use crate::checkpoint;
use crate::effect::{Effect, Fact};
use crate::ids::{LedgerSeq, TermsVersion, Tick};
use crate::mutants::{self, Mutant};
use crate::record::{Body, NodeState, Progress, Terms, Witness, epoch_subject};
use crate::wire::DecodeError;

/// What upkeep remembers between ticks.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Upkeep {
    terms_sent: Option<Tick>,
    progress_sent: Option<Tick>,
    checkpoint_sent: Option<Tick>,
    checkpoint_due: Option<Tick>,
    /// Parts of checkpoints that are not complete.
    parts: BTreeMap<(Witness, u32), BTreeSet<u32>>,
    /// The complete checkpoint with the highest position, and when it became known.
    complete: Option<(LedgerSeq, Tick)>,
    /// The complete checkpoint to purge behind, once it is stable. Newer ones do not replace it: under steady load there
    /// is always a newer one that is not stable yet.
    candidate: Option<(LedgerSeq, Tick)>,
    /// Through which position a purge was asked for.
    purged: LedgerSeq,
    /// When the last purge was asked for.
    purged_at: Option<Tick>,
}

impl Upkeep {
    #[cfg(feature = "mutants")]
    pub(super) fn blur(&mut self) {
        self.progress_sent = None;
        self.checkpoint_due = None;
    }

    pub(super) fn on_append_failed(&mut self, now: Tick) {
        // Whatever it was is asked for again after the usual interval, counted from now.
        for sent in [
            &mut self.terms_sent,
            &mut self.progress_sent,
            &mut self.checkpoint_sent,
        ]
        .into_iter()
        .flatten()
        {
            *sent = (*sent).max(now);
        }
    }

    pub(super) fn on_checkpoint_part(&mut self, now: Tick, of: Witness, part: u32, parts: u32) {
        if self.complete.is_some_and(|(position, _)| position >= of.position) {
            return;
        }
        let seen = self.parts.entry((of, parts)).or_default();
        seen.insert(part);
        if seen.len() as u64 == u64::from(parts) {
            self.complete = Some((of.position, now));
            self.candidate = self.candidate.or(self.complete);
            self.checkpoint_due = None;
            self.parts.retain(|(other, _), _| other.position > of.position);
        }
    }

    /// As `on_checkpoint_part`; says whether a checkpoint is complete now that was not before.
    pub(super) fn completes(&mut self, now: Tick, of: Witness, part: u32, parts: u32) -> bool {
        let before = self.last_checkpoint();
        self.on_checkpoint_part(now, of, part, parts);
        self.last_checkpoint() > before
    }

    pub(super) fn on_loaded(&mut self, now: Tick, position: LedgerSeq) {
        self.complete = Some((position, now));
        self.candidate = self.candidate.or(self.complete);
        self.parts.retain(|(other, _), _| other.position > position);
    }

    /// Whether a checkpoint stands behind which nothing is purged yet, or the last purge is younger than so many milliseconds.
    pub(super) fn awaits_purge(&self, now: Tick, ms: u64) -> bool {
        self.candidate.is_some() || !is_due(self.purged_at, now, ms)
    }

    fn last_checkpoint(&self) -> LedgerSeq {
        self.complete.map_or(LedgerSeq(0), |(position, _)| position)
    }
}

fn is_due(sent: Option<Tick>, now: Tick, interval_ms: u64) -> bool {
    sent.is_none_or(|sent| now.since(sent) >= interval_ms)
}

impl Node {
    pub(super) fn keep_up(&mut self, now: Tick, out: &mut Vec<Effect>) {
        self.keep_terms(now, out);
        self.report_progress(now, out);
        self.close_up(now, out);
        self.free_stuck(now, out);
        self.write_checkpoint(now, out);
        self.purge(now, out);
    }

    /// This node's place among the active nodes, 0 for the first; `None` when it is not one of them.
    pub(super) fn rank(&self) -> Option<u64> {
        let mut active = self
            .fold
            .nodes()
            .iter()
            .filter(|(_, node)| node.state == NodeState::Active);
        active
            .position(|(&uuid, _)| uuid == self.identity.uuid)
            .map(|rank| rank as u64)
    }

    /// Writes the first terms; later ones when every active node hosts a new application, when the configuration names a
    /// source that the terms lack, or when the operator said that this node's configuration counts (P9).
    fn keep_terms(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if !is_due(self.upkeep.terms_sent, now, self.policy.resend_ms) {
            return;
        }
        let Some(terms) = self.wanted_terms() else { return };
        self.upkeep.terms_sent = Some(now);
        // What nobody could read is never written; `may_pull` tells why.
        if terms.check().is_ok() {
            self.append(Body::Terms(terms), Some(self.fold.terms_at()), out);
        }
    }

    /// What is wrong with the terms that this node would write, if it would write some that cannot be read.
    pub(super) fn unfit_terms(&self) -> Option<DecodeError> {
        self.wanted_terms().and_then(|terms| terms.check().err())
    }

    pub(super) fn wanted_terms(&self) -> Option<Terms> {
        let current = self.fold.terms();
        let version = TermsVersion(current.version.0 + 1);
        let mut wanted = current.clone();
        let hosted_by_all = |app: &String| {
            let mut active = self
                .fold
                .nodes()
                .values()
                .filter(|node| node.state == NodeState::Active);
            active.all(|node| node.hosts.contains(app)) || mutants::on(Mutant::EntersUnhosted)
        };
        for app in &self.identity.hosts {
            if current.version.0 == 0 || (!current.apps.contains_key(app) && hosted_by_all(app)) {
                wanted.apps.insert(app.clone(), version);
            }
        }
        for (incarnation, source) in &self.identity.sources {
            if self.policy.accept_terms {
                wanted
                    .sources
                    .retain(|found, named| found == incarnation || named.stream != source.stream);
                wanted.sources.insert(*incarnation, source.clone());
            } else if !current
                .sources
                .values()
                .any(|named| named.stream == source.stream)
            {
                wanted.sources.insert(*incarnation, source.clone());
            }
        }
        if wanted == *current {
            return None;
        }
        wanted.version = version;
        Some(wanted)
    }

    /// Reports done batches until the tail shows them.
    fn report_progress(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let report = self.reportable();
        let known = self
            .fold
            .nodes()
            .get(&self.identity.uuid)
            .is_some_and(|entry| entry.done.is_superset(&report));
        let Some(epoch) = self
            .epoch
            .filter(|_| !known && is_due(self.upkeep.progress_sent, now, self.policy.progress_ms))
        else {
            return;
        };
        self.upkeep.progress_sent = Some(now);
        self.append(
            Body::Progress(Progress {
                node_uuid: self.identity.uuid,
                epoch,
                done: report,
            }),
            None,
            out,
        );
    }

    fn write_checkpoint(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let position = self.fold.position();
        let behind = position.0 - self.upkeep.last_checkpoint().0.min(position.0);
        if behind < self.policy.checkpoint_records && !self.checkpoint_pays(now) {
            self.upkeep.checkpoint_due = None;
            return;
        }
        let Some(rank) = self.rank() else { return };
        let due = *self.upkeep.checkpoint_due.get_or_insert(now);
        let wait_ms = self.policy.resend_ms + self.policy.takeover_ms;
        if now.since(due) < rank * self.policy.takeover_ms
            || !is_due(self.upkeep.checkpoint_sent, now, wait_ms)
        {
            return;
        }
        let Some(records) = checkpoint::write(&self.fold) else {
            return;
        };
        self.upkeep.checkpoint_sent = Some(now);
        out.push(Effect::Fact(Fact::CheckpointWritten(position)));
        for record in records {
            out.push(Effect::Append {
                record: Box::new(record),
                expect: None,
                claim: None,
            });
        }
    }

    /// Purges behind a complete checkpoint, once it survives a power loss of the hub: otherwise the purge could outlive it.
    fn purge(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let Some((through, known_at)) = self.upkeep.candidate else {
            return;
        };
        let Some(rank) = self.rank() else { return };
        let stable_ms = match self.policy.stability {
            Stability::SyncAlways => 0,
            Stability::After(_) if mutants::on(Mutant::PurgesUnstable) => 0,
            Stability::After(ms) => ms,
        };
        // A purge cannot be seen from here; another node's is repeated, which deletes nothing more.
        let wait_ms = stable_ms.saturating_add(rank * self.policy.takeover_ms);
        if now.since(known_at) < wait_ms {
            return;
        }
        self.upkeep.candidate = self.upkeep.complete.filter(|&(newer, _)| newer > through);
        if through <= self.upkeep.purged {
            return;
        }
        self.upkeep.purged = through;
        self.upkeep.purged_at = Some(now);
        let mut keep = vec![
            ("gen".to_owned(), self.fold.genesis_at()),
            ("terms".to_owned(), self.fold.terms_at()),
        ];
        let mut epochs: BTreeMap<String, LedgerSeq> = BTreeMap::new();
        for node in self.fold.nodes().values() {
            let last = epochs.entry(epoch_subject(&node.name)).or_default();
            *last = (*last).max(node.epoch);
        }
        keep.extend(epochs);
        out.push(Effect::Purge { through, keep });
    }
}
