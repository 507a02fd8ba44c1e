//! The reply subject of a delivered message: where to acknowledge, and what the hub says about the delivery.

use std::fmt;

use async_nats::Subject;
use fanin_core::ids::StreamSeq;

/// Where one delivery is acknowledged. Opaque: it is only handed back to [`crate::Settler`].
#[derive(Clone, PartialEq, Eq)]
pub struct AckSubject(pub(crate) Subject);

impl AckSubject {
    /// An acknowledgement subject kept as text, for instance by a test.
    #[must_use]
    pub fn from_text(text: &str) -> AckSubject {
        AckSubject(Subject::from(text))
    }

    /// Where a message can be settled of which only the sequence is known, for one that was fetched by sequence. The hub
    /// looks at nothing but the sequence.
    #[must_use]
    pub fn for_message(stream: &str, consumer: &str, seq: StreamSeq) -> AckSubject {
        AckSubject(Subject::from(format!(
            "$JS.ACK.{stream}.{consumer}.1.{seq}.1.0.0"
        )))
    }

    /// The subject as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for AckSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the hub says about one delivery in its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryFacts {
    /// How often this message was delivered, from 1.
    pub delivered: u64,
    /// The message's sequence in its stream.
    pub stream_seq: u64,
    /// The number of this delivery in the consumer.
    pub consumer_seq: u64,
    /// When the hub stored the message, nanoseconds since 1970.
    pub published_ns: u64,
    /// Matching messages behind this one that the hub has not delivered yet.
    pub pending: u64,
}

impl DeliveryFacts {
    /// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or the longer form
    /// with domain and account in front. `None` for anything else.
    #[must_use]
    pub fn parse(subject: &str) -> Option<DeliveryFacts> {
        let tokens: Vec<&str> = subject.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match tokens.len() {
            7 => tokens.get(2..7)?,
            n if n >= 9 => tokens.get(4..9)?,
            _ => return None,
        };
        let at = |i: usize| numbers.get(i)?.parse::<u64>().ok();
        Some(DeliveryFacts {
            delivered: at(0)?,
            stream_seq: at(1)?,
            consumer_seq: at(2)?,
            published_ns: at(3)?,
            pending: at(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: both forms of the reply subject are read. Method: examples of each, and near misses.
    use super::*;

    const FACTS: DeliveryFacts = DeliveryFacts {
        delivered: 2,
        stream_seq: 30,
        consumer_seq: 41,
        published_ns: 1_700_000_000_000_000_005,
        pending: 6,
    };

    #[test]
    fn both_forms() {
        assert_eq!(
            DeliveryFacts::parse("$JS.ACK.ORDERS.c.2.30.41.1700000000000000005.6"),
            Some(FACTS)
        );
        assert_eq!(
            DeliveryFacts::parse("$JS.ACK._.ACCHASH.ORDERS.c.2.30.41.1700000000000000005.6.rnd"),
            Some(FACTS)
        );
    }

    #[test]
    fn near_misses() {
        for text in [
            "",
            "$JS.ACK.ORDERS.c.2.30.41.17",
            "$JS.ACK.ORDERS.c.x.30.41.1700000000000000005.6",
            "_INBOX.a.b",
        ] {
            assert_eq!(DeliveryFacts::parse(text), None, "{text}");
        }
    }
}
