//! Goal: what is documented loads, and the committed schema is the code's. Method: load the files that are shown.

mod common;

use std::path::{Path, PathBuf};

use common::Case;
use fanin_config::{LoadRequest, RequiredDelivery, load, schema};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

#[test]
fn every_sample_loads_without_a_warning() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder().join("samples")).expect("samples") {
        let file = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(
            text.starts_with("# yaml-language-server: $schema=../schema.json\n"),
            "{}",
            file.display()
        );
        let request = LoadRequest {
            file: file.clone(),
            ..LoadRequest::default()
        };
        let loaded = load(&request).unwrap_or_else(|error| panic!("{}:\n{error}", file.display()));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        names.push(file.file_name().expect("a name").to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "minimal.yaml",
            "production.yaml",
            "tour.yaml",
            "two-mappings.yaml"
        ]
    );
}

#[test]
fn the_sample_of_the_conventions_loads() {
    let text = r#"
# yaml-language-server: $schema=./schema.json
node: ${HOSTNAME}
data_dir: /var/lib/fanin
hub:
  servers: [nats://127.0.0.1:4222]      # several: failover, random order, automatic reconnect
  durability: sync_always               # or lazy (default): what the operator declares; `check` verifies it where it can
listen: unix:///run/fanin/fanin.sock
admin: 127.0.0.1:8222                   # /livez /readyz /metrics and the status page
mappings:
  orders:                               # names match [a-z0-9-]{1,64}
    sources: [{ stream: ORDERS, subjects: ["orders.>"] }]
    topic: orders                       # default: the mapping's name; the same on every node
    ack_wait: 30s
    required_delivery: exactly_once     # start refuses when hub or disk cannot hold it
    applications:
      billing:  { max_attempts: 10, backoff: { initial: 200ms, factor: 2, max: 1m } }
      shipping: { filter: { subjects: ["orders.created.>"] } }
"#;
    let loaded = Case::new(text)
        .env(&[("HOSTNAME", "node-1")])
        .load()
        .expect("valid");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.node, "node-1");
    assert_eq!(
        loaded.config.mappings["orders"].required_delivery,
        Some(RequiredDelivery::ExactlyOnce)
    );
}

#[test]
fn the_committed_schema_is_current() {
    let file = folder().join("schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, schema()).expect("written");
    }
    let committed = std::fs::read_to_string(&file).expect("config/schema.json");
    assert!(
        committed == schema(),
        "run UPDATE_SCHEMA=1 cargo test -p fanin-config to renew config/schema.json"
    );
}

#[test]
fn the_schema_describes_every_key() {
    fn walk(schema: &serde_json::Value, place: &str) {
        for (key, value) in schema
            .get("properties")
            .and_then(|all| all.as_object())
            .into_iter()
            .flatten()
        {
            assert!(
                value.get("description").is_some(),
                "{place}.{key} has no description"
            );
        }
        if schema.get("properties").is_some() {
            assert_eq!(
                schema["additionalProperties"], false,
                "{place} takes unknown keys"
            );
        }
    }
    let schema: serde_json::Value = serde_json::from_str(&schema()).expect("JSON");
    walk(&schema, "");
    for (name, part) in schema["$defs"].as_object().expect("parts") {
        walk(part, name);
    }
    assert_eq!(schema["required"], serde_json::json!(["hub", "mappings"]));
    assert!(schema["properties"]["shutdown_grace"]["pattern"].is_string());
}
