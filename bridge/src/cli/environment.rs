//! What `validate` can tell about the machine without binding, creating or connecting anything: the files and
//! directories that the configuration names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fanin_config::{Config, KeyPath, Listen, Loaded, Origin};

use crate::mapping::source_check::required_word;
use crate::telemetry::codes::ENVIRONMENT;
use crate::telemetry::node_codes::DISK_REFUSED;
use crate::volatile::Volatile;

/// A file or directory that is not as the configuration needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The stable code.
    pub(crate) code: &'static str,
    /// The key that names it.
    pub(crate) key: KeyPath,
    /// Who set the key.
    pub(crate) origin: Origin,
    /// The path.
    pub(crate) path: PathBuf,
    /// What is wrong.
    pub(crate) why: String,
}

/// Everything that is not in order.
pub(crate) fn check(loaded: &Loaded) -> Vec<Finding> {
    let config = &loaded.config;
    let credentials = &config.hub.credentials;
    let tls = &config.hub.tls;
    let files = [
        (&["hub", "credentials", "creds_file"][..], &credentials.creds_file),
        (&["hub", "credentials", "nkey_file"], &credentials.nkey_file),
        (
            &["hub", "credentials", "password_file"],
            &credentials.password_file,
        ),
        (&["hub", "credentials", "token_file"], &credentials.token_file),
        (&["hub", "tls", "ca"], &tls.ca),
        (&["hub", "tls", "cert"], &tls.cert),
        (&["hub", "tls", "key"], &tls.key),
    ];
    let mut findings = Vec::new();
    let mut add = |code, key: &[&str], path: &Path, why: Option<String>| {
        if let Some(why) = why {
            let key = KeyPath::of(key);
            findings.push(Finding {
                code,
                origin: loaded.origin(&key),
                key,
                path: path.to_owned(),
                why,
            });
        }
    };
    for (key, path) in files {
        if let Some(path) = path {
            add(ENVIRONMENT, key, path, unreadable(path));
        }
    }
    let data_dir = &config.data_dir;
    add(ENVIRONMENT, &["data_dir"], data_dir, not_creatable(data_dir));
    add(DISK_REFUSED, &["data_dir"], data_dir, not_held(config));
    let Listen::Unix(socket) = &config.listen;
    let directory = socket.parent().unwrap_or(Path::new("/"));
    add(ENVIRONMENT, &["listen"], directory, not_creatable(directory));
    findings
}

fn unreadable(path: &Path) -> Option<String> {
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => None,
        Ok(_) => Some("it is not a file".to_owned()),
        Err(error) => Some(format!("it cannot be read: {error}")),
    }
}

fn not_a_directory(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("it is not a directory".to_owned()),
        Err(error) => Some(format!("the directory cannot be used: {error}")),
    }
}

/// What a path that is not there yet would be made in.
fn existing(path: &Path) -> &Path {
    let mut above = path.ancestors();
    above.find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."))
}

/// A start would be refused: a mapping requires what a data directory in memory cannot hold.
fn not_held(config: &Config) -> Option<String> {
    let disk = Volatile::of(existing(&config.data_dir))?;
    let (mapping, required) = config
        .mappings
        .iter()
        .find_map(|(name, section)| Some((name, required_word(section.required_delivery?))))?;
    Some(format!(
        "it is on {}, in memory, with which mapping {mapping}'s required_delivery: {required} cannot be held",
        disk.name()
    ))
}

/// The bridge creates its data directory, that of its socket, and what is missing above them.
fn not_creatable(path: &Path) -> Option<String> {
    let existing = existing(path);
    not_a_directory(existing).map(|why| format!("in {}: {why}", existing.display()))
}
