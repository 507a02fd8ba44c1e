//! `cargo xtask sim` and `cargo xtask mutation-gate`: the deterministic simulation, and every rule switched off once, built to
//! be fast and with every assertion.

use crate::run::{self, Failed, Workspace};

/// Runs the simulation; it knows its own arguments.
pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    run_package(workspace, "fanin-sim", args)
}

/// Runs the mutation gate; it knows its own arguments.
pub(crate) fn gate(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    run_package(workspace, "fanin-gate", args)
}

fn run_package(workspace: &Workspace, package: &str, args: &[String]) -> Result<(), Failed> {
    let fixed = ["run", "--profile", "sim", "--package", package, "--"];
    let mut command = workspace.cargo_command(&fixed);
    command.args(args);
    run::run(command)
}
