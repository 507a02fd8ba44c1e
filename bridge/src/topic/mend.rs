//! Batches whose body the disk has lost: published all the same, and given a body again once it was fetched anew.

use std::sync::Arc;

use fanin_core::ids::{BatchNo, Offset, StreamSeq, TermsVersion};
use fanin_store::Location;

use super::{PublishError, ReadFailure, Topic, body::TopicBatch, restore};
use crate::stage::StagedBatch;

/// A batch whose resolution is durable and whose body cannot be read.
#[derive(Clone, Debug)]
pub struct UnreadBatch {
    /// The batch.
    pub batch: BatchNo,
    /// The topic offset of its first won message: the topic's head.
    pub base: Offset,
    /// The terms in force at its claim.
    pub terms: TermsVersion,
    /// The won sequences as ascending, disjoint runs, at least one.
    pub won: Vec<(StreamSeq, StreamSeq)>,
    /// Where its STAGE record lies, or lay.
    pub at: Location,
}

impl Topic {
    /// Makes a batch visible whose body is not there. Who comes to it waits; the owner hears [`TopicEvent::Damaged`](super::TopicEvent::Damaged).
    ///
    /// # Errors
    /// When it is not the next one.
    pub fn publish_unread(&self, unread: UnreadBatch, why: &ReadFailure) -> Result<(), PublishError> {
        let UnreadBatch {
            batch,
            base,
            terms,
            won,
            at,
        } = unread;
        let head = {
            let mut index = self.shared.index.lock();
            if base != index.head() {
                return Err(PublishError::OutOfOrder {
                    batch,
                    base,
                    head: index.head(),
                });
            }
            index.push(restore::entry((&[], 0, 0), batch, base, terms, at, &won));
            index.head()
        };
        self.shared.head.send(&head);
        self.shared.note_damage((batch, at), why);
        Ok(())
    }

    /// A damaged batch was written again, at `at`: it can be read from now on. Does nothing when every application has
    /// finished it meanwhile.
    ///
    /// # Errors
    /// When the new body does not hold what the batch won.
    pub fn mend(&self, at: Location, body: Arc<StagedBatch>) -> Result<(), PublishError> {
        if let Some(entry) = self.shared.moved(body.batch, at) {
            let batch = TopicBatch::new(entry.base, entry.terms, body, entry.won.as_deref())?;
            self.shared.keep_read(Arc::new(batch));
        }
        Ok(())
    }
}
