//! Reading a mapping's ledger to its end, with the same fold as every bridge.

use std::collections::BTreeMap;

use fanin_core::fold::{ApplyError, Fold, Halt};
use fanin_core::ids::{LedgerSeq, NodeUuid};
use fanin_core::seq_set::SeqSet;
use fanin_hub::ledger::tail::TailError;
use fanin_hub::port::{Hub, LedgerRef};
use fanin_hub::{LedgerError, LedgerInfo, LedgerOptions};

use super::limits::READ_IDLE_MAX;
use super::nodes::NodeView;
use crate::mapping::join::read_checkpoint;
use crate::mapping::ledger_io::records;

/// A ledger, folded up to the position that was its last when the reading began.
#[derive(Debug)]
pub struct Folded {
    /// Its stream.
    pub stream: String,
    /// The state.
    pub fold: Fold,
    /// Its size.
    pub info: LedgerInfo,
    /// The checkpoint that the reading began with.
    pub checkpoint: Option<LedgerSeq>,
    /// Records read behind it.
    pub records: u64,
    /// Why a bridge would halt on it; the state is that before the record.
    pub halt: Option<Halt>,
    /// Which batches of each node it called done when it was as long as that node had read it. Without those nodes whose reading ends
    /// before the checkpoint or behind the ledger's end.
    pub done_at: BTreeMap<NodeUuid, SeqSet>,
}

impl Folded {
    /// Whether this is the ledger that a node works with.
    #[must_use]
    pub fn is_of(&self, node: &NodeView) -> bool {
        node.ledger_created_ns != 0 && node.ledger_created_ns == self.info.created_ns
    }

    /// Notes what is called done of the nodes that had read exactly as far as has been folded.
    fn note_done(&mut self, nodes: &[NodeView]) {
        let position = self.fold.position();
        for node in nodes.iter().filter(|node| node.read == position) {
            if let Some(entry) = self.fold.nodes().get(&node.uuid) {
                self.done_at.insert(node.uuid, entry.done.clone());
            }
        }
    }
}

/// Why a ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It is not there, differs, or could not be asked.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Reading on failed.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// The hub said nothing for too long.
    #[error("the ledger {stream} could not be read beyond position {position}: the hub does not answer")]
    Silent {
        /// The stream.
        stream: String,
        /// The last position read.
        position: LedgerSeq,
    },
}

impl AuditError {
    /// The stable code users can look up.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            AuditError::Ledger(error) => error.code(),
            AuditError::Tail(error) => error.code(),
            AuditError::Silent { .. } => fanin_hub::codes::HUB_SILENT,
        }
    }

    /// Whether trying again later may help without any change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            AuditError::Ledger(error) => error.retryable(),
            AuditError::Tail(_) => false,
            AuditError::Silent { .. } => true,
        }
    }
}

/// Reads and folds the ledger that these options name, after these nodes were asked. It is not created.
///
/// # Errors
/// `AuditError`. What a bridge would halt on is no error: it is in [`Folded::halt`].
pub async fn read_ledger(
    hub: &dyn Hub,
    options: &LedgerOptions,
    nodes: &[NodeView],
) -> Result<Folded, AuditError> {
    let ledger = hub.ensure_ledger(options).await?;
    let info = ledger.info().await?;
    let mut folded = Folded {
        stream: ledger.stream().to_owned(),
        fold: Fold::new(),
        info,
        checkpoint: None,
        records: 0,
        halt: None,
        done_at: BTreeMap::new(),
    };
    if let Some(complete) = read_checkpoint(&*ledger).await? {
        match complete.load() {
            Ok(fold) => {
                folded.checkpoint = Some(fold.position());
                folded.fold = fold;
                folded.note_done(nodes);
            }
            Err(halt) => {
                folded.halt = Some(halt);
                return Ok(folded);
            }
        }
    }
    read_on(&ledger, &mut folded, nodes).await?;
    Ok(folded)
}

async fn read_on(ledger: &LedgerRef, folded: &mut Folded, nodes: &[NodeView]) -> Result<(), AuditError> {
    let last = LedgerSeq(folded.info.last_seq);
    let mut tail = ledger.tail(folded.fold.position().next());
    while folded.fold.position() < last {
        let Ok(events) = tokio::time::timeout(READ_IDLE_MAX, tail.next_ready()).await else {
            return Err(AuditError::Silent {
                stream: folded.stream.clone(),
                position: folded.fold.position(),
            });
        };
        for item in records(events?) {
            match folded.fold.apply(item.seq, &item.subject_suffix, &item.body) {
                Ok(_) => {
                    folded.records += 1;
                    folded.note_done(nodes);
                }
                Err(ApplyError::Halt(halt)) => {
                    folded.halt = Some(halt);
                    return Ok(());
                }
                Err(ApplyError::Gap { expected, found }) => {
                    folded.halt = Some(Halt::Gap {
                        first: expected,
                        last: LedgerSeq(found.0.saturating_sub(1)),
                    });
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
