//! A hub that cannot be used: every command says why, and ends alike.

use std::fs;
use std::os::unix::net::UnixDatagram;

use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{PATIENCE, Running, command, dir, fanin};

const PASSWORD: &str = "tram-basil-9";

async fn hub_with_password() -> LocalHub {
    let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
        .await
        .unwrap()
        .unwrap();
    LocalHub::start(LocalHubOptions {
        extra_config: format!("authorization {{ user: bridge, password: \"{PASSWORD}\" }}\n"),
        ..LocalHubOptions::new(binary)
    })
    .await
    .unwrap()
}

/// Goal: a bridge whose login is refused says so, in the log, in status and by its mapping, instead of a hub that is away; and goes on
/// once the login is right. Method: a wrong password, then the hub's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_told_as_one() {
    let hub = hub_with_password().await;
    let dir = dir();
    let socket = format!("unix://{}/f.sock", dir.path().display());
    let secret = dir.path().join("password");
    fs::write(&secret, "wrong").unwrap();
    let config = json!({
        "node": "n1",
        "data_dir": dir.path().join("data"),
        "listen": socket,
        "hub": {
            "servers": [hub.url()],
            "credentials": { "user": "bridge", "password_file": secret },
        },
        "log": { "format": "json" },
        "store": { "quota": "256MiB", "segment": "8MiB" },
        "mappings": { "orders": {
            "sources": [{ "stream": "ORDERS", "subjects": ["orders.>"] }],
            "applications": { "billing": {} },
        } },
    });
    fs::write(dir.path().join("fanin.yaml"), config.to_string()).unwrap();
    let mut bridge = command(dir.path(), &["run", "--config", "fanin.yaml"]);
    bridge.stderr(fs::File::create(dir.path().join("log")).unwrap());
    let bridge = Running::start(bridge);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let status = loop {
        assert!(tokio::time::Instant::now() < deadline, "never told");
        let run = fanin(dir.path(), &["status", "--json", "--socket", &socket]);
        if run.code == 0 && run.out.matches("FAN-2002").count() == 2 {
            break run.json();
        }
    };
    for reason in [&status["hub"]["reason"], &status["mappings"][0]["reason"]] {
        let reason = reason.as_str().unwrap();
        assert!(
            reason.starts_with("FAN-2002: the hub refused the login; check user, password"),
            "{status}"
        );
    }
    let text = fanin(dir.path(), &["status", "--socket", &socket]).out;
    assert!(
        text.contains("NOT CONNECTED") && text.contains("FAN-2002: the hub refused the login"),
        "{text}"
    );
    let log = loop {
        assert!(tokio::time::Instant::now() < deadline, "no word in the log");
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        if log.contains("FAN-2002") {
            break log;
        }
        tokio::task::yield_now().await;
    };
    assert!(!log.contains("FAN-2001"), "{log}");
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.end().await, 0);

    fs::write(&secret, PASSWORD).unwrap();
    let apply = fanin(dir.path(), &["hub", "apply", "--config", "fanin.yaml"]);
    assert_eq!(apply.code, 0, "{}", apply.err);
}

/// Goal: a refused login ends every command with 77, a credentials file that cannot be read with 74. Method: every command that
/// connects to the hub, and the bridge for the file; a bridge whose login is refused goes on trying.
#[tokio::test(flavor = "multi_thread")]
async fn commands_end_alike() {
    let hub = hub_with_password().await;
    let dir = dir();
    let url = hub.url();
    let configure = |credentials: serde_json::Value| {
        let config = json!({
            "node": "n1",
            "data_dir": dir.path().join("data"),
            "listen": format!("unix://{}/f.sock", dir.path().display()),
            "hub": { "servers": [url], "credentials": credentials },
            "mappings": { "orders": {
                "sources": [{ "stream": "ORDERS", "subjects": ["orders.>"] }],
                "applications": { "billing": {} },
            } },
        });
        fs::write(dir.path().join("fanin.yaml"), config.to_string()).unwrap();
    };
    let commands = [
        &["hub", "plan", "--config", "fanin.yaml"][..],
        &["ledger", "info", "--config", "fanin.yaml"],
        &["msg", "trace", "ORDERS:1", "--config", "fanin.yaml"],
    ];
    let secret = dir.path().join("password");
    fs::write(&secret, "wrong").unwrap();
    configure(json!({ "user": "bridge", "password_file": secret }));
    for args in commands {
        let run = fanin(dir.path(), args);
        assert!(
            run.code == 77 && run.err.contains("FAN-2002"),
            "{args:?}: {} {}",
            run.code,
            run.err
        );
    }
    let publish = fanin(
        dir.path(),
        &[
            "publish",
            "orders.created",
            "--server",
            &url,
            "--file",
            "password",
        ],
    );
    assert!(
        publish.code == 77 && publish.err.contains("FAN-2002"),
        "{}",
        publish.err
    );

    configure(json!({ "creds_file": "nowhere.creds" }));
    let run = ["run", "--config", "fanin.yaml"];
    for args in commands.into_iter().chain([&run[..]]) {
        let run = fanin(dir.path(), args);
        assert!(
            run.code == 74 && run.err.contains("FAN-2004"),
            "{args:?}: {} {}",
            run.code,
            run.err
        );
    }
    let publish = [
        "publish",
        "orders.created",
        "--server",
        &url,
        "--file",
        "password",
        "--creds",
        "nowhere.creds",
    ];
    let publish = fanin(dir.path(), &publish);
    assert!(
        publish.code == 74 && publish.err.contains("FAN-2004"),
        "{}",
        publish.err
    );
}

/// Goal: a stop that comes while the start still waits for the hub's verdict is not followed by a word of being ready. Method: a hub
/// that nobody serves, a manager's socket, and SIGTERM as soon as the bridge answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_does_not_call_itself_ready() {
    let dir = dir();
    let socket = format!("unix://{}/f.sock", dir.path().display());
    let port = fanin_localhub::free_port().unwrap();
    let config = json!({
        "node": "n1",
        "data_dir": dir.path().join("data"),
        "listen": socket,
        "hub": { "servers": [format!("nats://127.0.0.1:{port}")] },
        "mappings": { "orders": {
            "sources": [{ "stream": "ORDERS" }],
            "applications": { "billing": {} },
        } },
    });
    fs::write(dir.path().join("fanin.yaml"), config.to_string()).unwrap();
    let notify = dir.path().join("notify.sock");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bridge = command(dir.path(), &["run", "--config", "fanin.yaml"]);
    bridge.env("NOTIFY_SOCKET", &notify);
    let bridge = Running::start(bridge);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while fanin(dir.path(), &["status", "--socket", &socket]).code != 0 {
        assert!(tokio::time::Instant::now() < deadline, "never serves");
    }
    bridge.signal(Signal::TERM);
    assert_eq!(bridge.end().await, 0);
    manager.set_nonblocking(true).unwrap();
    let mut told = String::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = manager.recv(&mut buffer) {
        told.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    assert!(
        told.starts_with("STOPPING=1") && !told.contains("READY=1"),
        "{told}"
    );
}
