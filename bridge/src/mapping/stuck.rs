//! Messages that the hub delivers and no node can take in, mostly because the client library cannot read their headers:
//! the core finds them, they are fetched and acknowledged by sequence. Each of their deliveries breaks the connection it
//! comes over, so messages are pulled over a connection that carries nothing else.

use tokio::time::Instant;

use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_core::seq_set::SeqSet;
use fanin_hub::port::HubRef;
use fanin_hub::{AckSubject, UNREADABLE_HEADERS};

use super::batches::Permits;
use super::driver::Driver;
use super::limits::PULL_LINK_GRACE;
use super::watch::consumer_spec;
use crate::telemetry::metrics::UNREADABLE_MESSAGES;

/// The connection that a mapping's messages are pulled over.
#[derive(Clone)]
pub struct PullLink {
    /// The connection.
    pub connection: HubRef,
    /// Since when it has been down while the hub's other connection is up.
    down_since: Option<Instant>,
}

impl PullLink {
    /// A link over a connection of its own.
    #[must_use]
    pub fn new(connection: HubRef) -> PullLink {
        PullLink {
            connection,
            down_since: None,
        }
    }

    /// Looks at the link once more. `hub_is_up` is said of the connection for everything else.
    pub fn look(&mut self, hub_is_up: bool, now: Instant) {
        let is_down = hub_is_up && !self.connection.is_connected();
        self.down_since = is_down.then(|| self.down_since.unwrap_or(now));
    }

    /// What is wrong with the link, once it has been for long: a broken connection by itself is no news.
    #[must_use]
    pub fn trouble(&self, now: Instant) -> Option<String> {
        self.down_since
            .filter(|since| now.saturating_duration_since(*since) >= PULL_LINK_GRACE)?;
        let why = self.connection.last_error();
        Some(format!(
            "FAN-2001: the hub does not let this mapping pull over a connection of its own: {}",
            why.as_deref().unwrap_or("no answer")
        ))
    }
}

impl Driver {
    /// Whether this node is pulling from a source now.
    pub(super) fn is_pulling(&self, incarnation: Incarnation) -> bool {
        self.gates.get(&incarnation).is_some_and(|gate| *gate.borrow())
    }

    /// Where a message is acknowledged of which no delivery was seen.
    pub(super) fn ack_by_seq(&self, incarnation: Incarnation, seq: StreamSeq) -> Option<AckSubject> {
        let source = self.sources.get(&incarnation)?;
        let consumer = consumer_spec(&self.options, incarnation, source).name();
        Some(AckSubject::for_message(&source.terms.stream, &consumer, seq))
    }

    /// Acknowledges messages of which no delivery was seen.
    pub(super) fn settle_by_seq(&mut self, incarnation: Incarnation, seqs: &SeqSet) {
        let acks: Vec<AckSubject> = seqs
            .iter()
            .filter_map(|seq| self.ack_by_seq(incarnation, StreamSeq(seq)))
            .collect();
        tracing::debug!(mapping = self.options.name, %incarnation, first = seqs.first(), messages = acks.len(), "acknowledging by sequence");
        self.outgoing.settles.acknowledge(acks, Permits::default());
    }

    /// A message that no node could take in was fetched and is being staged.
    pub(super) fn tell_stuck(&mut self, incarnation: Incarnation, seq: StreamSeq) {
        self.counts.unreadable += 1;
        metrics::counter!(UNREADABLE_MESSAGES, "mapping" => self.options.name.clone()).increment(1);
        let arrived = self.arrivals.values().flat_map(|arrival| &arrival.messages);
        let message = arrived
            .map(|(message, _)| message)
            .find(|message| message.seq == seq);
        let headers_malformed = message.is_some_and(|message| {
            let mut names = message.headers.iter().map(|(name, _)| name);
            names.any(|name| name == UNREADABLE_HEADERS)
        });
        let stream = self
            .sources
            .get(&incarnation)
            .map(|source| source.terms.stream.as_str());
        tracing::warn!(
            code = "FAN-4042",
            mapping = self.options.name,
            stream,
            seq = seq.0,
            subject = message.map(|message| message.subject.as_str()),
            headers_malformed,
            "no node could take in a message as the hub delivers it; it was fetched by its sequence and is not lost"
        );
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a link that stays down is told, one that breaks now and then is not, nor one that is down with the whole hub.
    //! Method: a connection to an address where nobody listens, and a clock of the test's.
    use std::time::Duration;

    use fanin_hub::{Connection, HubOptions};

    use super::*;

    #[tokio::test]
    async fn only_lasting_trouble_of_its_own_is_told() {
        let mut options = HubOptions::new(["nats://127.0.0.1:1"]);
        options.wait_for_hub = true;
        let mut link = PullLink::new(std::sync::Arc::new(Connection::connect(options).await.unwrap()));
        let start = Instant::now();
        let late = start + PULL_LINK_GRACE;
        link.look(false, start);
        link.look(false, late);
        assert_eq!(link.trouble(late), None, "the whole hub is away");
        link.look(true, start);
        assert_eq!(link.trouble(late - Duration::from_millis(1)), None);
        link.look(true, late);
        assert!(link.trouble(late).unwrap().starts_with("FAN-2001: "));
        link.look(false, late);
        assert_eq!(link.trouble(late), None);
    }
}
