//! Chaos on the real thing: real servers, real bridges, instances and a producer in processes of their own, a schedule of faults
//! from a seed, and a checker that decides afterwards from what the processes wrote down. `cargo xtask chaos` builds and runs it.

mod check;
mod error;
mod faults;
mod history;
mod hub;
mod limits;
mod plan;
mod role;
mod roles;
mod run;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use check::Verdict;
use error::{RunError, during};
use plan::{Kind, Plan, Wish};

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
    /// Tells the whole schedule. Default: from the time of day; it is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on.
    #[arg(long, default_value_t = 5.0, value_parser = minutes)]
    minutes: f64,
    #[arg(long, value_enum, default_value_t = HubKind::R1)]
    hub: HubKind,
    /// Path of a nats-server, or its version: then it is looked for in a directory of that version beside the one that
    /// NATS_SERVER names. Default: what NATS_SERVER names, PATH, or one that is fetched.
    #[arg(long)]
    server: Option<String>,
    #[arg(long, value_enum, default_value_t = Sync::Always)]
    sync: Sync,
    /// Kinds of faults. Default: all within the promise of exactly once.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Where histories, logs and the list are left. Default: a temporary directory, kept when the run is red.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Prints the verdict as JSON.
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

impl Run {
    fn seed(&self) -> u64 {
        let now = || {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default()
        };
        self.seed.unwrap_or_else(|| u64::from(now().subsec_nanos()))
    }

    fn wish(&self) -> Wish {
        let kinds = if self.faults.is_empty() {
            Kind::within_promise()
        } else {
            self.faults.clone()
        };
        Wish {
            seed: self.seed(),
            time: Duration::from_secs_f64(self.minutes * 60.0),
            clustered: self.hub == HubKind::R3,
            kinds,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args)
            .await
            .and_then(|verdict| told(&verdict, args.json)),
        Command::Plan(args) => {
            show_plan(&Plan::new(&args.wish()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { dir } => check::judge_dir(&dir)
            .map_err(during("reading a run"))
            .and_then(|verdict| told(&verdict, false)),
        Command::Produce(args) => roles::produce(args).await.map(|()| ExitCode::SUCCESS),
        Command::Consume(args) => roles::consume(args).await.map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(RunError(why)) => {
            eprintln!("fanin-chaos: {why}");
            // Not a verdict: nothing is said about the bridges.
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command line program")]
fn show_plan(plan: &Plan) {
    for step in plan.steps.iter().chain(&plan.last) {
        println!("{step}");
    }
}

/// Exit code 0 for green and 1 for red.
#[expect(clippy::print_stdout, reason = "a command line program")]
fn told(verdict: &Verdict, json: bool) -> Result<ExitCode, RunError> {
    if json {
        println!(
            "{}",
            serde_json::to_string(verdict).map_err(during("printing the verdict"))?
        );
    } else {
        println!("{verdict}");
    }
    Ok(if verdict.green {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
