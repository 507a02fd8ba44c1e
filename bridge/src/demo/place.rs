//! Where the demo's files are: in temporary directories that go with it, or in one that is kept.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::DemoError;
use super::limits::SOCKET_PATH_BYTES_MAX;

/// Where sockets are when the usual temporary directory's path is too long for them.
const SHORT_DIR: &str = "/tmp";
/// Room that a socket's name and the name of its directory take.
const SOCKET_NAME_BYTES: usize = 40;

/// The directories of one run.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    /// Removed with it.
    _root: Option<TempDir>,
    sockets: TempDir,
}

impl Place {
    /// Makes them: the root is `keep`, which must be empty or absent, or a temporary directory.
    pub(crate) fn make(keep: Option<&Path>) -> Result<Self, DemoError> {
        let usual = std::env::temp_dir();
        let temporary = |within: &Path| {
            let made = tempfile::Builder::new().prefix("fanin-demo-").tempdir_in(within);
            made.map_err(|source| DemoError::Place {
                path: within.to_owned(),
                cure: "set TMPDIR to a directory that this user may write to",
                source,
            })
        };
        let sockets = if usual.as_os_str().len() + SOCKET_NAME_BYTES > SOCKET_PATH_BYTES_MAX {
            temporary(Path::new(SHORT_DIR))?
        } else {
            temporary(&usual)?
        };
        let (root, made) = match keep {
            Some(dir) => (empty_dir(dir)?, None),
            None => {
                let made = temporary(&usual)?;
                (made.path().to_owned(), Some(made))
            }
        };
        Ok(Self {
            root,
            _root: made,
            sockets,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn hub(&self) -> PathBuf {
        self.root.join("hub")
    }

    /// The directory of the instances' records.
    pub(crate) fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    pub(crate) fn socket(&self, node: &str) -> PathBuf {
        self.sockets.path().join(format!("{node}.sock"))
    }
}

fn empty_dir(dir: &Path) -> Result<PathBuf, DemoError> {
    let refused = |source| DemoError::Place {
        path: dir.to_owned(),
        cure: "name a directory for --keep that is empty or absent",
        source,
    };
    std::fs::create_dir_all(dir).map_err(refused)?;
    if std::fs::read_dir(dir).map_err(refused)?.next().is_some() {
        return Err(refused(io::ErrorKind::DirectoryNotEmpty.into()));
    }
    dir.canonicalize().map_err(refused)
}

#[cfg(test)]
mod tests {
    // Goal: nothing is left unless asked, nothing of others is touched. Method: make and drop.
    use super::*;

    #[test]
    fn temporary_directories_go_and_a_kept_one_stays() {
        let place = Place::make(None).unwrap();
        let (root, socket) = (place.root().to_owned(), place.socket("node-1"));
        assert!(root.is_dir() && socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        drop(place);
        assert!(!root.exists() && !socket.parent().unwrap().exists());

        let dir = tempfile::tempdir().unwrap();
        let keep = dir.path().join("new/kept");
        drop(Place::make(Some(&keep)).unwrap());
        assert!(keep.is_dir());
        std::fs::write(keep.join("file"), "").unwrap();
        assert!(matches!(Place::make(Some(&keep)), Err(DemoError::Place { .. })));
        assert!(keep.join("file").exists());
    }
}
