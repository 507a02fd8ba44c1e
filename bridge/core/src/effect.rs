//! Everything the shell may be asked to do. Effects are plain data; the shell takes all of them after every input, in order.

use crate::fold::Halt;
use crate::ids::{Attempt, BatchNo, Epoch, Incarnation, LedgerSeq, Offset, StreamSeq, TermsVersion};
use crate::mutants::{self, Mutant};
use crate::record::{ClaimKind, Record, Terms, Witness};
use crate::seq_set::SeqSet;

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Append a record to the ledger. Its outcome comes back as `AppendConfirmed` when the hub stored it; when that is not known,
    /// a claim's as `ClaimUnconfirmed`, others' as `AppendFailed`. Nothing comes back when the hub has it already.
    Append {
        /// The record.
        record: Box<Record>,
        /// Compare-and-set: the last sequence of the record's subject; `None` appends in any case.
        expect: Option<LedgerSeq>,
        /// For a claim, its batch and attempt, which go into the dedupe header (P4).
        claim: Option<(BatchNo, Attempt)>,
    },
    /// Look for the first message at or behind `first` that matches the filter in force: `Input::Audited`.
    Audit {
        /// The source.
        incarnation: Incarnation,
        /// The terms whose filter is to be used.
        terms: TermsVersion,
        /// Where to look from.
        first: StreamSeq,
    },
    /// Something to count or to log.
    Fact(Fact),
    /// Stop delivering at once and for good: this body of the node is not the node any more (P8).
    Fence(FenceReason),
    /// Fetch a message by its sequence, lost or stuck: `Input::Fetched` with `ClaimKind::Repair`.
    FetchRepair {
        /// The source.
        incarnation: Incarnation,
        /// The sequence.
        seq: StreamSeq,
    },
    /// The mapping halts: no claims, settles, tombstones; a node that had joined goes on delivering what it has published.
    Halt(Halt),
    /// The tail has reached the own EPOCH: pulling, serving and delivering may begin.
    Joined(Epoch),
    /// Read the ledger's checkpoint records: `Input::Checkpoint`.
    LoadCheckpoint,
    /// Make the set of finished batches durable: `Input::DonePersisted`. At most one is under way.
    PersistDone(SeqSet),
    /// Delete ledger records at or below `through`, except the kept ones.
    Purge {
        /// The checkpoint's position.
        through: LedgerSeq,
        /// Compare-and-set subjects, each with the position of the last record known: it and what is behind it stay.
        keep: Vec<(String, LedgerSeq)>,
    },
    /// Free a batch's space in the local log.
    Release(BatchNo),
    /// Make a resolution durable, then publish what was won at `base`: `Input::Resolved`.
    Resolve {
        /// The batch.
        batch: BatchNo,
        /// The position of its claim.
        position: LedgerSeq,
        /// The terms it was won under.
        terms: TermsVersion,
        /// The offset of its first won message.
        base: Offset,
        /// What was won; empty tombstones the batch.
        won: SeqSet,
        /// What the fold had read when the batch was decided, to be kept with the resolution (P11).
        witness: Witness,
    },
    /// Acknowledge own, published messages to the hub.
    Settle {
        /// Their batch.
        batch: BatchNo,
        /// The messages.
        won: SeqSet,
    },
    /// Acknowledge messages to the hub of which only the sequence is known here.
    SettleBySeq {
        /// The source.
        incarnation: Incarnation,
        /// The messages, at most `limits::STUCK_SETTLE_MAX`.
        seqs: SeqSet,
    },
    /// Append a batch of just arrived messages to the local log: `Input::Staged` or `StageRefused`.
    Stage {
        /// Which arrival.
        ticket: u64,
        /// The batch.
        batch: BatchNo,
        /// The source.
        incarnation: Incarnation,
        /// Why it was fetched.
        kind: ClaimKind,
        /// Which of the arrived messages.
        seqs: SeqSet,
    },
    /// Tail the ledger from this position on.
    Tail {
        /// The first position wanted.
        from: LedgerSeq,
    },
    /// Terms are in force, perhaps again after a restart.
    TermsInForce(Terms),
    /// What to do with arrived messages that are not staged. Those in none of the sets are dropped in silence: they are in
    /// hand already, or the node may not act; the hub delivers them again if need be.
    Turned {
        /// Which arrival.
        ticket: u64,
        /// Acknowledge to the hub.
        settle: SeqSet,
        /// Hand back to the hub, to come again after so many milliseconds.
        delay: Vec<(StreamSeq, u64)>,
    },
}

/// Why this body must stop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceReason {
    /// An operator evacuated the node.
    Evacuated,
    /// Another process began an epoch for this data directory's identity.
    ForeignEpoch {
        /// Its position.
        epoch: Epoch,
    },
    /// Another data directory took the node's name.
    NameTaken {
        /// The position of its epoch.
        epoch: Epoch,
    },
    /// The ledger holds a claim of this node that its disk does not know: the disk is a copy, or was rolled back.
    UnknownClaim {
        /// The claim's batch.
        batch: BatchNo,
    },
    /// The ledger holds progress of this node that its disk does not know.
    UnknownProgress,
}

impl FenceReason {
    /// What an operator does about it. A fence ends with the process only, and then this data directory cannot go on as this
    /// node: another body does, or must not.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match self {
            FenceReason::Evacuated => {
                "stop this process; a node that is to run here needs another name and an empty data directory"
            }
            FenceReason::ForeignEpoch { .. } => {
                "stop this process and go on with the one that began that epoch, on its data directory; a second node needs another \
                 name and an empty data directory. What this one had won and the other does not hold is not delivered"
            }
            FenceReason::NameTaken { .. } => {
                "stop this process; give the node that is to run here another name and an empty data directory. What this one had won \
                 and not finished is not delivered"
            }
            FenceReason::UnknownClaim { .. } | FenceReason::UnknownProgress => {
                "stop this process and every other one of this node; give the node another name and an empty data directory, for the \
                 ledger now has an epoch of this one, which the directory that was used before does not know. What the node had \
                 won and not finished is not delivered"
            }
        }
    }

    /// Whether a mutant ignores this reason.
    pub(crate) fn is_switched_off(&self) -> bool {
        match self {
            FenceReason::Evacuated | FenceReason::ForeignEpoch { .. } | FenceReason::NameTaken { .. } => {
                mutants::on(Mutant::IgnoresFence)
            }
            FenceReason::UnknownClaim { .. } | FenceReason::UnknownProgress => {
                mutants::on(Mutant::IgnoresUnknownClaims)
            }
        }
    }
}

impl core::fmt::Display for FenceReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            FenceReason::Evacuated => write!(f, "an operator evacuated this node"),
            FenceReason::ForeignEpoch { epoch } => {
                write!(
                    f,
                    "another process uses this node's identity: it began epoch {epoch}"
                )
            }
            FenceReason::NameTaken { epoch } => {
                write!(
                    f,
                    "another data directory took this node's name with epoch {epoch}"
                )
            }
            FenceReason::UnknownClaim { batch } => write!(
                f,
                "the ledger holds a claim of this node for batch {batch} that this data directory does not know: \
                 it is a copy, or was restored from an older state"
            ),
            FenceReason::UnknownProgress => write!(
                f,
                "the ledger holds progress of this node that this data directory does not know: \
                 it is a copy, or was restored from an older state"
            ),
        }
    }
}

/// Something worth counting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// A claim's outcome.
    ClaimResolved {
        /// Messages won.
        won: u64,
        /// Messages another claim had won.
        lost: u64,
        /// Messages given up: at or below W, and no claim was seen to win them, so that the source had given them up before
        /// anyone owned them. Behind a loaded checkpoint that does not show a finished claim any more, its copies count here too.
        tombstoned: u64,
        /// Which ones, at most `limits::FACT_RANGES_MAX` ranges.
        given_up: SeqSet,
        /// Their source.
        incarnation: Incarnation,
        /// Milliseconds from the first sending to the resolution.
        took_ms: u64,
    },
    /// A claim was void as a whole and goes out again.
    ClaimVoid(crate::fold::Void),
    /// A checkpoint was written at a position.
    CheckpointWritten(LedgerSeq),
    /// A damaged batch had not been claimed: nothing of it is this node's, and its number is used up.
    DamagedForgotten(BatchNo),
    /// Sequences were closed as holes.
    Holes {
        /// The source.
        incarnation: Incarnation,
        /// How many.
        count: u64,
        /// Which ones, at most `limits::FACT_RANGES_MAX` ranges.
        seqs: SeqSet,
    },
    /// A message below the acknowledgement floor that nobody claimed was found and is being claimed.
    Repair {
        /// The source.
        incarnation: Incarnation,
        /// Its sequence.
        seq: StreamSeq,
    },
    /// A source lost messages that it had once and that nobody, as far as is known here, had taken. Among these sequences, and
    /// perhaps behind them; some of them may have been taken in time.
    SourceLost {
        /// The source.
        incarnation: Incarnation,
        /// The first that may be lost.
        first: StreamSeq,
        /// The last that was there.
        last: StreamSeq,
    },
    /// A message that was delivered again and again and that no node had taken in was fetched and is being staged.
    Stuck {
        /// The source.
        incarnation: Incarnation,
        /// Its sequence.
        seq: StreamSeq,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each cure says what to do with this process, in words of its own. Method: all of them.
    #[test]
    fn cures_are_sentences() {
        let (epoch, batch) = (LedgerSeq(1), BatchNo(1));
        let cures = [
            FenceReason::Evacuated,
            FenceReason::ForeignEpoch { epoch },
            FenceReason::NameTaken { epoch },
            FenceReason::UnknownClaim { batch },
        ]
        .map(|reason| reason.cure());
        for cure in cures {
            assert!(cure.starts_with("stop this process"), "{cure}");
            assert!(
                cure.contains("another name and an empty data directory"),
                "{cure}"
            );
        }
        let different: std::collections::BTreeSet<_> = cures.into_iter().collect();
        assert_eq!(different.len(), cures.len());
        assert_eq!(FenceReason::UnknownProgress.cure(), cures[3]);
    }
}
