//! `cargo xtask sim`: the deterministic simulation, built to be fast and with every assertion.

use crate::run::{self, Failed, Workspace};

/// Runs the simulation; it knows its own arguments.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    let fixed = ["run", "--profile", "sim", "--package", "fanin-sim", "--"];
    let mut command = workspace.cargo_command(&fixed);
    command.args(args);
    run::run(command)
}
