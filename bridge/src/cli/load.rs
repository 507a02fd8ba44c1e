//! Loading the configuration for a command, and telling what is wrong with it.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args as ClapArgs;
use fanin_config::{LoadError, LoadRequest, Loaded, Origin, Problem, RenderError, Severity, codes::Code};
use serde_json::{Value, json};

use super::exit::Exit;
use super::failure::{Failure, Report};

/// Keys set on the command line.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Overrides {
    /// Set one key, stronger than files and environment: --set hub.servers=nats://hub:4222. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, with the key dotted: hub.servers=nats://hub:4222".to_owned()),
    }
}

/// Loads a file with `conf.d` beside it, the environment and the flags.
///
/// # Errors
/// Every problem at once.
pub(crate) fn load(file: &Path, overrides: &Overrides) -> Result<Loaded, LoadError> {
    fanin_config::load(&LoadRequest {
        file: file.to_owned(),
        env: environment(),
        overrides: overrides.set.clone(),
        conf_d: true,
    })
}

/// The environment, without what is not text: nothing of ours is.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The failure of a command that needs a configuration: the code of the first error, all problems in the text.
pub(crate) fn failure(error: &LoadError) -> Failure {
    let first = error
        .problems
        .iter()
        .find(|problem| problem.severity == Severity::Error);
    let code = first.map_or(Code::BadValue, |problem| problem.code).info().code;
    Failure::Told(Box::new(Report {
        code: code.to_owned(),
        message: format!("the configuration cannot be used\n\n{error}"),
        // Each problem names its own.
        cure: None,
        exit: Exit::Config,
        source: None,
    }))
}

/// The configuration cannot be printed.
pub(crate) fn unprintable(error: RenderError) -> Failure {
    Failure::of(Exit::Failed, Code::BadValue.info().code, error)
}

/// The file and the line in it, where there are any.
pub(crate) fn file_and_line(origin: &Origin) -> (Option<String>, Option<usize>) {
    match origin {
        Origin::File { path, line } => (Some(path.display().to_string()), (*line > 0).then_some(*line)),
        Origin::Env { .. } | Origin::Flag { .. } | Origin::Default => (None, None),
    }
}

/// One problem as JSON.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    let (file, line) = file_and_line(&problem.origin);
    json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "code": problem.code.info().code,
        "title": problem.code.info().title,
        "origin": problem.origin.to_string(),
        "file": file,
        "line": line,
        "key": problem.key.to_string(),
        "value": problem.value,
        "why": problem.why,
        "cure": problem.cure,
    })
}
