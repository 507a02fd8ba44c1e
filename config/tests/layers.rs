//! Goal: the stronger layer wins, key by key, and every value knows who set it; secrets are never shown.
//! Method: the same key set in several layers, and the result with its origins.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{Case, VALID};
use fanin_config::{Code, Config, Durability, FileMode, Intake, KeyPath, Listen, Origin, Secret};

fn origin_of(case: &Case, key: &[&str]) -> Origin {
    case.load()
        .unwrap_or_else(|error| panic!("{error}"))
        .origin(&KeyPath::of(key))
}

#[test]
fn defaults() {
    let config = Case::new(VALID).load().expect("valid").config;
    let orders = &config.mappings["orders"];
    let billing = &orders.applications["billing"];
    assert_eq!(orders.topic, "orders");
    assert_eq!(orders.ack_wait.0, Duration::from_secs(30));
    assert_eq!(orders.max_ack_pending(), 2 * 3 * 1024);
    assert_eq!(
        (orders.batch.messages, orders.batch.bytes.0, orders.intake),
        (256, 1 << 20, Intake::Connected)
    );
    assert_eq!(
        (
            billing.max_attempts,
            billing.in_flight,
            billing.instance_in_flight
        ),
        (10, 4096, 1024)
    );
    assert_eq!(
        config.listen,
        Listen::Unix(PathBuf::from("/run/fanin/fanin.sock"))
    );
    assert_eq!(
        (config.socket_mode, config.admin, config.hub.durability),
        (FileMode(0o660), None, Durability::Lazy)
    );
    assert_eq!(
        (config.store.quota.0, config.store.reserve.0),
        (8 << 30, 256 << 20)
    );
}

#[test]
fn small_bounds_take_their_dependent_defaults_along() {
    let text = VALID.replace(
        "billing: {}",
        "billing: { in_flight: 10, backoff: { initial: 2m } }",
    ) + "    in_flight: 20\nstore: { quota: 1MiB, segment: 256KiB }\n";
    let config = Case::new(&text).load().expect("valid").config;
    let orders = &config.mappings["orders"];
    let billing = &orders.applications["billing"];
    assert_eq!((orders.batch.messages, billing.instance_in_flight), (20, 10));
    assert_eq!(
        (billing.backoff.max.0, config.store.reserve.0),
        (Duration::from_secs(120), 32 << 10)
    );
}

#[test]
fn every_layer_beats_the_one_before() {
    let nodes = |case: &Case| case.load().expect("valid").config.mappings["orders"].nodes;
    let key = ["mappings", "orders", "nodes"];
    let case = Case::new(VALID);
    assert_eq!((nodes(&case), origin_of(&case, &key)), (3, Origin::Default));

    let case = Case::new(&VALID.replace("    applications:", "    nodes: 4\n    applications:"));
    assert_eq!(
        (nodes(&case), origin_of(&case, &key)),
        (
            4,
            Origin::File {
                path: case.request.file.clone(),
                line: 7
            }
        )
    );

    let mut case = case
        .drop_in("10-a.yaml", "mappings: { orders: { nodes: 5 } }\n")
        .drop_in("20-b.yaml", "\nmappings: { orders: { nodes: 6 } }\n")
        .drop_in("30-ignored.yml", "nonsense: 1\n")
        .drop_in(".40-hidden.yaml", "nonsense: 1\n");
    let drop_in = case.path("conf.d").join("20-b.yaml");
    assert_eq!(
        (nodes(&case), origin_of(&case, &key)),
        (
            6,
            Origin::File {
                path: drop_in,
                line: 2
            }
        )
    );
    // The drop-ins changed one key of the mapping and left the others.
    assert_eq!(
        case.load().expect("valid").config.mappings["orders"].sources[0].stream,
        "ORDERS"
    );
    case.request.conf_d = false;
    assert_eq!(nodes(&case), 4);
    case.request.conf_d = true;

    let name = "FANIN__MAPPINGS__ORDERS__NODES";
    let case = case.env(&[(name, "7")]);
    assert_eq!(
        (nodes(&case), origin_of(&case, &key)),
        (
            7,
            Origin::Env {
                name: name.to_owned()
            }
        )
    );

    let case = case.flags(&[("mappings.orders.nodes", "8"), ("mappings.orders.nodes", "9")]);
    let flag = Origin::Flag {
        key: "mappings.orders.nodes".to_owned(),
    };
    assert_eq!((nodes(&case), origin_of(&case, &key)), (9, flag));
}

#[test]
fn a_list_replaces_a_list() {
    let case = Case::new(VALID).drop_in("a.yaml", "hub: { servers: [b:1, c:1] }\n");
    assert_eq!(case.load().expect("valid").config.hub.servers, ["b:1", "c:1"]);
}

#[test]
fn variables_address_every_kind_of_key() {
    let text = VALID.replace("  orders:", "  two-words:");
    let config = Case::new(&text)
        .env(&[
            ("FANIN__NODE", "42"),
            ("FANIN__HUB__SERVERS", "nats://a:1, nats://b:2"),
            ("FANIN__HUB__DURABILITY", "sync_always"),
            ("FANIN__MAPPINGS__TWO_WORDS__ACK_WAIT", "1m"),
            (
                "FANIN__MAPPINGS__TWO_WORDS__SOURCES",
                "[{stream: S, subjects: [\"s.>\"]}]",
            ),
            ("FANIN__MAPPINGS__TWO_WORDS__APPLICATIONS__MY_APP", ""),
            ("FANIN_SOCKET", "/elsewhere"),
            ("OTHER", "x"),
        ])
        .load()
        .expect("valid")
        .config;
    let mapping = &config.mappings["two-words"];
    assert_eq!(config.node, "42");
    assert_eq!(config.hub.servers, ["nats://a:1", "nats://b:2"]);
    assert_eq!(config.hub.durability, Durability::SyncAlways);
    assert_eq!(mapping.ack_wait.0, Duration::from_secs(60));
    assert_eq!(
        (
            mapping.sources[0].stream.as_str(),
            mapping.sources[0].subjects.as_slice()
        ),
        ("S", &["s.>".to_owned()][..])
    );
    assert_eq!(
        mapping.applications.keys().collect::<Vec<_>>(),
        ["billing", "my-app"]
    );
}

#[test]
fn mistakes_in_variables_and_flags_name_them() {
    for (variable, value, code, key) in [
        ("FANIN__HUBB__NAME", "x", Code::UnknownKey, "hubb"),
        ("FANIN__HUB__NAM", "x", Code::UnknownKey, "hub.nam"),
        ("FANIN__HUB__NAME__DEEP", "x", Code::BadValue, "hub.name"),
        (
            "FANIN__MAPPINGS__ORDERS__NODES",
            "x",
            Code::BadValue,
            "mappings.orders.nodes",
        ),
        ("FANIN__HUB", "[", Code::Syntax, "hub"),
        ("FANIN__SHUTDOWN_GRACE", "10", Code::BadValue, "shutdown_grace"),
    ] {
        let error = Case::new(VALID)
            .env(&[(variable, value)])
            .load()
            .expect_err(variable);
        assert_eq!(error.problems.len(), 1, "{error}");
        let problem = &error.problems[0];
        let origin = Origin::Env {
            name: variable.to_owned(),
        };
        assert_eq!(
            (problem.code, &problem.origin, problem.key.to_string().as_str()),
            (code, &origin, key),
            "{error}"
        );
    }
    let error = Case::new(VALID)
        .flags(&[("hub.durability", "no")])
        .load()
        .expect_err("a wrong flag");
    assert_eq!(
        error.problems[0].origin,
        Origin::Flag {
            key: "hub.durability".to_owned()
        }
    );
    let both = [
        ("FANIN__HUB__TLS", "{required: true}"),
        ("FANIN__HUB__TLS__CA", "x"),
    ];
    let loaded = Case::new(VALID).env(&both).load().expect("keys that do not meet");
    assert!(loaded.config.hub.tls.required && loaded.config.hub.tls.ca.is_some());
    let clash = [("FANIN__HUB__TLS", "{ca: y}"), ("FANIN__HUB__TLS__CA", "x")];
    let error = Case::new(VALID).env(&clash).load().expect_err("one key twice");
    assert_eq!(error.problems[0].code, Code::DuplicateKey);
}

#[test]
fn a_mistake_in_a_drop_in_names_its_line() {
    let case = Case::new(VALID).drop_in("a.yaml", "\nmappings:\n  orders: { nodes: x }\n");
    let error = case.load().expect_err("a mistake");
    let origin = Origin::File {
        path: case.path("conf.d").join("a.yaml"),
        line: 3,
    };
    assert_eq!(
        error
            .problems
            .iter()
            .map(|problem| &problem.origin)
            .collect::<Vec<_>>(),
        [&origin]
    );
}

#[test]
fn variables_inside_values() {
    let text = VALID
        .replace("n1", "edge-${SITE}-${RACK:1}")
        .replace("nats://h:4222", "\"nats://${HUB:x}:4222\"");
    let config = Case::new(&text)
        .env(&[("SITE", "ulm"), ("HUB", "h9")])
        .load()
        .expect("valid")
        .config;
    assert_eq!(
        (config.node.as_str(), config.hub.servers[0].as_str()),
        ("edge-ulm-1", "nats://h9:4222")
    );
    // Environment and flags are final: what looks like a variable there is not one.
    let error = Case::new(VALID)
        .env(&[("FANIN__NODE", "${SITE}"), ("SITE", "x")])
        .load()
        .expect_err("not a name");
    assert_eq!(error.problems[0].code, Code::BadValue);
}

#[test]
fn the_node_is_named_by_the_host() {
    let text = VALID.replace("node: n1\n", "");
    let case = Case::new(&text).env(&[("HOSTNAME", "host-1")]);
    assert_eq!(case.load().expect("valid").config.node, "host-1");
    assert_eq!(
        origin_of(&case, &["node"]),
        Origin::Env {
            name: "HOSTNAME".to_owned()
        }
    );
    let error = Case::new(&text)
        .env(&[("HOSTNAME", "host 1")])
        .load()
        .expect_err("no name");
    assert_eq!(
        error.problems[0].origin,
        Origin::Env {
            name: "HOSTNAME".to_owned()
        }
    );
}

#[test]
fn secrets_come_by_the_environment_and_stay_hidden() {
    let file = VALID.replace(
        "  servers:",
        "  credentials: { user: u, password: \"${PW}\" }\n  servers:",
    );
    let variable = [
        ("FANIN__HUB__CREDENTIALS__USER", "u"),
        ("FANIN__HUB__CREDENTIALS__PASSWORD", "hunter2"),
    ];
    for case in [
        Case::new(&file).env(&[("PW", "hunter2")]),
        Case::new(VALID).env(&variable),
    ] {
        let loaded = case.load().expect("valid");
        assert_eq!(
            loaded
                .config
                .hub
                .credentials
                .password
                .as_ref()
                .map(Secret::expose),
            Some("hunter2")
        );
        let shown = format!(
            "{:?}{}{}{:?}",
            loaded.config,
            loaded.config.redacted_json().expect("json"),
            loaded.config.redacted_yaml().expect("yaml"),
            loaded.effective().expect("values"),
        );
        assert!(
            !shown.contains("hunter2") && shown.contains("(redacted)"),
            "{shown}"
        );
    }
}

#[test]
fn secrets_stay_hidden_in_problems() {
    for text in [
        VALID.replace(
            "  servers:",
            "  credentials: { user: u, password: hunter2 }\n  servers:",
        ),
        VALID.replace(
            "  servers:",
            "  credentials: { user: u, pasword: hunter2 }\n  servers:",
        ),
        VALID.replace(
            "  servers:",
            "  credentials: { token: \"hunter2${NOBODY}\" }\n  servers:",
        ),
        VALID.replace("nats://h", "nats://u:hunter2@h"),
        VALID.replace("nats://h:4222", "u:hunter2@h"),
        VALID.replace("[nats://h:4222]", "nats://u:hunter2@h"),
        VALID.replace("  servers:", "  pasword: hunter2\n  servers:"),
        VALID.replace("  servers:", "  credentials: hunter2\n  servers:"),
    ] {
        let error = Case::new(&text).load().expect_err(&text);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let flag = Case::new(VALID)
        .flags(&[("hub.credentials.token", "hunter2")])
        .load()
        .expect_err("a flag is seen by all");
    assert_eq!(flag.problems[0].code, Code::PlainSecret);
    assert!(!flag.to_string().contains("hunter2"));
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let first = Case::new(VALID).load().expect("valid").config;
    let again: Config = Case::new(&first.redacted_yaml().expect("yaml"))
        .load()
        .expect("valid")
        .config;
    assert_eq!(first, again);
}

#[test]
fn effective_values_name_their_origin() {
    let case = Case::new(VALID).env(&[("FANIN__SHUTDOWN_GRACE", "20s")]);
    let all = case.load().expect("valid").effective().expect("values");
    let find = |key: &str| {
        all.iter()
            .find(|entry| entry.key.to_string() == key)
            .unwrap_or_else(|| panic!("{key}"))
    };
    assert_eq!(find("shutdown_grace").value, "20s");
    assert_eq!(
        find("shutdown_grace").origin.to_string(),
        "environment FANIN__SHUTDOWN_GRACE"
    );
    assert_eq!(find("mappings.orders.ack_wait").origin, Origin::Default);
    let line = Origin::File {
        path: case.request.file.clone(),
        line: 6,
    };
    assert_eq!(find("mappings.orders.sources[0].stream").origin, line);
}
