//! Goal: a process is killed, frozen, restarted and judged as its handle says, and no error in its log goes unseen.
//! Method: a shell script stands for the bridge; the real bridge is the subject of the end-to-end tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// A handle whose process is a script.
fn scripted(script: &str) -> Bridge {
    let home = short_temp_dir().unwrap();
    let options = BridgeOptions::new("n1", "nats://127.0.0.1:1", json!({}));
    let mut bridge = Bridge {
        options,
        home: Some(home),
        process: Mutex::new(None),
        pid: 0,
    };
    let log = fs::File::create(bridge.log_path()).unwrap();
    let mut command = Command::new("sh");
    let child = command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(log)
        .process_group(0)
        .spawn()
        .unwrap();
    bridge.pid = child.id();
    let leash = Leash::tie(child.id()).unwrap();
    *bridge.process.lock() = Some(Running { leash, child });
    bridge
}

#[tokio::test]
async fn a_stop_wants_exit_code_zero() {
    let good = scripted("trap 'exit 0' TERM; echo '{\"level\":\"INFO\"}'; while :; do sleep 0.01; done");
    good.wait_log(LONG, "INFO").await.unwrap();
    good.stop().await.unwrap();
    let bad = scripted("trap 'exit 70' TERM; echo '{\"level\":\"INFO\"}'; while :; do sleep 0.01; done");
    bad.wait_log(LONG, "INFO").await.unwrap();
    assert!(matches!(bad.stop().await, Err(ProcessError::BadExit { .. })));
}

#[tokio::test]
async fn the_end_of_the_process_ends_every_wait() {
    let bridge = scripted("exit 3");
    let error = bridge.wait_serving().await.unwrap_err();
    assert!(
        matches!(error, ProcessError::Ended { status, .. } if status.code() == Some(3)),
        "{error}"
    );
    assert_eq!(bridge.wait_exit(LONG).await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn an_unexpected_error_fails_the_test_at_the_latest_when_the_handle_goes() {
    let line = "{\"level\":\"ERROR\",\"fields\":{\"message\":\"FAN-9 broken\"}}";
    let bridge = scripted(&format!("echo '{line}'"));
    bridge.wait_exit(LONG).await.unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(bridge))).is_err());
    let mut allowed = scripted(&format!("echo '{line}'"));
    allowed.options_mut().allowed_errors.push("FAN-9".into());
    allowed.wait_exit(LONG).await.unwrap();
    allowed.assert_no_errors();
}

#[tokio::test]
async fn a_kill_needs_no_consent_and_the_directory_goes_with_the_handle() {
    let bridge = scripted("trap '' TERM; while :; do sleep 0.01; done");
    let home = bridge.home().to_path_buf();
    bridge.pause().unwrap();
    bridge.kill().unwrap();
    bridge.kill().unwrap();
    assert!(bridge.pause().is_err());
    drop(bridge);
    assert!(!home.exists());
}

#[test]
fn patches_merge_objects_and_replace_the_rest() {
    let options = BridgeOptions::new("n1", "nats://h:1", json!({ "orders": { "ack_wait": "30s" } }));
    let patch =
        json!({ "mappings": { "orders": { "ack_wait": "2s" } }, "hub": { "servers": ["nats://h:2"] } });
    let config = options.with_config(&patch).config;
    assert_eq!(config["mappings"]["orders"]["ack_wait"], "2s");
    assert_eq!(
        config["hub"],
        json!({ "servers": ["nats://h:2"], "durability": "sync_always" })
    );
}
