//! `fanin demo`: a whole cluster on this machine that is hurt on purpose, and a verdict from what its applications saw.
//!
//! | part | what it does |
//! |---|---|
//! | `events`, `input`, `feed` | what is published, and publishing it |
//! | `place`, `scene`, `node_config` | directories, the hub, bridges and instances, until all of them are ready |
//! | `fleet`, `process`, `faults` | processes; which of them is killed or frozen when |
//! | [`app`], `record` | one instance of an application, and what it writes down |
//! | `journal`, `tally`, `verdict` | reading that, counting it, judging it |
//! | `play`, `watch`, `board`, `screen` | the run itself, and showing it |

pub mod app;
mod board;
mod error;
mod events;
mod faults;
mod feed;
mod fleet;
mod input;
mod journal;
pub mod limits;
pub(crate) mod node_config;
pub(crate) mod output;
mod place;
mod play;
pub(crate) mod process;
mod record;
mod rng;
mod scene;
mod screen;
mod tally;
mod verdict;
mod watch;

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::signals;
use error::DemoError;
use input::Input;
use limits::{APPS_MAX, EVENTS_DEFAULT, EVENTS_QUICK, INSTANCES_MAX, INTERRUPT_MAX, NODES_MAX};
use output::Output;
use place::Place;
use verdict::Verdict;

/// `fanin demo`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// Feed the lines of this file instead of generated events of a web shop.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Fewer events and shorter faults: done in less than 20 seconds.
    #[arg(long)]
    quick: bool,
    /// Print the verdict as one JSON document; progress goes to standard error.
    #[arg(short = 'j', long)]
    pub(crate) json: bool,
    /// Nodes, each with a bridge.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=NODES_MAX))]
    nodes: u8,
    /// Applications; each gets every message once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=APPS_MAX))]
    apps: u8,
    /// Instances of each application on each node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=INSTANCES_MAX))]
    instances: u8,
    /// Decides the generated events and who is killed when.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Messages per second that are published at most [default: what spreads the input over some seconds].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Keep logs, configurations, records and stores in this directory, which must be empty or absent.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Kill and freeze nothing.
    #[arg(long)]
    no_kill: bool,
    /// Whether the hub syncs each message to its disk before it confirms it.
    #[arg(long, value_enum, default_value_t = Durability::SyncAlways)]
    durability: Durability,
}

/// How the demo's hub treats its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Durability {
    /// It syncs before it confirms.
    SyncAlways,
    /// It syncs now and then.
    Lazy,
}

/// Runs the demo: [`Exit::Done`] only when every application has every message and none was acknowledged twice.
///
/// # Errors
/// [`Failure`] when it cannot be run to its end, an interruption included. Its processes and temporary directories
/// are gone in any case.
pub async fn run(args: &Args) -> Result<Exit, Failure> {
    let stop = signals::stop_token(INTERRUPT_MAX)?;
    let output = if args.json { Output::Stderr } else { Output::Stdout };
    let verdict = Box::pin(perform(args, output, &stop))
        .await
        .map_err(DemoError::into_failure)?;
    if args.json {
        let document =
            serde_json::to_value(&verdict).map_err(|error| DemoError::Json(error).into_failure())?;
        crate::cli::output::print_json(&document)?;
    } else {
        crate::cli::output::print(&format!("\n{}", verdict.render()))?;
    }
    if verdict.passed {
        return Ok(Exit::Done);
    }
    match &args.keep {
        Some(dir) => output.line(&format!("Logs and records are in {}.", dir.display())),
        None => output.line(&format!(
            "Run it with --keep DIR --seed {} to have the logs and records.",
            args.seed
        )),
    }
    Ok(Exit::Failed)
}

async fn perform(args: &Args, output: Output, stop: &CancellationToken) -> Result<Verdict, DemoError> {
    let input = match &args.input {
        Some(path) => Input::file(path)?,
        None => Input::generated(args.seed, if args.quick { EVENTS_QUICK } else { EVENTS_DEFAULT }),
    };
    // Declared first, so that the directories go last.
    let place = Place::make(args.keep.as_deref())?;
    let scene = scene::set(args, &place, output, stop).await?;
    play::play(args, scene, input, output, stop).await
}
