//! What comes from the hub besides records: header blocks and reply subjects.

use fanin_fuzz::{config, hostile, judges};
use fanin_hub::DeliveryFacts;
use proptest::prelude::*;

pub(crate) fn block() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => "[A-Za-z-]{1,8}: ?[a-zé :]{0,10}",
        1 => "[ \t][a-z]{0,6}",
        1 => "[a-z]{0,6}",
        1 => "[A-Z]{1,3}:\r[a-z]{0,3}",
    ];
    let first = prop_oneof![4 => Just("NATS/1.0"), 1 => Just("NATS/1.0 503 No"), 1 => Just("HTTP/1.1"), 1 => Just("")];
    (first, prop::collection::vec(line, 0..8)).prop_map(|(first, lines)| {
        let mut block = format!("{first}\r\n");
        for line in lines {
            block.push_str(&line);
            block.push_str("\r\n");
        }
        block.push_str("\r\n");
        block.into_bytes()
    })
}

fn subject() -> impl Strategy<Value = (bool, [u64; 5])> {
    (any::<bool>(), any::<[u64; 5]>())
}

fn reply((long, numbers): (bool, [u64; 5])) -> String {
    let numbers = numbers.map(|number| number.to_string()).join(".");
    if long {
        format!("$JS.ACK.hub.ACC.ORDERS.c.{numbers}.x")
    } else {
        format!("$JS.ACK.ORDERS.c.{numbers}")
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn header_blocks(block in hostile(block())) {
        judges::header_block(&block);
    }

    #[test]
    fn reply_subjects(said in subject(), bytes in hostile(subject().prop_map(|said| reply(said).into_bytes()))) {
        let [delivered, stream_seq, consumer_seq, published_ns, pending] = said.1;
        let facts = DeliveryFacts { delivered, stream_seq, consumer_seq, published_ns, pending };
        prop_assert_eq!(DeliveryFacts::parse(&reply(said)), Some(facts));
        judges::reply_subject(&String::from_utf8_lossy(&bytes));
    }
}
