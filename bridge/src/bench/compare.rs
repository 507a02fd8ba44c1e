//! `fanin bench fanin-vs-native`: both sides, turn by turn.

use fanin_localhub::ServerBinary;

use super::error::BenchError;
use super::figures::Figures;
use super::limits::{
    APPS_DEFAULT, APPS_MAX, MESSAGES_DEFAULT, MESSAGES_MAX, REPEAT_DEFAULT, REPEAT_MAX, SIZE_DEFAULT,
    SIZE_MAX, SIZE_MIN,
};
use super::report::{self, Setting};
use super::sides::{Run, Side};
use super::source::Fill;
use crate::cli::output::note;

/// `fanin bench fanin-vs-native`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Applications; each gets every message.
    #[arg(long, default_value_t = APPS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(APPS_MAX)))]
    apps: u32,
    /// Messages in the stream before the clock starts.
    #[arg(long, default_value_t = MESSAGES_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: u64,
    /// Payload bytes of a message.
    #[arg(long, default_value_t = SIZE_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(SIZE_MIN)..=i64::from(SIZE_MAX)))]
    size: u32,
    /// Repetitions of both sides, taking turns.
    #[arg(long, default_value_t = REPEAT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    repeat: u32,
    /// The hub syncs each write before it answers (`sync_interval: always`); otherwise its default.
    #[arg(long)]
    sync_always: bool,
    /// Print one JSON document.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
}

pub(super) async fn run(args: &Args) -> Result<String, BenchError> {
    let binary = find_server().await?;
    let program = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let setting = Setting {
        apps: args.apps,
        messages: args.messages,
        size: args.size,
        sync_always: args.sync_always,
        server_version: binary.version().to_string(),
    };
    let apps: Vec<String> = (1..=args.apps).map(|number| format!("app-{number}")).collect();
    let mut pairs = Vec::new();
    for number in 1..=args.repeat {
        let measure = async |side, name: &str| {
            // Gone with everything in it before the next run begins.
            let dir = temporary_dir()?;
            let fill = Fill {
                binary: binary.clone(),
                dir: dir.path().join("hub"),
                messages: args.messages,
                size: args.size,
                sync_always: args.sync_always,
            };
            let run = Run {
                program: program.clone(),
                dir: dir.path().to_owned(),
                fill,
                apps: apps.clone(),
            };
            let figures = Figures::of(&Box::pin(run.measure(side)).await?);
            note(&report::progress(name, number, &figures));
            Ok::<_, BenchError>(figures)
        };
        let native = measure(Side::Native, "native").await?;
        let fanin = measure(Side::Fanin, "fanin ").await?;
        pairs.push((native, fanin));
    }
    if args.json {
        return Ok(format!("{}\n", report::json(&setting, &pairs)));
    }
    Ok(report::table(&setting, &pairs))
}

/// Fetching one blocks.
pub(super) async fn find_server() -> Result<ServerBinary, BenchError> {
    let found = tokio::task::spawn_blocking(|| ServerBinary::find_or_fetch(None)).await;
    Ok(found.map_err(|error| BenchError::io("looking for nats-server")(error.into()))??)
}

/// Short enough for a socket's path.
pub(super) fn temporary_dir() -> Result<tempfile::TempDir, BenchError> {
    let dir = tempfile::Builder::new().prefix("fanin-bench-").tempdir();
    dir.map_err(BenchError::io("creating a temporary directory"))
}
