//! Every mutant that cargo-mutants names in the protocol core, tried in minutes: all of them are built at once, as switched copies of their
//! functions, and the tests run with one switched on after the other. `docs/mutation-testing.md` has the results.
//!
//! `fanin-mutants [--jobs N] [--markdown] [FILE...]`

mod building;
mod judge;
mod mutant;
mod switch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use judge::Verdict;
use mutant::Mutant;

/// Why nothing can be said, as a sentence for people.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl Failed {
    pub(crate) fn io(what: &str, error: &std::io::Error) -> Failed {
        Failed(format!("{what}: {error}"))
    }
}

/// What came of a mutant, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Caught,
    OutOfTime,
    Unviable,
    NotSwitched,
    Survived,
}

const COLUMNS: [(Outcome, &str); 5] = [
    (Outcome::Caught, "caught"),
    (Outcome::OutOfTime, "out of time"),
    (Outcome::Unviable, "not compilable"),
    (Outcome::NotSwitched, "not switched"),
    (Outcome::Survived, "survived"),
];

struct Arguments {
    jobs: usize,
    files: Vec<String>,
}

fn arguments(mut args: impl Iterator<Item = String>) -> Result<Arguments, Failed> {
    let mut out = Arguments {
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        files: Vec::new(),
    };
    while let Some(arg) = args.next() {
        if arg == "--jobs" {
            let jobs = args.next().and_then(|jobs| jobs.parse().ok());
            out.jobs = jobs.ok_or_else(|| Failed("--jobs needs a number".to_owned()))?;
        } else if arg.starts_with('-') {
            return Err(Failed(format!("unexpected argument {arg:?}")));
        } else {
            out.files.push(arg);
        }
    }
    Ok(out)
}

/// The root of the repository that this was built in.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn report(mutants: &[Mutant], outcomes: &BTreeMap<u32, Outcome>) {
    let mut rows: BTreeMap<&str, BTreeMap<Outcome, usize>> = BTreeMap::new();
    for mutant in mutants {
        if let Some(outcome) = outcomes.get(&mutant.id) {
            for row in [mutant.file.as_str(), "~ all"] {
                *rows.entry(row).or_default().entry(*outcome).or_default() += 1;
            }
        }
    }
    let names: Vec<_> = COLUMNS.iter().map(|(_, name)| *name).collect();
    println!(
        "\n| file | {} |\n|---|{}",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (file, row) in rows {
        let count = |(outcome, _): &(Outcome, &str)| row.get(outcome).copied().unwrap_or(0).to_string();
        let file = file
            .trim_start_matches("bridge/core/src/")
            .trim_start_matches("~ ");
        println!(
            "| {file} | {} |",
            COLUMNS.iter().map(count).collect::<Vec<_>>().join(" | ")
        );
    }
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn run() -> Result<usize, Failed> {
    let Arguments { jobs, files } = arguments(std::env::args().skip(1))?;
    let root = root();
    let mutants = mutant::list(&root, &files)?;
    println!("{} mutants", mutants.len());
    let built = building::build(&root, &root.join("target/switched-mutants"), &mutants)?;
    let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
    outcomes.extend(built.unviable.iter().map(|id| (*id, Outcome::Unviable)));
    outcomes.extend(built.not_switched.keys().map(|id| (*id, Outcome::NotSwitched)));
    let ids: Vec<u32> = mutants
        .iter()
        .map(|mutant| mutant.id)
        .filter(|id| !outcomes.contains_key(id))
        .collect();
    println!("{} of them built; each runs the tests now", ids.len());
    let names: BTreeMap<u32, &str> = mutants
        .iter()
        .map(|mutant| (mutant.id, mutant.name.as_str()))
        .collect();
    for (id, why) in &built.not_switched {
        println!("not switched ({why}): {}", names.get(id).unwrap_or(&"?"));
    }
    judge::all(&built, &ids, jobs, |id, verdict| {
        let name = names.get(&id).unwrap_or(&"?");
        let outcome = match verdict {
            Verdict::Caught => Outcome::Caught,
            Verdict::OutOfTime => {
                println!("out of time: {name}");
                Outcome::OutOfTime
            }
            Verdict::Survived => {
                println!("survived: {name}");
                Outcome::Survived
            }
        };
        outcomes.insert(id, outcome);
    })?;
    report(&mutants, &outcomes);
    Ok(outcomes
        .values()
        .filter(|outcome| **outcome == Outcome::Survived)
        .count())
}

fn main() -> ExitCode {
    match run() {
        Ok(_) => ExitCode::SUCCESS,
        Err(Failed(reason)) => {
            eprintln!("fanin-mutants: {reason}");
            ExitCode::FAILURE
        }
    }
}
