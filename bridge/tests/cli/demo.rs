//! `fanin demo`, small: what scripts read of it, and that nothing of it is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fanin_localhub::ServerBinary;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::support::{PATIENCE, Run, Running, command};

/// Lines of the input.
const LINES: u64 = 300;

/// A directory with an input, and one for what the demo makes.
struct Stage {
    dir: TempDir,
    server: PathBuf,
}

impl Stage {
    /// Both below `place`.
    async fn below(place: &Path) -> Stage {
        let binary = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None))
            .await
            .unwrap()
            .unwrap();
        let dir = tempfile::tempdir_in(place).unwrap();
        let lines: String = (0..LINES)
            .map(|number| format!("{{\"order\": {number}}}\n"))
            .collect();
        fs::write(dir.path().join("input.ndjson"), lines).unwrap();
        fs::create_dir(dir.path().join("t")).unwrap();
        Stage {
            dir,
            server: binary.path().to_owned(),
        }
    }

    fn temporary(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    /// Two nodes with two applications: what can go wrong with more of them goes wrong in the demo that CI runs.
    fn demo(&self, more: &[&str]) -> Command {
        let args = [
            &["demo", "--quick", "--input", "input.ndjson", "--nodes", "2"][..],
            &["--apps", "2", "--instances", "1"],
            more,
        ];
        let mut command = command(self.dir.path(), &args.concat());
        command
            .env("NATS_SERVER", &self.server)
            .env("TMPDIR", self.temporary());
        command
    }

    /// Processes that the demo has started, directly or not: all of them inherit its variable.
    fn processes(&self) -> Vec<String> {
        let variable = format!("TMPDIR={}", self.temporary().display());
        let is_one = |environment: Vec<u8>| {
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == variable.as_bytes())
        };
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            // A process that has ended, or is another user's, is none of them.
            if fs::read(path.join("environ")).is_ok_and(is_one) {
                found.push(fs::read_to_string(path.join("cmdline")).unwrap_or_default());
            }
        }
        found
    }

    /// What is left in the temporary directory.
    fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.temporary()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Wants every process to end by itself, and no file to be left now.
    async fn assert_clean(&self) {
        assert_eq!(self.left(), [] as [PathBuf; 0]);
        let gone = async {
            while !self.processes().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let waited = timeout(PATIENCE, gone).await;
        assert!(waited.is_ok(), "still there: {:?}", self.processes());
    }
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no object"));
    object.keys().map(String::as_str).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Goal: a script that feeds its own file gets a verdict with every field of it, the right exit code, and nothing else: no file
/// and no process is left. Method: a file of 300 lines, killed bridges and instances, and the document on standard output.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fed_and_judged() {
    let stage = Stage::below(&std::env::temp_dir()).await;
    let mut demo = stage.demo(&["--json", "--rate", "300", "--seed", "7"]);
    let run = tokio::task::spawn_blocking(move || Run::from(demo.output().unwrap()))
        .await
        .unwrap();
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
    let told = run.json();
    let wanted = [
        "apps",
        "at_rest",
        "faults",
        "nodes",
        "passed",
        "published",
        "reasons",
        "seconds",
        "seed",
    ];
    assert_eq!(keys(&told), BTreeSet::from(wanted));
    assert_eq!(
        (
            &told["passed"],
            &told["reasons"],
            &told["published"],
            &told["seed"]
        ),
        (&true.into(), &Value::Array(Vec::new()), &LINES.into(), &7.into())
    );
    assert!(told["seconds"].as_f64().unwrap() > 0.0, "{told}");
    assert_eq!(
        told["at_rest"],
        serde_json::json!({ "backlog": 0, "dead_letters": 0 })
    );
    let faults = &told["faults"];
    let wanted = [
        "bridge_kills",
        "bridge_pauses",
        "instance_kills",
        "unexpected_exits",
    ];
    assert_eq!(keys(faults), BTreeSet::from(wanted));
    assert!(number(&faults["bridge_kills"]) >= 3 && number(&faults["instance_kills"]) >= 3);
    assert_eq!(
        (
            number(&faults["bridge_pauses"]),
            number(&faults["unexpected_exits"])
        ),
        (1, 0)
    );

    let apps = told["apps"].as_array().unwrap();
    let names: Vec<&str> = apps.iter().map(|app| app["app"].as_str().unwrap()).collect();
    assert_eq!(names, ["billing", "shipping"]);
    let wanted = [
        "acknowledged_once",
        "acknowledged_twice",
        "acknowledged_twice_ids",
        "app",
        "foreign",
        "missing",
        "missing_ids",
        "outcome_unknown",
        "received_again",
        "received_once",
        "share",
    ];
    let mut acked = 0;
    for app in apps {
        assert_eq!(keys(app), BTreeSet::from(wanted));
        for none in ["acknowledged_twice", "foreign", "missing"] {
            assert_eq!(number(&app[none]), 0, "{none}: {app}");
        }
        let once = number(&app["acknowledged_once"]);
        assert_eq!(once + number(&app["outcome_unknown"]), LINES, "{app}");
        assert_eq!(
            number(&app["received_once"]) + number(&app["received_again"]),
            LINES
        );
        let share = |of: &str| {
            let parts = app["share"][of].as_object().unwrap();
            parts.values().map(number).sum::<u64>()
        };
        assert_eq!((share("nodes"), share("instances")), (once, once), "{app}");
        acked += once;
    }
    let nodes = told["nodes"].as_object().unwrap();
    assert!(
        nodes
            .keys()
            .all(|node| ["node-1", "node-2"].contains(&node.as_str())),
        "{told}"
    );
    assert_eq!(nodes.values().map(number).sum::<u64>(), acked);
    stage.assert_clean().await;
}

/// Goal: a demo that is interrupted in the middle says so, by its code and its exit code, and leaves no file and no process; and
/// it runs where temporary files are in memory, of which a bridge promises nothing. Method: `TMPDIR` on a tmpfs, SIGINT to the
/// demo alone while it feeds.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_leaves_nothing() {
    let stage = Stage::below(Path::new("/dev/shm")).await;
    let mut demo = stage.demo(&["--rate", "50"]);
    let errors = stage.dir.path().join("errors");
    demo.stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).unwrap());
    let mut demo = Running::start(demo);
    let mut lines = BufReader::new(demo.stdout()).lines();
    let mut seen = Vec::new();
    let in_the_middle = |line: &str| {
        let fed = line
            .split_once(" fed ")
            .and_then(|(_, rest)| rest.split_once('/'));
        fed.is_some_and(|(fed, _)| (1..LINES).contains(&fed.parse().unwrap()))
    };
    loop {
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .expect("goes on")
            .unwrap();
        let line = line.unwrap_or_else(|| {
            panic!(
                "it ended: {seen:?}\n{}",
                fs::read_to_string(&errors).unwrap_or_default()
            )
        });
        let enough = in_the_middle(&line);
        seen.push(line);
        if enough {
            break;
        }
    }
    assert!(
        seen.iter().any(|line| line.contains("tmpfs in memory")),
        "{seen:?}"
    );
    // The demo, its hub, two bridges and four instances; a bridge or an instance may just be down.
    assert!(stage.processes().len() >= 4, "{:?}", stage.processes());
    demo.signal(Signal::INT);
    while timeout(PATIENCE, lines.next_line())
        .await
        .expect("ends")
        .unwrap()
        .is_some()
    {}
    assert_eq!(demo.end().await, 1);
    let told = fs::read_to_string(&errors).unwrap();
    assert!(
        told.contains("error[FAN-5017]: interrupted; everything that the demo started has ended"),
        "{told}"
    );
    stage.assert_clean().await;
}
