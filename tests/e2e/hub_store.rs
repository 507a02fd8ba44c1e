//! The hub's store, copied and put back: what a backup, a snapshot or a power loss makes of a hub.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, LEDGER, STREAM};
use crate::identity::copy;

fn streams() -> &'static Path {
    Path::new("jetstream/$G/streams")
}

/// The ledger's part of a store.
pub(crate) fn ledger() -> PathBuf {
    streams().join(LEDGER)
}

/// The source's part, with its consumers.
pub(crate) fn source() -> PathBuf {
    streams().join(STREAM)
}

/// What the hub knows of acknowledgements.
pub(crate) fn consumers() -> PathBuf {
    source().join("obs")
}

/// Copies the whole store. The hub stands still meanwhile.
pub(crate) async fn snapshot(cluster: &mut Cluster, to: &Path) {
    cluster.hub.stop().await.unwrap();
    copy(&cluster.hub.store_dir(), to);
    cluster.hub.restart().await.unwrap();
}

/// Takes the named parts back to a copy. The hub stands still meanwhile.
pub(crate) async fn put_back(cluster: &mut Cluster, older: &Path, parts: &[PathBuf]) {
    cluster.hub.stop().await.unwrap();
    for part in parts {
        let (from, to) = (older.join(part), cluster.hub.store_dir().join(part));
        fs::remove_dir_all(&to).unwrap();
        copy(&from, &to);
    }
    cluster.hub.restart().await.unwrap();
}
