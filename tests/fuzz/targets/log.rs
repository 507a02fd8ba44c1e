//! The local log's files, changed by whoever changes files.

use fanin_fuzz::config;
use fanin_fuzz::judges::log::{Fault, judge, written};
use proptest::prelude::*;

fn fault() -> impl Strategy<Value = Fault> {
    let at = any::<u64>;
    let len = || prop_oneof![Just(u32::MAX), Just(u32::MAX / 2), Just(1 << 20), 0_u32..64];
    let bytes = || prop::collection::vec(any::<u8>(), 1..80);
    prop_oneof![
        3 => (at(), at(), 1_u8..).prop_map(|(file, at, bits)| Fault::Flip(file, at, bits)),
        1 => (at(), at()).prop_map(|(file, at)| Fault::Cut(file, at)),
        1 => (at(), at(), 1_usize..3_000).prop_map(|(file, at, len)| Fault::Zeros(file, at, len)),
        2 => (at(), at(), 1_usize..400, at(), at()).prop_map(|(a, b, len, c, d)| Fault::Splice(a, b, len, c, d)),
        1 => (at(), at()).prop_map(|(from, to)| Fault::Copy(from, to)),
        1 => at().prop_map(Fault::Remove),
        2 => (at(), at(), len(), len(), 1_u8..8).prop_map(|(file, at, head, body, kind)| Fault::Forge(file, at, head, body, kind)),
        1 => (at(), at(), bytes()).prop_map(|(file, at, bytes)| Fault::Over(file, at, bytes)),
    ]
}

/// One run over the cases, on the files of one log.
#[test]
fn files_with_faults() {
    let whole = written();
    assert!(whole.len() > 3, "{:?}", whole.keys());
    judge(&whole);
    proptest!(config(16), |(faults in prop::collection::vec(fault(), 1..5))| {
        let mut files = whole.clone();
        for fault in &faults {
            fault.put(&mut files);
        }
        judge(&files);
    });
}
