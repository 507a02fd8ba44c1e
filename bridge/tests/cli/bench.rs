//! `fanin bench`, small: every figure is there, and is one.

use std::collections::BTreeSet;

use fanin_localhub::ServerBinary;
use serde_json::Value;

use crate::support::{Run, command, dir};

/// Runs a benchmark and gives its JSON document.
async fn bench(args: &[&str]) -> Value {
    let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
        .await
        .unwrap()
        .unwrap();
    let dir = dir();
    let mut command = command(dir.path(), &[&["bench"], args, &["--json"]].concat());
    command.env("NATS_SERVER", binary.path());
    let run = tokio::task::spawn_blocking(move || Run::from(command.output().unwrap()))
        .await
        .unwrap();
    assert_eq!(run.code, 0, "{}", run.err);
    run.json()
}

/// Wants the figure to be a number above nothing.
fn above_nothing(told: &Value, key: &str) -> f64 {
    let figure = told[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} is no number in {told}"));
    assert!(figure.is_finite() && figure > 0.0, "{key} is {figure} in {told}");
    figure
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no object"));
    object.keys().map(String::as_str).collect()
}

/// Goal: a bridge that is killed with a backlog is back with all of it, each time, in memory that has nothing to do with the backlog's
/// size. Method: 20 000 messages of 1 KiB that nobody takes, two SIGKILLs; the command itself wants every message at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_comes_back_with_its_backlog() {
    let told = bench(&["recovery", "--messages", "20000", "--repeat", "2"]).await;
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
    let told = bench(&["recovery", "--messages", "2000", "--batch", "1", "--repeat", "1"]).await;
    assert_eq!((&told["batch"], &told["messages"]), (&1.into(), &2_000.into()));
    assert_eq!(told["starts"].as_array().unwrap().len(), 1, "{told}");
}

/// Goal: the comparison names what it compared and gives every figure of both sides, none of them empty, and ratios that belong
/// to them. Method: 5 000 messages to two applications, once; the command itself wants every message on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_has_all_its_figures() {
    let args = [
        "--apps",
        "2",
        "--messages",
        "5000",
        "--size",
        "256",
        "--repeat",
        "1",
    ];
    let told = bench(&[&["fanin-vs-native"], &args[..]].concat()).await;
    let wanted = [
        "apps",
        "benchmark",
        "cpus",
        "messages",
        "repetitions",
        "rows",
        "server_version",
        "size",
        "sync_always",
    ];
    assert_eq!(keys(&told), BTreeSet::from(wanted));
    assert_eq!(
        (
            &told["benchmark"],
            &told["apps"],
            &told["messages"],
            &told["size"],
            &told["sync_always"]
        ),
        (
            &"fanin-vs-native".into(),
            &2.into(),
            &5_000.into(),
            &256.into(),
            &false.into()
        )
    );
    assert!(told["server_version"].as_str().unwrap().starts_with("2."));
    above_nothing(&told, "cpus");

    let repetitions = told["repetitions"].as_array().unwrap();
    assert_eq!(repetitions.len(), 1, "{told}");
    for side in ["native", "fanin"] {
        let figures = &repetitions[0][side];
        let wanted = [
            "apps_us",
            "bridge_us",
            "deliveries_per_second",
            "first_delivery_s",
            "flowing_per_second",
            "hub_us",
            "others_s",
            "repeated",
            "total_us",
            "wall_s",
        ];
        assert_eq!(keys(figures), BTreeSet::from(wanted));
        let wall = above_nothing(figures, "wall_s");
        let rate = above_nothing(figures, "deliveries_per_second");
        assert!((rate * wall - 10_000.0).abs() < 1.0, "{side}: {told}");
        assert!(
            above_nothing(figures, "first_delivery_s") <= wall,
            "{side}: {told}"
        );
        assert!(
            above_nothing(figures, "flowing_per_second") >= rate,
            "{side}: {told}"
        );
        let bridge = figures["bridge_us"].as_f64().unwrap();
        assert_eq!(bridge > 0.0, side == "fanin", "{side}: {told}");
        let parts = above_nothing(figures, "hub_us") + bridge + above_nothing(figures, "apps_us");
        let total = above_nothing(figures, "total_us");
        assert!((total - parts).abs() < 0.001 * total, "{side}: {told}");
        assert_eq!(figures["repeated"], 0, "{side}: {told}");
    }
    let rows = told["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{told}");
    for row in rows {
        assert_eq!(keys(row), BTreeSet::from(["fanin", "native", "ratio", "what"]));
        let fanin = above_nothing(&row["fanin"], "median");
        // Only one side has a bridge.
        if row["what"] != "bridge CPU us/delivery" {
            let ratio = above_nothing(&row["ratio"], "median");
            let native = above_nothing(&row["native"], "median");
            assert!((ratio - fanin / native).abs() < 0.001 * ratio, "{row}");
        }
    }
}

/// Goal: the report of the stalled application has all its figures, and they are of this run. Method: a backlog of 4 MiB; the
/// command itself wants every message in the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_stalled_application_has_all_its_figures() {
    let told = bench(&["stalled-app", "--backlog", "4MiB", "--size", "1024"]).await;
    let figures = [
        "backlog_bytes",
        "backlog_messages",
        "bridge_rss_idle_bytes",
        "bridge_rss_max_bytes",
        "bridge_rss_with_backlog_bytes",
        "catch_up_bridge_rss_end_bytes",
        "catch_up_bridge_rss_max_bytes",
        "catch_up_s",
        "growing_s",
        "size",
    ];
    let wanted: BTreeSet<&str> = figures.into_iter().chain(["benchmark"]).collect();
    assert_eq!(keys(&told), wanted);
    assert_eq!(
        (&told["benchmark"], &told["size"], &told["backlog_messages"]),
        (&"stalled-app".into(), &1_024.into(), &4_096.into())
    );
    for figure in figures {
        above_nothing(&told, figure);
    }
    assert!(
        above_nothing(&told, "backlog_bytes") >= f64::from(4 << 20),
        "{told}"
    );
    for (most, last) in [
        ("bridge_rss_max_bytes", "bridge_rss_with_backlog_bytes"),
        ("catch_up_bridge_rss_max_bytes", "catch_up_bridge_rss_end_bytes"),
    ] {
        assert!(above_nothing(&told, most) >= above_nothing(&told, last), "{told}");
    }
}
