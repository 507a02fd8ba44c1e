//! The YAML configuration of fanin: types, layers, validation, schema.
//!
//! [`load`] merges, from weak to strong: defaults, the file, `conf.d/*.yaml` beside it, the variables
//! `FANIN__SECTION__KEY` and the flags; puts `${VAR}` into the values of files; and reports every problem at once,
//! each with its place, key, value and cure. It reads files and nothing else: the environment is an argument, and
//! nothing is connected, bound or created.
//!
//! A list replaces the list of a weaker layer; sections are merged key by key.

pub mod codes;
mod decode;
mod interpolate;
mod layers;
pub mod limits;
mod model;
mod problem;
mod schema;
mod shape;
mod show;
mod units;
mod user;
mod validate;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::value::Dict;
use figment::{Figment, Profile, Provider};

pub use codes::{Code, CodeInfo};
pub use model::{
    ApplicationConfig, BackoffConfig, BatchConfig, Config, CredentialsConfig, Durability, FilterConfig,
    HubConfig, Intake, LedgerConfig, LogConfig, LogFormat, MappingConfig, MemoryConfig, RequiredDelivery,
    SourceConfig, StoreConfig, TlsConfig,
};
pub use problem::{KeyPath, LoadError, Origin, Problem, Segment, Severity};
pub use schema::schema;
pub use show::Effective;
pub use units::{ByteSize, FileMode, HumanDuration, Invalid, Listen, Percent, REDACTED, Secret};
pub use user::User;
pub use validate::subject;

use decode::Context;
use layers::Layer;

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// The configuration file; it must exist.
    pub file: PathBuf,
    /// The environment: for `FANIN__...`, for `${VAR}` and for `HOSTNAME`.
    pub env: BTreeMap<String, String>,
    /// Keys set by flags, dotted, each with its value: `("hub.servers", "nats://a,nats://b")`. Of one key, the last counts.
    pub overrides: Vec<(String, String)>,
    /// Whether `conf.d/*.yaml` beside the file is read too.
    pub conf_d: bool,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The typed configuration.
    pub config: Config,
    /// What is allowed but likely not meant.
    pub warnings: Vec<Problem>,
    /// Who set each key that is not at its default, by the key's path as text.
    pub origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// Who set a key.
    pub fn origin(&self, key: &KeyPath) -> Origin {
        self.origins
            .get(&key.to_string())
            .cloned()
            .unwrap_or(Origin::Default)
    }
}

/// A configuration that cannot be written as text.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Not as JSON.
    #[error("the configuration cannot be written as JSON; check its paths for characters that are not UTF-8")]
    Json(#[from] serde_json::Error),
    /// Not as YAML.
    #[error("the configuration cannot be written as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// Loads the configuration.
///
/// # Errors
/// Every problem found, in the order of their places, when at least one of them is an error.
pub fn load(request: &LoadRequest) -> Result<Loaded, LoadError> {
    let mut layers = Vec::new();
    let mut unreadable = Vec::new();
    let mut files = vec![request.file.clone()];
    if request.conf_d {
        match layers::drop_ins(&request.file) {
            Ok(drop_ins) => files.extend(drop_ins),
            Err(problem) => unreadable.push(*problem),
        }
    }
    for path in &files {
        match layers::read(path) {
            Ok(text) => layers.push(Layer::of_file(path, &text, &request.env)),
            Err(problem) => unreadable.push(*problem),
        }
    }
    layers.push(Layer::of_env(&request.env));
    layers.push(Layer::of_overrides(&request.overrides));

    // What a file that cannot be read would have set is unknown: nothing is concluded from its absence.
    let whole = |problem: &Problem| problem.key.0.is_empty();
    if !unreadable.is_empty() || layers.iter().flat_map(|layer| &layer.problems).any(whole) {
        unreadable.extend(layers.into_iter().flat_map(|layer| layer.problems));
        return Err(LoadError {
            problems: in_order(unreadable, &files),
        });
    }

    let values = merge(&layers);
    let mut cx = Context::new(&mut layers, request.file.clone(), &request.env);
    let config: Config = decode::decode_root(&mut cx, &values);
    validate::validate(&mut cx, &config);
    let origins = cx.origins();
    let problems = in_order(cx.problems, &files);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(LoadError { problems });
    }
    Ok(Loaded {
        config,
        warnings: problems,
        origins,
    })
}

fn merge(layers: &[Layer]) -> Dict {
    let figment = layers
        .iter()
        .fold(Figment::new(), |figment, layer| figment.merge(layer));
    // A layer never fails to give its values: what is wrong with it is among its problems.
    figment
        .data()
        .ok()
        .and_then(|mut profiles| profiles.remove(&Profile::Default))
        .unwrap_or_default()
}

/// Files in the order they are read, then variables, then flags.
fn in_order(mut problems: Vec<Problem>, files: &[PathBuf]) -> Vec<Problem> {
    let rank = |problem: &Problem| match &problem.origin {
        Origin::File { path, line } => (
            files.iter().position(|file| file == path).unwrap_or(files.len()),
            *line,
        ),
        Origin::Env { .. } => (files.len() + 1, 0),
        Origin::Flag { .. } => (files.len() + 2, 0),
        Origin::Default => (files.len() + 3, 0),
    };
    problems.sort_by_key(rank);
    problems
}
