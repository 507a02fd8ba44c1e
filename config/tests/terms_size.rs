//! Goal: what would not fit in a record of the ledger is refused before anything starts. Method: configurations at and above the
//! bounds.

mod common;

use common::{Case, with};
use fanin_config::{Code, Origin, Problem};

fn line(problem: &Problem) -> usize {
    match &problem.origin {
        Origin::File { line, .. } => *line,
        Origin::Env { .. } | Origin::Flag { .. } | Origin::Default => panic!("not in a file: {problem}"),
    }
}

/// Goal: what would not fit in a TERMS record of the ledger is refused with place, key, value and cure, and what fits is not.
/// Method: subjects at and above the number one source may have, and names and subjects at and above the size of the record.
#[test]
fn what_the_terms_cannot_hold() {
    use fanin_config::limits::{SOURCE_SUBJECTS_MAX, TERMS_BYTES_MAX};
    let with_subjects = |count: usize| {
        let subjects: String = (0..count).map(|n| format!("        - s.{n}\n")).collect();
        with(
            "    sources: [{ stream: ORDERS }]\n",
            &format!("    sources:\n    - stream: ORDERS\n      subjects:\n{subjects}"),
        )
    };
    Case::new(&with_subjects(SOURCE_SUBJECTS_MAX))
        .load()
        .expect("at the limit");
    let error = Case::new(&with_subjects(SOURCE_SUBJECTS_MAX + 2))
        .load()
        .expect_err("above the limit");
    assert_eq!(error.problems.len(), 1, "{error}");
    let problem = &error.problems[0];
    assert_eq!((problem.code, line(problem)), (Code::BadValue, 73), "{error}");
    assert_eq!(problem.key.to_string(), "mappings.orders.sources[0].subjects[64]");
    assert_eq!(problem.value.as_deref(), Some("s.64"));
    assert!(problem.cure.contains("wildcards"), "{error}");

    // Thirty sources of ten subjects, each as long as it takes.
    let with_length = |length: usize| {
        let sources: String = (0..30)
            .map(|source| {
                let subjects: Vec<_> = (0..10)
                    .map(|n| format!("s{source}x{n}.{}", "y".repeat(length)))
                    .collect();
                format!(
                    "    - {{ stream: S{source}, subjects: [{}] }}\n",
                    subjects.join(", ")
                )
            })
            .collect();
        with(
            "    sources: [{ stream: ORDERS }]\n",
            &format!("    sources:\n{sources}"),
        )
    };
    let fits = TERMS_BYTES_MAX / 300 - 20;
    Case::new(&with_length(fits)).load().expect("below the limit");
    let error = Case::new(&with_length(fits + 20))
        .load()
        .expect_err("above the limit");
    assert_eq!(error.problems.len(), 1, "{error}");
    let problem = &error.problems[0];
    assert_eq!((problem.code, line(problem)), (Code::Relation, 6), "{error}");
    assert_eq!(problem.key.to_string(), "mappings.orders.sources");
    assert!(
        problem
            .value
            .as_deref()
            .is_some_and(|value| value.ends_with("bytes")),
        "{error}"
    );
    assert!(problem.cure.contains("split the mapping"), "{error}");
}
