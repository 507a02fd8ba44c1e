//! `fanin config`: the configuration's schema, and what is in force.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::exit::Exit;
use super::failure::Failure;
use super::load::{self, Overrides};
use super::output;

/// `fanin config`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print every value in force and who set it; secrets are redacted
    Show(ShowArgs),
}

#[derive(Debug, ClapArgs)]
struct ShowArgs {
    /// The configuration file; conf.d/*.yaml beside it is read too.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// Print JSON: an array of key, value and origin.
    #[arg(short = 'j', long, conflicts_with = "yaml")]
    json: bool,
    /// Print YAML that is itself a valid configuration, without origins.
    #[arg(long)]
    yaml: bool,
}

impl Args {
    pub(super) fn wants_json(&self) -> bool {
        match &self.command {
            ConfigCommand::Schema => false,
            ConfigCommand::Show(args) => args.json,
        }
    }
}

pub(super) fn execute(args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        ConfigCommand::Schema => output::print(&fanin_config::schema())?,
        ConfigCommand::Show(args) => show(args)?,
    }
    Ok(Exit::Done)
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let loaded = load::load(&args.file, &args.overrides).map_err(|error| load::failure(&error))?;
    if args.yaml {
        return output::print(&loaded.config.redacted_yaml().map_err(load::unprintable)?);
    }
    let effective = loaded.effective().map_err(load::unprintable)?;
    if args.json {
        let values: Value = effective
            .iter()
            .map(|one| {
                json!({ "key": one.key.to_string(), "value": one.value, "origin": one.origin.to_string() })
            })
            .collect();
        return output::print_json(&values);
    }
    let lines: String = effective
        .iter()
        .map(|one| format!("{} = {}  # {}\n", one.key, one.value, one.origin))
        .collect();
    output::print(&lines)
}
