//! Why a mapping halts: no claims, no settles, no tombstones; a node that had joined goes on delivering what it has published (P10).

use core::fmt;

use crate::hash::Hash128;
use crate::ids::{LedgerSeq, StreamSeq, TermsVersion};
use crate::time_text::TimeText;
use crate::wire::DecodeError;

/// The reason of a halt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Halt {
    /// A checkpoint's bytes are not the state they say.
    CheckpointDamaged {
        /// The checkpoint's position.
        position: LedgerSeq,
    },
    /// A record's witness, or a checkpoint, disagrees with our own fold at the same position.
    Diverged {
        /// The record that says so.
        at: LedgerSeq,
        /// The position compared.
        position: LedgerSeq,
        /// Our hash.
        ours: Hash128,
        /// The writer's hash.
        theirs: Hash128,
    },
    /// Records are missing and no complete checkpoint covers them.
    Gap {
        /// First missing position.
        first: LedgerSeq,
        /// Last missing position.
        last: LedgerSeq,
    },
    /// The ledger holds other records up to a position than this node's disk had read: the hub lost some and grew again.
    HistoryChanged {
        /// The position compared.
        position: LedgerSeq,
        /// The hash that the disk remembers.
        disk: Hash128,
        /// The hash of what the ledger holds now.
        ledger: Hash128,
    },
    /// The ledger was deleted and created again.
    LedgerRecreated,
    /// A record that was read is another one now: the hub lost it, and grew again beyond it.
    LedgerRegrown {
        /// Its position.
        position: LedgerSeq,
        /// When the record that was read was stored, nanoseconds since the Unix epoch.
        read_ns: i64,
        /// The same of the one that stands there now.
        found_ns: i64,
    },
    /// The ledger ends before a position already read, or a new record was stored at one.
    LedgerShrank {
        /// Where it ends now.
        last: LedgerSeq,
        /// What was read.
        read: LedgerSeq,
    },
    /// A record before GENESIS.
    NoGenesis {
        /// Its position.
        position: LedgerSeq,
    },
    /// A record that rule version 1 reserves for later.
    Reserved {
        /// Its position.
        position: LedgerSeq,
        /// Its type.
        what: &'static str,
    },
    /// A sequence of the source names another message than the one claimed under it: the source was restored to an earlier
    /// copy, and gave what it had lost to new messages.
    SequenceReused {
        /// The stream.
        stream: String,
        /// The sequence.
        seq: StreamSeq,
        /// When what was found under it was published, at the earliest and at the latest, nanoseconds since the Unix epoch.
        found_ns: (i64, i64),
        /// The same of what was claimed under it; `i64::MIN` where only the latest is known.
        known_ns: (i64, i64),
    },
    /// The terms name another incarnation of the source than the hub has.
    SourceRecreated {
        /// The stream.
        stream: String,
    },
    /// The source ends before a sequence that it has given: it was restored to an earlier copy.
    SourceShrank {
        /// The stream.
        stream: String,
        /// Where it ends now.
        last: StreamSeq,
        /// A sequence that was claimed, or closed.
        known: StreamSeq,
        /// When the newest claimed message was published, nanoseconds since the Unix epoch; 0 when none was.
        known_ns: i64,
    },
    /// TERMS records do not follow each other.
    TermsOutOfOrder {
        /// The record's position.
        position: LedgerSeq,
        /// Its version.
        found: TermsVersion,
        /// The version expected.
        expected: u32,
    },
    /// GENESIS activates a feature this version does not have.
    UnknownFeature {
        /// The record's position.
        position: LedgerSeq,
        /// The feature.
        feature: String,
    },
    /// A record of a type or version this version does not know.
    UnknownRecord {
        /// Its position.
        position: LedgerSeq,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The ledger is folded by rules this version does not have.
    UnsupportedRules {
        /// The record's position.
        position: LedgerSeq,
        /// The rules it demands.
        found: u32,
        /// The rules we have.
        supported: u32,
    },
    /// A record that stands on another subject than its type's.
    WrongSubject {
        /// Its position.
        position: LedgerSeq,
        /// Where it stands.
        found: String,
        /// Where it belongs.
        expected: String,
    },
    /// The ledger says we won other messages with a batch than our own disk says.
    WonDiffers {
        /// The batch.
        batch: crate::ids::BatchNo,
    },
}

/// A time, or the span in which it lies.
struct Times((i64, i64));

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            (earliest, latest) if earliest == latest => write!(f, "{}", TimeText(latest)),
            (i64::MIN, latest) => write!(f, "at the latest {}", TimeText(latest)),
            (earliest, latest) => write!(f, "between {} and {}", TimeText(earliest), TimeText(latest)),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::CheckpointDamaged { position } => {
                write!(
                    f,
                    "the checkpoint at ledger position {position} is damaged: its bytes are not the state its hash names"
                )
            }
            Halt::Diverged {
                at,
                position,
                ours,
                theirs,
            } => write!(
                f,
                "ledger record {at} was written by a bridge whose state at position {position} has hash {theirs}, ours has {ours}: \
                 the ledger was truncated, regrown or split, or two bridges fold by different rules"
            ),
            Halt::Gap { first, last } => {
                write!(
                    f,
                    "ledger records {first} to {last} are missing and no complete checkpoint covers them"
                )
            }
            Halt::HistoryChanged {
                position,
                disk,
                ledger,
            } => {
                write!(
                    f,
                    "the ledger up to position {position} is not what this node had read (hash {ledger}, not {disk}): the hub \
                     lost confirmed records and grew again; restore the hub, or see `fanin ledger repair --dry-run`"
                )
            }
            Halt::LedgerRecreated => write!(f, "the ledger stream was deleted and created again"),
            Halt::LedgerRegrown {
                position,
                read_ns,
                found_ns,
            } => {
                write!(
                    f,
                    "ledger record {position}, stored {}, is not the one that was read there, stored {}: the hub lost confirmed \
                     records and grew again",
                    TimeText(*found_ns),
                    TimeText(*read_ns)
                )
            }
            Halt::LedgerShrank { last, read } => {
                write!(
                    f,
                    "the ledger ends at position {last}, but position {read} was read from it before"
                )
            }
            Halt::NoGenesis { position } => {
                write!(f, "ledger record {position} stands before any GENESIS record")
            }
            Halt::Reserved { position, what } => {
                write!(
                    f,
                    "ledger record {position} is a {what}, which rule version 1 does not fold: upgrade this bridge"
                )
            }
            Halt::SequenceReused {
                stream,
                seq,
                found_ns,
                known_ns,
            } => write!(
                f,
                "{stream}:{seq} is another message than the one claimed under this sequence: published {}, claimed was one \
                 published {}. The stream was restored to an earlier copy and has given sequences away again",
                Times(*found_ns),
                Times(*known_ns)
            ),
            Halt::SourceRecreated { stream } => write!(
                f,
                "stream {stream} on the hub is not the one the ledger's terms name: it was deleted and created again, or restored"
            ),
            Halt::SourceShrank {
                stream,
                last,
                known,
                known_ns,
            } => {
                write!(
                    f,
                    "stream {stream} ends at sequence {last}, but {known} was given before"
                )?;
                if *known_ns != 0 {
                    write!(
                        f,
                        " (the newest message claimed was published {})",
                        TimeText(*known_ns)
                    )?;
                }
                write!(f, ". The stream was restored to an earlier copy")
            }
            Halt::TermsOutOfOrder {
                position,
                found,
                expected,
            } => {
                write!(
                    f,
                    "TERMS record {position} has version {found}, expected {expected}"
                )
            }
            Halt::UnknownFeature { position, feature } => {
                write!(
                    f,
                    "ledger record {position} activates feature {feature}, which this version lacks: upgrade this bridge"
                )
            }
            Halt::UnknownRecord { position, error } => {
                write!(
                    f,
                    "ledger record {position} is not understood: {error}; a newer bridge wrote it, or something else did: upgrade this bridge"
                )
            }
            Halt::UnsupportedRules {
                position,
                found,
                supported,
            } => write!(
                f,
                "ledger record {position} demands rule version {found}, this bridge has {supported}: upgrade this bridge"
            ),
            Halt::WrongSubject {
                position,
                found,
                expected,
            } => {
                write!(
                    f,
                    "ledger record {position} stands on subject {found}, its type belongs on {expected}"
                )
            }
            Halt::WonDiffers { batch } => {
                write!(
                    f,
                    "the ledger and the local log disagree on what batch {batch} won: one of them was damaged or rolled back"
                )
            }
        }
    }
}

impl std::error::Error for Halt {}
