//! Goal: a problem shows the value that is wrong as it was written, and no secret. Method: a valid configuration with one line
//! changed or added.

mod common;

use common::{Case, VALID, below, with};
use fanin_config::REDACTED;

#[test]
fn the_value_is_the_one_written() {
    let below_source = |lines: &str| below("    sources: [{ stream: ORDERS }]", lines);
    let sources = with(
        "{ stream: ORDERS }",
        "{ stream: A }, { stream: A, subjects: [x] }",
    );
    for (text, value) in [
        (with("n1", "a-${NOBODY}"), "a-${NOBODY}"),
        (below("node: n1", "node: n2"), "n2"),
        (format!("{VALID}  orders: {{ nodes: 1 }}\n"), "a section of 1"),
        (below_source("    batch: { bytes: 65MiB }"), "65MiB"),
        (below("node: n1", "memory: { staged: 512KiB }"), "512KiB"),
        (
            below("node: n1", "store: { quota: 1GiB, reserve: 513MiB }"),
            "513MiB",
        ),
        (sources, "{ stream: A, subjects: [x] }"),
        (
            below("  servers: [nats://h:4222]", "  tls: { cert: a.pem }"),
            "a.pem",
        ),
        (
            below(
                "  servers: [nats://h:4222]",
                "  credentials: { token: \"a-${NOBODY}\" }",
            ),
            REDACTED,
        ),
    ] {
        let error = Case::new(&text).load().expect_err(&text);
        assert_eq!(error.problems[0].value.as_deref(), Some(value), "{text}\n{error}");
    }
    // A secret whose key is misspelt is not shown either.
    let text = below(
        "  servers: [nats://h:4222]",
        "  credentials:\n    tken: \"hidden-${NOBODY}\"\n    tken: \"hidden\"",
    );
    let error = Case::new(&text).load().expect_err("three mistakes");
    assert!(
        error.problems.len() >= 2 && !error.to_string().contains("hidden"),
        "{error}"
    );
}
