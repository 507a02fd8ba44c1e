//! Which own batches every application has finished, and how far the disk and the ledger know it.

use super::Node;
use crate::batch::BatchState;
use crate::effect::Effect;
use crate::ids::BatchNo;
use crate::seq_set::SeqSet;

/// The done sets. `durable` is what the disk knows, `finished` may be ahead of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Done {
    pub(crate) finished: SeqSet,
    pub(crate) durable: SeqSet,
    /// The set on its way to the disk.
    pub(crate) persisting: Option<SeqSet>,
}

impl Done {
    pub(crate) fn contains(&self, batch: BatchNo) -> bool {
        self.finished.contains(batch.0)
    }
}

impl Node {
    pub(super) fn on_finished(&mut self, number: BatchNo, out: &mut Vec<Effect>) {
        let Some(batch) = self.batches.get_mut(&number) else {
            return;
        };
        if batch.state == BatchState::Finished {
            return;
        }
        batch.state = BatchState::Finished;
        self.done.finished.insert(number.0);
        self.persist_done(out);
    }

    fn persist_done(&mut self, out: &mut Vec<Effect>) {
        if self.done.persisting.is_none() && self.done.finished != self.done.durable {
            self.done.persisting = Some(self.done.finished.clone());
            out.push(Effect::PersistDone(self.done.finished.clone()));
        }
    }

    pub(super) fn on_done_persisted(&mut self, out: &mut Vec<Effect>) {
        let Some(persisted) = self.done.persisting.take() else {
            return;
        };
        for number in persisted.difference(&self.done.durable).iter().map(BatchNo) {
            if self.batches.remove(&number).is_some() {
                out.push(Effect::Release(number));
            }
        }
        self.done.durable = persisted;
        self.persist_done(out);
    }

    /// What a PROGRESS record may report: durable, and at most so many ranges.
    pub(super) fn reportable(&self) -> SeqSet {
        let mut report = SeqSet::new();
        for &(first, last) in self
            .done
            .durable
            .ranges()
            .iter()
            .take(crate::limits::DONE_RANGES_REPORTED_MAX)
        {
            report.insert_range(first, last);
        }
        report
    }
}
