//! What is wrong with a configuration: where, which key, which value, why, and what to do.

use std::fmt;
use std::path::PathBuf;

use crate::codes::Code;

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// A key of a map.
    Key(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// The place of a value: `mappings.orders.sources[0].stream`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(pub Vec<Segment>);

impl KeyPath {
    /// This path and one key more.
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// This path and one list place more.
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut path = self.clone();
        path.0.push(segment);
        path
    }

    /// A path of keys only.
    pub fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Segment::Key((*key).to_owned())).collect())
    }

    pub(crate) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    pub(crate) fn last_key(&self) -> Option<&str> {
        match self.0.last()? {
            Segment::Key(key) => Some(key),
            Segment::Index(_) => None,
        }
    }

    /// Whether the value here, by its key's name, may be a secret.
    pub(crate) fn is_secret(&self) -> bool {
        let key = self.0.iter().rev().find_map(|segment| match segment {
            Segment::Key(key) => Some(key.to_ascii_lowercase()),
            Segment::Index(_) => None,
        });
        key.is_some_and(|key| {
            !key.ends_with("_file")
                && ["pass", "token", "secret", "seed", "credential"]
                    .iter()
                    .any(|word| key.contains(word))
        })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) => {
                    let dot = if place > 0 { "." } else { "" };
                    let plain = !key.is_empty()
                        && key
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b"_-<".contains(&b));
                    if plain {
                        write!(f, "{dot}{key}")?
                    } else {
                        write!(f, "{dot}{key:?}")?
                    }
                }
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of a file, from 1.
    File {
        /// The file's path, as given.
        path: PathBuf,
        /// The line, from 1; 0 means the file as a whole.
        line: usize,
    },
    /// An environment variable.
    Env {
        /// The variable's name.
        name: String,
    },
    /// A flag of the command line.
    Flag {
        /// The key that the flag sets.
        key: String,
    },
    /// Nobody set it: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env { name } => write!(f, "environment {name}"),
            Self::Flag { key } => write!(f, "flag {key}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Whether a problem keeps the bridge from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but is likely not what was meant.
    Warning,
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The stable code.
    pub code: Code,
    /// Where the value, or for a missing key its section, was set.
    pub origin: Origin,
    /// The key; empty when a file as a whole is meant.
    pub key: KeyPath,
    /// The value as written, redacted when it may be a secret.
    pub value: Option<String>,
    /// What is wrong.
    pub why: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(
            f,
            "{severity} {} at {}: {}",
            self.code,
            self.origin,
            self.code.info().title
        )?;
        if !self.key.0.is_empty() {
            write!(f, "\n  key:   {}", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, "\n  value: {value}")?;
        }
        write!(f, "\n  why:   {}\n  cure:  {}", self.why, self.cure)
    }
}

/// The configuration cannot be used; every problem found, warnings included, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct LoadError {
    /// The problems, at least one of them an error.
    pub problems: Vec<Problem>,
}

impl LoadError {
    fn text(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&problem.to_string());
            text.push_str("\n\n");
        }
        let errors = self
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .count();
        let plural = if errors == 1 { "" } else { "s" };
        text + &format!("{errors} error{plural} in the configuration")
    }
}
