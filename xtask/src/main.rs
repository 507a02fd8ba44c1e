//! The project's own commands. `cargo xtask help` lists them.
//!
//! Without dependencies, so that it is built in a second.

mod cargo_deny;
mod chaos;
mod demo;
mod fuzz;
mod mutants;
mod run;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;
use std::time::Instant;

use run::{Failed, Workspace};

const HELP: &str = "\
cargo xtask COMMAND

  test [--quick] [FILTER...]  builds the fanin binary with its fail points, finds or fetches a nats-server, and runs
                              every test; --quick leaves out the levels that start several processes. What follows
                              goes to the test binaries: filters, or -- and options such as --nocapture
  chaos [--seed S] [--minutes M] [--hub r1|r3] [--server PATH|VERSION] [--sync always|lazy] [--faults LIST] [--repeat N]
                              plays a schedule of faults on real servers, bridges and applications, and judges it; a seed
                              tells the whole schedule; --help explains the rest
  chaos slice [--seed S] [--repeat N] [--server PATH|VERSION,...]
                              five minutes of faults: one server and three, both with lost power, and each other act that
                              breaks the promise
  sim [ARGUMENT...]           the deterministic simulation, optimised and with every assertion: --seeds N --from S
                              --time SECONDS --jobs J --plan honest|malicious|lazy|broken|identity, --bar, --trace, --shrunk
  mutation-gate [WORD...] [--seeds N] [--time SECONDS]
                              every protocol rule switched off once: what the simulation and the model notice, as a table
                              (docs/mutants.md); fails when a rule or an attack is noticed by neither
  fuzz [--seconds N] [TARGET...]
                              hostile bytes for N seconds each: cargo-fuzz where it and a nightly toolchain are
                              installed, else the property tests with many cases; it says which
  mutants [--jobs N] [FILE...]
                              every small change of the protocol core that cargo-mutants names, from one build: which of them
                              no test notices (docs/mutation-testing.md)
  mutants --each [--jobs N] [--shard K/N] [--re REGEX] [FILE...]
                              the same by cargo-mutants itself, with a build for each
  lint                        format, clippy with warnings as errors, and tidy
  tidy                        the repository's own rules: file sizes, leftovers, sleeps in tests, crate dependencies
  deny                        licences, banned crates, sources and, when its database can be reached, advisories
  ci                          everything that must pass before a change goes in
  help                        this text

Environment: NATS_SERVER names the server to test with; FANIN_TEST_PATIENCE multiplies every time limit in tests.";

#[expect(clippy::print_stdout, reason = "a command line program")]
fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = args.collect();
    let workspace = Workspace::of_this_build();
    let started = Instant::now();
    let result = match command.as_str() {
        "test" => test::run(&workspace, &rest),
        "chaos" => chaos::run(&workspace, &rest),
        "sim" => sim::run(&workspace, &rest),
        "mutation-gate" => sim::gate(&workspace, &rest),
        "fuzz" => fuzz::run(&workspace, &rest),
        "mutants" => mutants::run(&workspace, &rest),
        "lint" => no_arguments(&rest).and_then(|()| lint(&workspace)),
        "tidy" => no_arguments(&rest).and_then(|()| tidy::run(&workspace)),
        "deny" => no_arguments(&rest).and_then(|()| cargo_deny::run(&workspace)),
        "ci" => no_arguments(&rest).and_then(|()| ci(&workspace)),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => Err(Failed(format!(
            "unknown command {other:?}; cargo xtask help lists them"
        ))),
    };
    match result {
        Ok(()) => {
            run::say(&format!("{command} passed in {} s", started.elapsed().as_secs()));
            ExitCode::SUCCESS
        }
        Err(Failed(reason)) => {
            eprintln!("xtask: {command} failed: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn no_arguments(rest: &[String]) -> Result<(), Failed> {
    match rest.first() {
        None => Ok(()),
        Some(extra) => Err(Failed(format!("unexpected argument {extra:?}"))),
    }
}

fn lint(workspace: &Workspace) -> Result<(), Failed> {
    tidy::run(workspace)?;
    workspace.cargo(&["fmt", "--all", "--check"])?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        test::FEATURES,
        "--",
        "-D",
        "warnings",
    ];
    workspace.cargo(&clippy)
}

/// Ends with the binary as operators get it: optimised, without fail points, and its demo must go through.
fn ci(workspace: &Workspace) -> Result<(), Failed> {
    lint(workspace)?;
    cargo_deny::run(workspace)?;
    test::run(workspace, &[])?;
    let words: Vec<String> = chaos::SLICE.split(' ').map(str::to_owned).collect();
    chaos::run(workspace, &words)?;
    demo::run(workspace)
}
