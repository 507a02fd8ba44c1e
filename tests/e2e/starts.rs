//! Starts that must be refused, and starts that must wait: each refusal has a code, a cure and the right exit code.

use fanin_tests::hub::{connect, create_source, start_hub, start_hub_with};
use fanin_tests::process::{Bridge, BridgeOptions, binary_path};
use serde_json::json;

use crate::cluster::{Cluster, LONG, STREAM, mapping, orders};

/// Wants a start to be refused with this exit code and error code, and a cure; returns everything the process printed.
pub(crate) async fn refused(options: BridgeOptions, exit: i32, code: &str) -> String {
    // Its errors are what is looked at, so none is unexpected.
    let bridge = Bridge::spawn(options.allow_error("")).unwrap();
    let ended = bridge.wait_exit(LONG).await.unwrap();
    let text = std::fs::read_to_string(bridge.log_path()).unwrap();
    assert_eq!(ended.code(), Some(exit), "{ended}\n{text}");
    // With a log of JSON lines the last word is one of them; before the log is set up it is text for whoever reads it.
    let last_word = |line: &str| line.starts_with("error[") || line.contains("\"message\":\"ended\"");
    let told = text.lines().any(|line| last_word(line) && line.contains(code));
    assert!(told, "no {code} in\n{text}");
    assert!(text.contains("cure"), "no cure in\n{text}");
    text
}

/// Goal and method: a table of wrong configurations against a hub that is well.
#[tokio::test]
async fn wrong_configurations_are_refused() {
    let hub = start_hub().await;
    let jetstream = connect(&hub.url()).await.unwrap();
    create_source(&jetstream, STREAM, &["orders.>"]).await.unwrap();
    let good = || BridgeOptions::new("n1", &hub.url(), mapping(&["billing"]));
    let file = tempfile::NamedTempFile::new().unwrap();
    let below_a_file = format!("unix://{}/fanin/s", file.path().display());
    let too_long = format!("unix:///{}", "x".repeat(120));
    for (patch, exit, code) in [
        (
            json!({ "mappings": { "orders": { "aplications": {} } } }),
            78,
            "FAN-1003",
        ),
        (
            json!({ "mappings": { "orders": { "ack_wait": "soon" } } }),
            78,
            "FAN-1004",
        ),
        (
            json!({ "store": { "quota": "1MiB", "segment": "1MiB" } }),
            78,
            "FAN-1008",
        ),
        (json!({ "hub": { "servers": [] } }), 78, "FAN-1005"),
        (json!({ "listen": too_long }), 78, "FAN-1004"),
        (json!({ "listen": below_a_file }), 73, "FAN-4015"),
        (json!({ "data_dir": file.path().join("data") }), 73, "FAN-4001"),
        (
            json!({ "mappings": { "orders": { "sources": [{ "stream": "NOWHERE" }] } } }),
            78,
            "FAN-2010",
        ),
        (
            json!({ "hub": { "durability": "lazy" }, "mappings": { "orders": { "required_delivery": "exactly_once" } } }),
            78,
            "FAN-1008",
        ),
    ] {
        refused(good().with_config(&patch), exit, code).await;
    }
    // Two mappings of one name: JSON cannot say that, YAML can.
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("twice.yaml");
    let text = "node: n1\nhub: { servers: [nats://127.0.0.1:1] }\nmappings:\n  \
                orders: { sources: [{ stream: A }], applications: { a: {} } }\n  \
                orders: { sources: [{ stream: B }], applications: { a: {} } }\n";
    std::fs::write(&path, text).unwrap();
    let (exit, output) = fanin(&["run", "--config", path.to_str().unwrap()]).await;
    assert_eq!(exit, Some(78), "{output}");
    let second = format!("error FAN-1006 at {}:5: ", path.display());
    for part in [&second, "mappings.orders", "cure:  "] {
        assert!(output.contains(part), "{part} is not in {output}");
    }
}

/// Goal: a hub that runs without JetStream is refused, and so is one that has it, but not for this account. Method: a server without
/// JetStream, where nobody answers for it, and one with an account that has none, where the server says so.
#[tokio::test]
async fn a_hub_without_jetstream_is_refused() {
    let without = start_hub_with(|options| options.jetstream = false).await;
    let for_others = start_hub_with(|options| {
        options.extra_config = "accounts { PLAIN { users [{ user: plain, password: plain }] } }\n\
                                no_auth_user: plain\n"
            .to_owned();
    })
    .await;
    for hub in [without, for_others] {
        let options = BridgeOptions::new("n1", &hub.url(), mapping(&["billing"]));
        refused(options, 69, "FAN-2005").await;
    }
}

/// Goal: a data directory in memory is refused where a mapping requires a delivery, before anything is written there; where none does,
/// the node starts, warns once and says in status what holds. Method: a directory on the tmpfs that every Linux has.
#[tokio::test]
async fn a_disk_in_memory_is_refused_where_delivery_is_required() {
    let hub = start_hub().await;
    let jetstream = connect(&hub.url()).await.unwrap();
    create_source(&jetstream, STREAM, &["orders.>"]).await.unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let small = json!({
        "data_dir": memory.path().join("data"),
        "store": { "quota": "2MiB", "segment": "128KiB", "reserve": "512KiB" },
    });
    let options = || BridgeOptions::new("n1", &hub.url(), mapping(&["billing"])).with_config(&small);
    for required in ["exactly_once", "at_least_once"] {
        let patch = json!({ "mappings": { "orders": { "required_delivery": required } } });
        let options = options().with_config(&patch);
        let text = refused(options.clone(), 78, "FAN-4053").await;
        for part in ["is on tmpfs, in memory", "mapping orders's", required] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let log = memory.path().join("data/log");
        assert_eq!(std::fs::read_dir(&log).unwrap().count(), 0, "nothing was begun");
        std::fs::remove_dir_all(memory.path().join("data")).unwrap();
    }
    let bridge = Bridge::start(options()).await.unwrap();
    let status = bridge.wait_joined().await.unwrap();
    let delivery = &orders(&status).delivery;
    assert!(
        delivery.starts_with("best_effort, because data_dir is on tmpfs"),
        "{delivery}"
    );
    let log = bridge.log();
    let warned = log
        .iter()
        .filter(|line| line.text.contains("WARN") && line.text.contains("FAN-4054"));
    assert_eq!(warned.count(), 1);
    bridge.stop().await.unwrap();
}

/// Goal: a data directory keeps its node's name. Method: start the directory of one node under another name.
#[tokio::test]
async fn a_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    cluster.feed(40).await;
    cluster.wait_rest().await;
    cluster.nodes[0].stop().await.unwrap();
    let data_dir = json!({ "data_dir": cluster.nodes[0].data_dir() });
    refused(cluster.options("n2").with_config(&data_dir), 78, "FAN-4014").await;
    cluster.nodes[0].restart().await.unwrap();
    cluster.finish().await;
}

/// Goal: a node that starts while the hub is away serves its socket, says why it is idle, and joins when the hub comes.
/// Method: kill the hub before the start, look, start the hub.
#[tokio::test]
async fn a_node_waits_for_its_hub() {
    let mut cluster = Cluster::new(&["billing"]).await;
    cluster.feed(100).await;
    cluster.hub.kill().unwrap();
    cluster.nodes.push(Bridge::spawn(cluster.options("n1")).unwrap());
    cluster.instance(0, "billing", "b1", |options| options).await;
    let status = cluster.nodes[0].wait_serving().await.unwrap();
    assert_eq!(orders(&status).state, "starting");
    assert!(!status.hub.unwrap().connected);
    cluster.hub.restart().await.unwrap();
    cluster.nodes[0].wait_joined().await.unwrap();
    cluster.feed(100).await;
    cluster.finish().await;
}

/// Goal: a message that the hub does not take is refused with a code, and nothing of it arrives. Method: `fanin publish`
/// with a line above the hub's limit.
#[tokio::test]
async fn a_payload_above_the_hubs_limit_is_refused() {
    let mut cluster = Cluster::with_nodes(&["billing"], 1, 1).await;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("lines");
    std::fs::write(&path, "x".repeat(2 << 20)).unwrap();
    let url = cluster.hub.url();
    let (exit, output) = fanin(&[
        "publish",
        "orders.1",
        "--server",
        &url,
        "--file",
        path.to_str().unwrap(),
    ])
    .await;
    assert!(
        exit == Some(1) && output.contains("error[FAN-2009]") && output.contains("cure:"),
        "{exit:?}: {output}"
    );
    cluster.feed(40).await;
    cluster.finish().await;
}

/// Runs the binary to its end; its exit code and what it printed on standard error.
pub(crate) async fn fanin(args: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(binary_path().unwrap());
    command.args(args).stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
