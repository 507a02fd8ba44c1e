//! What a repair cannot decide by what is known.

use core::fmt;

use crate::ids::{BatchNo, Incarnation, StreamSeq, TermsVersion};
use crate::seq_set::SeqSet;

/// Something that only an operator can judge. The order is that of seriousness.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// Two nodes have made the same messages available.
    Duplicate {
        /// The source.
        incarnation: Incarnation,
        /// The messages.
        seqs: SeqSet,
        /// One owner and its batch.
        one: (String, BatchNo),
        /// The other owner and its batch.
        other: (String, BatchNo),
    },
    /// A node has made messages available that, in another history of the ledger, were finished business already.
    ClosedElsewhere {
        /// The node.
        node: String,
        /// Its batch.
        batch: BatchNo,
        /// The source.
        incarnation: Incarnation,
        /// The messages.
        seqs: SeqSet,
    },
    /// Two histories of the ledger have both finished messages since they parted, and have forgotten by whom.
    Split {
        /// The source.
        incarnation: Incarnation,
        /// The messages among which those are that were made available twice, if any were.
        seqs: SeqSet,
    },
    /// Two histories differ on whether a finished batch held these messages: they may have been made available before.
    Disputed {
        /// The node.
        node: String,
        /// Its batch.
        batch: BatchNo,
        /// The source.
        incarnation: Incarnation,
        /// The messages.
        seqs: SeqSet,
    },
    /// A batch that a node owns and whose disk neither holds it nor has finished it.
    Missing {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// The source.
        incarnation: Incarnation,
        /// Messages that nobody would deliver any more.
        lost: SeqSet,
        /// Messages that another node would take over.
        again: SeqSet,
    },
    /// Batches that a node has finished and that no fold knows: which messages they held, nobody can tell exactly.
    Finished {
        /// The node.
        node: String,
        /// The batches.
        batches: SeqSet,
        /// For each source the messages among which theirs are; they would be delivered again, or have been in another history.
        among: Vec<(Incarnation, SeqSet)>,
    },
    /// An active node was not asked. What it published must stand in the ledger, or it halts when it comes back.
    NotAsked {
        /// The node.
        node: String,
        /// Messages in its hands, by the folds.
        messages: u64,
    },
    /// Two folds have different terms of one version.
    TermsDiffer {
        /// The version.
        version: TermsVersion,
    },
    /// A disk knew later terms than every fold: their sources are lost.
    TermsLost {
        /// The node.
        node: String,
        /// What it knew.
        known: TermsVersion,
        /// What is left.
        found: TermsVersion,
    },
}

impl Finding {
    /// A short word for scripts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Finding::Duplicate { .. } => "duplicate",
            Finding::ClosedElsewhere { .. } => "closed_elsewhere",
            Finding::Split { .. } => "split",
            Finding::Disputed { .. } => "disputed",
            Finding::Missing { .. } => "missing",
            Finding::Finished { .. } => "finished",
            Finding::NotAsked { .. } => "not_asked",
            Finding::TermsDiffer { .. } => "terms_differ",
            Finding::TermsLost { .. } => "terms_lost",
        }
    }

    /// The messages that it names, as ranges of their sequences, each inclusive; all of them, where the text names only some.
    #[must_use]
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let sets: Vec<&SeqSet> = match self {
            Finding::Duplicate { seqs, .. }
            | Finding::ClosedElsewhere { seqs, .. }
            | Finding::Split { seqs, .. }
            | Finding::Disputed { seqs, .. } => vec![seqs],
            Finding::Missing { lost, again, .. } => vec![lost, again],
            Finding::Finished { among, .. } => among.iter().map(|(_, seqs)| seqs).collect(),
            Finding::NotAsked { .. } | Finding::TermsDiffer { .. } | Finding::TermsLost { .. } => Vec::new(),
        };
        sets.into_iter()
            .flat_map(|seqs| seqs.ranges().iter().copied())
            .collect()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Duplicate {
                incarnation,
                seqs,
                one,
                other,
            } => write!(
                f,
                "{incarnation}: {} were made available by node {} (batch {}) and by node {} (batch {})",
                Ranges(seqs),
                one.0,
                one.1,
                other.0,
                other.1
            ),
            Finding::ClosedElsewhere {
                node,
                batch,
                incarnation,
                seqs,
            } => write!(
                f,
                "{incarnation}: {} were made available by node {node} (batch {batch}), and were finished business before in \
                 another history of the ledger",
                Ranges(seqs)
            ),
            Finding::Split { incarnation, seqs } => write!(
                f,
                "{incarnation}: the ledger has split; among {} are those that were made available in both of its histories, if \
                 there are any",
                Ranges(seqs)
            ),
            Finding::Disputed {
                node,
                batch,
                incarnation,
                seqs,
            } => write!(
                f,
                "{incarnation}: whether node {node} has finished {} with batch {batch} cannot be told: in one history of the \
                 ledger it owned them, in another it did not",
                Ranges(seqs)
            ),
            Finding::Missing {
                node,
                batch,
                incarnation,
                lost,
                again,
            } => write!(
                f,
                "{incarnation}: node {node} owns batch {batch} and does not hold it; nobody would deliver {}, another node \
                 would take {}",
                Ranges(lost),
                Ranges(again)
            ),
            Finding::Finished { node, batches, among } => {
                write!(
                    f,
                    "node {node} has finished batches {} whose messages the ledger lost: they would be delivered again, or have \
                     been already",
                    Ranges(batches)
                )?;
                for (incarnation, seqs) in among {
                    write!(f, "; they are among {} of {incarnation}", Ranges(seqs))?;
                }
                Ok(())
            }
            Finding::NotAsked { node, messages } => write!(
                f,
                "node {node} could not be asked; {messages} messages are in its hands, perhaps more"
            ),
            Finding::TermsDiffer { version } => {
                write!(f, "there are two kinds of terms of version {version}")
            }
            Finding::TermsLost { node, known, found } => write!(
                f,
                "node {node} knew terms {known}; the newest that survive are terms {found}"
            ),
        }
    }
}

/// Most ranges that are written out.
const RANGES_SHOWN: usize = 50;

/// A set of sequences as people write it: `3, 7-9`.
pub struct Ranges<'a>(pub &'a SeqSet);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (at, &(first, last)) in self.0.ranges().iter().take(RANGES_SHOWN).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            if first == last {
                write!(f, "{comma}{}", StreamSeq(first))?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        let more = self.0.ranges().len().saturating_sub(RANGES_SHOWN);
        if more > 0 {
            write!(f, " and {more} more ranges")?;
        }
        Ok(())
    }
}
