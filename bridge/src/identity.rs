//! Who this data directory is, and whether it is still where it was made (P8).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fanin_core::ids::NodeUuid;
use fanin_store::{Class, CommitError, Op, Recovered, Store};
use serde::{Deserialize, Serialize};

/// The value that holds the identity.
const NAME: &str = "identity";

/// A data directory's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// Made at random with the directory, in hexadecimal digits.
    uuid: String,
    /// The node's name.
    node: String,
    /// Where it was made.
    place: Place,
}

/// Where a data directory lies: a copy of it lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// The machine's id; empty where the system has none.
    machine: String,
    /// The file system's device number.
    device: u64,
    /// The directory's inode.
    inode: u64,
}

/// Why a data directory is not this node's.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It was copied or moved.
    #[error("FAN-4013: the data directory {dir} was made on {made}, but is on {found}: it is a copy, was restored from a backup, or was moved. If it was moved and nothing uses the original, start once with --accept-moved-data; otherwise use the original, or an empty directory", dir = dir.display())]
    Copied {
        /// The directory.
        dir: PathBuf,
        /// Where it was made.
        made: String,
        /// Where it is.
        found: String,
    },
    /// It belongs to a node of another name.
    #[error("FAN-4014: the data directory {dir} belongs to node {found}, the configuration says node {configured}; set `node: {found}`, or use an empty directory", dir = dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// The name in it.
        found: String,
        /// The name in the configuration.
        configured: String,
    },
    /// The stored identity cannot be read.
    #[error("FAN-4003: the identity in {dir} cannot be read ({what}); use the version of fanin that wrote it", dir = dir.display())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The disk failed.
    #[error("FAN-4002: {dir}: {source}", dir = dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The log failed.
    #[error("FAN-4002: {0}")]
    Store(#[from] CommitError),
}

impl IdentityError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            IdentityError::Copied { .. } => "FAN-4013",
            IdentityError::OtherNode { .. } => "FAN-4014",
            IdentityError::Unreadable { .. } => "FAN-4003",
            IdentityError::Io { .. } | IdentityError::Store(_) => "FAN-4002",
        }
    }
}

/// Reads the identity of a data directory, or makes it. `accept_moved` takes the directory's present place for good: the
/// operator's word that no copy of it is in use.
///
/// # Errors
/// `IdentityError`: the bridge must not start.
pub async fn establish(
    dir: &Path,
    node: &str,
    recovered: &Recovered,
    store: &dyn Store,
    accept_moved: bool,
) -> Result<NodeUuid, IdentityError> {
    let place = Place::of(dir)?;
    let unreadable = |what: String| IdentityError::Unreadable {
        dir: dir.to_owned(),
        what,
    };
    let (stored, changed) = match recovered.values.get(NAME) {
        Some(value) => {
            let mut stored: Stored = serde_json::from_slice(value).map_err(|e| unreadable(e.to_string()))?;
            if stored.node != node {
                let (found, configured) = (stored.node, node.to_owned());
                return Err(IdentityError::OtherNode {
                    dir: dir.to_owned(),
                    found,
                    configured,
                });
            }
            let moved = stored.place != place;
            if moved && !accept_moved {
                let (made, found) = (stored.place.to_string(), place.to_string());
                return Err(IdentityError::Copied {
                    dir: dir.to_owned(),
                    made,
                    found,
                });
            }
            stored.place = place;
            (stored, moved)
        }
        None => (
            Stored {
                uuid: NodeUuid(rand::random()).to_string(),
                node: node.to_owned(),
                place,
            },
            true,
        ),
    };
    if changed {
        let value = Bytes::from(serde_json::to_vec(&stored).map_err(|e| unreadable(e.to_string()))?);
        store
            .commit(
                Class::Finish,
                vec![Op::Put {
                    name: NAME.to_owned(),
                    value,
                }],
            )
            .await?;
    }
    u128::from_str_radix(&stored.uuid, 16)
        .map(NodeUuid)
        .map_err(|e| unreadable(e.to_string()))
}

impl Place {
    fn of(dir: &Path) -> Result<Place, IdentityError> {
        let metadata = std::fs::metadata(dir).map_err(|source| IdentityError::Io {
            dir: dir.to_owned(),
            source,
        })?;
        let machine = std::fs::read_to_string("/etc/machine-id")
            .unwrap_or_default()
            .trim()
            .to_owned();
        Ok(Place {
            machine,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let machine = if self.machine.is_empty() {
            "unknown"
        } else {
            &self.machine
        };
        write!(
            f,
            "machine {machine}, device {}, inode {}",
            self.device, self.inode
        )
    }
}
