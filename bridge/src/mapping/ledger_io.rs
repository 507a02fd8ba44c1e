//! Appending to, tailing and purging the ledger.

use std::sync::Arc;

use bytes::Bytes;
use fanin_core::fold::Halt;
use fanin_core::ids::{Attempt, BatchNo, LedgerSeq, Nonce};
use fanin_core::input::Input;
use fanin_core::node::Phase;
use fanin_core::record::Record;
use fanin_hub::PubAck;
use fanin_hub::ledger::AppendError;
use fanin_hub::ledger::tail::{TailError, TailEvent};
use fanin_hub::port::{LedgerRef, LedgerTail};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::driver::{Driver, Event};
use super::join::{pause, read_checkpoint};
use super::limits::{CHECKPOINT_READS, DOUBT_LOOKS, DOUBT_PAUSE, PAUSE_MAX};

/// What became of an append.
#[derive(Debug)]
pub struct Appended {
    /// The batch, for a claim.
    pub claim: Option<BatchNo>,
    /// What had been read of the ledger when the record was made.
    pub read: LedgerSeq,
    /// The outcome. Only the tail tells for sure what landed.
    pub result: Result<PubAck, AppendError>,
}

/// Appends a record.
pub async fn append(
    ledger: LedgerRef,
    record: Box<Record>,
    expect: Option<LedgerSeq>,
    claim: Option<(BatchNo, Attempt)>,
    nonce: Nonce,
) -> Appended {
    let subject = record.subject();
    let read = record.witness.position;
    let body = Bytes::from(record.encode());
    let id = claim.map(|(batch, attempt)| dedupe_id(&record, batch, attempt, nonce));
    if claim.is_some() {
        crate::failpoint::reach("before_claim");
    }
    let result = ledger.append(&subject, id.as_deref(), body, expect).await;
    if claim.is_some() {
        crate::failpoint::reach("after_claim");
    }
    Appended {
        claim: claim.map(|(batch, _)| batch),
        read,
        result,
    }
}

/// P4: the identity of a claim, with this process's nonce: a clone of the node can never be told "duplicate" for ours.
fn dedupe_id(record: &Record, batch: BatchNo, attempt: Attempt, nonce: Nonce) -> String {
    match &record.body {
        fanin_core::record::Body::Claim(claim) => {
            let hash = claim.content_hash.0 >> 64;
            format!(
                "{}.{}.{:016x}.{batch}.{attempt}.{hash:016x}",
                claim.node_uuid, claim.epoch, nonce.0
            )
        }
        fanin_core::record::Body::Checkpoint(_)
        | fanin_core::record::Body::Close(_)
        | fanin_core::record::Body::Epoch(_)
        | fanin_core::record::Body::Genesis(_)
        | fanin_core::record::Body::Handoff(_)
        | fanin_core::record::Body::Progress(_)
        | fanin_core::record::Body::Terms(_) => format!("{:016x}.{batch}.{attempt}", nonce.0),
    }
}

/// What a tail is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailUse {
    /// What it reads is folded: a ledger that is not what was read ends it.
    Fold,
    /// A halted node looks for its own fence, in whatever the ledger is now.
    Watch,
}

/// A running tail. Ends when dropped.
pub struct TailTask {
    /// Tells its events from those of an earlier tail.
    pub number: u64,
    doubt: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl TailTask {
    /// Has the ledger verified before anything more is read of it.
    pub fn verify(&self) {
        self.doubt.notify_one();
    }

    /// Reads on; events go to the driver.
    #[must_use]
    pub fn start(
        mut tail: Box<dyn LedgerTail>,
        (number, tail_use): (u64, TailUse),
        events: mpsc::Sender<Event>,
    ) -> TailTask {
        let doubt = Arc::new(Notify::new());
        let doubted = Arc::clone(&doubt);
        let task = tokio::spawn(async move {
            let (mut tries, mut doubts) = (0, 0);
            loop {
                let ready = tokio::select! {
                    biased;
                    () = doubted.notified() => {
                        tail.verify();
                        continue;
                    }
                    ready = tail.next_ready() => ready,
                };
                let event = match ready {
                    Ok(records) => {
                        (tries, doubts) = (0, 0);
                        Event::Tail {
                            number,
                            lag: tail.lag(),
                            events: records,
                        }
                    }
                    Err(error) => match halt_of(&error) {
                        Some(_) if tail_use == TailUse::Watch => {
                            tokio::time::sleep(PAUSE_MAX).await;
                            continue;
                        }
                        Some(halt) if doubts + 1 >= DOUBT_LOOKS || is_proof(&error) => {
                            Event::LedgerBroken { number, halt }
                        }
                        Some(_) => {
                            if doubts == 0 {
                                tracing::warn!(code = error.code(), error = %error_chain(&error), "the ledger is looked at again before that is believed; nothing is sent meanwhile");
                            }
                            doubts += 1;
                            if events.send(Event::LedgerDoubted { number }).await.is_err() {
                                return;
                            }
                            tokio::time::sleep(DOUBT_PAUSE).await;
                            continue;
                        }
                        None => {
                            tracing::warn!(code = error.code(), error = %error_chain(&error), "the ledger cannot be read; trying again");
                            tokio::time::sleep(pause(tries)).await;
                            tries += 1;
                            continue;
                        }
                    },
                };
                let broken = matches!(event, Event::LedgerBroken { .. });
                if events.send(event).await.is_err() || broken {
                    return;
                }
            }
        });
        TailTask {
            number,
            doubt,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

fn halt_of(error: &TailError) -> Option<Halt> {
    match error {
        TailError::Shrunk { last, read, .. } => Some(Halt::LedgerShrank {
            last: *last,
            read: *read,
        }),
        TailError::Recreated { .. } | TailError::Missing { .. } => Some(Halt::LedgerRecreated),
        TailError::Regrown {
            seq,
            read_ns,
            found_ns,
            ..
        } => Some(Halt::LedgerRegrown {
            position: *seq,
            read_ns: i64::try_from(*read_ns).unwrap_or(i64::MAX),
            found_ns: i64::try_from(*found_ns).unwrap_or(i64::MAX),
        }),
        TailError::Ledger { .. } => None,
    }
}

/// Whether one look is enough. A leader that is being replaced may not know the end of a ledger, or the ledger itself; another
/// record in the place of one that was read is shown by nobody but a hub that has lost that one, and it may be purged before
/// the next look.
fn is_proof(error: &TailError) -> bool {
    match error {
        TailError::Regrown { .. } => true,
        TailError::Shrunk { .. }
        | TailError::Recreated { .. }
        | TailError::Missing { .. }
        | TailError::Ledger { .. } => false,
    }
}

/// An error with everything below it, on one line.
#[must_use]
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

/// Records of a tail's events, in order.
pub fn records(events: Vec<TailEvent>) -> impl Iterator<Item = fanin_hub::ledger::tail::TailItem> {
    events.into_iter().filter_map(|event| match event {
        TailEvent::Record(item) => Some(item),
        // The core sees a gap by the next record's position, and the driver verified the stream before this.
        TailEvent::Opened { .. } | TailEvent::Gap { .. } => None,
    })
}

/// Reads the checkpoint to load. With a gap to cover, a read that does not cover it is repeated: it may be stale.
pub async fn load_checkpoint(ledger: LedgerRef, covers: Option<LedgerSeq>) -> Event {
    let mut tries = 0;
    let mut stale = 0;
    loop {
        match read_checkpoint(&*ledger).await {
            Ok(found) => {
                let position = found.as_ref().map(|complete| complete.witness.position);
                if covers.is_none_or(|wanted| position.is_some_and(|p| p >= wanted))
                    || stale >= CHECKPOINT_READS
                {
                    return Event::Checkpoint(found);
                }
                stale += 1;
            }
            Err(error) if tries % 10 == 9 => {
                tracing::warn!(code = error.code(), error = %error_chain(&error), "checkpoint records cannot be read; trying again");
            }
            Err(error) => tracing::debug!(%error, "checkpoint records cannot be read; trying again"),
        }
        tokio::time::sleep(pause(tries)).await;
        tries += 1;
    }
}

/// Purges behind a checkpoint, subject by subject; the kept ones keep their last record, wherever it lies (P7).
pub async fn purge(ledger: LedgerRef, through: LedgerSeq, keep: Vec<(String, LedgerSeq)>) {
    let whole = ["claim.>", "handoff.>", "progress.>", "close", "checkpoint"];
    let kept = keep
        .into_iter()
        .map(|(subject, last)| (subject, last.min(through.next())));
    let all = whole
        .into_iter()
        .map(|subject| (subject.to_owned(), through.next()))
        .chain(kept);
    let mut purged = 0;
    for (subject, up_to) in all {
        match ledger.purge_subject(&subject, up_to).await {
            Ok(count) => purged += count,
            // What stays is purged behind the next checkpoint.
            Err(error) => tracing::debug!(%error, subject, "a ledger subject could not be purged"),
        }
    }
    tracing::info!(
        code = "FAN-4101",
        position = through.0,
        purged,
        "ledger truncated behind a checkpoint"
    );
}

impl Driver {
    /// An append has an outcome.
    pub(super) fn on_appended(&mut self, appended: &Appended) {
        let error = match &appended.result {
            Ok(ack) => {
                self.ledger_room.on_confirmed();
                // A repetition stands where its first copy landed, whenever that was.
                if !ack.duplicate {
                    let (at, read) = (LedgerSeq(ack.seq), appended.read);
                    self.feed(Input::AppendConfirmed { at, read });
                }
                return;
            }
            Err(error) => error,
        };
        match error {
            AppendError::Full => self.on_ledger_refused(),
            AppendError::WrongLastSequence { .. }
            | AppendError::InFlight
            | AppendError::Timeout
            | AppendError::Disconnected
            | AppendError::NoStream => {
                let claim = appended.claim.map(|batch| batch.0);
                tracing::debug!(code = error.code(), %error, claim, "an append is not confirmed");
            }
            AppendError::TooLarge { .. } | AppendError::Other { .. } => {
                tracing::warn!(code = error.code(), mapping = self.options.name, error = %error_chain(error), "an append failed; it is tried again");
            }
        }
        match appended.claim {
            Some(batch) => self.feed(Input::ClaimUnconfirmed(batch)),
            None => self.feed(Input::AppendFailed),
        }
    }

    /// The tail is (re)started at a position.
    pub(super) fn start_tail(&mut self, from: LedgerSeq) {
        self.tails += 1;
        let tail_use = match self.node.phase() {
            Phase::Joining | Phase::Active => TailUse::Fold,
            Phase::Halted(_) | Phase::Fenced(_) => TailUse::Watch,
        };
        let (tail, events) = (self.ledger.tail(from), self.events_tx.clone());
        self.tail = Some(TailTask::start(tail, (self.tails, tail_use), events));
    }

    /// A halted node goes on delivering, so it must see its fence (P8) also in a ledger that is not what was read: behind its EPOCH.
    pub(super) fn watch_ledger(&mut self, number: u64) {
        let is_last = self.tail.as_ref().is_some_and(|tail| tail.number == number);
        if let (true, Phase::Halted(_), Some(epoch)) = (is_last, self.node.phase(), self.node.epoch()) {
            self.start_tail(epoch.next());
        }
    }
}

#[cfg(test)]
#[path = "ledger_io_tests.rs"]
mod tests;
