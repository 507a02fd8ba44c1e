//! `cargo xtask chaos`: builds what a run needs and runs it. Arguments go to `fanin-chaos run`, or behind the word `slice` to
//! `fanin-chaos slice`; both explain them with `--help`.

use crate::run::{self, Failed, Workspace, output_of, say};
use crate::test::FEATURES;

/// What every change has to survive: the slice, its parts at once, as they mostly wait. The seed is fixed, so that a red one is played again by
/// the same words.
pub(crate) const SLICE: &str = "slice --seed 1 --jobs 5";

const BUILT: &[&str] = &[
    "build",
    "-p",
    "fanin-bridge",
    "-p",
    "fanin-localhub",
    "-p",
    "fanin-chaos",
    "--features",
    FEATURES,
];

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    workspace.cargo(BUILT)?;
    let mut chaos = workspace.command(workspace.binary("fanin-chaos"));
    let (what, args) = match args.split_first() {
        Some((first, rest)) if first == "slice" => ("slice", rest),
        Some(_) | None => ("run", args),
    };
    chaos
        .arg(what)
        .args(args)
        .env("FANIN_BIN", workspace.binary("fanin"));
    // A path needs no other server, and a fetch may not be possible.
    if !args
        .iter()
        .any(|arg| arg == "--server" || arg.starts_with("--server=") || arg == "--help")
    {
        let server = output_of(workspace.command(workspace.binary("fanin-nats-server")))?;
        say(&format!("nats-server is {server}"));
        chaos.env("NATS_SERVER", server);
    }
    run::run(chaos)
}
