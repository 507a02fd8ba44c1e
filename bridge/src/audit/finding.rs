//! What an audit finds, each with a short word for scripts.

use std::fmt;

use fanin_core::ids::{BatchNo, LedgerSeq, Offset, StreamSeq};

/// Why an application gets nothing of what its terms owe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unserved {
    /// The node does not name it.
    NotTold,
    /// The node does not deliver batches of these terms to it.
    NotServed,
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unserved::NotTold => {
                "tells nothing of it: its configuration does not name it, or it did not answer in time"
            }
            Unserved::NotServed => "does not deliver them to it",
        })
    }
}

/// What does not add up about one application on one node (I16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It has finished what nobody published.
    Beyond {
        /// Behind what it has finished.
        end: Offset,
        /// Behind everything published.
        head: Offset,
    },
    /// Its delivery has more or fewer messages before it than its cursor leaves unfinished.
    Backlog {
        /// Unfinished by its cursor.
        unfinished: u64,
        /// Waiting or in hand, as its delivery counts them.
        waiting: u64,
    },
    /// Offsets that it has not finished and that no batch of the node holds.
    Nowhere {
        /// How many.
        messages: u64,
        /// The lowest offset of the first such range.
        from: Offset,
    },
    /// An instance holds what is finished, or what another one holds.
    HeldTwice {
        /// The offset.
        offset: Offset,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Beyond { end, head } => {
                write!(
                    f,
                    "it has finished offsets up to below {end}, and only those below {head} are published"
                )
            }
            Mismatch::Backlog { unfinished, waiting } => {
                write!(
                    f,
                    "its cursor leaves {unfinished} messages unfinished, its delivery has {waiting}"
                )
            }
            Mismatch::Nowhere { messages, from } => write!(
                f,
                "{messages} messages from offset {from} on are not finished, and no batch holds them"
            ),
            Mismatch::HeldTwice { offset } => write!(
                f,
                "an instance holds offset {offset}, which is finished or in another one's hands"
            ),
        }
    }
}

/// Something that is not as the guarantee says, or cannot be shown to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A bridge would halt on the ledger.
    #[error("ledger {stream}: {why}")]
    Ledger {
        /// The ledger's stream.
        stream: String,
        /// Why.
        why: String,
    },
    /// A node owns messages that it does not hold.
    #[error(
        "node {node} owns {messages} messages of batch {batch} (claim at ledger position {position}) and does not hold them"
    )]
    NotHeld {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// Its claim.
        position: LedgerSeq,
        /// How many messages.
        messages: u64,
    },
    /// A node holds as its own what the ledger says otherwise of.
    #[error("node {node}, batch {batch}: the node says it won {here} messages, the ledger says {there}")]
    WonDiffers {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// Messages by the node.
        here: u64,
        /// Messages by the ledger.
        there: u64,
    },
    /// A node has published what no valid claim won.
    #[error(
        "node {node} has published batch {batch} ({messages} messages), and no valid claim in the ledger won it"
    )]
    NotClaimed {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// How many messages.
        messages: u64,
    },
    /// The terms owe messages to an application of which their node tells nothing, or which it does not serve.
    #[error(
        "node {node} owes application {app} {messages} messages in {batches} batches, the first of them {first}, and {why}"
    )]
    AppMissing {
        /// The node.
        node: String,
        /// The application.
        app: String,
        /// How many messages.
        messages: u64,
        /// In how many batches.
        batches: u64,
        /// The first of them.
        first: BatchNo,
        /// What the node says of the application instead.
        why: Unserved,
    },
    /// The ledger, or the node itself, says that every application has finished what the node has not.
    #[error(
        "node {node}: {batches} batches, the first of them {first}, are reported as finished by every application, and are not there"
    )]
    DoneDiffers {
        /// The node.
        node: String,
        /// How many batches.
        batches: u64,
        /// The first of them.
        first: BatchNo,
    },
    /// What an application has finished and what waits for it do not make up what was published.
    #[error("node {node}, application {app}: {what}")]
    AppDiffers {
        /// The node.
        node: String,
        /// The application.
        app: String,
        /// What does not add up.
        what: Mismatch,
    },
    /// A batch's bodies are damaged on the node's disk.
    #[error("node {node}: batch {batch} ({messages} messages) is damaged and not fetched again yet")]
    Damaged {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// How many messages.
        messages: u64,
    },
    /// A node that the ledger calls active was not asked.
    #[error("node {node} could not be asked; it owns {messages} unfinished messages")]
    NotAsked {
        /// The node.
        node: String,
        /// How many messages are in its hands by the ledger.
        messages: u64,
    },
    /// A bridge answers that the ledger does not know, or not in this epoch.
    #[error("the bridge {node} (epoch {epoch}) is not what the ledger knows under this identity: {why}")]
    Stranger {
        /// Its name.
        node: String,
        /// Its epoch.
        epoch: LedgerSeq,
        /// What is wrong.
        why: String,
    },
    /// A message below the acknowledgement floor that nobody claimed.
    #[error("{stream}:{seq} is below the consumer's acknowledgement floor and nobody claimed it")]
    Unclaimed {
        /// The stream.
        stream: String,
        /// The sequence.
        seq: StreamSeq,
    },
    /// More gaps than were looked into, or more unclaimed messages than are listed.
    #[error(
        "{stream}: there may be more unclaimed messages below the acknowledgement floor than the {listed} that are listed; run this again later"
    )]
    CutShort {
        /// The stream.
        stream: String,
        /// Unclaimed messages of it that are listed.
        listed: usize,
    },
    /// More than one batch holds a message as its own.
    #[error("{stream}:{seq} is held {}", holders(.batches))]
    HeldTwice {
        /// The stream.
        stream: String,
        /// The sequence.
        seq: StreamSeq,
        /// The nodes and their batches, at least two.
        batches: Vec<(String, BatchNo)>,
    },
}

impl Finding {
    /// Whether it only says that a node was not asked.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Finding::NotAsked { .. })
    }

    /// A short word for scripts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Finding::Ledger { .. } => "ledger",
            Finding::NotHeld { .. } => "not_held",
            Finding::WonDiffers { .. } => "won_differs",
            Finding::NotClaimed { .. } => "not_claimed",
            Finding::AppMissing { .. } => "app_missing",
            Finding::DoneDiffers { .. } => "done_differs",
            Finding::AppDiffers { .. } => "app_differs",
            Finding::Damaged { .. } => "damaged",
            Finding::NotAsked { .. } => "not_asked",
            Finding::Stranger { .. } => "stranger",
            Finding::Unclaimed { .. } => "unclaimed",
            Finding::CutShort { .. } => "cut_short",
            Finding::HeldTwice { .. } => "held_twice",
        }
    }
}

/// Who holds a message.
fn holders(batches: &[(String, BatchNo)]) -> String {
    let all = batches
        .iter()
        .map(|(node, batch)| format!("by node {node} in batch {batch}"));
    all.collect::<Vec<_>>().join(" and ")
}
