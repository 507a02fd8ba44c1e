//! What a source lost before anybody had taken it, and which nodes have to tell: those that had looked at the stream when it still
//! had it, and live on.

use std::sync::Arc;

use fanin_bridge::mapping::view::State;
use fanin_core::ids::Incarnation;
use fanin_core::seq_set::SeqSet;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::events::Cluster;
use crate::hub::stream::Stream;
use crate::node::Node;

/// What one life of a node has to tell.
#[derive(Debug)]
struct Owed {
    node: Arc<str>,
    /// Cancelled when that life is over.
    dead: CancellationToken,
    seqs: SeqSet,
    /// So many things had been told by then.
    told: usize,
}

/// The book of losses.
#[derive(Debug, Default)]
pub struct Losses {
    owed: Mutex<Vec<Owed>>,
    /// What was told, in any words, of which sequences.
    told: Mutex<Vec<(Arc<str>, SeqSet)>>,
}

impl Losses {
    /// A node says that the source has lost messages: `ORDERS:3-5`, or one of them.
    pub fn tell(&self, node: Arc<str>, ids: &str) {
        let numbers = ids.rsplit(':').next().unwrap_or_default().split('-');
        let mut numbers = numbers.filter_map(|number| number.trim_matches('"').parse().ok());
        if let Some(first) = numbers.next() {
            let seqs = SeqSet::range(first, numbers.next().unwrap_or(first));
            self.told.lock().push((node, seqs));
        }
    }

    /// Whether anybody has told of a loss.
    #[must_use]
    pub fn is_any_told(&self) -> bool {
        !self.told.lock().is_empty()
    }

    /// What a node that goes on has still to tell.
    #[must_use]
    pub fn untold(&self, nodes: &[Node]) -> Option<String> {
        let told = self.told.lock();
        let owed = self.owed.lock();
        let mut open = owed.iter().filter(|owed| {
            let goes_on = |node: &Node| node.name == owed.node && !node.is_held();
            !owed.dead.is_cancelled() && nodes.iter().any(goes_on)
        });
        open.find_map(|owed| {
            let mut left = owed.seqs.clone();
            let since = told.iter().skip(owed.told);
            for (_, seqs) in since.filter(|(node, _)| *node == owed.node) {
                left = left.difference(seqs);
            }
            let first = left.first()?;
            Some(format!(
                "{} had seen message {first} in the source, which has lost it, and does not tell",
                owed.node
            ))
        })
    }
}

impl Cluster {
    /// The source is about to end at `last`. What nobody owns or holds of what it loses is to be told by whoever had seen it there.
    pub(crate) fn owe_losses(&self, stream: &Stream, last: u64, is_owned: impl Fn(Incarnation, u64) -> bool) {
        let incarnation = stream.incarnation();
        let mut lost = SeqSet::new();
        for seq in stream.messages.range(last + 1..).map(|(seq, _)| *seq) {
            if !is_owned(incarnation, seq) {
                lost.insert(seq);
            }
        }
        for (of, bodies) in self.nodes().iter().flat_map(Node::bodies) {
            if of == incarnation {
                lost = lost.difference(&bodies);
            }
        }
        for node in self.nodes() {
            let Some((view, dead)) = node.view().zip(node.dead()) else {
                continue;
            };
            if !view.state.delivers() || view.state == State::Halted {
                continue;
            }
            let seen = view.sources.get(&incarnation).map_or(0, |source| source.last);
            let mut seqs = lost.clone();
            seqs.remove_range(seen + 1, u64::MAX);
            if !seqs.is_empty() {
                let losses = &self.world().losses;
                let (node, told) = (Arc::clone(&node.name), losses.told.lock().len());
                let owed = Owed {
                    node,
                    dead,
                    seqs,
                    told,
                };
                losses.owed.lock().push(owed);
            }
        }
    }
}
