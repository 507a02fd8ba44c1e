//! Whether what is written below a directory outlives a power loss: on a file system in memory it does not, whatever is synced.

use std::path::Path;

/// `TMPFS_MAGIC` of Linux.
const TMPFS: u32 = 0x0102_1994;
/// `RAMFS_MAGIC` of Linux.
const RAMFS: u32 = 0x8584_58f6;

/// A file system that keeps its files in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatile {
    /// In memory and swap, bounded in size; usual for `/dev/shm`, `/run` and, with some systems, `/tmp`.
    Tmpfs,
    /// In memory, not bounded.
    Ramfs,
}

impl Volatile {
    /// The one that this existing path is on. `None`: another one, or the system does not say; what is wrong with such a path,
    /// using it will tell. An overlay counts as what it shows itself as: see `docs/decisions/0004-volatile-disk.md`.
    #[must_use]
    pub fn of(path: &Path) -> Option<Volatile> {
        let stat = rustix::fs::statfs(path).ok()?;
        // Its type is another one on each kind of machine.
        match u32::try_from(stat.f_type).ok()? {
            TMPFS => Some(Volatile::Tmpfs),
            RAMFS => Some(Volatile::Ramfs),
            _ => None,
        }
    }

    /// Its name, as `mount` knows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Volatile::Tmpfs => "tmpfs",
            Volatile::Ramfs => "ramfs",
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: memory is told from everything else. Method: places that every Linux has.
    use super::*;

    #[test]
    fn memory_is_known() {
        assert_eq!(Volatile::of(Path::new("/dev/shm")), Some(Volatile::Tmpfs));
        assert_eq!(Volatile::of(Path::new("/proc")), None);
        assert_eq!(Volatile::of(Path::new("/nonexistent")), None);
        assert_eq!(
            (Volatile::Tmpfs.name(), Volatile::Ramfs.name()),
            ("tmpfs", "ramfs")
        );
    }
}
