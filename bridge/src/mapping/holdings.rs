//! What a mapping holds on this node, put together by its driver, or from its disk while it has not joined, for tools that compare
//! nodes with the ledger or build it anew.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanin_core::batch::{Batch, BatchState};
use fanin_core::fold::{ClaimEntry, ClaimKey, Fold, Suspect};
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, NodeUuid, StreamSeq};
use fanin_core::limits::CHECKPOINT_PART_BYTES;
use fanin_core::node::{Node, Phase};
use fanin_core::recovery::Disk;
use fanin_core::seq_set::SeqSet;
use fanin_proto::v1::{
    AppHolding, Attempts, BatchHolding, DeadLetterRef, HeldMessage, HoldingsPart, NodeHoldings, SeqRange,
    SourceBreak, SourceMark, StatePart, holdings_part::Part,
};
use tokio::sync::oneshot;

use super::driver::Driver;
use super::view::View;
use crate::topic::{AppHoldings, HeldBatch, Topic, reason_word};

/// A question for what a mapping holds.
#[derive(Debug)]
pub struct Question {
    /// Whether the fold's state is wanted too.
    pub with_state: bool,
    /// Where the answer goes: the node's part, its batches, and the state's parts.
    pub reply: oneshot::Sender<Vec<HoldingsPart>>,
}

/// Questions that wait for the driver.
pub const QUESTIONS_MAX: usize = 8;

/// What a disk remembers of the ledger.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// The highest W of each source.
    pub closed: BTreeMap<Incarnation, StreamSeq>,
    /// The highest position read.
    pub read: LedgerSeq,
    /// When the ledger was created, nanoseconds since the Unix epoch; 0 before the first epoch.
    pub ledger_created_ns: u64,
}

/// A mapping that has not joined: what its disk says is all there is, and nothing changes it.
pub(super) struct Unjoined<'a> {
    pub(super) node: &'a str,
    pub(super) uuid: NodeUuid,
    pub(super) disk: &'a Disk,
    pub(super) remembered: &'a Remembered,
    pub(super) terms: u32,
    pub(super) topic: &'a Topic,
    pub(super) ledger_suspect: bool,
}

impl Unjoined<'_> {
    pub(super) fn holdings(&self, view: &View) -> Vec<HoldingsPart> {
        let published = published(self.topic);
        let node = NodeHoldings {
            node: self.node.to_owned(),
            node_uuid: self.uuid.to_string(),
            epoch: self.disk.epoch.0,
            ledger_position: 0,
            state: view.state.word().to_owned(),
            head_offset: self.disk.next_offset.0,
            done: ranges(&self.disk.done),
            closed: marks(&self.remembered.closed),
            read_position: self.remembered.read.0,
            ledger_created_ns: self.remembered.ledger_created_ns,
            reason: view.reason.clone(),
            terms_version: self.terms,
            ledger_suspect: self.ledger_suspect,
            breaks: Vec::new(),
        };
        let unfinished = self
            .disk
            .batches
            .iter()
            .filter(|kept| !self.disk.done.contains(kept.number.0));
        let batches = unfinished.map(|kept| {
            let held = published.get(&kept.number);
            let (state, seqs) = match &kept.resolution {
                Some((_, won)) => ("published", won),
                None if kept.damaged => ("damaged", &kept.seqs),
                None => ("staged", &kept.seqs),
            };
            Part::Batch(BatchHolding {
                batch: kept.number.0,
                state: state.to_owned(),
                incarnation: kept.incarnation.0,
                seqs: ranges(seqs),
                decided: kept.resolution.is_some(),
                base_offset: held.map(|held| held.base.0),
                terms_version: held.map_or(0, |held| held.terms.0),
                oldest_ns: kept.published_ns.0,
                newest_ns: kept.published_ns.1,
                kind: kept.kind.code(),
            })
        });
        let parts = std::iter::once(Part::Node(node)).chain(batches);
        parts.map(|part| HoldingsPart { part: Some(part) }).collect()
    }
}

impl Driver {
    /// The node and its batches as of now. How far the applications are is the topic's to tell, a moment later.
    pub(super) fn holdings(&self, with_state: bool) -> Vec<HoldingsPart> {
        let published = published(&self.topic);
        let fold = self.node.fold();
        let view = self.view.get();
        let mut closed = self.remembered.closed.clone();
        for (incarnation, through) in fold.watermarks() {
            let known = closed.entry(*incarnation).or_default();
            *known = (*known).max(*through);
        }
        let epoch = self.node.epoch().unwrap_or_default();
        let node = NodeHoldings {
            node: self.options.node.clone(),
            node_uuid: self.node.identity().uuid.to_string(),
            epoch: epoch.0,
            ledger_position: fold.position().0,
            state: view.state.word().to_owned(),
            head_offset: self.node.next_offset().0,
            done: ranges(self.node.done()),
            closed: marks(&closed),
            read_position: self.remembered.read.max(fold.position()).max(epoch).0,
            ledger_created_ns: self.remembered.ledger_created_ns,
            reason: view.reason,
            terms_version: self.terms_known,
            ledger_suspect: matches!(self.node.phase(), Phase::Halted(halt) if halt.suspect() == Suspect::Ledger),
            breaks: breaks(&self.node),
        };
        let batches = self.node.batches().iter().map(|(&number, batch)| {
            let held = published.get(&number);
            let key = ClaimKey::new(self.node.identity().uuid, number.0);
            let claim = fold.claims().get(&key);
            // What this disk has published counts, as long as nothing in the ledger has confirmed it.
            let won = match (&batch.state, claim) {
                (
                    BatchState::Published {
                        unconfirmed: Some(won),
                    },
                    _,
                ) => Some(won.clone()),
                (_, claim) => claim.map(ClaimEntry::won),
            };
            Part::Batch(BatchHolding {
                batch: number.0,
                state: word(batch).to_owned(),
                incarnation: claim.map_or(batch.incarnation.0, |claim| claim.incarnation.0),
                seqs: ranges(won.as_ref().unwrap_or(&batch.seqs)),
                decided: won.is_some(),
                base_offset: held.map(|held| held.base.0),
                terms_version: held.map_or(0, |held| held.terms.0),
                oldest_ns: batch.published_ns.0,
                newest_ns: batch.published_ns.1,
                kind: batch.kind.code(),
            })
        });
        let state = if with_state { state_parts(fold) } else { Vec::new() };
        let parts = std::iter::once(Part::Node(node)).chain(batches).chain(state);
        parts.map(|part| HoldingsPart { part: Some(part) }).collect()
    }
}

/// The state in parts, as a checkpoint has it; nothing when nothing was folded.
fn state_parts(fold: &Fold) -> Vec<Part> {
    if fold.position().0 == 0 {
        return Vec::new();
    }
    let state = Bytes::from(fold.encode());
    let parts = state.len().div_ceil(CHECKPOINT_PART_BYTES);
    let part = |number: usize| {
        let from = number * CHECKPOINT_PART_BYTES;
        Part::State(StatePart {
            position: fold.position().0,
            hash: Bytes::copy_from_slice(&fold.hash().to_bytes()),
            part: u32::try_from(number).unwrap_or(u32::MAX),
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
            bytes: state.slice(from..state.len().min(from + CHECKPOINT_PART_BYTES)),
        })
    };
    (0..parts).map(part).collect()
}

fn breaks(node: &Node) -> Vec<SourceBreak> {
    let found = node.restored_source().map(|found| SourceBreak {
        stream: found.stream.to_owned(),
        from: found.from.0,
        known_ns: found.known.map(|known| known.ns),
        known_exactly: found.known.is_some_and(|known| known.is_exact),
    });
    found.into_iter().collect()
}

fn published(topic: &Topic) -> BTreeMap<BatchNo, HeldBatch> {
    let held = topic.held_batches().into_iter();
    held.map(|held| (held.batch, held)).collect()
}

fn marks(closed: &BTreeMap<Incarnation, StreamSeq>) -> Vec<SourceMark> {
    let marks = closed.iter().map(|(incarnation, through)| SourceMark {
        incarnation: incarnation.0,
        through: through.0,
    });
    marks.collect()
}

/// Adds how far each application of a topic is. They are asked later than the node was, so that the head is looked at again behind
/// them: none of them is beyond it.
pub async fn add_apps(parts: &mut Vec<HoldingsPart>, topic: &Topic) {
    let apps = topic.app_holdings().await.into_iter().flatten();
    parts.extend(apps.map(|app| HoldingsPart {
        part: Some(Part::App(of_app(app))),
    }));
    let head = topic.head().0;
    for part in parts {
        if let Some(Part::Node(node)) = &mut part.part {
            node.head_offset = node.head_offset.max(head);
        }
    }
}

fn of_app(app: AppHoldings) -> AppHolding {
    let finished = app.cursor.finished.iter().map(|(first, last)| SeqRange {
        first: first.0,
        last: last.0,
    });
    AppHolding {
        floor_offset: app.cursor.floor.0,
        finished: finished.collect(),
        held: app
            .held
            .into_iter()
            .map(|(offset, instance, begun)| HeldMessage {
                offset: offset.0,
                instance: instance.to_string(),
                begun,
            })
            .collect(),
        attempts: app
            .cursor
            .attempts
            .iter()
            .map(|(offset, &attempts)| Attempts {
                offset: offset.0,
                attempts,
            })
            .collect(),
        dead_letters: app
            .dead_letters
            .into_iter()
            .map(|letter| DeadLetterRef {
                id: letter.id,
                stream: letter.head.stream.to_string(),
                incarnation: letter.head.incarnation.0,
                seq: letter.head.seq.0,
                offset: letter.head.offset.0,
                reason: reason_word(letter.head.reason).to_owned(),
                attempts: letter.head.attempts,
            })
            .collect(),
        since_terms: app.since.map_or(0, |since| since.0),
        seen_offset: Some(app.seen.0),
        backlog: Some(app.backlog),
        app: app.app,
    }
}

fn ranges(set: &SeqSet) -> Vec<SeqRange> {
    set.ranges()
        .iter()
        .map(|&(first, last)| SeqRange { first, last })
        .collect()
}

fn word(batch: &Batch) -> &'static str {
    match batch.state {
        BatchState::Staging => "staging",
        BatchState::Staged => "staged",
        BatchState::Damaged => "damaged",
        BatchState::Claiming { .. } => "claiming",
        BatchState::Resolving { .. } => "resolving",
        BatchState::Published { .. } => "published",
        BatchState::Finished => "finished",
    }
}
