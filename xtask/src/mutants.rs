//! `cargo xtask mutants`: changes the protocol core in small ways, one at a time, and says which changes no test notices.
//! `docs/mutation-testing.md` has the results.

use std::process::Stdio;

use crate::run::{self, Failed, Workspace};

/// The command and options that everything else is appended to; the rest stands in `.cargo/mutants.toml`.
const FIXED: [&str; 4] = ["mutants", "--package", "fanin-core", "--no-shuffle"];

/// `--shard k/n` and files, as cargo-mutants wants them.
fn arguments(args: &[String]) -> Result<Vec<String>, Failed> {
    let mut out = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--shard" {
            let shard = args
                .next()
                .ok_or_else(|| Failed("--shard needs k/n, from 0/n to n-1/n".to_owned()))?;
            out.extend(["--shard".to_owned(), shard.clone()]);
        } else if arg == "--list" {
            out.push(arg.clone());
        } else if arg.starts_with('-') {
            return Err(Failed(format!("unexpected argument {arg:?}")));
        } else {
            out.extend(["--file".to_owned(), arg.clone()]);
        }
    }
    Ok(out)
}

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
    let arguments = arguments(args)?;
    let mut version = workspace.command("cargo-mutants");
    version
        .args(["mutants", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !version.status().is_ok_and(|status| status.success()) {
        return Err(Failed(
            "cargo-mutants is not installed; cargo install cargo-mutants --locked".to_owned(),
        ));
    }
    let mut mutants = workspace.cargo_command(&FIXED);
    mutants
        .arg("--output")
        .arg(workspace.root().join("target"))
        .args(arguments);
    run::run(mutants)
}

#[cfg(test)]
mod tests {
    // Goal: what is typed is what is run. Method: arguments of each kind.
    use super::*;

    #[test]
    fn arguments_are_read() {
        let read = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            arguments(&words).map(|words| words.join(" ")).ok()
        };
        assert_eq!(
            read("--shard 0/4 bridge/core/src/fold/mod.rs").as_deref(),
            Some("--shard 0/4 --file bridge/core/src/fold/mod.rs")
        );
        assert_eq!(read("").as_deref(), Some(""));
        assert_eq!(read("--shard"), None);
        assert_eq!(read("--shart 0/4"), None);
    }
}
