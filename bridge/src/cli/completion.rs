//! `fanin completion`: scripts that complete commands and flags in a shell.

use clap::{Args as ClapArgs, CommandFactory as _};
use clap_complete::Shell;

use super::exit::Exit;
use super::failure::Failure;
use super::{Cli, output};

/// `fanin completion`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The shell the script is for.
    shell: Shell,
}

pub(super) fn execute(args: &Args) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fanin", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
