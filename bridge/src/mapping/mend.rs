//! Damage in the local log behind a synced point (design section 5): what a batch had won is fetched again from its source by
//! sequence and written once more under the batch's number. Until then nothing is pulled. What the source does not have any
//! more becomes a dead letter of every application, so that it is listed and not lost in silence.

use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

use fanin_core::fold::ClaimKey;
use fanin_core::ids::{BatchNo, Incarnation, StreamSeq};
use fanin_core::node::Phase;
use fanin_core::record::ClaimKind;
use fanin_hub::StoredMessage;
use fanin_hub::port::HubRef;
use fanin_store::{Class, CommitError, Location, Op};
use futures_util::{StreamExt, TryStreamExt};

use super::driver::{Driver, DriverError, Event};
use super::ledger_io::error_chain;
use super::limits::{MEND_FETCHES_MAX, MEND_PAUSE};
use super::storing::Stored;
use super::watch::staged_message;
use crate::stage::{RECORD_STAGE, StagedBatch, StagedMessage};

/// The damaged batches of a mapping. They are mended one at a time, so that one body at most is in memory.
#[derive(Debug, Default)]
pub struct Mending {
    damaged: BTreeSet<BatchNo>,
    running: Option<BatchNo>,
    not_before: Option<Instant>,
    /// Why the last try failed.
    reason: String,
}

impl Mending {
    /// Batches whose damage was met at the start.
    #[must_use]
    pub fn of(damaged: BTreeSet<BatchNo>) -> Mending {
        Mending {
            damaged,
            ..Mending::default()
        }
    }

    /// The first damaged batch and why it is not mended yet; `None` when there is none.
    #[must_use]
    pub fn first(&self) -> Option<(BatchNo, &str)> {
        self.damaged.first().map(|batch| (*batch, &*self.reason))
    }

    /// A try did not succeed; the next one follows after a pause.
    pub fn again(&mut self, batch: BatchNo) {
        if self.running == Some(batch) {
            self.running = None;
            self.not_before = Some(Instant::now() + MEND_PAUSE);
        }
    }

    fn end(&mut self, batch: BatchNo) {
        self.damaged.remove(&batch);
        if self.running == Some(batch) {
            self.running = None;
        }
    }
}

/// What became of fetching a damaged batch again.
#[derive(Debug)]
pub struct Refetched {
    batch: BatchNo,
    incarnation: Incarnation,
    /// In the order of their sequences; without a message: the source does not have it any more.
    messages: Result<Vec<(StreamSeq, Option<StoredMessage>)>, String>,
}

impl Driver {
    /// The topic cannot read a batch.
    pub(super) fn on_damaged(&mut self, batch: BatchNo) {
        self.mending.damaged.insert(batch);
        self.mend_next();
        self.look_over();
    }

    /// Begins with the next damaged batch, if none is under way and the ledger is known.
    pub(super) fn mend_next(&mut self) {
        let waits = self.mending.not_before.is_some_and(|at| at > Instant::now());
        // A halted mapping goes on delivering what it won, and this only reads.
        let knows = matches!(self.node.phase(), Phase::Active | Phase::Halted(_));
        if self.mending.running.is_some() || waits || !knows {
            return;
        }
        let Some(batch) = self.mending.damaged.first().copied() else {
            return;
        };
        let key = ClaimKey::new(self.node.identity().uuid, batch.0);
        let Some(claim) = self.node.fold().claims().get(&key) else {
            if *self.node.phase() == Phase::Active {
                // A claim is forgotten only when every application has finished its batch (P7).
                self.mending.end(batch);
            }
            return;
        };
        let incarnation = claim.incarnation;
        let Some(source) = self.sources.get(&incarnation) else {
            self.mending.reason = "its source is not configured here any more".to_owned();
            self.mending.not_before = Some(Instant::now() + MEND_PAUSE);
            return;
        };
        let seqs: Vec<StreamSeq> = claim.won().iter().map(StreamSeq).collect();
        let stream = source.terms.stream.clone();
        tracing::info!(
            mapping = self.options.name,
            %batch,
            messages = seqs.len(),
            stream,
            "fetching a damaged batch again"
        );
        self.mending.running = Some(batch);
        let hub = self.hub.clone();
        self.looks.push(Box::pin(async move {
            let messages = fetch_all(hub, stream, seqs).await;
            Some(Event::Refetched(Refetched {
                batch,
                incarnation,
                messages,
            }))
        }));
    }

    /// Writes a fetched batch again, under its number, with exactly what it won.
    pub(super) fn on_refetched(&mut self, refetched: Refetched) {
        let Refetched {
            batch,
            incarnation,
            messages,
        } = refetched;
        let messages = match messages {
            Ok(messages) => messages,
            Err(reason) => {
                tracing::debug!(mapping = self.options.name, %batch, reason, "a damaged batch could not be fetched; trying again");
                self.mending.reason = reason;
                self.mending.again(batch);
                return;
            }
        };
        let stream: Arc<str> = match self.sources.get(&incarnation) {
            Some(source) => Arc::from(source.terms.stream.as_str()),
            None => Arc::from(""),
        };
        let gone: Vec<u64> = messages
            .iter()
            .filter(|(_, message)| message.is_none())
            .map(|(seq, _)| seq.0)
            .collect();
        if let Some(first) = gone.first() {
            let count = gone.len() as u64;
            metrics::counter!("fanin_lost_messages_total", "mapping" => self.options.name.clone())
                .increment(count);
            tracing::warn!(
                code = "FAN-4045",
                mapping = self.options.name,
                %batch,
                count,
                first = %format_args!("{stream}:{first}"),
                "messages were lost: the disk lost them, and the source has no copy any more; they become dead letters"
            );
        }
        let messages = messages
            .into_iter()
            .map(|(seq, message)| message.map_or_else(|| StagedMessage::lost(seq), staged_message));
        let epoch = self.node.epoch().unwrap_or_default();
        let kind = u8::try_from(ClaimKind::Repair.code()).unwrap_or(0);
        let messages = messages.collect();
        let body = Arc::new(StagedBatch::new(
            batch,
            incarnation,
            epoch,
            kind,
            stream,
            messages,
        ));
        let (head, pieces) = body.encode();
        let op = Op::Append {
            key: self.names.batch(batch),
            kind: RECORD_STAGE,
            head,
            body: pieces,
        };
        let commit = self.store.commit(Class::Copy, vec![op]);
        self.stored.push_back(Box::pin(async move {
            match commit.await {
                Ok(at) => match at.first() {
                    Some(at) => Ok(Stored::Mended(*at, body)),
                    None => Ok(Stored::MendRefused(batch)),
                },
                Err(CommitError::Full { .. } | CommitError::TooLarge { .. }) => {
                    Ok(Stored::MendRefused(batch))
                }
                Err(error @ (CommitError::Poisoned(_) | CommitError::Closed)) => Err(error.into()),
            }
        }));
    }

    /// The batch can be read again.
    pub(super) fn on_mended(&mut self, at: Location, body: Arc<StagedBatch>) -> Result<(), DriverError> {
        let batch = body.batch;
        self.topic.mend(at, body)?;
        metrics::counter!("fanin_mended_batches_total", "mapping" => self.options.name.clone()).increment(1);
        tracing::warn!(code = "FAN-4047", mapping = self.options.name, %batch, "a damaged batch was fetched again and written anew");
        self.mending.end(batch);
        self.mend_next();
        self.look_over();
        Ok(())
    }
}

async fn fetch_all(
    hub: HubRef,
    stream: String,
    seqs: Vec<StreamSeq>,
) -> Result<Vec<(StreamSeq, Option<StoredMessage>)>, String> {
    let fetches = seqs.into_iter().map(|seq| {
        let (hub, stream) = (&hub, &stream);
        async move { hub.fetch_message(stream, seq).await.map(|message| (seq, message)) }
    });
    futures_util::stream::iter(fetches)
        .buffered(MEND_FETCHES_MAX)
        .try_collect()
        .await
        .map_err(|error| error_chain(&error))
}
