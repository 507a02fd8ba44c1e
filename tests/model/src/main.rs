//! The model checker's command: explores named configurations, or shows that every rule is needed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command's output")]

use std::process::ExitCode;
use std::time::Duration;

use fanin_model::configs::{self, CI, LARGE};
use fanin_model::mutants::{Expected, ROWS, Row};
use fanin_model::run::{Limits, Outcome, Report, explore, explore_shortest};
use fanin_model::setup::{Config, Setup};

const USAGE: &str = "\
fanin-model list
fanin-model run [CONFIG ..] [--large] [--markdown] [--threads N] [--max-states N] [--time SECONDS] [--live-every N]
fanin-model mutants [WORD ..] [--markdown] [--threads N] [--time SECONDS]

run      explores the named configurations, all of the ordinary ones, or with --large the large ones
mutants  switches off one rule at a time (those whose row holds a WORD, or all) and runs the configuration that must notice
Exit status: 0 all is well, 1 an invariant is broken or a mutant was not noticed, 2 wrong arguments.";

struct Arguments {
    words: Vec<String>,
    large: bool,
    markdown: bool,
    live_every: Option<u64>,
    limits: Limits,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        words: Vec::new(),
        large: false,
        markdown: false,
        live_every: None,
        limits: Limits::default(),
    };
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or(format!("{arg} needs a number"))?;
            text.parse::<u64>()
                .map_err(|_| format!("{arg} needs a number, not {text:?}"))
        };
        match arg.as_str() {
            "--large" => parsed.large = true,
            "--markdown" => parsed.markdown = true,
            "--threads" => parsed.limits.threads = usize::try_from(number()?).unwrap_or(1).max(1),
            "--max-states" => {
                parsed.limits.states_max = Some(usize::try_from(number()?).unwrap_or(usize::MAX))
            }
            "--time" => parsed.limits.time_max = Some(Duration::from_secs(number()?)),
            "--live-every" => parsed.live_every = Some(number()?),
            option if option.starts_with('-') => return Err(format!("{option} is not an option")),
            _ => parsed.words.push(arg),
        }
    }
    Ok(parsed)
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let parsed = parse(args);
    let done = match (command.as_str(), parsed) {
        ("list", Ok(_)) => {
            list();
            Ok(true)
        }
        ("run", Ok(parsed)) => run(&parsed),
        ("mutants", Ok(parsed)) => Ok(mutants(&parsed)),
        (_, Err(error)) => Err(error),
        _ => Err(format!("{command:?} is not a command")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    for config in CI.iter().chain(LARGE) {
        println!("{:<18} {}", config.name, config.goal);
    }
}

fn chosen(parsed: &Arguments) -> Result<Vec<Config>, String> {
    if parsed.words.is_empty() {
        return Ok(if parsed.large { LARGE } else { CI }.to_vec());
    }
    let found = |name: &String| configs::named(name).ok_or(format!("there is no configuration {name:?}"));
    parsed.words.iter().map(found).collect()
}

fn run(parsed: &Arguments) -> Result<bool, String> {
    if parsed.markdown {
        println!("| configuration | explores | states | different | depth | seconds | end |");
        println!("|---|---|---|---|---|---|---|");
    } else {
        println!(
            "{:<18} {:>12} {:>12} {:>6} {:>9}  end",
            "configuration", "states", "unique", "depth", "seconds"
        );
    }
    let mut well = true;
    for mut config in chosen(parsed)? {
        config.live_every = parsed.live_every.unwrap_or(config.live_every);
        let setup = Setup {
            config,
            mutant: None,
            blind: &[],
        };
        let report = explore_shortest(setup, parsed.limits);
        if parsed.markdown {
            println!("{}", row(&config, &report));
        } else {
            println!("{:<18} {}", config.name, columns(&report));
        }
        well &= tell(&report.outcome);
    }
    Ok(well)
}

fn end(report: &Report) -> String {
    match &report.outcome {
        Outcome::Complete => "complete".to_owned(),
        Outcome::Bounded => "bounded".to_owned(),
        Outcome::Broken { invariant, .. } => format!("BROKEN {}", invariant.title()),
    }
}

/// A row of the tables in `docs/model.md`.
fn row(config: &Config, report: &Report) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {:.1} | {} |",
        config.name,
        config.goal,
        report.states,
        report.unique,
        report.depth,
        report.took.as_secs_f64(),
        end(report)
    )
}

fn columns(report: &Report) -> String {
    let end = end(report);
    format!(
        "{:>12} {:>12} {:>6} {:>9.1}  {end}",
        report.states,
        report.unique,
        report.depth,
        report.took.as_secs_f64()
    )
}

/// Prints a trace, if any. Says whether all is well.
fn tell(outcome: &Outcome) -> bool {
    let Outcome::Broken { text, trace, .. } = outcome else {
        return true;
    };
    println!("  {text}");
    for line in trace {
        println!("    {line}");
    }
    false
}

fn mutants(parsed: &Arguments) -> bool {
    if parsed.markdown {
        println!("| rule; attacks | mutant | configuration | noticed by | steps | states | seconds |");
        println!("|---|---|---|---|---|---|---|");
    }
    let mut well = true;
    for row in ROWS.iter().filter(|row| is_wanted(row, &parsed.words)) {
        let Some(setup) = row.setup() else { continue };
        let report = explore(setup, parsed.limits);
        let noticed = match &report.outcome {
            Outcome::Broken { invariant, .. } => invariant.title().to_owned(),
            Outcome::Complete => "nothing, complete".to_owned(),
            Outcome::Bounded => "nothing, bounded".to_owned(),
        };
        let expected = row.is_as_expected(&report.outcome);
        well &= expected;
        let steps = match &report.outcome {
            Outcome::Broken { steps, .. } => steps.to_string(),
            Outcome::Complete | Outcome::Bounded => "-".to_owned(),
        };
        let why = match row.expected {
            Expected::Harmless(why) => format!(" ({why})"),
            Expected::Found => String::new(),
        };
        let seconds = report.took.as_secs_f64();
        let name = row.mutant.name();
        if parsed.markdown {
            println!(
                "| {} | {name} | {} | {noticed}{why} | {steps} | {} | {seconds:.1} |",
                row.rule, row.config, report.unique
            );
        } else {
            let mark = if expected { "" } else { "  NOT AS EXPECTED" };
            println!(
                "{:<28} {name:<28} {:<14} {noticed}{why}: {steps} steps, {} states, {seconds:.1} s{mark}",
                row.rule, row.config, report.unique
            );
            if parsed.words.iter().any(|word| word == &name) {
                tell(&report.outcome);
            }
        }
    }
    well
}

fn is_wanted(row: &Row, words: &[String]) -> bool {
    let text = format!("{} {} {}", row.rule, row.mutant.name(), row.config);
    words.is_empty() || words.iter().any(|word| text.contains(word.as_str()))
}
