//! Damage in the local log behind a synced point (design section 5): what a batch had won is fetched again from its source by
//! sequence and written once more under the batch's number. Until then nothing is pulled. What the source does not have any
//! more becomes a dead letter of every application, so that it is listed and not lost in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanin_core::batch::BatchState;
use fanin_core::fold::{ClaimKey, Suspect};
use fanin_core::ids::{BatchNo, Incarnation, StreamSeq};
use fanin_core::node::Phase;
use fanin_core::record::ClaimKind;
use fanin_hub::StoredMessage;
use fanin_hub::port::HubRef;
use fanin_store::{Class, CommitError, Location, Op};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{Duration, Instant};

use super::driver::{Driver, DriverError, Event};
use super::join::Source;
use super::ledger_io::error_chain;
use super::limits::{MEND_FETCHES_MAX, MEND_PAUSE};
use super::storing::Stored;
use super::watch::{facts_of, staged_message};
use crate::stage::{RECORD_STAGE, StagedBatch, StagedMessage};
use crate::telemetry::metrics::{LOST_MESSAGES, MENDED_BATCHES};

/// The damaged batches of a mapping. They are mended one at a time, so that one body at most is in memory.
#[derive(Debug, Default)]
pub struct Mending {
    damaged: BTreeSet<BatchNo>,
    running: Option<BatchNo>,
    /// The one tried last: the next try is another's.
    last: BatchNo,
    not_before: Option<Instant>,
    /// Batches of which the source seemed to lack something, and since when: one answer is not believed (P6).
    lacking: BTreeMap<BatchNo, Instant>,
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

    /// The batch to try now.
    fn next(&self, now: Instant, second_look: Duration) -> Option<BatchNo> {
        if self.running.is_some() || self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        let is_due = |batch: &&BatchNo| {
            let since = self.lacking.get(*batch);
            since.is_none_or(|since| now.saturating_duration_since(*since) >= second_look)
        };
        let behind = self.damaged.range(self.last.next()..).find(is_due);
        behind.or_else(|| self.damaged.iter().find(is_due)).copied()
    }

    fn begin(&mut self, batch: BatchNo) {
        self.running = Some(batch);
        self.last = batch;
    }

    /// A try did not succeed; the next one follows after a pause.
    fn again(&mut self, batch: BatchNo, reason: String) {
        tracing::debug!(%batch, reason, "a damaged batch is not mended yet");
        self.reason = reason;
        self.last = batch;
        self.running = self.running.filter(|running| *running != batch);
        self.not_before = Some(Instant::now() + MEND_PAUSE);
    }

    fn end(&mut self, batch: BatchNo) {
        self.damaged.remove(&batch);
        self.lacking.remove(&batch);
        self.running = self.running.filter(|running| *running != batch);
        self.reason.clear();
    }
}

/// What a damaged batch must hold.
#[derive(Clone, Debug)]
struct Wanted {
    batch: BatchNo,
    incarnation: Incarnation,
    stream: String,
    /// What it won, ascending.
    seqs: Vec<StreamSeq>,
    /// When the hub stored its oldest and its newest message.
    published_ns: (i64, i64),
}

/// What became of fetching a damaged batch again.
#[derive(Debug)]
pub struct Refetched {
    wanted: Wanted,
    fetched: Result<Fetched, String>,
}

#[derive(Debug)]
struct Fetched {
    /// In the order of their sequences; `None`: the source does not have it.
    messages: Vec<(StreamSeq, Option<StoredMessage>)>,
    /// The first sequence the source still has, as of before; all below it is gone for good.
    first_kept: StreamSeq,
}

/// A damaged batch was written again, or could not be.
pub struct Rewritten {
    body: Arc<StagedBatch>,
    at: Result<Location, CommitError>,
}

impl Driver {
    /// The topic cannot read a batch.
    pub(super) fn on_damaged(&mut self, batch: BatchNo) {
        self.mending.damaged.insert(batch);
        self.mend_next();
        self.look_over();
    }

    /// Whether the ledger still says reliably what this node won. A halted mapping goes on delivering that.
    fn knows_its_claims(&self) -> bool {
        match self.node.phase() {
            Phase::Active => true,
            Phase::Halted(halt) => match halt.suspect() {
                Suspect::Version => true,
                Suspect::Ledger | Suspect::Source => false,
            },
            Phase::Joining | Phase::Fenced(_) => false,
        }
    }

    /// Whether some application has not finished the batch: one that is released must not be written again.
    fn is_wanted(&self, batch: BatchNo) -> bool {
        let found = self.node.batches().get(&batch);
        found.is_some_and(|batch| batch.state != BatchState::Finished)
    }

    /// Begins with the next damaged batch, if none is under way and the ledger is known.
    pub(super) fn mend_next(&mut self) {
        let second_look = Duration::from_millis(self.options.policy.audit_ms);
        if !self.knows_its_claims() {
            return;
        }
        while let Some(batch) = self.mending.next(Instant::now(), second_look) {
            let key = ClaimKey::new(self.node.identity().uuid, batch.0);
            let claim = self.node.fold().claims().get(&key);
            let Some(claim) = claim.filter(|_| self.is_wanted(batch)) else {
                if *self.node.phase() == Phase::Active {
                    self.mending.end(batch);
                    continue;
                }
                return;
            };
            let wanted = Wanted {
                batch,
                incarnation: claim.incarnation,
                stream: self.stream_of(claim.incarnation),
                seqs: claim.won().iter().map(StreamSeq).collect(),
                published_ns: claim.published_ns,
            };
            self.mending.begin(batch);
            tracing::info!(mapping = self.options.name, %batch, messages = wanted.seqs.len(), stream = wanted.stream, "fetching a damaged batch again");
            let (hub, source) = (self.hub.clone(), self.sources.get(&wanted.incarnation).cloned());
            let accept_loss = self.options.accept_loss;
            self.errands.push(Box::pin(async move {
                let fetched = fetch(&hub, source, &wanted, accept_loss).await;
                Some(Event::Refetched(Box::new(Refetched { wanted, fetched })))
            }));
            return;
        }
    }

    /// The stream of an incarnation; of one that is configured no more as the terms name it.
    pub(super) fn stream_of(&self, incarnation: Incarnation) -> String {
        let configured = self.sources.get(&incarnation).map(|source| &source.terms);
        let named = configured.or_else(|| self.node.fold().terms().sources.get(&incarnation));
        named.map_or_else(String::new, |terms| terms.stream.clone())
    }

    /// Writes a fetched batch again, under its number, with exactly what it won.
    pub(super) fn on_refetched(&mut self, refetched: Refetched) {
        let Refetched { wanted, fetched } = refetched;
        let batch = wanted.batch;
        if !self.is_wanted(batch) {
            self.mending.end(batch);
            return;
        }
        let Fetched { messages, first_kept } = match fetched {
            Ok(fetched) => fetched,
            Err(reason) => return self.mending.again(batch, reason),
        };
        let lacks =
            |(seq, message): &(StreamSeq, Option<StoredMessage>)| message.is_none() && *seq >= first_kept;
        let second_look = Duration::from_millis(self.options.policy.audit_ms);
        if messages.iter().any(lacks) {
            let since = *self.mending.lacking.entry(batch).or_insert_with(Instant::now);
            if since.elapsed() < second_look {
                let reason = format!("{} seems to lack some of it; looking again", wanted.stream);
                return self.mending.again(batch, reason);
            }
        }
        let messages = messages
            .into_iter()
            .map(|(seq, message)| message.map_or_else(|| StagedMessage::lost(seq), staged_message));
        let body = Arc::new(StagedBatch::new(
            batch,
            wanted.incarnation,
            self.node.epoch().unwrap_or_default(),
            u8::try_from(ClaimKind::Repair.code()).unwrap_or(0),
            Arc::from(wanted.stream.as_str()),
            messages.collect(),
        ));
        let (head, pieces) = body.encode();
        let op = Op::Append {
            key: self.names.batch(batch),
            kind: RECORD_STAGE,
            head,
            body: pieces,
        };
        // It finishes accepted messages, and what waits for it may be all that keeps the log full.
        let commit = self.store.commit(Class::Finish, vec![op]);
        self.stored.push_back(Box::pin(async move {
            match commit.await {
                Err(error @ (CommitError::Poisoned(_) | CommitError::Closed)) => Err(error.into()),
                written => {
                    let at = written.and_then(|at| at.first().copied().ok_or(CommitError::Closed));
                    Ok(Stored::Mended(Rewritten { body, at }))
                }
            }
        }));
    }

    /// The batch can be read again.
    pub(super) fn on_rewritten(&mut self, rewritten: Rewritten) -> Result<(), DriverError> {
        let Rewritten { body, at } = rewritten;
        let batch = body.batch;
        let at = match at {
            Ok(at) => at,
            Err(error) => {
                self.mending.again(batch, error.to_string());
                return Ok(());
            }
        };
        crate::failpoint::reach("after_mend");
        let mapping = self.options.name.clone();
        let lost: Vec<StreamSeq> = body
            .messages
            .iter()
            .filter(|m| m.is_lost())
            .map(|m| m.seq)
            .collect();
        if let (Some(first), Some(last)) = (lost.first(), lost.last()) {
            metrics::counter!(LOST_MESSAGES, "mapping" => mapping.clone()).increment(lost.len() as u64);
            tracing::warn!(
                code = "FAN-4045",
                mapping,
                %batch,
                count = lost.len(),
                first = %format_args!("{}:{first}", body.stream),
                last = %format_args!("{}:{last}", body.stream),
                "messages were lost: the disk lost them, and the source has no copy any more; they become dead letters"
            );
        }
        self.topic.mend(at, body)?;
        metrics::counter!(MENDED_BATCHES, "mapping" => mapping.clone()).increment(1);
        tracing::warn!(code = "FAN-4047", mapping, %batch, "a damaged batch was fetched again and written anew");
        self.mending.end(batch);
        self.mend_next();
        self.look_over();
        Ok(())
    }
}

/// Fetches what a batch must hold, and makes sure that it is of the source it was claimed from: sequences of a stream that was
/// created again mean other messages.
async fn fetch(
    hub: &HubRef,
    source: Option<Source>,
    wanted: &Wanted,
    accept_loss: bool,
) -> Result<Fetched, String> {
    let gone = || Fetched {
        messages: wanted.seqs.iter().map(|seq| (*seq, None)).collect(),
        first_kept: StreamSeq(u64::MAX),
    };
    let Some(source) = source else {
        return if accept_loss {
            Ok(gone())
        } else {
            Err(no_source(wanted, "is not configured here any more"))
        };
    };
    let before = match facts_of(&**hub, wanted.incarnation, &source).await {
        Ok(Some(facts)) => facts,
        Ok(None) if accept_loss => return Ok(gone()),
        Ok(None) => return Err(no_source(wanted, "is gone, or was created again")),
        Err(error) => return Err(error_chain(&error)),
    };
    let stream = &wanted.stream;
    let fetches = wanted.seqs.clone().into_iter().map(|seq| async move {
        let message = hub.fetch_message(stream, seq).await;
        message.map(|message| (seq, message))
    });
    let messages: Vec<_> = futures_util::stream::iter(fetches)
        .buffered(MEND_FETCHES_MAX)
        .try_collect()
        .await
        .map_err(|error| error_chain(&error))?;
    // The name alone does not tell: the stream may have been created again meanwhile.
    match facts_of(&**hub, wanted.incarnation, &source).await {
        Ok(Some(_)) => {}
        Ok(None) => return Err(no_source(wanted, "is gone, or was created again")),
        Err(error) => return Err(error_chain(&error)),
    }
    let (oldest, newest) = wanted.published_ns;
    let is_other = |message: &StoredMessage| {
        let at = i64::try_from(message.published_ns).unwrap_or(i64::MAX);
        at < oldest || at > newest
    };
    if let Some((seq, _)) = messages
        .iter()
        .find(|(_, message)| message.as_ref().is_some_and(is_other))
    {
        return Err(format!(
            "{}:{seq} was stored at another time than what was claimed",
            wanted.stream
        ));
    }
    Ok(Fetched {
        messages,
        first_kept: StreamSeq(before.first_seq),
    })
}

fn no_source(wanted: &Wanted, what: &str) -> String {
    format!(
        "its source {} {what}; restore it, or start once with --accept-loss, which makes {} messages dead letters",
        wanted.stream,
        wanted.seqs.len()
    )
}

#[cfg(test)]
mod tests {
    //! Goal: one damaged batch that cannot be mended does not keep others from it, and one answer that something is gone is
    //! not believed. Method: the queue with a clock of the test's.
    use super::*;

    const SECOND: Duration = Duration::from_secs(60);

    fn of(batches: &[u64]) -> Mending {
        Mending::of(batches.iter().copied().map(BatchNo).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_fails_lets_others_pass() {
        let mut mending = of(&[3, 5, 9]);
        let mut tried = Vec::new();
        for _ in 0..5 {
            let batch = mending.next(Instant::now(), SECOND).unwrap();
            mending.begin(batch);
            assert_eq!(mending.next(Instant::now(), SECOND), None, "one at a time");
            tried.push(batch.0);
            if batch.0 == 5 {
                mending.end(batch);
            } else {
                mending.again(batch, "why".to_owned());
                assert_eq!(mending.next(Instant::now(), SECOND), None, "not at once");
                tokio::time::advance(MEND_PAUSE).await;
            }
        }
        assert_eq!(tried, [3, 5, 9, 3, 9]);
        assert_eq!(mending.first(), Some((BatchNo(3), "why")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_seems_gone_is_looked_for_again_later() {
        let mut mending = of(&[3]);
        mending.begin(BatchNo(3));
        mending.lacking.insert(BatchNo(3), Instant::now());
        mending.again(BatchNo(3), "lacks".to_owned());
        tokio::time::advance(SECOND - Duration::from_millis(1)).await;
        assert_eq!(mending.next(Instant::now(), SECOND), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(mending.next(Instant::now(), SECOND), Some(BatchNo(3)));
        mending.end(BatchNo(3));
        assert!(mending.first().is_none() && mending.lacking.is_empty());
    }
}
