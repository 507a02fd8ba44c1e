//! What needs neither hub nor bridge: help, files, wrong addresses, tables.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Run, command, dir, fanin};

fn config(dir: &Path, more: &str) -> PathBuf {
    let text = format!(
        "data_dir: data\nlisten: unix://{}/fanin.sock\nhub:\n  servers: [nats://127.0.0.1:1]\n{more}mappings:\n  orders:\n    \
         sources: [{{ stream: ORDERS }}]\n    applications: {{ billing: {{}} }}\n",
        dir.display()
    );
    let path = dir.join("fanin.yaml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn help_names_every_command_and_usage_mistakes_end_with_2() {
    let dir = dir();
    let help = fanin(dir.path(), &["--help"]);
    assert_eq!(help.code, 0);
    for word in [
        "run",
        "validate",
        "status",
        "publish",
        "subscribe",
        "completion",
        "errors",
        "Examples:",
        "Exit codes:",
    ] {
        assert!(help.out.contains(word), "{word} is not in\n{}", help.out);
    }
    assert_eq!(fanin(dir.path(), &["--version"]).code, 0);
    for args in [
        &["publish"][..],
        &["nope"],
        &["subscribe", "orders"],
        &["status", "--nope"],
    ] {
        let run = fanin(dir.path(), args);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{args:?}");
    }
}

#[test]
fn a_good_file_is_valid() {
    let dir = dir();
    let file = config(dir.path(), "");
    for verb in ["validate", "lint"] {
        let run = fanin(dir.path(), &[verb, file.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        assert!(run.out.ends_with(": ok\n"), "{}", run.out);
    }
    let json = fanin(dir.path(), &["validate", "--json", file.to_str().unwrap()]).json();
    assert_eq!(json["valid"], true);
    assert_eq!(json["files"][0]["problems"], Value::Array(Vec::new()));
}

#[test]
fn every_problem_is_told_with_its_place_and_cure() {
    let dir = dir();
    let file = config(dir.path(), "  durabilty: lazy\nshutdown_grace: soon\n");
    let run = fanin(dir.path(), &["validate", file.to_str().unwrap()]);
    assert_eq!(run.code, 78);
    for part in [
        "FAN-1003",
        "FAN-1004",
        "fanin.yaml:5",
        "durability",
        "shutdown_grace",
        "cure:",
        "2 error(s)",
    ] {
        assert!(run.out.contains(part), "{part} is not in\n{}", run.out);
    }
    let run = fanin(dir.path(), &["validate", "-j", file.to_str().unwrap()]);
    assert_eq!(run.code, 78);
    let json = run.json();
    assert_eq!(json["valid"], false);
    let problems = json["files"][0]["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2);
    assert_eq!(
        (&problems[0]["code"], &problems[0]["line"]),
        (&Value::from("FAN-1003"), &Value::from(5))
    );

    // `run` says the same before it does anything.
    let run = fanin(dir.path(), &["run", "--config", file.to_str().unwrap()]);
    assert_eq!(run.code, 78);
    assert!(
        run.err.starts_with("error[FAN-1003]") && run.err.contains("FAN-1004"),
        "{}",
        run.err
    );
    assert!(!dir.path().join("data").exists());
}

#[test]
fn several_files_and_one_that_is_missing() {
    let dir = dir();
    let good = config(dir.path(), "");
    let run = fanin(
        dir.path(),
        &["validate", good.to_str().unwrap(), "/nowhere/fanin.yaml"],
    );
    assert_eq!(run.code, 78);
    assert!(
        run.out.contains(": ok\n") && run.out.contains("FAN-1001"),
        "{}",
        run.out
    );
    assert_eq!(fanin(dir.path(), &["run", "-c", "/nowhere/fanin.yaml"]).code, 78);
}

#[test]
fn warnings_count_when_denied() {
    let dir = dir();
    let file = config(dir.path(), "");
    let text = fs::read_to_string(&file).unwrap();
    let twice = "  again:\n    sources: [{ stream: ORDERS }]\n    applications: { billing: {} }\n";
    fs::write(&file, text + twice).unwrap();
    let file = file.to_str().unwrap();
    let run = fanin(dir.path(), &["validate", file]);
    assert_eq!(run.code, 0, "{}", run.out);
    assert!(run.out.contains("FAN-1009"), "{}", run.out);
    assert_eq!(fanin(dir.path(), &["validate", "--deny-warnings", file]).code, 78);
}

#[test]
fn paths_are_looked_at_unless_told_otherwise() {
    let dir = dir();
    let file = config(dir.path(), "  credentials: { creds_file: /nowhere/x.creds }\n");
    let file = file.to_str().unwrap();
    let run = fanin(dir.path(), &["validate", file]);
    assert_eq!(run.code, 78);
    assert!(
        run.out.contains("FAN-5007") && run.out.contains("hub.credentials.creds_file"),
        "{}",
        run.out
    );
    let json = fanin(dir.path(), &["validate", "--json", file]).json();
    let finding = &json["files"][0]["problems"][0];
    assert_eq!(finding["file"], file, "{json}");
    assert!(
        finding["line"].as_u64().is_some_and(|line| line > 1),
        "no line: {json}"
    );
    assert_eq!(fanin(dir.path(), &["validate", "--no-environment", file]).code, 0);
}

/// Goal: a data directory that cannot hold what a mapping requires is a problem with its own code, place and cure, and none where
/// nothing is required. Method: a directory below the tmpfs that every Linux has, which need not exist yet.
#[test]
fn a_data_directory_in_memory_is_a_problem_where_delivery_is_required() {
    let dir = dir();
    let file = config(dir.path(), "");
    let args = ["validate", "--set", "data_dir=/dev/shm/fanin-none/data"];
    let validate = |more: &[&str]| fanin(dir.path(), &[&args, more, &[file.to_str().unwrap()]].concat());
    assert_eq!(validate(&[]).code, 0);
    for required in ["exactly_once", "at_least_once"] {
        let required = format!("mappings.orders.required_delivery={required}");
        let run = validate(&["--set", &required, "--set", "hub.durability=sync_always"]);
        assert_eq!(run.code, 78, "{}", run.out);
        for part in [
            "error FAN-4053 at ",
            "key:   data_dir",
            "is on tmpfs",
            "cure:  Set `data_dir`",
        ] {
            assert!(run.out.contains(part), "{part} is not in {}", run.out);
        }
    }
}

/// Goal: what `run` would make by itself is no fault, and the samples are usable on a machine that has none of their
/// directories. Method: a socket three directories deep below nothing, one below a file, and the samples.
#[test]
fn directories_that_run_would_make_need_not_exist() {
    let dir = dir();
    let file = config(dir.path(), "");
    let file = file.to_str().unwrap();
    let validate = |listen: &Path| {
        let listen = format!("listen=unix://{}", listen.display());
        fanin(dir.path(), &["validate", "--set", &listen, file])
    };
    let absent = validate(&dir.path().join("a/b/c/fanin.sock"));
    assert_eq!(absent.code, 0, "{}", absent.out);
    assert!(!dir.path().join("a").exists(), "validate makes nothing");
    let below_a_file = validate(&Path::new(file).join("fanin.sock"));
    assert_eq!(below_a_file.code, 78);
    assert!(
        below_a_file.out.contains("FAN-5007") && below_a_file.out.contains("listen"),
        "{}",
        below_a_file.out
    );
    for sample in ["minimal", "tour", "two-mappings"] {
        let sample = format!("{}/../config/samples/{sample}.yaml", env!("CARGO_MANIFEST_DIR"));
        let run = fanin(dir.path(), &["validate", &sample]);
        assert_eq!(run.code, 0, "{}", run.out);
    }
    // Its credentials and authority are the operator's to bring; everything else holds.
    let production = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples/production.yaml");
    let run = fanin(dir.path(), &["validate", "--no-environment", production]);
    assert_eq!(run.code, 0, "{}", run.out);
}

#[test]
fn what_is_in_force_is_shown_with_its_origin_and_without_secrets() {
    const SECRET: &str = "correct-horse-battery";
    let dir = dir();
    let file = config(
        dir.path(),
        "  credentials: { user: bridge, password: \"${PW}\" }\n",
    );
    let file = file.to_str().unwrap();
    let show = |more: &[&str]| -> Run {
        let args = [&["config", "show", file, "--set", "shutdown_grace=3s"], more].concat();
        command(dir.path(), &args)
            .env("PW", SECRET)
            .env("FANIN__LOG__LEVEL", "debug")
            .output()
            .unwrap()
            .into()
    };
    for more in [&[][..], &["--json"], &["--yaml"]] {
        let run = show(more);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(!run.out.contains(SECRET) && !run.err.contains(SECRET), "{more:?}");
    }
    let text = show(&[]).out;
    for part in [
        "shutdown_grace = \"3s\"  # flag",
        "log.level = \"debug\"  # environment FANIN__LOG__LEVEL",
        "# default",
        "fanin.yaml:",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // Neither does a refused configuration tell the secret that it complains about.
    let plain = config(
        dir.path(),
        &format!("  credentials: {{ user: bridge, password: {SECRET} }}\n"),
    );
    for args in [
        &["validate"][..],
        &["validate", "--json"],
        &["config", "show"],
        &["run", "--config"],
    ] {
        let run = fanin(dir.path(), &[args, &[plain.to_str().unwrap()]].concat());
        assert_eq!(run.code, 78, "{args:?}");
        assert!(
            (run.out.clone() + &run.err).contains("FAN-1010"),
            "{args:?}: {}{}",
            run.out,
            run.err
        );
        assert!(!run.out.contains(SECRET) && !run.err.contains(SECRET), "{args:?}");
    }
}

/// Goal: a user that this machine does not know keeps the bridge from starting, and is told with its place before that. Method:
/// a name that cannot be one of a system's.
#[test]
fn an_unknown_user_is_a_problem_with_its_place() {
    let dir = dir();
    let file = config(dir.path(), "");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("billing: {}"), "{text}");
    let named = text.replace("billing: {}", "billing: { users: [0, fanin-nobody] }");
    fs::write(&file, &named).unwrap();
    let line = 1 + named.lines().position(|line| line.contains("users:")).unwrap();
    let file = file.to_str().unwrap();
    let place = format!("{file}:{line}");
    for args in [&["validate", file][..], &["run", "--config", file]] {
        let run = fanin(dir.path(), args);
        let told = run.out + &run.err;
        assert_eq!(run.code, 78, "{told}");
        for part in ["FAN-1012", place.as_str(), "users[1]", "fanin-nobody", "cure:"] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
    assert_eq!(fanin(dir.path(), &["validate", "--no-environment", file]).code, 0);
}

#[test]
fn the_schema_is_json() {
    let schema = fanin(dir().path(), &["config", "schema"]).json();
    assert_eq!(schema["title"], "fanin configuration");
}

#[test]
fn a_wrong_socket_is_unavailable_and_the_cure_names_the_variable() {
    let dir = dir();
    let nowhere = dir.path().join("nope.sock");
    let nowhere = nowhere.to_str().unwrap();
    for args in [
        &["status", "--socket", nowhere][..],
        &["status", "--watch", "--socket", nowhere],
        &[
            "subscribe",
            "orders",
            "--app",
            "billing",
            "--wait",
            "0",
            "--socket",
            nowhere,
        ],
    ] {
        let run = fanin(dir.path(), args);
        assert_eq!((run.code, run.out.as_str()), (69, ""), "{args:?}");
        assert!(
            run.err.starts_with("error[FAN-5001]: no socket at"),
            "{}",
            run.err
        );
        assert!(run.err.contains("FANIN_SOCKET"), "{}", run.err);
        let run = fanin(dir.path(), &[args, &["--json"]].concat());
        let error = run.error();
        assert_eq!(
            (run.code, &error["code"], &error["exit_code"]),
            (69, &Value::from("FAN-5001"), &Value::from(69))
        );
    }
    let run: Run = command(dir.path(), &["status"])
        .env("FANIN_SOCKET", nowhere)
        .output()
        .unwrap()
        .into();
    assert!(run.code == 69 && run.err.contains(nowhere), "{}", run.err);
    assert_eq!(fanin(dir.path(), &["status", "--socket", "http://x"]).code, 2);

    // A file left behind by a bridge that is gone.
    let left = dir.path().join("left.sock");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let run = fanin(dir.path(), &["status", "--socket", left.to_str().unwrap()]);
    assert!(
        run.code == 69 && run.err.contains("nobody listens"),
        "{}",
        run.err
    );
}

#[test]
fn an_absent_hub_is_unavailable_and_its_password_stays_secret() {
    let dir = dir();
    let run = fanin(
        dir.path(),
        &[
            "publish",
            "orders",
            "--server",
            "nats://127.0.0.1:1",
            "--wait",
            "0",
            "--user",
            "u",
            "--password",
            "hunter2",
            "--json",
        ],
    );
    assert_eq!(run.code, 69, "{}", run.err);
    assert_eq!(run.error()["code"], "FAN-2001");
    assert!(!run.err.contains("hunter2") && !run.out.contains("hunter2"));

    let run = fanin(dir.path(), &["publish", "orders", "--context", "nope"]);
    assert!(run.code == 78 && run.err.contains("FAN-5006"), "{}", run.err);
    let run = fanin(dir.path(), &["publish", "orders", "--file", "nope.ndjson"]);
    assert!(
        run.code == 74 && run.err.contains("FAN-5004") && run.err.contains("nope.ndjson"),
        "{}",
        run.err
    );
}

#[test]
fn completion_scripts() {
    let dir = dir();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = fanin(dir.path(), &["completion", shell]);
        assert!(run.code == 0 && run.out.contains("subscribe"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let dir = dir();
    let mut child = command(dir.path(), &["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The script is larger than this end takes, and nobody reads it.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn errors_are_explained() {
    let dir = dir();
    let all = fanin(dir.path(), &["errors", "--json"]).json();
    let codes: Vec<&str> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["code"].as_str().unwrap())
        .collect();
    assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
    for spelling in ["FAN-3002", "fan-3002", "3002"] {
        let run = fanin(dir.path(), &["errors", spelling]);
        assert!(
            run.code == 0 && run.out.contains("cause:") && run.out.contains("cure:"),
            "{}",
            run.out
        );
    }
    let run = fanin(dir.path(), &["errors", "9999"]);
    assert!(run.code == 2 && run.err.contains("FAN-5013"), "{}", run.err);
}

/// Goal: no code that a user can meet is without explanation. Method: every code in the sources is in the table.
#[test]
fn every_code_in_the_sources_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fanin(dir().path(), &["errors", "--json"]).json();
    let known: BTreeSet<String> = table
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["code"].as_str().unwrap().to_owned())
        .collect();
    let mut files = vec![
        root.join("src"),
        root.join("hub/src"),
        root.join("store/src"),
        root.join("../config/src"),
    ];
    let mut found = BTreeSet::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Unit tests make up codes that do not exist.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let codes = text
                .match_indices("FAN-")
                .filter_map(|(at, _)| text.get(at..at + 8));
            found.extend(
                codes
                    .filter(|code| code[4..].bytes().all(|b| b.is_ascii_digit()))
                    .map(str::to_owned),
            );
        }
    }
    assert!(found.len() > 40, "{found:?}");
    let unexplained: Vec<&String> = found.difference(&known).collect();
    assert!(unexplained.is_empty(), "not in `fanin errors`: {unexplained:?}");
}

#[test]
fn input_from_a_pipe_is_not_waited_for_when_the_hub_is_away() {
    let dir = dir();
    let mut child = command(
        dir.path(),
        &["publish", "orders", "-s", "nats://127.0.0.1:1", "--wait", "0"],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut input = child.stdin.take().unwrap();
    // The program may be gone already; then the write fails, which is just as well.
    let _ = input.write_all(b"one\n");
    let run: Run = {
        // The pipe stays open: a program that waited for its end would hang here.
        let output = child.wait_with_output().unwrap();
        drop(input);
        output.into()
    };
    assert_eq!(run.code, 69, "{}", run.err);
}
