//! What comes from the hub besides records: header blocks and reply subjects.

use fanin_fuzz::{config, hostile, measured};
use fanin_hub::{DeliveryFacts, UNREADABLE_HEADERS, limits::UNREADABLE_BYTES_MAX, parse_header_block};
use proptest::prelude::*;

fn block() -> impl Strategy<Value = Vec<u8>> {
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

    /// Nothing of a block gets lost without a trace, and the list is in the one order that every reader gives it.
    #[test]
    fn header_blocks(block in hostile(block())) {
        // Two texts for a line of one byte, and the raw lines in base64.
        let list = measured(block.len(), 128, || parse_header_block(&block));
        prop_assert!(list.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        let raw = list.iter().filter(|(name, _)| name == UNREADABLE_HEADERS).map(|(_, value)| value.len()).max();
        prop_assert!(raw.unwrap_or_default() <= UNREADABLE_BYTES_MAX.div_ceil(3) * 4 + block.len());
        for (name, value) in &list {
            prop_assert!(!name.contains([':', '\r', '\n']), "{name:?}");
            prop_assert!(!value.contains(['\r', '\n']), "{value:?}");
        }
        prop_assert_eq!(parse_header_block(&block), list);
    }

    #[test]
    fn reply_subjects(said in subject(), bytes in hostile(subject().prop_map(|said| reply(said).into_bytes()))) {
        let [delivered, stream_seq, consumer_seq, published_ns, pending] = said.1;
        let facts = DeliveryFacts { delivered, stream_seq, consumer_seq, published_ns, pending };
        prop_assert_eq!(DeliveryFacts::parse(&reply(said)), Some(facts));
        let text = String::from_utf8_lossy(&bytes);
        // A list of the tokens, which doubles.
        if let Some(facts) = measured(text.len(), 64, || DeliveryFacts::parse(&text)) {
            prop_assert!(text.contains(&facts.stream_seq.to_string()) || text.contains('+') || text.contains(".0"));
        }
    }
}
