//! What the driver makes durable, in order, and what follows when it is.

use std::sync::Arc;
use tokio::time::Instant;

use bytes::Bytes;
use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, Offset, TermsVersion};
use fanin_core::input::Input;
use fanin_core::record::{ClaimKind, Witness};
use fanin_core::seq_set::SeqSet;
use fanin_store::{Class, CommitError, Location, Op};

use super::disk::set_to_runs;
use super::driver::{Driver, DriverError};
use super::limits::FULL_DELAY;
use crate::stage::{RECORD_RESOLUTION, RECORD_STAGE, Resolution, StagedBatch};
use crate::telemetry::metrics as names;
use crate::topic::{ColdBatch, PublishedBatch};

/// Something that became durable, or was refused.
pub enum Stored {
    /// A batch is staged.
    Staged(BatchNo, Location),
    /// The log is full: the batch is not on disk.
    Refused(BatchNo),
    /// A resolution is durable; the body is at hand to be published.
    Resolved {
        /// The batch.
        batch: BatchNo,
        /// What is to be published; `None` when nothing was won.
        published: Option<Box<Published>>,
    },
    /// A damaged batch was written again, or could not be.
    Mended(super::mend::Rewritten),
    /// The done set is durable.
    Done,
    /// The terms are durable.
    Terms,
}

/// What a resolution makes visible.
pub enum Published {
    /// A batch with its body.
    Whole(PublishedBatch),
    /// A batch whose body is on disk only.
    Cold(ColdBatch),
}

impl Driver {
    pub(super) fn stage(
        &mut self,
        ticket: u64,
        batch: BatchNo,
        incarnation: Incarnation,
        kind: ClaimKind,
        seqs: &SeqSet,
    ) {
        let (messages, mut flying) = self.take_arrived(ticket, seqs);
        let stream: Arc<str> = match self.sources.get(&incarnation) {
            Some(source) => Arc::from(source.terms.stream.as_str()),
            None => Arc::from(""),
        };
        let epoch = self.node.epoch().unwrap_or_default();
        let kind = u8::try_from(kind.code()).unwrap_or(0);
        let body = Arc::new(StagedBatch::new(
            batch,
            incarnation,
            epoch,
            kind,
            stream,
            messages,
        ));
        let (head, pieces) = body.encode();
        flying.body = Some(body);
        self.batches.insert(batch, flying);
        let op = Op::Append {
            key: self.names.batch(batch),
            kind: RECORD_STAGE,
            head,
            body: pieces,
        };
        let commit = self.store.commit(Class::Intake, vec![op]);
        crate::failpoint::reach("before_stage_sync");
        let since = Instant::now();
        self.stored.push_back(Box::pin(async move {
            match commit.await {
                Ok(at) => {
                    metrics::histogram!(names::STAGE_SYNC_DURATION).record(since.elapsed().as_secs_f64());
                    match at.first() {
                        Some(at) => Ok(Stored::Staged(batch, *at)),
                        None => Ok(Stored::Refused(batch)),
                    }
                }
                Err(CommitError::Full { .. } | CommitError::TooLarge { .. }) => Ok(Stored::Refused(batch)),
                Err(error @ (CommitError::Poisoned(_) | CommitError::Closed)) => Err(error.into()),
            }
        }));
    }

    pub(super) fn resolve(
        &mut self,
        batch: BatchNo,
        (position, terms): (LedgerSeq, TermsVersion),
        base: Offset,
        won: &SeqSet,
        witness: Witness,
    ) {
        let runs = set_to_runs(won);
        let resolution = Resolution {
            batch,
            position,
            terms,
            base,
            won: runs.clone(),
        };
        let key = self.names.batch(batch);
        let head = self.names.put_head(base.plus(won.len()));
        let op = Op::Append {
            key,
            kind: RECORD_RESOLUTION,
            head: resolution.encode(),
            body: Vec::new(),
        };
        let closed = self.put_closed();
        let commit = self.store.commit(
            Class::Finish,
            vec![op, head, self.names.put_witness(witness), closed],
        );
        let Some(leaving) = self.batches.publish(batch) else {
            // The core resolves only what it was told is staged, and that told us where.
            self.failure = Some(DriverError::Unknown(batch));
            return;
        };
        let nothing = won.is_empty();
        self.stored.push_back(Box::pin(async move {
            commit.await?;
            crate::failpoint::reach("after_resolution");
            let (at, won) = (leaving.at, runs);
            let published = match leaving.body {
                _ if nothing => None,
                Some(body) => Some(Published::Whole(PublishedBatch {
                    base,
                    terms,
                    won,
                    at,
                    body,
                })),
                // Staged by an earlier life: the body is on disk only, and read when an application comes to it.
                None => Some(Published::Cold(ColdBatch {
                    batch,
                    base,
                    terms,
                    won,
                    at,
                    head: leaving.head,
                    damaged: leaving.damaged,
                })),
            };
            let published = published.map(Box::new);
            Ok(Stored::Resolved { batch, published })
        }));
    }

    /// The highest W of each source ever known here goes to the disk with whatever is decided.
    pub(super) fn put_closed(&mut self) -> Op {
        for (incarnation, through) in self.node.fold().watermarks() {
            let known = self.remembered.closed.entry(*incarnation).or_default();
            *known = (*known).max(*through);
        }
        self.names.put_closed(&self.remembered.closed)
    }

    pub(super) fn persist_done(&mut self, done: &SeqSet) {
        let witness = self.names.put_witness(self.node.fold().witness());
        let closed = self.put_closed();
        let commit = self
            .store
            .commit(Class::Finish, vec![self.names.put_done(done), witness, closed]);
        self.stored.push_back(Box::pin(async move {
            commit.await?;
            Ok(Stored::Done)
        }));
    }

    /// The terms are kept on disk, so that a restart knows what each application is entitled to before it reads the ledger.
    pub(super) fn persist_terms(&mut self, encoded: Bytes) {
        let commit = self.store.commit(
            Class::Finish,
            vec![Op::Put {
                name: self.names.terms(),
                value: encoded,
            }],
        );
        self.stored.push_back(Box::pin(async move {
            commit.await?;
            Ok(Stored::Terms)
        }));
    }

    pub(super) fn on_stored(&mut self, stored: Stored) -> Result<(), DriverError> {
        match stored {
            Stored::Staged(batch, at) => {
                crate::failpoint::reach("after_stage");
                let count = self.batches.get_mut(batch).map_or(0, |flying| {
                    flying.at = Some(at);
                    flying.body.as_ref().map_or(0, |body| body.messages.len() as u64)
                });
                metrics::counter!(names::STAGED_MESSAGES, "mapping" => self.options.name.clone())
                    .increment(count);
                self.feed(Input::Staged(batch));
            }
            Stored::Refused(batch) => {
                if let Some(flying) = self.batches.forget(batch) {
                    tracing::debug!(%batch, "the local log is full; messages go back to the hub");
                    // A message larger than a whole batch may never fit here; it must not keep smaller ones away.
                    let refused = flying.body.as_ref().map_or(0, |body| {
                        let (head, pieces) = body.encode();
                        (head.len() + pieces.iter().map(Bytes::len).sum::<usize>()) as u64
                    });
                    self.room_wanted = refused.min(self.options.config.batch.bytes.0);
                    self.outgoing
                        .settles
                        .give_back(flying.acks.into_iter().map(|(_, ack)| ack).collect(), FULL_DELAY);
                }
                self.feed(Input::StageRefused(batch));
            }
            Stored::Resolved { batch, published } => {
                match published.map(|published| *published) {
                    Some(Published::Whole(whole)) => self.topic.publish(whole)?,
                    Some(Published::Cold(cold)) => self.topic.publish_cold(cold)?,
                    None => {
                        self.batches.forget(batch);
                    }
                }
                crate::failpoint::reach("after_publish");
                self.feed(Input::Resolved(batch));
                // The core settles at once or never: what was resolved before the own EPOCH, or in a halted mapping, is
                // settled when the hub delivers it again, so nothing of it is kept.
                self.batches.forget(batch);
            }
            Stored::Mended(rewritten) => self.on_rewritten(rewritten)?,
            Stored::Done => self.feed(Input::DonePersisted),
            Stored::Terms => {}
        }
        Ok(())
    }
}
