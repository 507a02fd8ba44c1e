//! The commands against a real hub and a real bridge.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use async_nats::jetstream;
use fanin_bridge::telemetry::metrics::TABLE;
use fanin_bridge::topic::metrics::TABLE as TOPIC_TABLE;
use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{PATIENCE, Run, Running, command, dir, fanin};

/// A hub with the stream ORDERS, and a directory for the commands.
struct World {
    hub: LocalHub,
    dir: TempDir,
    socket: String,
}

impl World {
    async fn new() -> World {
        let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
            .await
            .unwrap()
            .unwrap();
        let hub = LocalHub::start(LocalHubOptions::new(binary)).await.unwrap();
        let jetstream = jetstream::new(async_nats::connect(hub.url()).await.unwrap());
        let stream = jetstream::stream::Config {
            name: "ORDERS".to_owned(),
            subjects: vec!["orders.>".to_owned()],
            ..jetstream::stream::Config::default()
        };
        jetstream.create_stream(stream).await.unwrap();
        let dir = dir();
        let socket = format!("unix://{}/f.sock", dir.path().display());
        World { hub, dir, socket }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Publishes text from standard input.
    fn publish(&self, input: &str, more: &[&str]) -> Run {
        let url = self.hub.url();
        let args = [&["publish", "orders.created", "--server", &url], more].concat();
        let mut child = command(self.path(), &args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A command that stops at a bad line closes the pipe before all of it is written.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let run = child.wait_with_output().unwrap().into();
        let _ = writer.join().unwrap();
        run
    }

    /// Writes a configuration of node n1 with the mapping `orders` of this stream.
    fn configure(&self, stream: &str, format: &str) {
        let config = serde_json::json!({
            "node": "n1",
            "data_dir": self.path().join("data"),
            "listen": self.socket,
            "admin": "127.0.0.1:0",
            "hub": { "servers": [self.hub.url()] },
            "log": { "format": format },
            "store": { "quota": "256MiB", "segment": "8MiB" },
            "mappings": { "orders": {
                "sources": [{ "stream": stream }],
                "applications": { "billing": {} },
            } },
        });
        fs::write(self.path().join("fanin.yaml"), config.to_string()).unwrap();
    }

    /// Starts the bridge and waits until it says that it is ready.
    async fn start_bridge(&self) -> (Running, UnixDatagram) {
        self.start_bridge_with(&[]).await
    }

    /// The same with variables of its environment.
    async fn start_bridge_with(&self, variables: &[(&str, &str)]) -> (Running, UnixDatagram) {
        self.configure("ORDERS", "json");
        let notify_path = self.path().join("notify.sock");
        let _ = fs::remove_file(&notify_path);
        let manager = UnixDatagram::bind(&notify_path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bridge = command(self.path(), &["run", "--config", "fanin.yaml"]);
        bridge.env("NOTIFY_SOCKET", &notify_path);
        bridge.envs(variables.iter().copied());
        bridge.stderr(fs::File::create(self.path().join("log")).unwrap());
        let bridge = Running::start(bridge);
        // A manager's watchdog may be fed before.
        let ready = std::iter::repeat_with(|| told(&manager)).find(|told| told != "WATCHDOG=1\n");
        assert!(ready.unwrap().starts_with("READY=1\nSTATUS=serving 1 mapping"));
        (bridge, manager)
    }

    fn log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path().join("log")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    }

    fn subscribe(&self, more: &[&str]) -> Run {
        let args = [
            &[
                "subscribe",
                "orders",
                "--app",
                "billing",
                "--socket",
                &self.socket,
            ],
            more,
        ]
        .concat();
        fanin(self.path(), &args)
    }

    fn status(&self) -> Value {
        fanin(self.path(), &["status", "--json", "--socket", &self.socket]).json()
    }
}

fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = manager.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|number| format!("{{\"order\": {{\"id\": {number}}}}}\n"))
        .collect()
}

/// Goal: what `publish` says is stored is stored, and a bad line is named. Method: inputs of every kind.
#[tokio::test(flavor = "multi_thread")]
async fn publish_says_what_is_stored() {
    let world = World::new().await;
    let by_id = ["--msg-id-field", "order.id", "--json"];
    let first = world.publish(&lines(0..1_000), &by_id);
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(
        (&first.json()["stored"], &first.json()["last_seq"]),
        (&Value::from(1_000), &Value::from(1_000))
    );
    let again = world.publish(&lines(990..1_010), &by_id).json();
    assert_eq!(
        (&again["stored"], &again["duplicates"]),
        (&Value::from(10), &Value::from(10))
    );

    let run = world.publish(
        &(lines(2_000..2_003) + "\n{nope\n" + &lines(2_003..2_005)),
        &by_id,
    );
    assert_eq!((run.code, &run.json()["stored"]), (1, &Value::from(3)));
    assert_eq!(run.error()["code"], "FAN-5005");
    assert!(
        run.error()["message"].as_str().unwrap().starts_with("line 5 "),
        "{}",
        run.err
    );

    let large = format!("small\r\n{}\nsmall\n", "x".repeat(2 * 1024 * 1024));
    let run = world.publish(&large, &[]);
    assert_eq!(run.code, 1);
    assert!(run.out.starts_with("stored 1 messages"), "{}", run.out);
    for part in [
        "error[FAN-2009]: line 2 has 2097152 bytes",
        "at most 1048576",
        "cure:",
    ] {
        assert!(run.err.contains(part), "{part} is not in {}", run.err);
    }
    let url = world.hub.url();
    fs::write(world.path().join("one"), "x\n").unwrap();
    let run = fanin(
        world.path(),
        &["publish", "elsewhere", "-s", &url, "--file", "one"],
    );
    assert!(
        run.code == 1 && run.out.starts_with("stored 0 messages"),
        "{}{}",
        run.out,
        run.err
    );
    // The cure speaks of the subject: there is no mapping here to correct.
    for part in [
        "error[FAN-2024]: line 1 ",
        "because: no stream of the hub takes the subject elsewhere",
        "cure: Create a stream",
    ] {
        assert!(run.err.contains(part), "{part} is not in {}", run.err);
    }
}

/// Goal: a message goes from `publish` through `run` to `subscribe`, once; status, admin pages and signals do what the
/// documentation says. Method: one bridge, and the commands one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way() {
    let mut world = World::new().await;
    let (bridge, manager) = world.start_bridge().await;
    let sent = world.publish(
        &lines(0..2_000),
        &["-H", "kind: test", "--msg-id-field", "order.id"],
    );
    assert_eq!(sent.code, 0, "{}", sent.err);

    let run = world.subscribe(&["--json", "--count", "1500", "--instance", "b1"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let messages: Vec<Value> = run
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(messages.len(), 1_500);
    let first = &messages[0];
    assert_eq!(
        (&first["id"], &first["topic"], &first["app"]),
        (&"ORDERS:1".into(), &"orders".into(), &"billing".into())
    );
    assert_eq!(
        (&first["instance"], &first["node"], &first["attempt"]),
        (&"b1".into(), &"n1".into(), &1.into())
    );
    assert_eq!(
        (&first["subject"], &first["headers"]["kind"][0]),
        (&"orders.created".into(), &"test".into())
    );
    assert_eq!(first["payload"], "{\"order\": {\"id\": 0}}");
    assert!(first["time"].as_str().unwrap().contains('T') && first.get("payload_base64").is_none());

    // The others come to the next one, each once.
    let rest = world.subscribe(&["--count", "500"]);
    let ids = |out: &str| {
        out.lines()
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let expected: Vec<String> = (1_501..=2_000).map(|seq| format!("ORDERS:{seq}")).collect();
    assert_eq!(ids(&rest.out), expected);
    assert_eq!(world.status()["mappings"][0]["apps"][0]["acked"], 2_000);

    // What is not text goes as base64.
    assert_eq!(world.publish("\u{0}plain\n", &[]).code, 0);
    let binary = world.hub.url();
    let client = async_nats::connect(binary).await.unwrap();
    jetstream::new(client)
        .publish("orders.raw", vec![0xff, 0xfe].into())
        .await
        .unwrap()
        .await
        .unwrap();
    let run = world.subscribe(&["--json", "--count", "2"]);
    let raw: Value = serde_json::from_str(run.out.lines().last().unwrap()).unwrap();
    assert!(
        raw["payload_base64"] == "//4=" && raw.get("payload").is_none(),
        "{raw}"
    );

    let unknown = fanin(
        world.path(),
        &[
            "subscribe",
            "orders",
            "--app",
            "nope",
            "--socket",
            &world.socket,
            "-j",
        ],
    );
    assert_eq!(
        (unknown.code, &unknown.error()["code"]),
        (1, &Value::from("FAN-3002"))
    );
    let cure = unknown.error()["cure"].as_str().unwrap().to_owned();
    assert!(cure.starts_with("Use one of the applications named"), "{cure}");
    assert!(
        unknown.error()["message"]
            .as_str()
            .unwrap()
            .starts_with("topic orders"),
        "{}",
        unknown.err
    );
    let unknown = fanin(
        world.path(),
        &["subscribe", "nope", "--app", "billing", "--socket", &world.socket],
    );
    assert!(
        unknown.code == 1
            && unknown.err.starts_with("error[FAN-3001]: this node")
            && unknown.err.contains("\n  cure: "),
        "{}",
        unknown.err
    );

    let text = fanin(world.path(), &["status", "--socket", &world.socket]).out;
    assert!(
        text.contains("mapping orders  topic orders") && text.contains("billing"),
        "{text}"
    );
    let admin = world.status()["admin"].as_str().unwrap().to_owned();
    assert!(page(&admin, "/readyz?verbose").await.contains("[+]store ok"));
    let metrics = page(&admin, "/metrics").await;
    for part in [
        "fanin_deliveries_total{topic=\"orders\",app=\"billing\",outcome=\"acked\"} 2002",
        "fanin_hub_connected 1",
        "fanin_store_bytes ",
    ] {
        assert!(metrics.contains(part), "{part} is not in\n{metrics}");
    }
    // All of this has happened here, or counts from 0; but a reason is told only of a mapping that has one when somebody looks.
    let always = TABLE.iter().chain(TOPIC_TABLE);
    for metric in always.filter(|metric| metric.name != "fanin_mapping_reason") {
        let (sample, typed) = (format!("\n{}", metric.name), format!("# TYPE {} ", metric.name));
        assert!(
            metrics.contains(&sample) && metrics.contains(&typed),
            "{} is not in\n{metrics}",
            metric.name
        );
    }

    // Without the hub the node stays ready, and says so once.
    world.hub.kill().unwrap();
    let lost = async {
        while !page(&admin, "/readyz?verbose")
            .await
            .contains("[!]hub condition: FAN-2001")
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, lost).await.expect("is told");
    assert!(page(&admin, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.status()["hub"]["connected"], false);
    let run = world.publish("late\n", &["--wait", "0"]);
    assert_eq!(
        (run.code, run.err.contains("FAN-2001")),
        (69, true),
        "{}",
        run.err
    );

    bridge.signal(Signal::HUP);
    bridge.signal(Signal::TERM);
    assert!(told(&manager).starts_with("STOPPING=1"));
    assert_eq!(bridge.end().await, 0);
    let log = world.log();
    assert!(
        log.iter()
            .any(|line| line["level"] == "WARN" && line["code"] == "FAN-5008"),
        "{log:?}"
    );
    let away = |line: &&Value| line["level"] == "WARN" && line["code"] == "FAN-2001";
    assert_eq!(log.iter().filter(away).count(), 1, "{log:?}");
    assert!(log.iter().all(|line| line["level"] != "ERROR"), "{log:?}");
    let uncoded = |line: &&Value| line["level"] == "WARN" && line["code"].as_str().is_none_or(str::is_empty);
    assert_eq!(log.iter().find(uncoded), None);
}

async fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text))
        .await
        .expect("answers")
        .unwrap();
    text
}

/// Goal: a reader that goes away or never reads loses no message, and a subscriber can always be stopped. Method: each
/// message is larger than what a pipe takes, so that a subscriber whose first byte was read stands still in its write.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_go_away_lose_nothing() {
    const MESSAGES: usize = 40;
    let world = World::new().await;
    let (bridge, _manager) = world.start_bridge().await;
    let large = format!("{}\n", "x".repeat(100_000));
    assert_eq!(world.publish(&large.repeat(MESSAGES), &[]).code, 0);
    let args = [
        "subscribe",
        "orders",
        "--app",
        "billing",
        "--json",
        "--socket",
        &world.socket,
    ];
    let start = || {
        let mut subscriber = command(world.path(), &args);
        subscriber.stdout(Stdio::piped());
        Running::start(subscriber)
    };
    let acked = || {
        world.status()["mappings"][0]["apps"][0]["acked"]
            .as_u64()
            .unwrap()
    };

    let mut leaving = start();
    let mut output = leaving.stdout();
    timeout(PATIENCE, output.read_u8())
        .await
        .expect("prints")
        .unwrap();
    drop(output);
    assert_eq!(leaving.end().await, 0);

    let mut stuck = start();
    let mut output = stuck.stdout();
    timeout(PATIENCE, output.read_u8())
        .await
        .expect("prints")
        .unwrap();
    stuck.signal(Signal::TERM);
    stuck.signal(Signal::INT);
    let code = stuck.end().await;
    assert!(code == 128 + 2 || code == 128 + 15, "{code}");
    drop(output);
    assert_eq!(acked(), 0);

    // Everything that nobody acknowledged comes to the next one.
    let run = world.subscribe(&["--count", &MESSAGES.to_string()]);
    assert_eq!((run.code, run.out.lines().count()), (0, MESSAGES), "{}", run.err);
    assert_eq!(acked(), u64::try_from(MESSAGES).unwrap());

    // And one that is idle stops at the first signal, in good order.
    let idle = start();
    let connected = async {
        while world.status()["mappings"][0]["apps"][0]["instances"]
            .as_array()
            .unwrap()
            .is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, connected).await.expect("connects");
    idle.signal(Signal::TERM);
    assert_eq!(idle.end().await, 0);
    bridge.signal(Signal::INT);
    assert_eq!(bridge.end().await, 0);
}

/// Goal: a start that cannot succeed ends with code, cure and exit code, in the form that the log has. Method: a stream
/// that does not exist, and a data directory in use.
#[tokio::test(flavor = "multi_thread")]
async fn starts_that_cannot_succeed() {
    let world = World::new().await;
    world.configure("NOPE", "text");
    let run = fanin(world.path(), &["run", "--config", "fanin.yaml"]);
    assert_eq!(run.code, 78, "{}", run.err);
    let report = run
        .err
        .split("error[FAN-2010]: ")
        .nth(1)
        .unwrap_or_else(|| panic!("{}", run.err));
    assert!(
        report.contains("NOPE") && report.contains("\n  cure: "),
        "{report}"
    );

    world.configure("NOPE", "json");
    let run = fanin(world.path(), &["run", "--config", "fanin.yaml"]);
    assert_eq!(run.code, 78, "{}", run.err);
    let lines: Vec<Value> = run
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.iter().rfind(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(
        (&last["code"], &last["exit_code"]),
        (&"FAN-2010".into(), &78.into())
    );
    assert!(
        last["cure"].as_str().unwrap().contains("Create the stream"),
        "{last}"
    );

    let (bridge, _manager) = world.start_bridge().await;
    let second = fanin(
        world.path(),
        &[
            "run",
            "--config",
            "fanin.yaml",
            "--set",
            "log.format=text",
            "--set",
            "listen=unix:///nowhere/x.sock",
        ],
    );
    assert_eq!(second.code, 75, "{}", second.err);
    assert!(second.err.contains("error[FAN-4009]: "), "{}", second.err);
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.end().await, 0);
}

/// Goal: the manager's watchdog is fed again and again, and only when it is wanted. Method: a manager's socket, with and
/// without the variable by which it says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed() {
    let world = World::new().await;
    let (bridge, manager) = world.start_bridge_with(&[("WATCHDOG_USEC", "300000")]).await;
    for _ in 0..3 {
        assert_eq!(told(&manager), "WATCHDOG=1\n");
    }
    bridge.signal(Signal::TERM);
    let last = std::iter::repeat_with(|| told(&manager)).find(|told| told != "WATCHDOG=1\n");
    assert!(last.unwrap().starts_with("STOPPING=1"));
    assert_eq!(bridge.end().await, 0);

    let (bridge, manager) = world.start_bridge().await;
    bridge.signal(Signal::TERM);
    assert!(
        told(&manager).starts_with("STOPPING=1"),
        "nobody asked for a watchdog"
    );
    assert_eq!(bridge.end().await, 0);
}
