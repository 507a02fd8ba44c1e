//! Runs the mutation gate and prints what came of it as Markdown.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::process::ExitCode;
use std::time::Duration;

use fanin_gate::entries::entries;
use fanin_gate::table::{HEAD, Index, lines};
use fanin_gate::verdict::{Effort, run};

/// Seeds run at most for a mutant when nothing else is said: the bar.
const SEEDS: u64 = 2_000;
/// Seeds run for a mutant that another rule covers when nothing else is said.
const HARMLESS_SEEDS: u64 = 100;

const HELP: &str = "\
fanin-gate [WORD ..] [--seeds N] [--harmless-seeds N] [--from S] [--time SECONDS]

Switches one protocol rule off after the other, or those whose name, rule (P1) or attack (B1) is a WORD. The model explores
the configuration that must notice; the simulation runs seeds from S on (default 1) until a violation shows, at most N of them
(default 2000) and for so long. Mutants that another rule covers are run for 100 seeds and must not be noticed.

Prints a table of mutants and, without words, one of rules and attacks. Ends with 1 when a mutant is caught by neither, one
that must not be noticed is, or a rule or an attack has no mutant that was caught; with 2 when the arguments are wrong.";

struct Arguments {
    words: Vec<String>,
    effort: Effort,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments {
        words: Vec::new(),
        effort: Effort {
            from: 1,
            seeds: SEEDS,
            harmless_seeds: HARMLESS_SEEDS,
            time: None,
        },
    };
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or(format!("{arg} needs a number"))?;
            text.parse::<u64>()
                .map_err(|_| format!("{arg} needs a number, not {text:?}"))
        };
        match arg.as_str() {
            "--seeds" => parsed.effort.seeds = number()?,
            "--harmless-seeds" => parsed.effort.harmless_seeds = number()?,
            "--from" => parsed.effort.from = number()?,
            "--time" => parsed.effort.time = Some(Duration::from_secs(number()?)),
            "--help" | "-h" => return Ok(None),
            option if option.starts_with('-') => return Err(format!("{option} is not an option")),
            _ => parsed.words.push(arg),
        }
    }
    let all = entries();
    let unknown = |word: &&String| !all.iter().any(|entry| entry.is_chosen_by(word));
    match parsed.words.iter().find(unknown) {
        Some(word) => Err(format!("{word} is no mutant, rule or attack")),
        None => Ok(Some(parsed)),
    }
}

fn main() -> ExitCode {
    let parsed = match parse(std::env::args().skip(1)) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("fanin-gate: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    if !fanin_core::mutants::ENABLED {
        eprintln!(
            "fanin-gate: this build cannot switch rules off: it needs debug assertions (cargo xtask mutation-gate)"
        );
        return ExitCode::from(2);
    }
    match gate(&parsed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fanin-gate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything came as it must.
fn gate(parsed: &Arguments) -> std::io::Result<bool> {
    println!("{HEAD}");
    let mut index = Index::default();
    let mut is_well = true;
    let is_chosen = |name: &fanin_gate::entries::Entry| {
        parsed.words.is_empty() || parsed.words.iter().any(|word| name.is_chosen_by(word))
    };
    for entry in entries().iter().filter(|entry| is_chosen(entry)) {
        let verdict = run(entry, parsed.effort)?;
        println!("{}", lines(entry, &verdict));
        is_well &= verdict.is_well(entry);
        index.add(entry, &verdict);
    }
    if parsed.words.is_empty() {
        println!("\n{}", index.table());
        let missing = index.missing();
        if !missing.is_empty() {
            eprintln!("fanin-gate: nothing was caught for {}", missing.join(", "));
            is_well = false;
        }
    }
    Ok(is_well)
}
