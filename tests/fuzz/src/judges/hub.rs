//! What comes from the hub besides records.

use fanin_hub::{DeliveryFacts, UNREADABLE_HEADERS, limits::UNREADABLE_BYTES_MAX, parse_header_block};

use crate::measured;

/// Nothing of a block gets lost without a trace, and the list is in the one order that every reader gives it.
///
/// # Panics
/// When that does not hold.
pub fn header_block(block: &[u8]) {
    // Two texts for a line of one byte, and the raw lines in base64.
    let list = measured(block.len(), 128, || parse_header_block(block));
    assert!(list.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let raw = list
        .iter()
        .filter(|(name, _)| name == UNREADABLE_HEADERS)
        .map(|(_, value)| value.len())
        .max();
    assert!(raw.unwrap_or_default() <= UNREADABLE_BYTES_MAX.div_ceil(3) * 4 + block.len());
    for (name, value) in &list {
        assert!(!name.contains([':', '\r', '\n']), "{name:?}");
        assert!(!value.contains(['\r', '\n']), "{value:?}");
    }
    assert_eq!(parse_header_block(block), list);
}

/// What a reply subject tells stands in it.
///
/// # Panics
/// When it does not.
pub fn reply_subject(text: &str) {
    // A list of the tokens, which doubles.
    if let Some(facts) = measured(text.len(), 64, || DeliveryFacts::parse(text)) {
        assert!(
            text.contains(&facts.stream_seq.to_string()) || text.contains('+') || text.contains(".0"),
            "{facts:?}"
        );
    }
}
