//! The command line: one file a command.
//!
//! | part | what it does |
//! |---|---|
//! | [`exit`], [`failure`] | how a command ends, and how that is told |
//! | `output`, `human` | standard output; numbers for people |
//! | `signals` | SIGTERM, SIGINT and SIGHUP |
//! | `hub_args`, `bridge_socket`, `wait`, `load`, `cluster`, `holdings` | reaching the hub or the bridge, also one that is starting, or a whole mapping, its nodes by files too; loading the configuration |
//! | the others | the command of their name |

mod bridge_socket;
mod cluster;
mod completion;
mod config;
mod environment;
pub mod errors;
pub mod exit;
pub mod failure;
mod holdings;
mod hub;
mod hub_args;
pub(crate) mod human;
mod ledger;
pub mod limits;
mod load;
mod message_line;
mod msg;
pub(crate) mod output;
mod publish;
mod repair;
mod repair_source;
mod run;
pub(crate) mod signals;
mod source_plan;
mod status;
mod status_text;
mod subscribe;
mod validate;
mod wait;

use clap::{Parser, Subcommand};

use exit::Exit;
use failure::Failure;

const EXAMPLES: &str = "\
Examples:
  fanin validate /etc/fanin/fanin.yaml
  fanin run --config /etc/fanin/fanin.yaml
  fanin status
  fanin publish orders.created --file orders.ndjson --msg-id-field id
  fanin subscribe orders --app billing --json | jq .payload
  fanin ledger verify --config /etc/fanin/fanin.yaml
  fanin ledger holdings > n1.ndjson
  fanin msg trace ORDERS:1234 --config /etc/fanin/fanin.yaml --holdings n1.ndjson n2.ndjson

Exit codes: 0 done, 1 failed, 2 usage, 69 hub or bridge unavailable, 73 cannot create the local log or socket,
74 I/O, 75 try later, 77 not permitted, 78 configuration. Each error has a code: see `fanin errors`.";

/// Brings each message of a NATS JetStream mapping to every application once, through a local topic on each node.
#[derive(Debug, Parser)]
#[command(name = "fanin", version, after_help = EXAMPLES, propagate_version = true, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the bridge of this node until SIGTERM
    Run(run::Args),
    /// Check configuration files: every problem with its place, key, value and cure
    #[command(visible_alias = "lint")]
    Validate(validate::Args),
    /// Show the configuration's schema, or what is in force
    Config(config::Args),
    /// Show what the hub lacks for a configuration, or create it
    Hub(hub::Args),
    /// Show hub, mappings, ledger, backlogs and instances of this node
    Status(status::Args),
    /// Look at a mapping's ledger, verify it against its nodes, or repair it
    Ledger(ledger::Args),
    /// Trace a message: source, owner, and each application
    Msg(msg::Args),
    /// Publish lines to the hub, each confirmed by it
    Publish(publish::Args),
    /// Print the messages of an application, each acknowledged after it is written
    Subscribe(subscribe::Args),
    /// Run a cluster on this machine, kill parts of it, and judge what its applications received
    Demo(crate::demo::Args),
    /// One instance of an application of the demo
    #[command(hide = true)]
    DemoApp(crate::demo::app::AppArgs),
    /// Measure what the bridge costs on this machine, beside JetStream alone
    Bench(crate::bench::Args),
    /// One application of a benchmark, on the bridge
    #[command(hide = true)]
    BenchApp(crate::bench::AppArgs),
    /// One application of a benchmark, on a durable of its own
    #[command(hide = true)]
    BenchNativeApp(crate::bench::NativeAppArgs),
    /// Explain error codes
    Errors(errors::Args),
    /// Print a script that completes commands in a shell
    Completion(completion::Args),
}

impl Command {
    /// Whether results and errors are to be JSON.
    #[must_use]
    pub fn wants_json(&self) -> bool {
        match self {
            Command::Run(_)
            | Command::Completion(_)
            | Command::DemoApp(_)
            | Command::BenchApp(_)
            | Command::BenchNativeApp(_) => false,
            Command::Bench(args) => args.wants_json(),
            Command::Demo(args) => args.json,
            Command::Validate(args) => args.json,
            Command::Config(args) => args.wants_json(),
            Command::Hub(args) => args.wants_json(),
            Command::Status(args) => args.json,
            Command::Ledger(args) => args.wants_json(),
            Command::Msg(args) => args.wants_json(),
            Command::Publish(args) => args.json,
            Command::Subscribe(args) => args.json,
            Command::Errors(args) => args.json,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], with the exit code.
    pub async fn execute(&self) -> Result<Exit, Failure> {
        if !matches!(self, Command::Run(_)) {
            run::install_tool_logs()?;
        }
        match self {
            Command::Run(args) => Box::pin(run::execute(args)).await,
            Command::Validate(args) => validate::execute(args),
            Command::Config(args) => config::execute(args),
            Command::Hub(args) => Box::pin(hub::execute(args)).await,
            Command::Status(args) => Box::pin(status::execute(args)).await,
            Command::Ledger(args) => Box::pin(ledger::execute(args)).await,
            Command::Msg(args) => Box::pin(msg::execute(args)).await,
            Command::Publish(args) => Box::pin(publish::execute(args)).await,
            Command::Subscribe(args) => Box::pin(subscribe::execute(args)).await,
            Command::Demo(args) => Box::pin(crate::demo::run(args)).await,
            Command::DemoApp(args) => Ok(Box::pin(crate::demo::app::run(args)).await),
            Command::Bench(args) => Box::pin(crate::bench::run(args)).await,
            Command::BenchApp(args) => Box::pin(crate::bench::run_app(args)).await,
            Command::BenchNativeApp(args) => Box::pin(crate::bench::run_native_app(args)).await,
            Command::Errors(args) => errors::execute(args),
            Command::Completion(args) => completion::execute(args),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the command line is sound and understands what the documentation shows. Method: clap's own check, and
    //! the examples.
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_examples_parse() {
        let examples = EXAMPLES.lines().filter_map(|line| line.strip_prefix("  fanin "));
        let mut count = 0;
        for example in examples {
            let words = example
                .split(['|', '>'])
                .next()
                .unwrap_or_default()
                .split_whitespace();
            Cli::try_parse_from(std::iter::once("fanin").chain(words)).unwrap();
            count += 1;
        }
        assert_eq!(count, 8);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for line in [
            "fanin",
            "fanin publish orders.> --file -",
            "fanin publish orders --header nats-msg-id:1",
            "fanin publish orders --msg-id-field a..b",
            "fanin subscribe orders",
            "fanin subscribe orders --app a --count 0",
            "fanin run --config x --set nope",
            "fanin validate",
            "fanin completion tcsh",
        ] {
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }

    #[test]
    fn json_is_known_before_anything_is_done() {
        let json = |line: &str| {
            Cli::try_parse_from(line.split_whitespace())
                .unwrap()
                .command
                .wants_json()
        };
        assert!(json("fanin status -j") && json("fanin lint x --json") && json("fanin config show x -j"));
        assert!(
            json("fanin subscribe t --app a -j") && json("fanin publish s -j") && json("fanin errors -j")
        );
        assert!(!json("fanin status"));
    }
}
