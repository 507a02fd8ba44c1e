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
    let parts = parts_of(state.len())?;
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

/// In how many parts a state of so many bytes is cut; `None` when that is above the limit.
fn parts_of(bytes: usize) -> Option<u32> {
    let parts = u32::try_from(bytes.div_ceil(CHECKPOINT_PART_BYTES)).ok()?;
    Some(parts.max(1)).filter(|&parts| parts <= CHECKPOINT_PARTS_MAX)
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

#[cfg(test)]
mod tests {
    //! Goal: a state of any size comes back as it was, in whatever order its parts land. Method: sizes at the bounds, and a state of several
    //! parts, through the bytes of its records.
    use super::*;
    use crate::fold::{ClaimEntry, ClaimKey};
    use crate::ids::NodeUuid;
    use crate::record::Genesis;
    use crate::seq_set::SeqSet;

    #[test]
    fn parts_are_bounded() {
        assert_eq!(parts_of(0), Some(1));
        assert_eq!(parts_of(CHECKPOINT_PART_BYTES), Some(1));
        assert_eq!(parts_of(CHECKPOINT_PART_BYTES + 1), Some(2));
        let max = CHECKPOINT_PARTS_MAX as usize * CHECKPOINT_PART_BYTES;
        assert_eq!(parts_of(max), Some(CHECKPOINT_PARTS_MAX));
        assert_eq!(parts_of(max + 1), None);
    }

    /// A state of at least three parts.
    fn large() -> Fold {
        let mut fold = Fold::new();
        fold.position = LedgerSeq(100_000);
        fold.genesis = Some((
            LedgerSeq(1),
            Genesis {
                rules: crate::fold::RULES,
                features: [].into(),
            },
        ));
        for batch in 1..=20_000 {
            let entry = ClaimEntry {
                position: LedgerSeq(batch),
                seqs: SeqSet::range(batch * 10, batch * 10 + 5),
                ..ClaimEntry::default()
            };
            fold.claims.insert(ClaimKey::new(NodeUuid(1), batch), entry);
        }
        fold.derive();
        fold
    }

    fn parts(fold: &Fold) -> Vec<CheckpointPart> {
        let part = |record: Record| {
            let Body::Checkpoint(part) = Record::decode(&record.encode()).unwrap().body else {
                panic!("a part of a checkpoint")
            };
            part
        };
        write(fold).unwrap().into_iter().map(part).collect()
    }

    #[test]
    fn a_large_state_comes_back() {
        let fold = large();
        let mut parts = parts(&fold);
        assert!(parts.len() >= 3);
        assert_eq!(parts[0].bytes.len(), CHECKPOINT_PART_BYTES);
        parts.reverse();
        let mut assembler = Assembler::default();
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            assert_eq!(assembler.add(part), at == last);
        }
        let loaded = assembler.best().unwrap().load().unwrap();
        assert!(loaded.claims() == fold.claims() && loaded.hash() == fold.hash());
    }

    /// With a checkpoint complete, parts of it that were cut otherwise, and of older ones, are dropped; those of newer ones are not.
    #[test]
    fn what_a_checkpoint_makes_useless_is_dropped() {
        let part = |position, part, parts| CheckpointPart {
            position: LedgerSeq(position),
            part,
            parts,
            ..CheckpointPart::default()
        };
        let mut assembler = Assembler::default();
        for position in [10, 20, 30] {
            assert!(!assembler.add(part(position, 0, 3)));
        }
        assert!(assembler.add(part(20, 0, 1)));
        let open: Vec<_> = assembler.open.keys().map(|(position, ..)| position.0).collect();
        assert_eq!(open, [30]);
    }
}
