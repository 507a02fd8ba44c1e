//! Everything that can happen to a node's mapping.

use crate::checkpoint::Complete;
use crate::fold::Halt;
use crate::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, StreamSeq, TermsVersion};
use crate::record::ClaimKind;

/// A message that the hub delivered, or that was fetched by sequence; the body stays with the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchedMessage {
    /// Its sequence in the source.
    pub seq: StreamSeq,
    /// When the hub stored it, nanoseconds since the Unix epoch.
    pub published_ns: i64,
}

/// What can happen. The present time is a separate argument of `Node::handle`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The hub confirmed a record as newly stored, not as a repetition of one that it has. This decides no batch, only the tail
    /// does; it shows whether the ledger is still as long as it was.
    AppendConfirmed {
        /// Where the record stands.
        at: LedgerSeq,
        /// What this node had read when the record was made: the position of its witness.
        read: LedgerSeq,
    },
    /// A compare-and-set or other record that upkeep asked for did not land, or perhaps did: ask again when due.
    AppendFailed,
    /// The shell looked, at the stream's leader, for the first message at or behind `first` that matches the filter in force.
    Audited {
        /// The source.
        incarnation: Incarnation,
        /// The terms whose filter was used.
        terms: TermsVersion,
        /// Where the gap begins.
        first: StreamSeq,
        /// The first matching message the source still has, at or behind `first`; `None` when there is none at all.
        next_matching: Option<StreamSeq>,
    },
    /// Every application of a batch has durably finished it.
    BatchFinished(BatchNo),
    /// The complete checkpoint with the highest position that the ledger holds; `None` when it holds none.
    Checkpoint(Option<Box<Complete>>),
    /// Sending a claim failed or its outcome is unknown; it is sent again when due (P3).
    ClaimUnconfirmed(BatchNo),
    /// The set of finished batches is durable.
    DonePersisted,
    /// The EPOCH record was appended at this position, and the disk remembers it.
    EpochAppended(Epoch),
    /// Messages arrived. `ticket` names them in the effects that follow at once.
    Fetched {
        /// The shell's name for this arrival.
        ticket: u64,
        /// Their source.
        incarnation: Incarnation,
        /// Pulled, or fetched to repair.
        kind: ClaimKind,
        /// The messages, at most `limits::BATCH_MESSAGES_MAX`.
        messages: Vec<FetchedMessage>,
    },
    /// The consumer's counters, as stream sequences.
    Floor {
        /// The source.
        incarnation: Incarnation,
        /// The acknowledgement floor.
        floor: StreamSeq,
        /// The last message delivered to anybody.
        delivered: StreamSeq,
        /// Whether this node is pulling from the source now: only then it would have met what is delivered again.
        pulling: bool,
    },
    /// The hub adapter found that the ledger or a source is not what it was.
    HubBroken(Halt),
    /// The ledger's size was looked at. Given before the tail can reach the own EPOCH, and then in short intervals.
    LedgerSize {
        /// Bytes stored.
        bytes: u64,
        /// Its limit in bytes; `None` when it has none.
        max: Option<u64>,
    },
    /// The tail delivered a record.
    Record {
        /// Its position.
        position: LedgerSeq,
        /// Its subject below the mapping's prefix.
        subject: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A batch's resolution is durable.
    Resolved(BatchNo),
    /// The source was looked at, after each connection to the hub and then in intervals. What `Node::source_probe` said before
    /// the look is compared, so that what is claimed meanwhile plays no part.
    SourceSeen {
        /// The source.
        incarnation: Incarnation,
        /// The `SourceProbe::reaches` of before.
        reaches: StreamSeq,
        /// The last sequence that the stream says it has given.
        last: StreamSeq,
        /// When the last message was stored, nanoseconds since the Unix epoch; 0 when the hub does not say.
        last_ns: i64,
        /// The messages that were to be looked at, with their publish times, as far as the stream still has them. At most three.
        probes: Vec<(StreamSeq, i64)>,
    },
    /// The local log refused a batch (full): nothing of it is on disk.
    StageRefused(BatchNo),
    /// A batch is durable.
    Staged(BatchNo),
    /// Time passed: look at what is due. At least once a second.
    Tick,
}
