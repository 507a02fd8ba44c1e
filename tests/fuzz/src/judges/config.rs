//! The YAML configuration.

use std::sync::Once;

use fanin_config::{LoadRequest, Origin, Problem, load};

use crate::measured;

/// Bytes taken for a byte of YAML: a node of one byte becomes a place in a tree, in a dictionary and in a problem with its texts.
const FACTOR: u64 = 8 * 1024;

/// Loads a text as the only file. What it can be used for is not asked; problems must say where they are.
///
/// # Panics
/// When loading panics or takes too much, or a problem has no place, reason or cure.
pub fn problems(text: &[u8]) -> Vec<Problem> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("fanin.yaml");
    std::fs::write(&file, text).unwrap();
    let request = LoadRequest {
        file: file.clone(),
        ..LoadRequest::default()
    };
    // What is made once for the whole process is not the text's.
    static FIRST: Once = Once::new();
    FIRST.call_once(|| drop(load(&request)));
    let problems = match measured(text.len(), FACTOR, || load(&request)) {
        Ok(loaded) => loaded.warnings,
        Err(error) => {
            assert!(!error.problems.is_empty());
            error.problems
        }
    };
    // A carriage return alone ends a line too; and what is missing at the end is missed behind it.
    let lines = text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 2;
    for problem in &problems {
        match &problem.origin {
            Origin::File { path, line } => assert!(*path == file && *line <= lines, "{problem}"),
            Origin::Env { .. } | Origin::Flag { .. } | Origin::Default => panic!("no place: {problem}"),
        }
        assert!(!problem.why.is_empty() && !problem.cure.is_empty(), "{problem}");
    }
    problems
}
