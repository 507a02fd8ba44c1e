//! The Unix socket: taken over from a dead process, never from a living one, and open to whom the mode says only.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

use super::limits::SOCKET_PATH_BYTES_MAX;

/// Mode of a directory that has to be made for the socket.
const DIRECTORY_MODE: u32 = 0o755;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into a socket address.
    #[error(
        "the socket path {path} has {bytes} bytes; at most {limit} are possible: choose a shorter `listen`",
        limit = SOCKET_PATH_BYTES_MAX - 1
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Another process serves the socket.
    #[error("another process serves {0}: stop it, or choose another `listen`")]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} exists and is not a socket: remove it, or choose another `listen`")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket that this process serves. Its file is removed when this is dropped, if it is still the same.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Socket {
    /// Binds the socket. It appears under its name with its final mode only.
    pub(super) fn bind(path: &Path, mode: u32) -> Result<(Socket, UnixListener), SocketError> {
        let bytes = path.as_os_str().len();
        if bytes >= SOCKET_PATH_BYTES_MAX {
            return Err(SocketError::PathTooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { what, path, source }
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(failed("create the directory", directory))?;
        refuse_living(path)?;
        let hidden = directory.join(format!(".{}", std::process::id()));
        // Left behind by a crash between bind and rename, of a process that had this number.
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(failed("bind the socket", path))?;
        let placed = std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::fs::rename(&hidden, path))
            .and_then(|()| std::fs::symlink_metadata(path));
        match placed {
            Ok(metadata) => {
                let device_and_inode = (metadata.dev(), metadata.ino());
                Ok((
                    Socket {
                        path: path.to_owned(),
                        device_and_inode,
                    },
                    listener,
                ))
            }
            Err(source) => {
                let _ = std::fs::remove_file(&hidden);
                Err(failed("place the socket", path)(source))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        if found.is_ok_and(|found| found == self.device_and_inode) {
            // Nothing depends on the file being gone: the next process takes a dead socket over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path where somebody answers, or where something other than a socket is. A dead socket is replaced later.
fn refuse_living(path: &Path) -> Result<(), SocketError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io {
                what: "look at",
                path: path.to_owned(),
                source,
            });
        }
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io {
            what: "test",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a dead socket is replaced, a living one and other files are left alone. Method: real sockets in a directory of
    //! the test's own.

    use super::*;

    #[tokio::test]
    async fn dead_sockets_are_replaced_and_living_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/for/s.sock");
        let (first, listener) = Socket::bind(&path, 0o660).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o660);
        assert_eq!(
            mode(path.parent().unwrap()) & 0o022,
            0,
            "nobody else may write to the directory"
        );
        assert!(matches!(Socket::bind(&path, 0o660), Err(SocketError::InUse(_))));
        // As after a crash: the file stays, nobody listens.
        drop(listener);
        std::mem::forget(first);
        let (second, _listener) = Socket::bind(&path, 0o600).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Socket::bind(&path, 0o660),
            Err(SocketError::NotASocket(_))
        ));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(
            Socket::bind(&long, 0o660),
            Err(SocketError::PathTooLong { .. })
        ));
    }

    #[tokio::test]
    async fn a_successors_socket_survives_the_end_of_its_predecessor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (old, listener) = Socket::bind(&path, 0o660).unwrap();
        drop(listener);
        let (_new, _listener) = Socket::bind(&path, 0o660).unwrap();
        drop(old);
        assert!(path.exists());
    }
}
