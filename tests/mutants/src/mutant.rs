//! The mutants that cargo-mutants names.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Failed;

/// Where something begins and where it ends, as (line, column), each from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: (usize, usize),
    pub(crate) end: (usize, usize),
}

/// One change of the source.
#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    /// Its place in the list, from 1: the number that switches it on.
    pub(crate) id: u32,
    pub(crate) file: String,
    /// What cargo-mutants calls it.
    pub(crate) name: String,
    /// The function it is in; `None` for a constant.
    pub(crate) function: Option<Span>,
    /// What is replaced, and by what.
    pub(crate) span: Span,
    pub(crate) replacement: String,
}

fn span(value: &Value) -> Option<Span> {
    let at = |end: &str| {
        let number = |name: &str| usize::try_from(value.get(end)?.get(name)?.as_u64()?).ok();
        Some((number("line")?, number("column")?))
    };
    Some(Span {
        start: at("start")?,
        end: at("end")?,
    })
}

fn mutant(id: u32, value: &Value) -> Option<Mutant> {
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    Some(Mutant {
        id,
        file: text("file")?,
        name: text("name")?,
        function: value
            .get("function")
            .and_then(|function| span(function.get("span")?)),
        span: span(value.get("span")?)?,
        replacement: text("replacement")?,
    })
}

/// Asks cargo-mutants, which reads `.cargo/mutants.toml`.
pub(crate) fn list(root: &Path, files: &[String]) -> Result<Vec<Mutant>, Failed> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args([
            "mutants",
            "--list",
            "--json",
            "--no-shuffle",
            "--package",
            "fanin-core",
        ])
        .stderr(Stdio::inherit());
    for file in files {
        command.args(["--file", file]);
    }
    let output = command
        .output()
        .map_err(|error| Failed::io("cargo mutants", &error))?;
    let found: Value = serde_json::from_slice(&output.stdout).map_err(|error| {
        Failed(format!(
            "cargo mutants --list: {error}; cargo install cargo-mutants --locked"
        ))
    })?;
    let found = found.as_array().map(Vec::as_slice).unwrap_or_default();
    (1..)
        .zip(found)
        .map(|(id, value)| mutant(id, value).ok_or_else(|| Failed(format!("not a mutant: {value}"))))
        .collect()
}

/// The mutants of each file.
pub(crate) fn by_file(mutants: &[Mutant]) -> BTreeMap<&str, Vec<&Mutant>> {
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    files
}
