//! Asking a node what it holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fanin_core::fold::Fold;
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, NodeUuid, Offset, StreamSeq, TermsVersion};
use fanin_core::seq_set::SeqSet;
use fanin_proto::v1::{
    AppHolding, BatchHolding, HoldingsPart, HoldingsRequest, NodeHoldings, SeqRange, StatePart,
    holdings_part::Part, node_service_client::NodeServiceClient,
};
use fanin_sdk::{Client, ConnectError};

use super::limits::{NODE_BATCHES_MAX, NODE_WAIT_MAX, PART_BYTES_MAX, STATE_BYTES_MAX};

/// A node as it told about itself.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub uuid: NodeUuid,
    /// Its epoch.
    pub epoch: LedgerSeq,
    /// How far it had folded the ledger.
    pub position: LedgerSeq,
    /// Behind everything published there; `None` when it does not tell.
    pub head: Option<Offset>,
    /// The mapping's state there.
    pub state: String,
    /// Batches that every application there has finished.
    pub done: SeqSet,
    /// Batches that are not released.
    pub batches: BTreeMap<BatchNo, BatchView>,
    /// The applications.
    pub apps: Vec<AppHolding>,
    /// The highest W of each source that it ever knew.
    pub closed: BTreeMap<Incarnation, StreamSeq>,
    /// The highest ledger position it ever read, in earlier lives too.
    pub read: LedgerSeq,
    /// When the ledger it works with was created, nanoseconds since 1970; 0 for none.
    pub ledger_created_ns: u64,
    /// Why it is not active, with the code.
    pub reason: String,
    /// The newest terms it knows.
    pub terms: TermsVersion,
    /// It holds the ledger for damaged.
    pub ledger_suspect: bool,
    /// Streams that it found restored to an earlier copy.
    pub breaks: BTreeMap<String, Break>,
    /// Its fold, when it was asked for it and has one in memory.
    pub memory: Option<Fold>,
    /// The file that this stands in, and when it was collected; `None` when the node itself was asked.
    pub filed: Option<Filed>,
}

/// Where a stream was restored, as a node found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// From here on it holds other messages than those that were claimed.
    pub from: StreamSeq,
    /// What the restore took from there on had been published by then, nanoseconds since 1970; `None` when nothing is known.
    pub known_ns: Option<i64>,
    /// Nothing that came since can have been published by then.
    pub is_exact: bool,
}

/// Where and since when a node's holdings are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// The file.
    pub path: PathBuf,
    /// When they were collected, nanoseconds since 1970 by the clock of the node's machine.
    pub taken_ns: i64,
}

/// A batch of a node.
#[derive(Clone, Debug, Default)]
pub struct BatchView {
    /// Its state, in the words of the contract.
    pub state: String,
    /// Its source.
    pub incarnation: Incarnation,
    /// What it won when `decided`, what it holds otherwise.
    pub seqs: SeqSet,
    /// Whether the ledger, as far as the node has read it, has decided the batch.
    pub decided: bool,
    /// The topic offset of its first message, once published.
    pub base: Option<Offset>,
    /// The terms it was won under.
    pub terms: TermsVersion,
    /// Publish time of its oldest and newest message, nanoseconds since 1970.
    pub published_ns: (i64, i64),
    /// Why it was fetched, as claims have it.
    pub kind: u32,
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No bridge there.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused, or the connection was lost.
    #[error("the bridge at {socket} does not tell what it holds: {}", source.message())]
    Call {
        /// Its socket.
        socket: String,
        /// The answer.
        source: Box<tonic::Status>,
    },
    /// It took too long.
    #[error("the bridge at {socket} did not tell in time what it holds")]
    Timeout {
        /// Its socket.
        socket: String,
    },
    /// Its answer is not what the contract says.
    #[error("the bridge at {socket} answered what this version does not understand: {what}")]
    Malformed {
        /// Its socket.
        socket: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Asks the bridge at a socket, with the fold in its memory if wanted.
///
/// # Errors
/// `NodeError`.
pub async fn ask_node(socket: &str, mapping: &str, with_state: bool) -> Result<NodeView, NodeError> {
    let mut answer = Answer::default();
    let malformed = |what| NodeError::Malformed {
        socket: socket.to_owned(),
        what,
    };
    for part in collect(socket, mapping, with_state).await? {
        answer.add(part).map_err(malformed)?;
    }
    answer.view().map_err(malformed)
}

/// Every part that the bridge at a socket tells.
///
/// # Errors
/// `NodeError`.
pub async fn collect(socket: &str, mapping: &str, with_state: bool) -> Result<Vec<HoldingsPart>, NodeError> {
    let failed = |status: tonic::Status| NodeError::Call {
        socket: socket.to_owned(),
        source: Box::new(status),
    };
    let request = HoldingsRequest {
        mapping: mapping.to_owned(),
        with_state,
    };
    let collected = async {
        let client = Client::builder().socket(socket).connect().await?;
        let channel = client.channel().await?;
        let mut service = NodeServiceClient::new(channel).max_decoding_message_size(PART_BYTES_MAX);
        let mut parts = service.holdings(request).await.map_err(failed)?.into_inner();
        let mut all = Vec::new();
        while let Some(part) = parts.message().await.map_err(failed)? {
            all.push(part);
        }
        Ok::<_, NodeError>(all)
    };
    let collected = tokio::time::timeout(NODE_WAIT_MAX, collected).await;
    collected.unwrap_or_else(|_| {
        Err(NodeError::Timeout {
            socket: socket.to_owned(),
        })
    })
}

/// A node's answer, part by part.
#[derive(Default)]
pub struct Answer {
    view: Option<NodeView>,
    state: State,
}

impl Answer {
    /// Takes the next part.
    ///
    /// # Errors
    /// What about it is not as the contract says.
    pub fn add(&mut self, HoldingsPart { part }: HoldingsPart) -> Result<(), &'static str> {
        match (part, &mut self.view) {
            (Some(Part::Node(node)), None) => self.view = Some(of_node(node)?),
            (Some(Part::Batch(batch)), Some(view)) if view.batches.len() < NODE_BATCHES_MAX => {
                view.batches.insert(BatchNo(batch.batch), of_batch(batch));
            }
            (Some(Part::App(app)), Some(view)) => view.apps.push(app),
            (Some(Part::State(part)), Some(_)) => self.state.add(&part)?,
            (Some(_), _) => return Err("parts out of order, or too many"),
            // A part of a later version.
            (None, _) => {}
        }
        Ok(())
    }

    /// The node, when every part is there.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn view(self) -> Result<NodeView, &'static str> {
        let mut view = self.view.ok_or("no node")?;
        view.memory = self.state.fold()?;
        Ok(view)
    }
}

/// The parts of a fold's state, as they come in.
#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    next: u32,
    parts: u32,
    hash: Vec<u8>,
}

impl State {
    fn add(&mut self, part: &StatePart) -> Result<(), &'static str> {
        if part.part != self.next || self.bytes.len() + part.bytes.len() > STATE_BYTES_MAX {
            return Err("parts of its state out of order, or too many");
        }
        self.bytes.extend_from_slice(&part.bytes);
        self.next += 1;
        self.parts = part.parts;
        self.hash = part.hash.to_vec();
        Ok(())
    }

    fn fold(self) -> Result<Option<Fold>, &'static str> {
        if self.next == 0 {
            return Ok(None);
        }
        if self.next != self.parts {
            return Err("its state is not complete");
        }
        let fold = Fold::decode(&self.bytes).map_err(|_| "its state")?;
        if fold.hash().to_bytes().as_slice() != self.hash {
            return Err("its state is not what its hash says");
        }
        Ok(Some(fold))
    }
}

fn of_node(node: NodeHoldings) -> Result<NodeView, &'static str> {
    Ok(NodeView {
        uuid: NodeUuid(u128::from_str_radix(&node.node_uuid, 16).map_err(|_| "its uuid")?),
        epoch: LedgerSeq(node.epoch),
        position: LedgerSeq(node.ledger_position),
        head: Some(Offset(node.head_offset)),
        done: set(&node.done),
        name: node.node,
        state: node.state,
        batches: BTreeMap::new(),
        apps: Vec::new(),
        closed: (node.closed.iter())
            .map(|mark| (Incarnation(mark.incarnation), StreamSeq(mark.through)))
            .collect(),
        read: LedgerSeq(node.read_position),
        ledger_created_ns: node.ledger_created_ns,
        reason: node.reason,
        terms: TermsVersion(node.terms_version),
        ledger_suspect: node.ledger_suspect,
        breaks: (node.breaks.into_iter())
            .map(|found| {
                let known = Break {
                    from: StreamSeq(found.from),
                    known_ns: found.known_ns,
                    is_exact: found.known_exactly && found.known_ns.is_some(),
                };
                (found.stream, known)
            })
            .collect(),
        memory: None,
        filed: None,
    })
}

fn of_batch(batch: BatchHolding) -> BatchView {
    BatchView {
        incarnation: Incarnation(batch.incarnation),
        seqs: set(&batch.seqs),
        decided: batch.decided,
        base: batch.base_offset.map(Offset),
        terms: TermsVersion(batch.terms_version),
        published_ns: (batch.oldest_ns, batch.newest_ns),
        kind: batch.kind,
        state: batch.state,
    }
}

fn set(ranges: &[SeqRange]) -> SeqSet {
    let mut set = SeqSet::new();
    for range in ranges.iter().filter(|range| range.first <= range.last) {
        set.insert_range(range.first, range.last);
    }
    set
}

/// Whether an application has finished an offset.
#[must_use]
pub fn is_finished(app: &AppHolding, offset: u64) -> bool {
    offset < app.floor_offset
        || app
            .finished
            .iter()
            .any(|range| range.first <= offset && offset <= range.last)
}

/// How many of `count` offsets from `base` on an application has finished.
#[must_use]
pub fn finished_of(app: &AppHolding, base: u64, count: u64) -> u64 {
    let end = base + count;
    let below = app.floor_offset.clamp(base, end) - base;
    let above = app.finished.iter().map(|range| {
        let (first, last) = (
            range.first.max(base).max(app.floor_offset),
            range.last.saturating_add(1).min(end),
        );
        last.saturating_sub(first)
    });
    below + above.sum::<u64>()
}
