//! Batches without a body in memory: published by where they lie, and, when the disk has lost them, given a body again once it
//! was fetched anew.

use std::sync::Arc;

use fanin_core::ids::{BatchNo, Offset, StreamSeq, TermsVersion};
use fanin_store::{Location, ReadError};

use super::{PublishError, ReadFailure, Topic, body::TopicBatch, restore};
use crate::stage::{StageHead, StagedBatch};

/// A batch staged by an earlier life whose resolution is durable.
#[derive(Clone, Debug)]
pub struct ColdBatch {
    /// The batch.
    pub batch: BatchNo,
    /// The topic offset of its first won message: the topic's head.
    pub base: Offset,
    /// The terms in force at its claim.
    pub terms: TermsVersion,
    /// The won sequences as ascending, disjoint runs, at least one.
    pub won: Vec<(StreamSeq, StreamSeq)>,
    /// Where its STAGE record lies.
    pub at: Location,
    /// The head of that record, unless it is damaged.
    pub head: Option<StageHead>,
    /// Whether its body is known to be damaged.
    pub damaged: bool,
}

impl Topic {
    /// Makes a batch visible whose body is on disk only; whoever comes to it reads it. Of a damaged one the owner hears
    /// [`TopicEvent::Damaged`](super::TopicEvent::Damaged), and its readers wait.
    ///
    /// # Errors
    /// When it is not the next one.
    pub fn publish_cold(&self, cold: ColdBatch) -> Result<(), PublishError> {
        let ColdBatch {
            batch,
            base,
            terms,
            won,
            at,
            head,
            damaged,
        } = cold;
        let staged = restore::staged_facts(head.as_ref());
        let entry = restore::entry(staged, batch, base, terms, at, &won);
        let head = {
            let mut index = self.shared.index.lock();
            if base != index.head() {
                return Err(PublishError::OutOfOrder {
                    batch,
                    base,
                    head: index.head(),
                });
            }
            index.push(entry);
            index.head()
        };
        self.shared.head.send(&head);
        if damaged {
            let error = ReadError::Damaged {
                segment: at.segment,
                position: at.position,
            };
            self.shared
                .note_damage((batch, at), &ReadFailure::Store(Arc::new(error)));
        }
        Ok(())
    }

    /// A damaged batch was written again, at `at`: it can be read from now on. Does nothing when every application has
    /// finished it meanwhile.
    ///
    /// # Errors
    /// When the new body does not hold what the batch won.
    pub fn mend(&self, at: Location, body: Arc<StagedBatch>) -> Result<(), PublishError> {
        if let Some(entry) = self.shared.moved(at, &body) {
            let batch = TopicBatch::new(entry.base, entry.terms, body, entry.won.as_deref())?;
            self.shared.keep_read(Arc::new(batch));
        }
        Ok(())
    }
}
