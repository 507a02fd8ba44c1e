//! The YAML configuration: whoever writes it is no enemy, but typing errors are as good as one.

use fanin_fuzz::judges::problems;
use fanin_fuzz::{config, hostile};
use proptest::prelude::*;

const SAMPLES: [&str; 4] = [
    include_str!("../../../config/samples/minimal.yaml"),
    include_str!("../../../config/samples/tour.yaml"),
    include_str!("../../../config/samples/two-mappings.yaml"),
    include_str!("../../../config/samples/production.yaml"),
];

/// Pieces that mean something to YAML or to a key.
const PIECES: [&str; 24] = [
    "&a",
    "*a",
    "<<: *a",
    "!!binary x",
    "{",
    "}",
    "[",
    "]",
    "? ",
    "- ",
    ": ",
    "---\n",
    "...\n",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "${X}",
    "${X:-",
    "\t",
    "1e999",
    "99999999999999999999999d",
    "-1",
    "~",
];

fn with_pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = (
        any::<prop::sample::Index>(),
        prop::sample::select(PIECES.to_vec()),
        any::<bool>(),
    );
    (
        prop::sample::select(SAMPLES.to_vec()),
        prop::collection::vec(piece, 0..4),
    )
        .prop_map(|(sample, pieces)| {
            let mut text = sample.as_bytes().to_vec();
            for (at, piece, line) in pieces {
                let at = at.index(text.len());
                let at = if line {
                    text[..at]
                        .iter()
                        .rposition(|byte| *byte == b'\n')
                        .map_or(0, |n| n + 1)
                } else {
                    at
                };
                text.splice(at..at, piece.bytes());
            }
            text
        })
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn configurations_with_faults(text in hostile(with_pieces())) {
        problems(&text);
    }
}

/// Goal: texts that are small and mean much are refused with a place. Method: the known bombs.
#[test]
fn bombs() {
    let laughs: String = (0..40)
        .map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(",")))
        .skip(1)
        .collect();
    let bombs = [
        format!("a0: &a0 [x]\n{laughs}"),
        "[".repeat(100_000),
        "{a: ".repeat(50_000),
        format!("{}x", "- ".repeat(50_000)),
        format!("{}x", "? ".repeat(50_000)),
        format!("a: {}", "!".repeat(100_000)),
        format!("a: \"{}", "\\x".repeat(10_000)),
        "a: 1\n".repeat(100_000),
        "&a [*a]".to_owned(),
    ];
    for bomb in bombs {
        let found = problems(bomb.as_bytes());
        assert!(!found.is_empty(), "accepted: {bomb:.80}");
    }
}
