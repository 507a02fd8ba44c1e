//! Goal: every mistake is reported once, with its code, place and key, and all of them at once.
//! Method: a valid configuration with one line changed or added, in a table.

mod common;

use common::{Case, VALID, below, with};
use fanin_config::{Code, Origin, Problem, Severity, limits};

fn line(problem: &Problem) -> usize {
    match &problem.origin {
        Origin::File { line, .. } => *line,
        Origin::Env { .. } | Origin::Flag { .. } | Origin::Default => panic!("not in a file: {problem}"),
    }
}

#[test]
fn the_base_is_valid() {
    let loaded = Case::new(VALID).load().expect("valid");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn one_mistake_each() {
    const SOURCE: &str = "    sources: [{ stream: ORDERS }]";
    const APP: &str = "      billing: {}";
    let app = |lines: &str| with(APP, &format!("      billing:\n{lines}"));
    let mapping = |lines: &str| below(SOURCE, lines);
    let hub = |lines: &str| below("  servers: [nats://h:4222]", lines);
    let top = |lines: &str| below("node: n1", lines);
    let source = |text: &str| with("{ stream: ORDERS }", text);
    let servers: Vec<String> = (0..=limits::SERVERS_MAX).map(|n| format!("h{n}")).collect();
    let table: Vec<(String, Code, usize, &str)> = vec![
        // Syntax.
        (top("a: [1"), Code::Syntax, 3, ""),
        (top("\tx: 1"), Code::Syntax, 2, ""),
        (format!("{VALID}---\nnode: n2\n"), Code::Syntax, 9, ""),
        ("- a\n- b\n".to_owned(), Code::BadValue, 1, ""),
        // Unknown keys.
        (top("nod: n2"), Code::UnknownKey, 2, "nod"),
        (hub("  durabilty: lazy"), Code::UnknownKey, 4, "hub.durabilty"),
        (with("servers:", "server:"), Code::UnknownKey, 3, "hub.server"),
        (
            mapping("    order_by: { subject_token: 2 }"),
            Code::UnknownKey,
            7,
            "mappings.orders.order_by",
        ),
        (
            app("        order_by: { subject_token: 2 }"),
            Code::UnknownKey,
            9,
            "mappings.orders.applications.billing.order_by",
        ),
        (
            source("{ strean: ORDERS }"),
            Code::UnknownKey,
            6,
            "mappings.orders.sources[0].strean",
        ),
        (
            app("        backoff:\n          factors: 2"),
            Code::UnknownKey,
            10,
            "mappings.orders.applications.billing.backoff.factors",
        ),
        // Types and values.
        (
            mapping("    ack_wait: 30"),
            Code::BadValue,
            7,
            "mappings.orders.ack_wait",
        ),
        (
            mapping("    ack_wait: 1ms"),
            Code::BadValue,
            7,
            "mappings.orders.ack_wait",
        ),
        (
            mapping("    nodes: three"),
            Code::BadValue,
            7,
            "mappings.orders.nodes",
        ),
        (
            mapping("    nodes: 0"),
            Code::BadValue,
            7,
            "mappings.orders.nodes",
        ),
        (
            mapping("    nodes: -1"),
            Code::BadValue,
            7,
            "mappings.orders.nodes",
        ),
        (mapping("    nodes:"), Code::BadValue, 7, "mappings.orders.nodes"),
        (
            mapping("    intake: sometimes"),
            Code::BadValue,
            7,
            "mappings.orders.intake",
        ),
        (
            mapping("    topic: a/b"),
            Code::BadValue,
            7,
            "mappings.orders.topic",
        ),
        (
            mapping("    batch: { messages: 1001 }\n    in_flight: 5000"),
            Code::BadValue,
            7,
            "mappings.orders.batch.messages",
        ),
        (
            mapping("    batch: 5"),
            Code::BadValue,
            7,
            "mappings.orders.batch",
        ),
        (with("node: n1", "node: a b"), Code::BadValue, 1, "node"),
        (with("node: n1", "node: [a]"), Code::BadValue, 1, "node"),
        (
            with("  orders:", "  Orders:"),
            Code::BadValue,
            5,
            "mappings.Orders",
        ),
        (
            with("billing", "bill.ing"),
            Code::BadValue,
            8,
            "mappings.orders.applications.\"bill.ing\"",
        ),
        (
            with("billing: {}", "billing: yes"),
            Code::BadValue,
            8,
            "mappings.orders.applications.billing",
        ),
        (
            source("{ stream: \"A.B\" }"),
            Code::BadValue,
            6,
            "mappings.orders.sources[0].stream",
        ),
        (
            source("{ stream: A, subjects: [\"a..b\"] }"),
            Code::BadValue,
            6,
            "mappings.orders.sources[0].subjects[0]",
        ),
        (
            source("{ stream: A, subjects: a }"),
            Code::BadValue,
            6,
            "mappings.orders.sources[0].subjects",
        ),
        (
            source("{ stream: A, generation: x }"),
            Code::BadValue,
            6,
            "mappings.orders.sources[0].generation",
        ),
        (source("ORDERS"), Code::BadValue, 6, "mappings.orders.sources[0]"),
        (
            with("nats://h:4222", "http://h:4222"),
            Code::BadValue,
            3,
            "hub.servers[0]",
        ),
        (
            with("nats://h:4222", "nats://h:0"),
            Code::BadValue,
            3,
            "hub.servers[0]",
        ),
        (
            with("[nats://h:4222]", &format!("[{}]", servers.join(", "))),
            Code::BadValue,
            3,
            "hub.servers",
        ),
        (hub("  durability: always"), Code::BadValue, 4, "hub.durability"),
        (
            hub("  ledger_prefix: a.b"),
            Code::BadValue,
            4,
            "hub.ledger_prefix",
        ),
        (hub("  inbox_prefix: a.>"), Code::BadValue, 4, "hub.inbox_prefix"),
        (
            hub("  tls: { required: maybe }"),
            Code::BadValue,
            4,
            "hub.tls.required",
        ),
        (top("listen: tcp://0.0.0.0:1"), Code::BadValue, 2, "listen"),
        (
            top(&format!("listen: unix:///{}", "x".repeat(107))),
            Code::BadValue,
            2,
            "listen",
        ),
        (top("admin: localhost"), Code::BadValue, 2, "admin"),
        (top("socket_mode: rw"), Code::BadValue, 2, "socket_mode"),
        (
            top("store: { quota: 8GB!, segment: 1MiB }"),
            Code::BadValue,
            2,
            "store.quota",
        ),
        (top("memory: { tail: 1 }"), Code::BadValue, 2, "memory.tail"),
        (top("log: { format: xml }"), Code::BadValue, 2, "log.format"),
        (top("log: { level: loud }"), Code::BadValue, 2, "log.level"),
        (top("shutdown_grace: 2d"), Code::BadValue, 2, "shutdown_grace"),
        (
            app("        backoff: { jitter: 20 }"),
            Code::BadValue,
            9,
            "mappings.orders.applications.billing.backoff.jitter",
        ),
        (
            app("        backoff: { factor: 0.5 }"),
            Code::BadValue,
            9,
            "mappings.orders.applications.billing.backoff.factor",
        ),
        (
            app("        max_attempts: 0"),
            Code::BadValue,
            9,
            "mappings.orders.applications.billing.max_attempts",
        ),
        (
            app("        filter: { subjects: [\"a.>.b\"] }"),
            Code::BadValue,
            9,
            "mappings.orders.applications.billing.filter.subjects[0]",
        ),
        // Missing keys, shown at their section.
        (
            with("node: n1", "admin: 127.0.0.1:0"),
            Code::MissingKey,
            1,
            "node",
        ),
        (
            with("  servers: [nats://h:4222]", "  name: x"),
            Code::MissingKey,
            2,
            "hub.servers",
        ),
        (
            with("servers: [nats://h:4222]", "servers: []"),
            Code::MissingKey,
            3,
            "hub.servers",
        ),
        (
            source("{ generation: 1 }"),
            Code::MissingKey,
            6,
            "mappings.orders.sources[0].stream",
        ),
        (
            with(SOURCE, "    nodes: 3"),
            Code::MissingKey,
            5,
            "mappings.orders.sources",
        ),
        (with(APP, ""), Code::MissingKey, 7, "mappings.orders.applications"),
        (
            app("        filter: {}"),
            Code::MissingKey,
            9,
            "mappings.orders.applications.billing.filter.subjects",
        ),
        (
            "node: n\nhub: { servers: [h] }\nmappings: {}\n".to_owned(),
            Code::MissingKey,
            3,
            "mappings",
        ),
        // Twice.
        (top("node: n2"), Code::DuplicateKey, 2, "node"),
        (
            format!("{VALID}  orders: {{}}\n"),
            Code::DuplicateKey,
            9,
            "mappings.orders",
        ),
        // Variables.
        (with("n1", "${NOBODY}"), Code::UndefinedVariable, 1, "node"),
        (
            mapping("    ack_wait: ${NOBODY}"),
            Code::UndefinedVariable,
            7,
            "mappings.orders.ack_wait",
        ),
        (
            with("nats://h:4222", "\"${NOBODY}\""),
            Code::UndefinedVariable,
            3,
            "hub.servers[0]",
        ),
        (with("n1", "${open"), Code::UndefinedVariable, 1, "node"),
        // Relations.
        (
            mapping("    in_flight: 100\n    batch: { messages: 200 }"),
            Code::Relation,
            8,
            "mappings.orders.batch.messages",
        ),
        (
            mapping("    batch: { bytes: 65MiB }"),
            Code::Relation,
            7,
            "mappings.orders.batch.bytes",
        ),
        (
            top("memory: { staged: 96KiB }").replace("{ stream: ORDERS }", "{ stream: A }, { stream: B }")
                + "    batch: { bytes: 10KiB }\n",
            Code::Relation,
            2,
            "memory.staged",
        ),
        (
            mapping("    batch: { linger: 1m }"),
            Code::Relation,
            7,
            "mappings.orders.batch.linger",
        ),
        (
            mapping("    required_delivery: exactly_once"),
            Code::Relation,
            7,
            "mappings.orders.required_delivery",
        ),
        (
            app("        in_flight: 10\n        instance_in_flight: 11"),
            Code::Relation,
            10,
            "mappings.orders.applications.billing.instance_in_flight",
        ),
        (
            app("        backoff: { initial: 2m, max: 1m }"),
            Code::Relation,
            9,
            "mappings.orders.applications.billing.backoff.initial",
        ),
        (
            top("store: { quota: 1GiB, segment: 512MiB }"),
            Code::Relation,
            2,
            "store.segment",
        ),
        (
            top("store: { quota: 1GiB, reserve: 513MiB }"),
            Code::Relation,
            2,
            "store.reserve",
        ),
        (
            top("memory: { staged: 512KiB }"),
            Code::Relation,
            2,
            "memory.staged",
        ),
        (
            source("{ stream: A, subjects: [\"a.>\", a.b] }"),
            Code::Relation,
            6,
            "mappings.orders.sources[0].subjects[1]",
        ),
        (
            source("{ stream: A }, { stream: A, subjects: [x] }"),
            Code::Relation,
            6,
            "mappings.orders.sources[1]",
        ),
        (
            format!(
                "{VALID}  second:\n    topic: orders\n    sources: [{{ stream: B }}]\n    applications: {{ a: {{}} }}\n"
            ),
            Code::Relation,
            10,
            "mappings.second.topic",
        ),
        (
            hub("  credentials: { creds_file: a, nkey_file: b }"),
            Code::Relation,
            4,
            "hub.credentials",
        ),
        (
            hub("  credentials: { user: a }"),
            Code::Relation,
            4,
            "hub.credentials.user",
        ),
        (
            hub("  credentials: { password_file: a }"),
            Code::Relation,
            4,
            "hub.credentials.password_file",
        ),
        (hub("  tls: { cert: a }"), Code::Relation, 4, "hub.tls.cert"),
        (
            with("[nats://h:4222]", "[a, b, a]"),
            Code::Relation,
            3,
            "hub.servers[2]",
        ),
        (
            with("billing: {}", "billing: { users: [] }"),
            Code::MissingKey,
            8,
            "mappings.orders.applications.billing.users",
        ),
        (
            with("billing: {}", "billing: { users: [root, \"a:b\"] }"),
            Code::BadValue,
            8,
            "mappings.orders.applications.billing.users[1]",
        ),
        (
            with("    sources:", "    ledger: { max_bytes: 1MiB }\n    sources:"),
            Code::BadValue,
            6,
            "mappings.orders.ledger.max_bytes",
        ),
        // Secrets.
        (
            hub("  credentials: { token: abc }"),
            Code::PlainSecret,
            4,
            "hub.credentials.token",
        ),
        (
            hub("  credentials: { token: \"${NOBODY:abc}\" }"),
            Code::PlainSecret,
            4,
            "hub.credentials.token",
        ),
        (
            with("nats://h", "nats://u:abc@h"),
            Code::PlainSecret,
            3,
            "hub.servers[0]",
        ),
    ];
    assert!(table.len() >= 30);
    for (text, code, expected_line, key) in table {
        let error = Case::new(&text).load().expect_err(&text);
        assert_eq!(error.problems.len(), 1, "one problem:\n{text}\n{error}");
        let problem = &error.problems[0];
        let got = (problem.code, line(problem), problem.key.to_string());
        assert_eq!(got, (code, expected_line, key.to_owned()), "{text}\n{error}");
        assert!(!problem.why.is_empty() && !problem.cure.is_empty(), "{error}");
        // A key that is absent has no value, and that of an unknown key may be a secret.
        let has_value = match problem.code {
            Code::Syntax | Code::MissingKey | Code::UnknownKey | Code::FileUnreadable => false,
            Code::BadValue
            | Code::DuplicateKey
            | Code::UndefinedVariable
            | Code::Relation
            | Code::SharedSource
            | Code::PlainSecret
            | Code::NeverMatches
            | Code::UnknownUser => !key.is_empty(),
        };
        assert_eq!(problem.value.is_some(), has_value, "{text}\n{error}");
    }
}

#[test]
fn five_mistakes_give_five() {
    let text = "\
node: n 1
hub:
  servers: [nats://h:4222]
  durabilty: lazy
mappings:
  orders:
    sources: [{ stream: ORDERS }]
    ack_wait: 30
    applications:
      billing:
        in_flight: 1
        instance_in_flight: 2
        filter: { subjects: [\"a..b\"] }
";
    let error = Case::new(text).load().expect_err("five mistakes");
    let got: Vec<_> = error
        .problems
        .iter()
        .map(|problem| (problem.code, line(problem)))
        .collect();
    let expected = [
        (Code::BadValue, 1),
        (Code::UnknownKey, 4),
        (Code::BadValue, 8),
        (Code::Relation, 12),
        (Code::BadValue, 13),
    ];
    assert_eq!(got, expected, "{error}");
    let shown = error.to_string();
    for part in [
        "FAN-1003",
        "fanin.yaml:4",
        "hub.durabilty",
        "did you mean `durability`?",
        "value: 30",
        "5 errors",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
}

#[test]
fn a_duplicate_names_both_lines() {
    let error = Case::new(&format!("{VALID}  orders: {{}}\n"))
        .load()
        .expect_err("twice");
    assert!(error.problems[0].why.contains("fanin.yaml:5"), "{error}");
    assert_eq!(line(&error.problems[0]), 9);
}

#[test]
fn files_that_cannot_be_read() {
    let mut case = Case::new(VALID);
    case.request.file = case.path("absent.yaml");
    let error = case.load().expect_err("absent");
    assert_eq!(
        error
            .problems
            .iter()
            .map(|problem| problem.code)
            .collect::<Vec<_>>(),
        [Code::FileUnreadable]
    );
    assert!(error.to_string().contains("absent.yaml"), "{error}");

    let case = Case::new(VALID);
    std::fs::write(&case.request.file, [0xff, 0xfe]).expect("written");
    assert_eq!(
        case.load().expect_err("not text").problems[0].code,
        Code::FileUnreadable
    );
}

#[test]
fn warnings_do_not_stop() {
    let second = "  second:\n    sources: [{ stream: ORDERS, subjects: [\"orders.*\"] }]\n    applications:\n      a: { filter: { subjects: [x.y] } }\n";
    let loaded = Case::new(&format!("{VALID}{second}")).load().expect("usable");
    let got: Vec<_> = loaded
        .warnings
        .iter()
        .map(|w| (w.severity, w.code, line(w), w.key.to_string()))
        .collect();
    let key = |text: &str| format!("mappings.second.{text}");
    assert_eq!(
        got,
        [
            (Severity::Warning, Code::SharedSource, 10, key("sources[0]")),
            (
                Severity::Warning,
                Code::NeverMatches,
                12,
                key("applications.a.filter.subjects[0]")
            ),
        ]
    );
}

#[test]
fn codes_are_distinct_and_in_order() {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.info().code).collect();
    let expected: Vec<_> = (1001..1001 + codes.len())
        .map(|number| format!("FAN-{number}"))
        .collect();
    assert_eq!(codes, expected);
}
