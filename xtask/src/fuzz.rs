//! `cargo xtask fuzz`: hostile bytes for a while. With a nightly toolchain and cargo-fuzz the coverage-guided targets of `fuzz/`, without
//! them the property tests of the same judges with many cases. `docs/fuzzing.md`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::{self, Failed, Workspace, say};

/// Seconds for each target where nothing else is said.
const SECONDS: u64 = 60;

/// Cases of a property test for each second asked for: about what a core does of the quick ones.
const CASES_PER_SECOND: u64 = 2_000;

/// Longest input, bytes: what is interesting in larger ones is tested by hand.
const INPUT_BYTES_MAX: u32 = 4_096;

/// Memory that a target may hold, MiB; one that grows without bound ends there.
const MEMORY_MIB_MAX: u32 = 2_048;

/// Seconds that one input may take.
const INPUT_SECONDS_MAX: u32 = 20;

struct Asked {
    seconds: u64,
    targets: Vec<String>,
}

fn parse(args: &[String]) -> Result<Asked, Failed> {
    let mut asked = Asked {
        seconds: SECONDS,
        targets: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let number = args.next().and_then(|text| text.parse().ok());
            asked.seconds = number.ok_or_else(|| Failed("--seconds needs a number".to_owned()))?;
        } else if arg.starts_with('-') {
            return Err(Failed(format!("unexpected argument {arg:?}")));
        } else {
            asked.targets.push(arg.clone());
        }
    }
    Ok(asked)
}

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    let asked = parse(args)?;
    let known = targets(workspace)?;
    if let Some(unknown) = asked.targets.iter().find(|name| !known.contains(name)) {
        return Err(Failed(format!(
            "there is no target {unknown:?}; there are: {}",
            known.join(", ")
        )));
    }
    match missing(workspace) {
        None => {
            let chosen = if asked.targets.is_empty() {
                known
            } else {
                asked.targets
            };
            guided(workspace, &chosen, asked.seconds)
        }
        Some(missing) => {
            say(&format!(
                "{missing}, so the property tests run instead, with many cases and without coverage; all of them"
            ));
            let mut tests = workspace.cargo_command(&["test", "--package", "fanin-fuzz", "--release"]);
            tests.env(
                "FANIN_FUZZ_CASES",
                asked.seconds.saturating_mul(CASES_PER_SECOND).to_string(),
            );
            run::run(tests)
        }
    }
}

/// The names of the targets, in order.
fn targets(workspace: &Workspace) -> Result<Vec<String>, Failed> {
    let folder = workspace.root().join("fuzz/targets");
    let entries =
        std::fs::read_dir(&folder).map_err(|error| Failed(format!("{}: {error}", folder.display())))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// What the coverage-guided targets need and this machine does not have.
fn missing(workspace: &Workspace) -> Option<&'static str> {
    let answers = |program: &str, args: &[&str]| {
        let mut command: Command = workspace.command(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !answers("rustup", &["run", "nightly", "cargo", "--version"]) {
        Some("there is no nightly toolchain (rustup toolchain install nightly)")
    } else if !answers("cargo-fuzz", &["--version"]) {
        Some("there is no cargo-fuzz (cargo install cargo-fuzz --locked)")
    } else {
        None
    }
}

fn guided(workspace: &Workspace, targets: &[String], seconds: u64) -> Result<(), Failed> {
    say(&format!(
        "cargo-fuzz on nightly, {seconds} s for each of: {}",
        targets.join(", ")
    ));
    let mut failed = Vec::new();
    for target in targets {
        let corpus = workspace.root().join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&corpus).map_err(|error| Failed(format!("{}: {error}", corpus.display())))?;
        // Not `cargo fuzz` by way of the cargo that runs this: that one belongs to the pinned toolchain.
        let mut fuzz = workspace.command("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", "run", target])
            .arg(format!("fuzz/corpus/{target}"))
            .arg(format!("fuzz/seeds/{target}"))
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg("-print_final_stats=1");
        for inherited in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC", "RUSTFLAGS"] {
            fuzz.env_remove(inherited);
        }
        // Files of the local log and of the configuration are written for each input.
        if std::env::var_os("TMPDIR").is_none() && Path::new("/dev/shm").is_dir() {
            fuzz.env("TMPDIR", "/dev/shm");
        }
        if let Err(Failed(reason)) = run::run(fuzz) {
            say(&format!("{target}: {reason}"));
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failed(format!(
        "findings in {}; the inputs stand in fuzz/artifacts",
        failed.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    // Goal: what is typed is what is run. Method: arguments of each kind.
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_are_read() {
        let asked = parse(&words("--seconds 5 log hub")).unwrap();
        assert_eq!((asked.seconds, asked.targets), (5, words("log hub")));
        assert_eq!(parse(&[]).unwrap().seconds, SECONDS);
        for wrong in ["--seconds", "--seconds x", "--second 5"] {
            assert!(parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn there_are_targets() {
        let found = targets(&Workspace::of_this_build()).unwrap();
        assert!(found.contains(&"records".to_owned()), "{found:?}");
    }
}
