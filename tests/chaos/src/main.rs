//! Chaos on the real thing: real servers, real bridges, instances and a producer in processes of their own, a schedule of faults
//! from a seed, and a checker that decides afterwards from what the processes wrote down. `cargo xtask chaos` builds and runs it.

mod check;
mod disk_under;
mod error;
mod explain;
mod faults;
mod history;
mod holdings;
mod hub;
mod limits;
mod listed;
mod plan;
mod role;
mod roles;
mod run;
mod series;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use check::Verdict;
use error::{RunError, during};
use limits::{JOBS_MAX, REPEATS_MAX};
use plan::{Kind, Plan};
use series::{resolve, series, slice};

/// Runs chaos against real servers and judges it.
#[derive(Debug, Parser)]
#[command(name = "fanin-chaos")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a schedule and judges it.
    Run(Run),
    /// Five minutes of faults as every change has to survive them: one server and three, both with lost power, and each other act
    /// that breaks the promise.
    Slice(Slice),
    /// Shows the schedule of a seed.
    Plan(Run),
    /// Judges again what an earlier run left.
    Check {
        /// The run's directory.
        dir: PathBuf,
    },
    #[command(hide = true)]
    Produce(roles::Produce),
    #[command(hide = true)]
    Consume(roles::Consume),
}

/// What kind of hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum HubKind {
    /// One server.
    R1,
    /// Three servers as a cluster; source and ledger with three replicas.
    R3,
}

/// When the hub syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sync {
    /// Before it answers.
    Always,
    /// At intervals, as by default.
    Lazy,
}

#[derive(Clone, Debug, Args)]
struct Run {
    /// How long faults go on.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    #[arg(long, value_enum, default_value_t = HubKind::R1)]
    hub: HubKind,
    #[arg(long, value_enum, default_value_t = Sync::Always)]
    sync: Sync,
    /// Kinds of faults. Default: all within the promise of exactly once; with --sync lazy also lost power, last.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, Args)]
struct Slice {
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, Args)]
struct Common {
    /// Tells the whole schedule. Default: from the time of day; it is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs so often, with this seed and those that follow it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=REPEATS_MAX))]
    repeat: u64,
    /// Runs so many at once. They mostly wait; four keep two processors busy.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=JOBS_MAX))]
    jobs: u64,
    /// Path of a nats-server, or its version: then it is fetched, by its digest. Several take turns. Default: what NATS_SERVER
    /// names, PATH, or one that is fetched.
    #[arg(long, value_delimiter = ',')]
    server: Vec<String>,
    /// Where histories, logs and the list are left, one directory a run if there are several. Default: a temporary directory,
    /// kept when a run is red.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Prints each verdict as JSON.
    #[arg(long)]
    json: bool,
}

/// More than nothing, at most a day.
fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if minutes > 0.0 && minutes <= 1440.0 {
        Ok(minutes)
    } else {
        Err("between 0 and 1440".to_owned())
    }
}

impl Common {
    fn seed(&self) -> u64 {
        let now = || {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default()
        };
        self.seed.unwrap_or_else(|| u64::from(now().subsec_nanos()))
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if matches!(command, Command::Run(_) | Command::Slice(_)) {
        disk_under::own_mounts();
    }
    let runtime = tokio::runtime::Runtime::new().map_err(during("starting the runtime"));
    let done = runtime.and_then(|runtime| runtime.block_on(execute(command)));
    match done {
        Ok(code) => code,
        Err(RunError(why)) => {
            eprintln!("fanin-chaos: {why}");
            // Not a verdict: nothing is said about the bridges.
            ExitCode::from(2)
        }
    }
}

async fn execute(command: Command) -> Result<ExitCode, RunError> {
    match command {
        Command::Run(args) => series(&args.common, &[args.part()]).await,
        Command::Slice(args) => slice(&args.common).await,
        Command::Plan(args) => {
            let orders = resolve(&args.common, &[args.part()]).await?;
            orders.iter().for_each(|order| show_plan(&Plan::new(&order.wish)));
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { dir } => check::judge_dir(&dir)
            .map_err(during("reading a run"))
            .and_then(|verdict| told(&verdict, false, None)),
        Command::Produce(args) => roles::produce(args).await.map(|()| ExitCode::SUCCESS),
        Command::Consume(args) => roles::consume(args).await.map(|()| ExitCode::SUCCESS),
    }
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn show_plan(plan: &Plan) {
    for step in plan.steps.iter().chain(&plan.last) {
        println!("{step}");
    }
}

/// Exit code 0 for green and 1 for red. `of` names the run among others.
#[expect(clippy::print_stdout, reason = "a command line program")]
fn told(verdict: &Verdict, json: bool, of: Option<&str>) -> Result<ExitCode, RunError> {
    if json {
        println!(
            "{}",
            serde_json::to_string(verdict).map_err(during("printing the verdict"))?
        );
    } else {
        of.iter().for_each(|of| println!("{of}"));
        println!("{verdict}");
    }
    Ok(if verdict.green {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
