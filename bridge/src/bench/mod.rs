//! `fanin bench`: what the bridge costs, measured on this machine with real processes.
//!
//! | part | what it does |
//! |---|---|
//! | `compare` | fanin beside one durable per application, repetition by repetition |
//! | `stalled` | the bridge's memory while an application stands still |
//! | `recovery` | how long a bridge with a backlog takes to be back after SIGKILL |
//! | `sides` | the measured phase of either side |
//! | `source`, `bridge`, `child` | the hub with its stream, the bridge, the processes of the applications |
//! | `fanin_app`, `native_app` | what those processes do |
//! | `machine`, `figures`, `report` | CPU time, ratios and spread, tables and JSON |
//!
//! `docs/bench.md` says exactly what is measured.

mod bridge;
mod child;
mod compare;
mod error;
mod fanin_app;
mod figures;
pub mod limits;
mod machine;
mod native_app;
mod recovery;
mod report;
mod sides;
mod source;
mod stalled;
mod tally;

pub use fanin_app::Args as AppArgs;
pub use native_app::Args as NativeAppArgs;

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::limits::TOOL_STOP_MAX;
use crate::cli::{output, signals};
use error::BenchError;

/// `fanin bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Deliveries per second and CPU per delivery: fanin beside one JetStream durable per application
    FaninVsNative(compare::Args),
    /// Resident memory of the bridge while one application stands still and a backlog grows
    StalledApp(stalled::Args),
    /// Time from the start of a killed bridge to readiness and to the first delivery, with a backlog on disk
    Recovery(recovery::Args),
}

impl Args {
    /// Whether results and errors are to be JSON.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        match &self.what {
            What::FaninVsNative(args) => args.json,
            What::StalledApp(args) => args.json,
            What::Recovery(args) => args.json,
        }
    }
}

/// Measures and prints the report, a table or one JSON document. Progress goes to standard error.
///
/// # Errors
/// [`Failure`] when a part does not start, ends early, does not finish in time, or counts wrong, and when interrupted.
/// The processes and temporary directories are gone in any case.
pub async fn run(args: &Args) -> Result<Exit, Failure> {
    let stop = signals::stop_token(TOOL_STOP_MAX)?;
    let measure = async {
        match &args.what {
            What::FaninVsNative(args) => Box::pin(compare::run(args)).await,
            What::StalledApp(args) => Box::pin(stalled::run(args)).await,
            What::Recovery(args) => Box::pin(recovery::run(args)).await,
        }
    };
    let measured = stop.run_until_cancelled(measure).await;
    let report = measured
        .unwrap_or(Err(BenchError::Interrupted))
        .map_err(BenchError::into_failure)?;
    output::print(&report)?;
    Ok(Exit::Done)
}

/// One application on the bridge, for the benchmarks.
///
/// # Errors
/// [`Failure`] when the bridge refuses.
pub async fn run_app(args: &AppArgs) -> Result<Exit, Failure> {
    fanin_app::run(args)
        .await
        .map_err(|error| BenchError::App(error).into_failure())?;
    Ok(Exit::Done)
}

/// One application on a durable of its own, for the benchmarks.
///
/// # Errors
/// [`Failure`] when the hub refuses.
pub async fn run_native_app(args: &NativeAppArgs) -> Result<Exit, Failure> {
    native_app::run(args)
        .await
        .map_err(|error| BenchError::App(error).into_failure())?;
    Ok(Exit::Done)
}
