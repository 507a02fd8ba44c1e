//! `fanin status`: how the node of this machine is.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args as ClapArgs;

use super::bridge_socket::{self, SocketArgs};
use super::exit::Exit;
use super::failure::Failure;
use super::limits::{TOOL_STOP_MAX, WATCH_INTERVAL};
use super::{output, signals, status_text};
use crate::admin::status_json;

/// Moves a terminal's cursor to the first line and clears from there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// `fanin status`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print one JSON document; with --watch one a line.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
    /// Go on showing the status until interrupted.
    #[arg(short = 'w', long)]
    watch: bool,
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    let client = args.socket.connect(Duration::ZERO).await?;
    let show = async |clear: bool| {
        let status = client.status().await.map_err(bridge_socket::status_failed)?;
        if args.json {
            return output::print_json(&status_json::to_json(&status));
        }
        let text = status_text::render(&status);
        output::print(&if clear { format!("{CLEAR}{text}") } else { text })
    };
    if !args.watch {
        show(false).await?;
        return Ok(Exit::Done);
    }
    let stop = signals::stop_token(TOOL_STOP_MAX)?;
    let clear = io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        show(clear).await?;
    }
    Ok(Exit::Done)
}
