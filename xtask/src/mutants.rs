//! `cargo xtask mutants`: changes the protocol core in small ways, one at a time, and says which changes no test notices.
//! `docs/mutation-testing.md` has the results.

use std::process::Stdio;

use crate::run::{self, Failed, Workspace};

/// All of them from one build, which takes minutes: the package knows its own arguments.
const AT_ONCE: [&str; 5] = ["run", "--quiet", "--package", "fanin-mutants", "--"];

/// Asks for a build of each, by cargo-mutants itself: hours, but nothing stands between it and the source.
const EACH: &str = "--each";

/// The command and options that everything else is appended to; the rest stands in `.cargo/mutants.toml`.
const FIXED: [&str; 4] = ["mutants", "--package", "fanin-core", "--no-shuffle"];

/// `--shard k/n`, names and files, as cargo-mutants wants them.
fn arguments(args: &[String]) -> Result<Vec<String>, Failed> {
    let mut out = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--shard" | "--re" | "--jobs" => {
                let value = args.next();
                let value = value.ok_or_else(|| Failed(format!("{arg} needs a value")))?;
                out.extend([arg.clone(), value.clone()]);
            }
            "--list" => out.push(arg.clone()),
            other if other.starts_with('-') => {
                return Err(Failed(format!("unexpected argument {arg:?}")));
            }
            _ => out.extend(["--file".to_owned(), arg.clone()]),
        }
    }
    Ok(out)
}

pub(crate) fn run(workspace: &Workspace, args: &[String]) -> Result<(), Failed> {
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
    let Some(rest) = args.split_first().filter(|(first, _)| *first == EACH) else {
        let mut at_once = workspace.cargo_command(&AT_ONCE);
        at_once.args(args);
        return run::run(at_once);
    };
    let mut each = workspace.cargo_command(&FIXED);
    each.arg("--output")
        .arg(workspace.root().join("target"))
        .args(arguments(rest.1)?);
    run::run(each)
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
        assert_eq!(read("--re admit").as_deref(), Some("--re admit"));
        assert_eq!(read("").as_deref(), Some(""));
        assert_eq!(read("--shard"), None);
        assert_eq!(read("--shart 0/4"), None);
    }
}
