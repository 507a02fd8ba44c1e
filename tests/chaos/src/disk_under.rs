//! What lies under a bridge's data directory: a small file system of its own where one can be mounted, else a directory and the
//! bridge's fail point.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{RunError, during};
use crate::limits::{DISK_BYTES, FILL_CHUNK_BYTES};

/// Set in the process that has its mounts for itself.
const OWN_MOUNTS: &str = "FANIN_CHAOS_OWN_MOUNTS";

/// Goes on as a process whose mounts nobody else sees and that end with it, however it ends. Goes on as it is where that is not
/// allowed: then nothing is mounted.
pub(crate) fn own_mounts() {
    if std::env::var_os(OWN_MOUNTS).is_some() {
        return;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    let probe = unshare()
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let Ok(own) = std::env::current_exe() else { return };
    if probe.is_ok_and(|status| status.success()) {
        let error = unshare()
            .arg(own)
            .args(std::env::args_os().skip(1))
            .env(OWN_MOUNTS, "1")
            .exec();
        eprintln!("no mounts of its own: {error}");
    }
}

/// One bridge's disk.
#[derive(Debug)]
pub(crate) enum DiskUnder {
    /// A small file system; filling it is real.
    Small { dir: PathBuf },
    /// A directory of the machine's; while the file exists, the bridge finds no room for another segment.
    FailPoint { file: PathBuf },
}

impl DiskUnder {
    /// Makes the disk of a bridge, below `dir`.
    pub(crate) fn make(dir: &Path, node: &str) -> Result<Self, RunError> {
        let small = dir.join(format!("{node}.disk"));
        fs::create_dir_all(&small).map_err(during("making a disk"))?;
        if std::env::var_os(OWN_MOUNTS).is_some() && mount(&small) {
            return Ok(Self::Small { dir: small });
        }
        fs::remove_dir(&small).map_err(during("making a disk"))?;
        let file = dir.join(format!("{node}.full"));
        Ok(Self::FailPoint { file })
    }

    /// In words, for the run's first lines.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Small { .. } => "small file systems of their own (tmpfs)",
            Self::FailPoint { .. } => "the machine's disk and a fail point, as nothing can be mounted here",
        }
    }

    /// The data directory, where the bridge does not choose it.
    pub(crate) fn data_dir(&self) -> Option<PathBuf> {
        match self {
            Self::Small { dir } => Some(dir.join("data")),
            Self::FailPoint { .. } => None,
        }
    }

    fn ballast(dir: &Path) -> PathBuf {
        dir.join("ballast")
    }

    /// Leaves no byte of room.
    pub(crate) fn fill(&self) -> Result<(), RunError> {
        let filled = match self {
            Self::Small { dir } => fill_up(&Self::ballast(dir)),
            Self::FailPoint { file } => fs::write(file, ""),
        };
        filled.map_err(during("filling a disk"))
    }

    /// Gives the room back.
    pub(crate) fn empty(&self) -> Result<(), RunError> {
        let emptied = match self {
            Self::Small { dir } => fs::remove_file(Self::ballast(dir)),
            Self::FailPoint { file } => fs::remove_file(file),
        };
        emptied.map_err(during("emptying a disk"))
    }

    /// Whether there is no room now.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Small { dir } => Self::ballast(dir).exists(),
            Self::FailPoint { file } => file.exists(),
        }
    }
}

fn mount(dir: &Path) -> bool {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o"])
        .arg(format!("size={DISK_BYTES},mode=0700"))
        .arg("fanin-chaos")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    mounted.is_ok_and(|status| status.success())
}

fn fill_up(path: &Path) -> std::io::Result<()> {
    let mut ballast = File::create(path)?;
    let mut chunk = vec![0; FILL_CHUNK_BYTES];
    loop {
        match ballast.write(&chunk) {
            Ok(_) => {}
            // Smaller pieces until not even a byte has room.
            Err(error) if error.kind() == ErrorKind::StorageFull && chunk.len() > 1 => {
                chunk.truncate(chunk.len() / 2);
            }
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
