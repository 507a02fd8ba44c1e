//! `cargo xtask test`: everything that the tests need, then the tests.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::run::{self, Failed, Workspace, output_of, say, shown};

/// Features of every test build. One set for all, so that nothing is built twice.
pub(crate) const FEATURES: &str = "fanin-bridge/failpoints";

/// What is tested: the whole workspace, or all but the levels that start several processes.
const ALL: &[&str] = &["--workspace", "--features", FEATURES];
const QUICK: &[&str] = &["--workspace", "--exclude", "fanin-tests", "--features", FEATURES];

/// Tests that run at once for each processor: those above unit tests wait for processes and timers most of the time.
const TESTS_PER_PROCESSOR: usize = 2;

/// Results of all test binaries together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for (number, what) in counts.split("; ").filter_map(|count| count.split_once(' ')) {
            let number: u64 = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                _ => {}
            }
        }
    }
}

/// Parses the command's own arguments; everything else belongs to the test binaries.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    let (quick, rest) = split_arguments(args);
    build_and_test(workspace, quick, &rest)
}

fn build_and_test(workspace: &Workspace, quick: bool, rest: &[String]) -> Result<(), Failed> {
    let selection = if quick { QUICK } else { ALL };
    // All targets at once, so that the binaries come from the same dependencies as the tests.
    let mut build = workspace.cargo_command(&["build", "--all-targets"]);
    build.args(selection);
    run::run(build)?;

    let server = output_of(workspace.command(workspace.binary("fanin-nats-server")))?;
    say(&format!("nats-server is {server}"));

    // `--no-fail-fast`: one run tells everything that is wrong.
    let mut tests = workspace.cargo_command(&["test", "--no-fail-fast"]);
    tests.args(selection).arg("--").args(rest);
    tests
        .env("NATS_SERVER", server)
        .env("FANIN_BIN", workspace.binary("fanin"));
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        tests.env(
            "RUST_TEST_THREADS",
            (processors * TESTS_PER_PROCESSOR).to_string(),
        );
    }
    let shown = shown(&tests);
    say(&shown);
    let failed = |error: std::io::Error| Failed(format!("{shown}: {error}"));
    let mut child = tests.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let tally = match child.stdout.take() {
        Some(stdout) => forward(BufReader::new(stdout)).map_err(failed)?,
        None => Tally::default(),
    };
    let status = child.wait().map_err(failed)?;
    say("all tests");
    summary(&tally);
    if !status.success() || tally.failed > 0 {
        return Err(Failed(format!("{shown}: {status}")));
    }
    if tally.passed == 0 {
        return Err(Failed("no test ran: the filter fits none".to_owned()));
    }
    Ok(())
}

fn split_arguments(args: &[String]) -> (bool, Vec<String>) {
    let own = args.iter().take_while(|arg| *arg != "--");
    let quick = own.clone().any(|arg| arg == "--quick");
    let behind = args.iter().skip_while(|arg| *arg != "--").skip(1);
    (
        quick,
        own.filter(|arg| *arg != "--quick")
            .chain(behind)
            .cloned()
            .collect(),
    )
}

#[expect(clippy::print_stdout, reason = "the test binaries' own output")]
fn forward(output: impl BufRead) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    for line in output.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.add(&line);
    }
    Ok(tally)
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn summary(tally: &Tally) {
    println!("{} passed, {} failed", tally.passed, tally.failed);
}

#[cfg(test)]
mod tests {
    // Goal: results are added up right and arguments reach whom they are meant for. Method: sample lines and lists.
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added_up() {
        let output = "running 2 tests\n\
                      test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
                      test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(
            forward(output.as_bytes()).unwrap(),
            Tally { passed: 5, failed: 1 }
        );
    }

    #[test]
    fn only_quick_is_for_this_command() {
        let args = |words: &str| words.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(split_arguments(&args("--quick proxy")), (true, args("proxy")));
        assert_eq!(
            split_arguments(&args("a b -- --quick --nocapture")),
            (false, args("a b --quick --nocapture"))
        );
    }
}
