//! What the bridge logs and counts.

use std::fs;
use std::path::{Path, PathBuf};

/// Every file of product code below these directories.
fn sources(directories: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = directories.iter().map(|directory| root.join(directory)).collect();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The text from behind an opening bracket to the one that closes it; brackets in string literals do not count.
fn arguments(text: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    panic!("no end of a call in {text:.80}")
}

/// Whether a call has the field `code`, with a value or by a variable of that name.
fn has_code(arguments: &str) -> bool {
    arguments.split(',').any(|field| {
        let name = field.split('=').next().unwrap_or_default();
        name.trim() == "code"
    })
}

/// The calls that log at WARN or ERROR in a file, with their lines.
fn loud_calls(text: &str) -> Vec<(usize, &str)> {
    // What tests log concerns nobody.
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut calls = Vec::new();
    for name in ["warn!(", "error!("] {
        for (at, _) in text.match_indices(name) {
            // Part of a longer name.
            let before = text[..at].chars().next_back();
            if before.is_none_or(|before| !(before.is_alphanumeric() || before == '_')) {
                let line = 1 + text[..at].matches('\n').count();
                calls.push((line, arguments(&text[at + name.len()..])));
            }
        }
    }
    calls
}

/// Goal: every WARN and ERROR of the bridge carries a code that operators can look up, as the documentation promises. Method: all
/// calls in the sources; that the codes are in the table is another test.
#[test]
fn every_warning_and_error_has_a_code() {
    let (mut found, mut without) = (0, Vec::new());
    for file in sources(&["src", "hub/src", "store/src", "core/src"]) {
        let text = fs::read_to_string(&file).unwrap();
        for (line, arguments) in loud_calls(&text) {
            found += 1;
            if !has_code(arguments) {
                without.push(format!("{}:{line}: {}", file.display(), arguments.trim()));
            }
        }
    }
    assert!(found > 40, "only {found} calls were found");
    assert!(without.is_empty(), "without a code:\n{}", without.join("\n"));
}

/// Goal: the test above can fail. Method: calls with and without a code.
#[test]
fn a_call_without_a_code_is_noticed() {
    let text = "fn f() {\n  tracing::warn!(\n    code = \"FAN-1\", \"a (b\");\n  error!(%error, \"code = (\");\n  \
                tracing::error!(code, \"x\");\n  my_error!(1);\n}\n#[cfg(test)]\nmod tests { fn g() { warn!(\"x\"); } }";
    let judged: Vec<(usize, bool)> = loud_calls(text)
        .iter()
        .map(|(line, arguments)| (*line, has_code(arguments)))
        .collect();
    assert_eq!(judged, [(2, true), (4, false), (5, true)]);
}

/// Goal: the names of metrics stand in the tables, where they are described, and nowhere else. Method: all calls in the sources.
#[test]
fn metrics_are_named_by_constants() {
    let mut literal = Vec::new();
    for file in sources(&["src", "hub/src", "store/src"]) {
        let text = fs::read_to_string(&file).unwrap();
        let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for call in ["counter!(\"", "gauge!(\"", "histogram!(\""] {
            if product.contains(call) {
                literal.push(format!("{}: {call}", file.display()));
            }
        }
    }
    assert!(literal.is_empty(), "{literal:?}");
}
