//! What a mapping holds on this node, put together by its driver for tools that compare nodes with the ledger.

use std::collections::BTreeMap;

use fanin_core::batch::{Batch, BatchState};
use fanin_core::fold::ClaimKey;
use fanin_core::ids::BatchNo;
use fanin_core::seq_set::SeqSet;
use fanin_proto::v1::{
    AppHolding, Attempts, BatchHolding, DeadLetterRef, HeldMessage, HoldingsPart, NodeHoldings, SeqRange,
    holdings_part::Part,
};
use tokio::sync::oneshot;

use super::driver::Driver;
use crate::topic::{AppHoldings, HeldBatch, Topic, reason_word};

/// Where the answer goes: the node's part, and its batches.
pub type Question = oneshot::Sender<Vec<HoldingsPart>>;

/// Questions that wait for the driver.
pub const QUESTIONS_MAX: usize = 8;

impl Driver {
    /// The node and its batches as of now. How far the applications are is the topic's to tell, a moment later.
    pub(super) fn holdings(&self) -> Vec<HoldingsPart> {
        let published: BTreeMap<BatchNo, HeldBatch> = self
            .topic
            .held_batches()
            .into_iter()
            .map(|held| (held.batch, held))
            .collect();
        let node = NodeHoldings {
            node: self.options.node.clone(),
            node_uuid: self.node.identity().uuid.to_string(),
            epoch: self.node.epoch().unwrap_or_default().0,
            ledger_position: self.node.fold().position().0,
            state: self.view.get().state.word().to_owned(),
            head_offset: self.node.next_offset().0,
            done: ranges(self.node.done()),
        };
        let batches = self.node.batches().iter().map(|(&number, batch)| {
            let held = published.get(&number);
            let key = ClaimKey::new(self.node.identity().uuid, number.0);
            let claim = self.node.fold().claims().get(&key);
            let decided = claim.is_some();
            Part::Batch(BatchHolding {
                batch: number.0,
                state: word(batch).to_owned(),
                incarnation: claim.map_or(batch.incarnation.0, |claim| claim.incarnation.0),
                seqs: claim.map_or_else(|| ranges(&batch.seqs), |claim| ranges(&claim.won())),
                decided,
                base_offset: held.map(|held| held.base.0),
                terms_version: held.map_or(0, |held| held.terms.0),
            })
        });
        let parts = std::iter::once(Part::Node(node)).chain(batches);
        parts.map(|part| HoldingsPart { part: Some(part) }).collect()
    }
}

/// How far each application of a topic is.
pub async fn of_apps(topic: &Topic) -> Vec<HoldingsPart> {
    let apps = topic.app_holdings().await.into_iter().flatten();
    let parts = apps.map(|app| HoldingsPart {
        part: Some(Part::App(of_app(app))),
    });
    parts.collect()
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
