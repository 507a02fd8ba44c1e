//! Checkpoints (P7): the fold's whole state in a few records, and how a reader finds the one to load.

use std::collections::BTreeMap;

use crate::fold::{Fold, Halt};
use crate::hash::Hash128;
use crate::ids::LedgerSeq;
use crate::limits::{CHECKPOINT_PART_BYTES, CHECKPOINT_PARTS_MAX};
use crate::record::{Body, CheckpointPart, Record, Witness};

/// The records of a checkpoint of `fold` at its present position, or `None` when the state is above the limit.
#[must_use]
pub fn write(fold: &Fold) -> Option<Vec<Record>> {
    let state = fold.encode();
    let parts = u32::try_from(state.len().div_ceil(CHECKPOINT_PART_BYTES))
        .ok()?
        .max(1);
    if parts > CHECKPOINT_PARTS_MAX {
        return None;
    }
    let witness = fold.witness();
    let records = (0..parts).map(|part| {
        let from = part as usize * CHECKPOINT_PART_BYTES;
        let to = state.len().min(from + CHECKPOINT_PART_BYTES);
        let bytes = state[from..to].to_vec();
        let body = CheckpointPart {
            position: fold.position(),
            hash: fold.hash(),
            part,
            parts,
            bytes,
        };
        Record {
            witness,
            body: Body::Checkpoint(body),
        }
    });
    Some(records.collect())
}

/// Collects checkpoint parts and keeps the best complete checkpoint: the one with the highest position, whatever
/// landed last.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Assembler {
    /// By position, hash and number of parts: two versions may cut the same state differently.
    open: BTreeMap<(LedgerSeq, Hash128, u32), BTreeMap<u32, Vec<u8>>>,
    complete: Option<Complete>,
}

/// A complete checkpoint, not yet decoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Complete {
    /// The position of the state.
    pub witness: Witness,
    state: Vec<u8>,
}

impl Complete {
    /// The fold at the checkpoint's position.
    ///
    /// # Errors
    /// `Halt` when the bytes are not the state that the hash names, or it demands rules we do not have.
    pub fn load(&self) -> Result<Fold, Halt> {
        let position = self.witness.position;
        let fold = Fold::decode(&self.state).map_err(|_| Halt::CheckpointDamaged { position })?;
        if fold.position() != position || fold.hash() != self.witness.hash {
            return Err(Halt::CheckpointDamaged { position });
        }
        match &fold.genesis {
            Some((at, genesis)) => Fold::admit_rules(*at, genesis)?,
            None => return Err(Halt::NoGenesis { position }),
        }
        Ok(fold)
    }
}

impl Assembler {
    /// Takes one part in. Says whether a checkpoint became complete by it.
    pub fn add(&mut self, part: CheckpointPart) -> bool {
        let witness = Witness {
            position: part.position,
            hash: part.hash,
        };
        if self
            .complete
            .as_ref()
            .is_some_and(|best| best.witness.position >= witness.position)
        {
            return false;
        }
        let parts = self
            .open
            .entry((witness.position, witness.hash, part.parts))
            .or_default();
        parts.insert(part.part, part.bytes);
        if parts.len() as u64 != u64::from(part.parts) {
            return false;
        }
        let state = parts.values().flat_map(|bytes| bytes.iter().copied()).collect();
        self.complete = Some(Complete { witness, state });
        self.open
            .retain(|&(position, _, _), _| position > witness.position);
        true
    }

    /// The complete checkpoint with the highest position.
    #[must_use]
    pub fn best(&self) -> Option<&Complete> {
        self.complete.as_ref()
    }
}
