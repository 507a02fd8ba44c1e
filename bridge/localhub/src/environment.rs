//! What is read from the process environment, as a value, so that tests never change the real one.

use std::ffi::OsString;
use std::path::PathBuf;

/// The part of the environment that decides which nats-server is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `NATS_SERVER`: the server to use, whatever else is installed.
    pub nats_server: Option<PathBuf>,
    /// `PATH`, as the system writes it.
    pub path: Option<OsString>,
    /// `XDG_CACHE_HOME`, when absolute.
    pub cache_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn from_process() -> Self {
        let path_of = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        Self {
            nats_server: path_of("NATS_SERVER"),
            path: std::env::var_os("PATH"),
            cache_home: path_of("XDG_CACHE_HOME"),
            home: path_of("HOME"),
        }
    }

    /// The directory where fetched servers are kept: `$XDG_CACHE_HOME/fanin`, else `~/.cache/fanin`. `None` when
    /// neither variable is set.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        // The XDG base directory specification says that a relative path is to be ignored.
        let base = self.cache_home.clone().filter(|dir| dir.is_absolute());
        base.or_else(|| self.home.as_ref().map(|home| home.join(".cache")))
            .map(|dir| dir.join("fanin"))
    }

    /// The files named `name` in the directories of `PATH`, in its order.
    pub(crate) fn on_path(&self, name: &str) -> Vec<PathBuf> {
        let Some(path) = &self.path else { return Vec::new() };
        std::env::split_paths(path)
            .map(|dir| dir.join(name))
            .filter(|file| file.is_file())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    // Goal: the cache directory follows the XDG rules. Method: environments as values.
    use super::*;

    #[test]
    fn cache_dir_prefers_xdg_and_ignores_a_relative_one() {
        let home = Some(PathBuf::from("/home/u"));
        let xdg = |dir: &str| Environment {
            cache_home: Some(dir.into()),
            home: home.clone(),
            ..Default::default()
        };
        assert_eq!(xdg("/var/c").cache_dir(), Some("/var/c/fanin".into()));
        assert_eq!(xdg("c").cache_dir(), Some("/home/u/.cache/fanin".into()));
        assert_eq!(Environment::default().cache_dir(), None);
    }
}
