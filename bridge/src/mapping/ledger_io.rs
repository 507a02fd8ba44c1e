//! Appending to, tailing and purging the ledger.

use bytes::Bytes;
use fanin_core::fold::Halt;
use fanin_core::ids::{Attempt, BatchNo, LedgerSeq, Nonce};
use fanin_core::record::Record;
use fanin_hub::ledger::AppendError;
use fanin_hub::ledger::tail::{TailError, TailEvent};
use fanin_hub::port::{LedgerRef, LedgerStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::driver::Event;
use super::join::{pause, read_checkpoint};
use super::limits::{CHECKPOINT_READS, DOUBT_LOOKS, DOUBT_PAUSE};

/// What became of an append.
#[derive(Debug)]
pub struct Appended {
    /// The batch, for a claim.
    pub claim: Option<BatchNo>,
    /// The outcome. Only the tail tells for sure what landed.
    pub result: Result<LedgerSeq, AppendError>,
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
    let body = Bytes::from(record.encode());
    let id = claim.map(|(batch, attempt)| dedupe_id(&record, batch, attempt, nonce));
    if claim.is_some() {
        crate::failpoint::reach("before_claim");
    }
    let result = ledger
        .append(&subject, id.as_deref(), body, expect)
        .await
        .map(|ack| LedgerSeq(ack.seq));
    if claim.is_some() {
        crate::failpoint::reach("after_claim");
    }
    Appended {
        claim: claim.map(|(batch, _)| batch),
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

/// A running tail. Ends when dropped.
pub struct TailTask {
    /// Tells its events from those of an earlier tail.
    pub number: u64,
    _task: AbortOnDropHandle<()>,
}

impl TailTask {
    /// Tails from `from` on; events go to the driver.
    #[must_use]
    pub fn start(
        ledger: &dyn LedgerStream,
        from: LedgerSeq,
        number: u64,
        events: mpsc::Sender<Event>,
    ) -> TailTask {
        let mut tail = ledger.tail(from);
        let task = tokio::spawn(async move {
            let (mut tries, mut doubts) = (0, 0);
            loop {
                let event = match tail.next_ready().await {
                    Ok(records) => {
                        (tries, doubts) = (0, 0);
                        Event::Tail {
                            number,
                            lag: tail.lag(),
                            events: records,
                        }
                    }
                    Err(error) => match halt_of(&error) {
                        Some(halt) if doubts + 1 >= DOUBT_LOOKS => Event::HubBroken(halt),
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
                let broken = matches!(event, Event::HubBroken(_));
                if events.send(event).await.is_err() || broken {
                    return;
                }
            }
        });
        TailTask {
            number,
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
        TailError::Ledger { .. } => None,
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
