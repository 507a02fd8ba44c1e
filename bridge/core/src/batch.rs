//! One batch of this node, from staging to release.
//!
//! ```text
//! Staging -> Staged -> Claiming -> Resolving -> Published -> Finished -> (released)
//!               ^          |    ^      `------ won nothing -----^
//!               `-- void --'    |                               |
//!                            Damaged ---- never claimed --------'
//! ```

use crate::hash::Hash128;
use crate::ids::{Attempt, Epoch, Incarnation, NodeUuid, Offset, TermsVersion, Tick};
use crate::record::{Claim, ClaimKind, content_hash};
use crate::seq_set::SeqSet;

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch {
    /// Its source.
    pub incarnation: Incarnation,
    /// Why it was fetched.
    pub kind: ClaimKind,
    /// Its sequences; emptied once published, when the fold knows what was won.
    pub seqs: SeqSet,
    /// Publish time of its oldest and newest message.
    pub published_ns: (i64, i64),
    /// Those of its sequences that valid claims of other batches were seen to win while it was unresolved.
    pub won_by_others: SeqSet,
    /// The last attempt that was sent in this process.
    pub attempt: Attempt,
    /// When the first claim of this process went out.
    pub first_sent: Option<Tick>,
    /// Where it stands.
    pub state: BatchState,
}

/// Where a batch stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BatchState {
    /// On its way to the disk. A crash forgets it; no claim was sent.
    Staging,
    /// Durable; a claim is wanted as soon as the node may claim. Never dropped from here on (P3).
    Staged,
    /// Staged by an earlier life, and unreadable since. Never claimed again. If a claim of that life was valid, it resolves
    /// like any other, and the shell fetches what it won again by sequence; if none was by the own EPOCH, none will be.
    Damaged,
    /// A claim was sent; sent again until the tail shows it resolved.
    Claiming {
        /// When it was sent last.
        sent_at: Tick,
    },
    /// The tail showed it resolved; the resolution is on its way to the disk.
    Resolving {
        /// The offset of its first won message.
        base: Offset,
        /// What was won.
        won: SeqSet,
    },
    /// The resolution is durable, won messages are visible.
    Published {
        /// What our disk says was won, until the fold has said the same after a restart.
        unconfirmed: Option<SeqSet>,
    },
    /// Every application has finished it, or nothing was won.
    Finished,
}

impl Batch {
    /// A batch about to be staged.
    #[must_use]
    pub fn new(incarnation: Incarnation, kind: ClaimKind, seqs: SeqSet, published_ns: (i64, i64)) -> Self {
        Batch {
            incarnation,
            kind,
            seqs,
            published_ns,
            won_by_others: SeqSet::new(),
            attempt: Attempt(0),
            first_sent: None,
            state: BatchState::Staging,
        }
    }

    /// Whether the tail has not yet decided it.
    #[must_use]
    pub fn is_unresolved(&self) -> bool {
        match self.state {
            BatchState::Staging | BatchState::Staged | BatchState::Claiming { .. } => true,
            BatchState::Damaged
            | BatchState::Resolving { .. }
            | BatchState::Published { .. }
            | BatchState::Finished => false,
        }
    }

    /// The claim of the next attempt.
    #[must_use]
    pub fn claim(
        &self,
        node_uuid: NodeUuid,
        epoch: Epoch,
        batch: crate::ids::BatchNo,
        terms: TermsVersion,
    ) -> Claim {
        Claim {
            node_uuid,
            epoch,
            batch,
            attempt: self.attempt,
            content_hash: self.content_hash(),
            incarnation: self.incarnation,
            seqs: self.seqs.clone(),
            terms,
            kind: self.kind,
            published_ns: self.published_ns,
        }
    }

    /// The hash of what never changes about the batch.
    #[must_use]
    pub fn content_hash(&self) -> Hash128 {
        content_hash(self.incarnation, &self.seqs, self.kind, self.published_ns)
    }
}
