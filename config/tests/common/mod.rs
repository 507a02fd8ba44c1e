//! What the tests share: a configuration in a folder of its own.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::expect_used,
    reason = "a test that cannot prepare its files cannot go on"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use fanin_config::{LoadError, LoadRequest, Loaded, load};

/// A valid configuration; its lines are counted by the tests.
pub(crate) const VALID: &str = "\
node: n1
hub:
  servers: [nats://h:4222]
mappings:
  orders:
    sources: [{ stream: ORDERS }]
    applications:
      billing: {}
";

pub(crate) struct Case {
    dir: tempfile::TempDir,
    pub(crate) request: LoadRequest,
}

impl Case {
    pub(crate) fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("fanin.yaml");
        std::fs::write(&file, text).expect("written");
        Self {
            dir,
            request: LoadRequest {
                file,
                conf_d: true,
                ..LoadRequest::default()
            },
        }
    }

    pub(crate) fn env(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.request.env = owned.collect::<BTreeMap<_, _>>();
        self
    }

    pub(crate) fn flags(mut self, flags: &[(&str, &str)]) -> Self {
        let owned = flags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        self.request.overrides = owned.collect();
        self
    }

    pub(crate) fn drop_in(self, name: &str, text: &str) -> Self {
        std::fs::create_dir_all(self.path("conf.d")).expect("a folder");
        std::fs::write(self.path("conf.d").join(name), text).expect("written");
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn load(&self) -> Result<Loaded, LoadError> {
        load(&self.request)
    }
}

/// `VALID` with the first `from` replaced.
pub(crate) fn with(from: &str, to: &str) -> String {
    assert!(VALID.contains(from), "{from}");
    VALID.replacen(from, to, 1)
}

/// `VALID` with lines below the line that `after` begins.
pub(crate) fn below(after: &str, lines: &str) -> String {
    with(after, &format!("{after}\n{lines}"))
}
