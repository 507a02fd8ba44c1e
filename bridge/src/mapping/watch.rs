//! Looking after a source: the consumer's floor, whether the stream is still the same, holes and lost messages.

use fanin_core::fold::Halt;
use fanin_core::ids::{Incarnation, StreamSeq, TermsVersion};
use fanin_core::node::SourceProbe;
use fanin_core::record::SourceTerms;
use fanin_hub::{
    ConsumerSpec, SharedConsumer, SourceError, SourceInfo, StoredMessage,
    port::{Hub, HubRef},
};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::batches::Permits;
use super::driver::Event;
use super::join::{Source, pause};
use super::ledger_io::error_chain;
use super::limits::{DOUBT_LOOKS, FLOOR_INTERVAL};

/// Every so many looks at the consumer, and after each connection to the hub, one at the stream itself; at each one while the hub
/// has messages that nobody has taken, for they leave no trace here when it loses them.
const STREAM_LOOKS: u64 = 5;

/// A running look-out. Ends when dropped.
pub struct WatchTask {
    _task: AbortOnDropHandle<()>,
}

impl WatchTask {
    /// Looks after one source; what it sees goes to the driver, which tells in `probe` what the source must have given.
    #[must_use]
    pub fn start(
        hub: &HubRef,
        incarnation: Incarnation,
        source: &Source,
        consumer: SharedConsumer,
        probe: watch::Receiver<SourceProbe>,
        events: mpsc::Sender<Event>,
    ) -> WatchTask {
        let (hub, source) = (hub.clone(), source.clone());
        let task = tokio::spawn(async move {
            let (mut looks, mut doubts) = (0_u64, 0);
            let mut failures = 0;
            let mut seen_over = None;
            loop {
                hub.wait_connected().await;
                let mut waits = true;
                let event = match hub.consumer_info(&consumer).await {
                    Ok(info) => {
                        failures = 0;
                        waits = info.pending > 0;
                        Event::Floor {
                            incarnation,
                            info: Box::new(info),
                        }
                    }
                    Err(error) => {
                        let missing = !error.retryable();
                        tracing::debug!(code = error.code(), %error, "no counters of the consumer");
                        // A hub that answers is asked again as usual: the source is looked at meanwhile.
                        failures = if missing { 0 } else { failures + 1 };
                        Event::FloorUnknown {
                            incarnation,
                            missing: missing.then(|| format!("{}: {}", error.code(), error_chain(&error))),
                        }
                    }
                };
                if events.send(event).await.is_err() {
                    return;
                }
                let connection = hub.generation();
                if connection != seen_over || doubts > 0 || waits || looks.is_multiple_of(STREAM_LOOKS) {
                    let asked = *probe.borrow();
                    let seen = look_at_source(&*hub, incarnation, &source, asked).await;
                    // A leader that is being replaced may answer from before the stream was created.
                    let another = matches!(seen, Some(Event::HubBroken(_)));
                    doubts = if another { doubts + 1 } else { 0 };
                    if let Some(event) = seen.filter(|_| !another || doubts >= DOUBT_LOOKS) {
                        seen_over = connection;
                        if events.send(event).await.is_err() || another {
                            return;
                        }
                    }
                }
                looks += 1;
                tokio::time::sleep(if failures == 0 {
                    FLOOR_INTERVAL
                } else {
                    pause(failures).max(FLOOR_INTERVAL)
                })
                .await;
            }
        });
        WatchTask {
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Whether the stream is still the one it was, how far it reaches, and when known messages were published. Nothing when it could
/// not be asked. It is asked how far it reaches before the messages are fetched: a stream that lost its end and has grown again by
/// then shows another message there, and one that loses its end later ends earlier at the next look. And whether it is still the
/// same is asked again behind them, for a stream that is created again in between has messages of its own under their sequences.
pub async fn look_at_source(
    hub: &dyn Hub,
    incarnation: Incarnation,
    source: &Source,
    asked: SourceProbe,
) -> Option<Event> {
    let stream = &source.terms.stream;
    let recreated = || {
        let stream = stream.clone();
        Some(Event::HubBroken(Halt::SourceRecreated { stream }))
    };
    let info = hub.source_info(stream).await.ok()?;
    if !is_same(&info, incarnation, source) {
        return recreated();
    }
    let mut probes = Vec::new();
    for seq in asked.messages() {
        let found = hub.fetch_message(stream, seq).await.ok()?;
        probes.extend(found.map(|message| (message.seq, published_ns(&message))));
    }
    if !probes.is_empty() && !is_same(&hub.source_info(stream).await.ok()?, incarnation, source) {
        return recreated();
    }
    Some(Event::SourceSeen {
        incarnation,
        reaches: asked.reaches,
        last: StreamSeq(info.last_seq),
        last_ns: info.last_ns,
        probes,
    })
}

/// A fetched message's publish time, as pulled ones have it.
fn published_ns(message: &StoredMessage) -> i64 {
    i64::try_from(message.published_ns).unwrap_or(i64::MAX)
}

fn is_same(info: &SourceInfo, incarnation: Incarnation, source: &Source) -> bool {
    info.incarnation(u64::from(source.generation)) == incarnation
}

/// Facts of a source as of now; `None` when there is no such stream any more, or another of that name.
///
/// # Errors
/// The request failed.
pub async fn facts_of(
    hub: &dyn Hub,
    incarnation: Incarnation,
    source: &Source,
) -> Result<Option<SourceInfo>, SourceError> {
    match hub.source_info(&source.terms.stream).await {
        Ok(info) => Ok(is_same(&info, incarnation, source).then_some(info)),
        Err(SourceError::Missing { .. }) => Ok(None),
        Err(error @ (SourceError::Hub { .. } | SourceError::BadTime { .. })) => Err(error),
    }
}

/// The first message at or behind `first` that matches one of the filters, asked of the stream's leader.
pub async fn audit(
    hub: HubRef,
    incarnation: Incarnation,
    terms: TermsVersion,
    source: SourceTerms,
    first: StreamSeq,
) -> Option<Event> {
    let filters = if source.filters.is_empty() {
        vec![">".to_owned()]
    } else {
        source.filters.clone()
    };
    let mut next: Option<StreamSeq> = None;
    for filter in filters {
        match hub.next_matching(&source.stream, first, &filter).await {
            Ok(found) => {
                next = [next, found.map(|message| message.seq)]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Err(error) => {
                tracing::debug!(error = %error_chain(&error), "a look for holes failed; it is repeated");
                return None;
            }
        }
    }
    Some(Event::Audited {
        incarnation,
        terms,
        first,
        next_matching: next,
    })
}

/// Fetches a message that the hub skipped, of a source that is still the same. Holds its room from the beginning on.
pub async fn repair(
    hub: HubRef,
    incarnation: Incarnation,
    source: Source,
    seq: StreamSeq,
    permits: Permits,
) -> Option<Event> {
    let fetched = hub.fetch_message(&source.terms.stream, seq).await;
    match (fetched, facts_of(&*hub, incarnation, &source).await) {
        (Ok(Some(message)), Ok(Some(_))) => Some(Event::Repaired {
            incarnation,
            message: Box::new(message),
            permits,
        }),
        (Ok(None), _) | (_, Ok(None)) => None,
        (Err(error), _) => {
            tracing::debug!(error = %error_chain(&error), "a message to repair could not be fetched; it is repeated");
            None
        }
        (_, Err(error)) => {
            tracing::debug!(error = %error_chain(&error), "a message to repair could not be verified; it is repeated");
            None
        }
    }
}

/// A fetched message in the form of pulled ones.
#[must_use]
pub fn staged_message(message: StoredMessage) -> crate::stage::StagedMessage {
    crate::stage::StagedMessage {
        seq: message.seq,
        published_ns: published_ns(&message),
        subject: message.subject,
        headers: message.headers,
        payload: message.payload,
    }
}

/// What the shared consumer of a source must look like.
#[must_use]
pub fn consumer_spec(
    options: &super::MappingOptions,
    incarnation: Incarnation,
    source: &Source,
) -> ConsumerSpec {
    ConsumerSpec {
        stream: source.terms.stream.clone(),
        prefix: options.prefix.clone(),
        mapping: options.name.clone(),
        incarnation,
        generation: 0,
        filter_subjects: source.terms.filters.clone(),
        ack_wait: options.config.ack_wait.0,
        nodes: u64::from(options.config.nodes),
        in_flight_per_node: u64::from(options.config.in_flight),
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
