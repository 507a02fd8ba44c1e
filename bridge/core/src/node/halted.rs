//! What a halted node still reads. It folds nothing, but goes on delivering what it had won; so it must see when another body
//! acts as this node, or when the node is evacuated: then it stops delivering at once (P8).

use super::{Node, Phase};
use crate::checkpoint::Complete;
use crate::effect::{Effect, FenceReason};
use crate::fold::Fold;
use crate::ids::{Epoch, LedgerSeq, Tick};
use crate::record::{Body, EpochRecord, NodeState, Record, epoch_subject};

impl Node {
    /// Looks at a record without folding it. The last EPOCH of each name is never purged (P7), so that none is missed.
    pub(super) fn watch_record(
        &mut self,
        now: Tick,
        position: LedgerSeq,
        subject: &str,
        bytes: &[u8],
        out: &mut Vec<Effect>,
    ) {
        if !matches!(self.phase, Phase::Halted(_)) {
            return;
        }
        self.watched = self.watched.max(position);
        let Some(epoch) = self.epoch.filter(|&epoch| position > epoch) else {
            return;
        };
        match Record::decode(bytes).map(|record| record.body) {
            // On another subject it is no EPOCH that compare-and-set has admitted.
            Ok(Body::Epoch(record)) if subject == epoch_subject(&record.node) => {
                if let Some(reason) = self.fence_of(epoch, position, &record) {
                    self.fence(reason, out);
                }
            }
            Ok(Body::Checkpoint(part)) => {
                let of = crate::record::Witness {
                    position: part.position,
                    hash: part.hash,
                };
                if self.upkeep.completes(now, of, part.part, part.parts) {
                    out.push(Effect::LoadCheckpoint);
                }
            }
            // Whatever it says, it is the newest EPOCH of this name and this process did not write it.
            Err(_) if subject == epoch_subject(&self.identity.name) => {
                self.fence(FenceReason::ForeignEpoch { epoch: position }, out);
            }
            Ok(
                Body::Claim(_)
                | Body::Close(_)
                | Body::Epoch(_)
                | Body::Genesis(_)
                | Body::Handoff(_)
                | Body::Progress(_)
                | Body::Terms(_),
            )
            | Err(_) => {}
        }
    }

    /// Looks at a checkpoint without adopting it, and has the tail go on where it was.
    pub(super) fn watch_checkpoint(&mut self, checkpoint: Option<&Complete>, out: &mut Vec<Effect>) {
        self.loading = None;
        // One that cannot be loaded tells nothing.
        if let Some(Ok(fold)) = checkpoint.map(Complete::load)
            && let Some(reason) = self.fence_in(&fold)
        {
            self.fence(reason, out);
        }
        if matches!(self.phase, Phase::Halted(_)) {
            let from = self.fold.position().max(self.watched).next();
            out.push(Effect::Tail { from });
        }
    }

    /// What an EPOCH record behind the own one means for this body.
    pub(super) fn fence_of(
        &self,
        epoch: Epoch,
        position: LedgerSeq,
        record: &EpochRecord,
    ) -> Option<FenceReason> {
        if position <= epoch {
            return None;
        }
        if record.node_uuid == self.identity.uuid {
            return Some(match record.state {
                NodeState::Evacuated => FenceReason::Evacuated,
                NodeState::Active | NodeState::Draining | NodeState::Closed => {
                    FenceReason::ForeignEpoch { epoch: position }
                }
            });
        }
        (record.node == self.identity.name).then_some(FenceReason::NameTaken { epoch: position })
    }

    /// What a state means for this body, once it is a state at or behind the own EPOCH.
    pub(super) fn fence_in(&self, fold: &Fold) -> Option<FenceReason> {
        let epoch = self.epoch.filter(|&epoch| fold.position() >= epoch)?;
        let entry = fold.nodes().get(&self.identity.uuid)?;
        match entry.state {
            NodeState::Evacuated if entry.epoch > epoch => Some(FenceReason::Evacuated),
            _ if entry.epoch > epoch => Some(FenceReason::ForeignEpoch { epoch: entry.epoch }),
            // Only another data directory of the same name closes a node from outside.
            NodeState::Closed => Some(FenceReason::NameTaken {
                epoch: fold.position(),
            }),
            NodeState::Active | NodeState::Draining | NodeState::Evacuated => None,
        }
    }
}
