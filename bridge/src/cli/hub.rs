//! `fanin hub`: what the hub lacks for a configuration, and creating it.
//!
//! The bridge creates its ledgers and consumers by itself. Source streams belong to the publishers; they are created only
//! here, on an operator's word, and existing ones are never changed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use fanin_config::Config;
use fanin_hub::{Connection, SourceError, SourceInfo};
use serde_json::json;

use super::exit::{Exit, connect_exit};
use super::failure::Failure;
use super::load::{self, Overrides};
use super::output;
use super::wait::HubWait;
use crate::telemetry::codes;

/// `fanin hub`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: HubCommand,
}

#[derive(Debug, Subcommand)]
enum HubCommand {
    /// Show which source streams are there and which are missing
    Plan(Common),
    /// Create the missing source streams
    Apply(ApplyArgs),
}

#[derive(Debug, ClapArgs)]
struct Common {
    /// The configuration file; conf.d/*.yaml beside it is read too.
    #[arg(short = 'c', long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    wait: HubWait,
    /// Print JSON.
    #[arg(short = 'j', long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct ApplyArgs {
    #[command(flatten)]
    common: Common,
    /// Replicas of a stream that is created.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=5))]
    replicas: u64,
}

impl Args {
    pub(super) fn wants_json(&self) -> bool {
        match &self.command {
            HubCommand::Plan(common) => common.json,
            HubCommand::Apply(args) => args.common.json,
        }
    }
}

/// A source stream and where it stands.
struct Line {
    mapping: String,
    stream: String,
    subjects: Vec<String>,
    state: &'static str,
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    let (common, create) = match &args.command {
        HubCommand::Plan(common) => (common, None),
        HubCommand::Apply(args) => (&args.common, Some(args.replicas)),
    };
    let loaded = load::load(&common.config, &common.overrides).map_err(|error| load::failure(&error))?;
    let mut options = crate::app::hub_options(&loaded.config);
    options.wait_for_hub = false;
    let hub = common
        .wait
        .connect(options)
        .await
        .map_err(|error| Failure::of(connect_exit(&error, Exit::Config), error.code(), error))?;
    let lines = look(&hub, &loaded.config, create).await?;
    if common.json {
        let all: Vec<_> = lines
            .iter()
            .map(|line| {
                json!({ "mapping": line.mapping, "stream": line.stream, "subjects": line.subjects, "state": line.state })
            })
            .collect();
        output::print_json(&json!({ "streams": all }))?;
    } else {
        for line in &lines {
            let subjects = line.subjects.join(" ");
            output::print(&format!(
                "{:8} stream {} ({subjects}), mapping {}\n",
                line.state, line.stream, line.mapping
            ))?;
        }
    }
    Ok(Exit::Done)
}

async fn look(hub: &Connection, config: &Config, create: Option<u64>) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for (mapping, section) in &config.mappings {
        for source in &section.sources {
            let found = SourceInfo::fetch(hub, &source.stream).await;
            let (state, subjects) = match (found, create) {
                (Ok(info), _) => ("present", info.subjects),
                (Err(SourceError::Missing { .. }), None) => ("missing", source.subjects.clone()),
                (Err(SourceError::Missing { stream }), Some(_)) if source.subjects.is_empty() => {
                    let text = format!(
                        "stream {stream} of mapping {mapping} is missing, and the configuration does not say which subjects it takes"
                    );
                    return Err(Failure::new(Exit::Config, codes::NO_SUBJECTS, text));
                }
                (Err(SourceError::Missing { .. }), Some(replicas)) => {
                    SourceInfo::create(hub, &source.stream, &source.subjects, replicas)
                        .await
                        .map_err(failed)?;
                    ("created", source.subjects.clone())
                }
                (Err(error), _) => return Err(failed(error)),
            };
            let (mapping, stream) = (mapping.clone(), source.stream.clone());
            lines.push(Line {
                mapping,
                stream,
                subjects,
                state,
            });
        }
    }
    Ok(lines)
}

fn failed(error: SourceError) -> Failure {
    let exit = if error.retryable() {
        Exit::Unavailable
    } else {
        Exit::Failed
    };
    Failure::of(exit, error.code(), error)
}
