//! Runs the simulation for many seeds and tells what came of it.

use std::process::ExitCode;
use std::time::Duration;

use fanin_sim::mutants::ROWS;
use fanin_sim::plan::{Kind, Plan};
use fanin_sim::report::{Campaign, explain};
use fanin_sim::schedule::run;
use fanin_sim::shrink::shrink;

/// Seeds run when nothing else is said.
const SEEDS: u64 = 100;
/// Seeds run at most for each mutant when nothing else is said.
const MUTANT_SEEDS: u64 = 2_000;

const HELP: &str = "\
fanin-sim [--seeds N] [--from S] [--time SECONDS] [--jobs J] [--plan honest|malicious|lazy|broken|identity]
          [--bar] [--trace] [--shrunk]
fanin-sim --mutant NAME|all [--mutant ..] [--markdown] [--seeds N] [--from S] [--time SECONDS] [--plan KIND]

Runs N seeds from S on (default 100 from 1) on J threads, at most so many seconds. Ends with 1 when a seed fails, and
shows the plan it was shrunk to and the end of its history. With --bar it also ends with 1 when there were fewer than 1 000
faults a seed on average, or a promise that such plans may break was never broken; its last lines tell how often each was, and
seeds, hours, faults and violations. --trace shows the whole history of the first seed instead,
with --shrunk under the smallest plan that still fails.

--mutant switches one rule off and runs seeds (default 2000, at most so many seconds a mutant) until a violation shows it.
It tells the rule, the attacks, the mutant, what noticed it, the seeds and the seconds. Ends with 1 when a mutant that must be
noticed is not, or one that must not be is. With --trace the whole history of the first seed in the mutant's plan is shown, with every rule on.";

struct Args {
    campaign: Campaign,
    mutants: Vec<String>,
    markdown: bool,
    seeds: Option<u64>,
    bar: bool,
    trace: bool,
    shrunk: bool,
}

fn parse() -> Result<Option<Args>, String> {
    let mut args = Args {
        campaign: Campaign {
            from: 1,
            seeds: SEEDS,
            time: None,
            jobs: 1,
            kind: None,
        },
        mutants: Vec::new(),
        markdown: false,
        seeds: None,
        bar: false,
        trace: false,
        shrunk: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match word.as_str() {
            "--seeds" => args.seeds = Some(number(value()?)?),
            "--from" => args.campaign.from = number(value()?)?,
            "--time" => args.campaign.time = Some(Duration::from_secs(number(value()?)?)),
            "--jobs" => args.campaign.jobs = number(value()?)?,
            "--plan" => {
                let text = value()?;
                args.campaign.kind = Some(Kind::of_word(&text).ok_or(format!("{text} is no kind of plan"))?);
            }
            "--mutant" => args.mutants.push(value()?),
            "--markdown" => args.markdown = true,
            "--bar" => args.bar = true,
            "--trace" => args.trace = true,
            "--shrunk" => args.shrunk = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    args.campaign.seeds = args.seeds.unwrap_or(SEEDS);
    let unknown = args
        .mutants
        .iter()
        .find(|name| !ROWS.iter().any(|row| row.is_named(name)));
    match unknown {
        Some(name) => Err(format!("{name} is no mutant")),
        None => Ok(Some(args)),
    }
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn main() -> ExitCode {
    let args = match parse() {
        Ok(Some(args)) => args,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("fanin-sim: {why}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = if args.trace {
        show(&args)
    } else if !args.mutants.is_empty() {
        hunt(&args)
    } else {
        campaign(&args)
    };
    match result {
        Ok((text, failed)) => {
            println!("{text}");
            ExitCode::from(u8::from(failed))
        }
        Err(error) => {
            eprintln!("fanin-sim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(args: &Args) -> std::io::Result<(String, bool)> {
    let seed = args.campaign.from;
    let mut rows = ROWS.iter();
    let row = rows.find(|row| args.mutants.iter().any(|name| row.is_named(name)));
    let kind = args.campaign.kind;
    let mut plan = row.map_or_else(|| Plan::draw(seed, kind), |row| row.plan(seed, kind));
    if args.shrunk {
        let outcome = run(seed, &plan, false)?;
        plan = shrink(seed, &plan, outcome)?.0;
    }
    let outcome = run(seed, &plan, true)?;
    let failed = !outcome.violations.is_empty();
    Ok((
        format!("{}\n{plan}{}", outcome.trace, outcome.violations.join("\n")),
        failed,
    ))
}

#[expect(clippy::print_stdout, reason = "a line for each mutant, as it comes")]
fn hunt(args: &Args) -> std::io::Result<(String, bool)> {
    let Campaign { from, time, kind, .. } = args.campaign;
    if args.markdown {
        println!("| rule; attacks | mutant | noticed by | seeds | seconds |\n|---|---|---|---|---|");
    }
    let mut failed = false;
    for row in ROWS
        .iter()
        .filter(|row| args.mutants.iter().any(|name| row.is_named(name)))
    {
        let hunt = row.hunt(from, args.seeds.unwrap_or(MUTANT_SEEDS), time, kind)?;
        failed |= !row.is_as_expected(&hunt);
        println!("{}", row.line(&hunt, args.markdown));
    }
    Ok((String::new(), failed))
}

fn campaign(args: &Args) -> std::io::Result<(String, bool)> {
    let report = args.campaign.run(&|line| eprintln!("{line}"))?;
    let mut text = report.text();
    let mut failed = !report.failures.is_empty();
    if let Some(first) = report.failures.first() {
        text.push_str(&explain(first)?);
    }
    if args.bar {
        failed |= !report.reaches_the_bar();
        text.push_str(&report.bar_text());
    }
    Ok((text, failed))
}
