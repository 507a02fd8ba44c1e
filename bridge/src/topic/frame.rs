//! What goes to an instance: control frames as generated types, deliveries encoded straight from the shared batch.

use bytes::BufMut;
use fanin_proto::v1::SubscribeResponse;

use super::{
    body::{LEN, TopicBatch, framed_len, put_number, put_varint, varint_len},
    pin::{Body, body_len},
};

/// One frame of an instance's stream.
#[derive(Debug)]
pub enum Frame {
    /// Anything but deliveries.
    Control(SubscribeResponse),
    /// Messages.
    Deliveries(DeliveryFrame),
}

/// Messages of one frame. Bodies are shared with the topic, within a bound, and encoded when the frame is written.
#[derive(Debug, Default)]
pub struct DeliveryFrame {
    pub(crate) deliveries: Vec<OutDelivery>,
    /// Bytes of the deliveries on the wire.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
pub(crate) struct OutDelivery {
    pub(crate) body: Body,
    pub(crate) attempt: u32,
    pub(crate) number: u64,
}

impl OutDelivery {
    /// Bytes of the `Delivery` on the wire: what it takes of the instance's credit.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + varint_len(self.number) + self.body.len() + 1 + varint_len(u64::from(self.attempt))
    }
}

/// Bytes of the shortest delivery number.
const NUMBER_BYTES_MIN: usize = 1;

/// Bytes on the wire of a delivery whose number is not known yet, and taken for the shortest.
pub(crate) fn wire_size(batch: &TopicBatch, place: u32, attempt: u32) -> usize {
    1 + NUMBER_BYTES_MIN + body_len(batch, place) + 1 + varint_len(u64::from(attempt))
}

impl DeliveryFrame {
    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Length in bytes of the frame as a protobuf `SubscribeResponse`.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        framed_len(self.inner_len())
    }

    fn inner_len(&self) -> usize {
        self.deliveries
            .iter()
            .map(|delivery| framed_len(delivery.encoded_len()))
            .sum()
    }

    /// Writes the frame as a protobuf `SubscribeResponse`, exactly `encoded_len` bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(2 << 3 | LEN);
        put_varint(out, self.inner_len() as u64);
        for delivery in &self.deliveries {
            out.put_u8(1 << 3 | LEN);
            put_varint(out, delivery.encoded_len() as u64);
            put_number(out, 1, delivery.number);
            delivery.body.put(out);
            put_number(out, 6, u64::from(delivery.attempt));
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the hand-written encoding is the contract's. Method: decode it with the generated types.

    use std::sync::Arc;

    use bytes::Bytes;
    use fanin_core::ids::{BatchNo, Incarnation, LedgerSeq, Offset, StreamSeq, TermsVersion};
    use fanin_proto::v1::{Delivery, Header, subscribe_response::Response};
    use prost::Message;

    use super::super::pin::Pins;
    use super::*;
    use crate::stage::{StagedBatch, StagedMessage};

    #[test]
    fn deliveries_decode_as_the_contract_says() {
        let messages = (0..300_u64)
            .map(|n| StagedMessage {
                seq: StreamSeq(n * 1_000 + 1),
                published_ns: match n {
                    7 => -5,
                    8 => 0,
                    _ => 1_700_000_000_000_000_000 + n as i64,
                },
                subject: format!("orders.{n}"),
                headers: (0..n % 3)
                    .map(|h| (format!("H{h}"), "v".repeat(n as usize)))
                    .collect(),
                payload: Bytes::from(vec![n as u8; n as usize * 7 % 400]),
            })
            .collect();
        let staged = StagedBatch::new(
            BatchNo(1),
            Incarnation(1),
            LedgerSeq(1),
            1,
            "ORDERS".into(),
            messages,
        );
        let won = [
            (StreamSeq(1), StreamSeq(1)),
            (StreamSeq(2_001), StreamSeq(2_001)),
            (StreamSeq(290_001), StreamSeq(290_001)),
        ];
        for won in [None, Some(&won[..])] {
            let batch = Arc::new(
                TopicBatch::new(Offset(50), TermsVersion(1), Arc::new(staged.clone()), won).unwrap(),
            );
            let mut pins = Pins::default();
            let frame = DeliveryFrame {
                deliveries: (0..batch.count())
                    .map(|place| OutDelivery {
                        body: match place % 3 {
                            0 => Body::copied(&batch, place),
                            _ => pins.body(&batch, place),
                        },
                        attempt: place * 100 + 1,
                        number: u64::from(place) * 1_000 + 1,
                    })
                    .collect(),
                bytes: 0,
            };
            let mut out = Vec::new();
            frame.encode(&mut out);
            assert_eq!(out.len(), frame.encoded_len());
            let decoded = SubscribeResponse::decode(&out[..]).unwrap();
            let Some(Response::Deliveries(deliveries)) = decoded.response else {
                panic!("{decoded:?}")
            };
            assert_eq!(deliveries.deliveries.len(), batch.count() as usize);
            for (place, delivery) in deliveries.deliveries.into_iter().enumerate() {
                let message = batch.message(place as u32);
                let expected = Delivery {
                    delivery: place as u64 * 1_000 + 1,
                    id: format!("ORDERS:{}", message.seq),
                    subject: message.subject.clone(),
                    headers: message
                        .headers
                        .iter()
                        .map(|(name, value)| Header {
                            name: name.clone(),
                            value: value.clone(),
                        })
                        .collect(),
                    payload: message.payload.clone(),
                    attempt: place as u32 * 100 + 1,
                    published_ns: message.published_ns,
                    stream: "ORDERS".into(),
                    sequence: message.seq.0,
                    possible_duplicate: false,
                };
                assert_eq!(delivery, expected);
                assert_eq!(frame.deliveries[place].encoded_len(), delivery.encoded_len());
            }
        }
    }

    #[test]
    fn a_resolution_that_does_not_fit_is_refused() {
        let message = StagedMessage {
            seq: StreamSeq(3),
            published_ns: 0,
            subject: "s".into(),
            headers: vec![],
            payload: Bytes::new(),
        };
        let staged = Arc::new(StagedBatch::new(
            BatchNo(1),
            Incarnation(1),
            LedgerSeq(1),
            1,
            "S".into(),
            vec![message],
        ));
        let won = [(StreamSeq(3), StreamSeq(4))];
        assert!(TopicBatch::new(Offset(0), TermsVersion(1), staged, Some(&won)).is_err());
    }
}
