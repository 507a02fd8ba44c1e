//! What an operator needs to know about a halt: its stable code, what cannot be trusted, and what to do. Each cure is one
//! sentence, in words that need no look into the code (P10).

use super::Halt;
use crate::ids::StreamSeq;

/// What a halt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// The ledger is not what it was: a repair of it may help.
    Ledger,
    /// A source is not what it was.
    Source,
    /// The ledger holds what this version does not know. What it says up to there stands.
    Version,
}

impl Halt {
    /// The stable code that users can look up; the bridge's table of codes explains it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Halt::SequenceReused { .. } => "FAN-4035",
            Halt::SourceShrank { .. } => "FAN-4036",
            Halt::CheckpointDamaged { .. }
            | Halt::Diverged { .. }
            | Halt::Gap { .. }
            | Halt::HistoryChanged { .. }
            | Halt::LedgerRecreated
            | Halt::LedgerRegrown { .. }
            | Halt::LedgerShrank { .. }
            | Halt::NoGenesis { .. }
            | Halt::Reserved { .. }
            | Halt::SourceRecreated { .. }
            | Halt::TermsOutOfOrder { .. }
            | Halt::UnknownFeature { .. }
            | Halt::UnknownRecord { .. }
            | Halt::UnsupportedRules { .. }
            | Halt::WonDiffers { .. }
            | Halt::WrongSubject { .. } => "FAN-4030",
        }
    }

    /// What cannot be trusted, or does not fit.
    #[must_use]
    pub fn suspect(&self) -> Suspect {
        match self {
            Halt::CheckpointDamaged { .. }
            | Halt::Diverged { .. }
            | Halt::Gap { .. }
            | Halt::HistoryChanged { .. }
            | Halt::LedgerRecreated
            | Halt::LedgerRegrown { .. }
            | Halt::LedgerShrank { .. }
            | Halt::NoGenesis { .. }
            | Halt::TermsOutOfOrder { .. }
            | Halt::WonDiffers { .. }
            | Halt::WrongSubject { .. } => Suspect::Ledger,
            Halt::SequenceReused { .. } | Halt::SourceRecreated { .. } | Halt::SourceShrank { .. } => {
                Suspect::Source
            }
            Halt::Reserved { .. }
            | Halt::UnknownFeature { .. }
            | Halt::UnknownRecord { .. }
            | Halt::UnsupportedRules { .. } => Suspect::Version,
        }
    }

    /// The stream that was restored to an earlier copy, and the first sequence from which on it holds other messages, as far as
    /// this halt shows it.
    #[must_use]
    pub fn restored_source(&self) -> Option<(&str, StreamSeq)> {
        match self {
            Halt::SequenceReused { stream, seq, .. } => Some((stream.as_str(), *seq)),
            Halt::SourceShrank { stream, last, .. } => Some((stream.as_str(), last.next())),
            Halt::CheckpointDamaged { .. }
            | Halt::Diverged { .. }
            | Halt::Gap { .. }
            | Halt::HistoryChanged { .. }
            | Halt::LedgerRecreated
            | Halt::LedgerRegrown { .. }
            | Halt::LedgerShrank { .. }
            | Halt::NoGenesis { .. }
            | Halt::Reserved { .. }
            | Halt::SourceRecreated { .. }
            | Halt::TermsOutOfOrder { .. }
            | Halt::UnknownFeature { .. }
            | Halt::UnknownRecord { .. }
            | Halt::UnsupportedRules { .. }
            | Halt::WonDiffers { .. }
            | Halt::WrongSubject { .. } => None,
        }
    }

    /// What an operator does about it. A halt ends with the process only, so that each cure ends with a start.
    #[must_use]
    pub fn cure(&self) -> &'static str {
        match self {
            Halt::CheckpointDamaged { .. } => {
                "compare with `fanin ledger verify` from another node: if it halts there too, restore the hub's ledger stream, \
                 or see `fanin ledger repair --dry-run`; otherwise check this machine; then restart"
            }
            Halt::Diverged { .. } => {
                "run the same version of fanin on every node and restart; if it halts again, restore the hub's ledger stream, \
                 or see what `fanin ledger repair --dry-run` makes of what the nodes hold"
            }
            Halt::Gap { .. } => {
                "restore the hub's ledger stream from a backup or a replica that still has these records, or see \
                 `fanin ledger repair --dry-run`, then restart"
            }
            Halt::HistoryChanged { .. } | Halt::LedgerRegrown { .. } => {
                "restore the hub's ledger stream, or see `fanin ledger repair --dry-run`, then restart"
            }
            Halt::LedgerRecreated => {
                "restore the hub's ledger stream that was there before: an empty one knows nothing of what was claimed; or \
                 see `fanin ledger repair --dry-run`; then restart"
            }
            Halt::LedgerShrank { .. } => {
                "restore the hub's ledger stream with the records it has lost, or see `fanin ledger repair --dry-run`, then restart"
            }
            Halt::NoGenesis { .. } => {
                "find what wrote to the ledger stream, which belongs to the bridges alone, restore the stream, then restart"
            }
            Halt::Reserved { .. } => {
                "upgrade this bridge to the newest version that any node runs, then restart"
            }
            Halt::SequenceReused { .. } | Halt::SourceShrank { .. } => {
                "leave the bridges running; stop the producers, restore the newest state of the stream and restart; or raise its \
                 generation below sources in every node's configuration, see `fanin ledger repair --source STREAM --dry-run`, run \
                 it, and restart every bridge: it delivers what nobody had claimed"
            }
            Halt::SourceRecreated { .. } => {
                "restore the stream that was there before and restart; or take the new one for good: if it holds messages of the \
                 old one, by `fanin ledger repair --source STREAM`, otherwise restart one node with --accept-terms"
            }
            Halt::TermsOutOfOrder { .. } => {
                "restore the hub's ledger stream: a record between the two is missing or doubled; then restart"
            }
            Halt::UnknownFeature { .. } => {
                "upgrade this bridge to the newest version that any node runs, then restart"
            }
            Halt::UnknownRecord { .. } => {
                "upgrade this bridge to the newest version that any node runs, then restart; if every node runs the same \
                 version, find what else wrote to the ledger stream and restore the stream"
            }
            Halt::UnsupportedRules { .. } => {
                "upgrade this bridge to the newest version that any node runs, then restart"
            }
            Halt::WonDiffers { .. } => {
                "restore whichever was rolled back, the hub's ledger stream or this node's data directory, then restart; \
                 `fanin ledger verify` tells what is in doubt"
            }
            Halt::WrongSubject { .. } => {
                "find what wrote to the ledger stream, which belongs to the bridges alone, restore the stream, then restart"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: an operator of an older bridge reads what helps. Method: what a newer version can leave in the ledger.
    use super::*;
    use crate::ids::LedgerSeq;
    use crate::wire::DecodeError;

    /// Codes are what users look up: they never change.
    #[test]
    fn codes_are_stable() {
        let reused = Halt::SequenceReused {
            stream: "S".to_owned(),
            seq: StreamSeq(1),
            found_ns: (2, 2),
            known_ns: (1, 1),
        };
        let shrank = Halt::SourceShrank {
            stream: "S".to_owned(),
            last: StreamSeq(1),
            known: StreamSeq(2),
            known_ns: 0,
        };
        let codes = [reused, shrank, Halt::LedgerRecreated].map(|halt| halt.code());
        assert_eq!(codes, ["FAN-4035", "FAN-4036", "FAN-4030"]);
    }

    #[test]
    fn what_a_newer_version_wrote_asks_for_an_upgrade() {
        let position = LedgerSeq(7);
        let error = DecodeError::UnknownRecord;
        let feature = "lanes".to_owned();
        for halt in [
            Halt::Reserved {
                position,
                what: "FENCE",
            },
            Halt::UnknownFeature { position, feature },
            Halt::UnknownRecord { position, error },
            Halt::UnsupportedRules {
                position,
                found: 2,
                supported: 1,
            },
        ] {
            assert!(halt.to_string().contains("upgrade this bridge"), "{halt}");
            assert!(halt.cure().contains("upgrade this bridge"), "{halt:?}");
            assert_eq!(halt.suspect(), Suspect::Version);
        }
    }
}
