//! `fanin bench recovery`, small.

use fanin_localhub::ServerBinary;

use crate::support::{Run, command, dir};

/// Runs it and gives its JSON document.
async fn recovery(args: &[&str]) -> serde_json::Value {
    let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
        .await
        .unwrap()
        .unwrap();
    let dir = dir();
    let mut command = command(dir.path(), &[&["bench", "recovery", "--json"], args].concat());
    command.env("NATS_SERVER", binary.path());
    let run = tokio::task::spawn_blocking(move || Run::from(command.output().unwrap()))
        .await
        .unwrap();
    assert_eq!(run.code, 0, "{}", run.err);
    run.json()
}

/// Goal: a bridge that is killed with a backlog is back with all of it, each time, in memory that has nothing to do with the backlog's
/// size. Method: 20 000 messages of 1 KiB that nobody takes, two SIGKILLs; the command itself wants every message at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_comes_back_with_its_backlog() {
    let told = recovery(&["--messages", "20000", "--repeat", "2"]).await;
    assert_eq!(told["messages"], 20_000);
    assert!(told["store_bytes"].as_u64().unwrap() > 20_000 * 1024, "{told}");
    let starts = told["starts"].as_array().unwrap();
    assert_eq!(starts.len(), 2, "{told}");
    for start in starts {
        let ready = start["ready_s"].as_f64().unwrap();
        assert!(
            0.0 < ready && ready <= start["first_delivery_s"].as_f64().unwrap(),
            "{told}"
        );
        assert!(start["rss_ready_bytes"].as_u64().unwrap() > 0, "{told}");
    }
}

/// Goal and method: the same with batches of a single message, of which each is a record.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_single_messages_comes_back() {
    let told = recovery(&["--messages", "2000", "--batch", "1", "--repeat", "1"]).await;
    assert_eq!((&told["batch"], &told["messages"]), (&1.into(), &2_000.into()));
    assert_eq!(told["starts"].as_array().unwrap().len(), 1, "{told}");
}
