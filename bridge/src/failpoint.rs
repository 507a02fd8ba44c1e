//! Fail points by name, for tests only: `FANIN_FAILPOINTS="after_stage=kill@3,before_settle=pause"`.
//!
//! Without the feature `failpoints` every call is empty and the variable is not read. `kill` ends the process at once, as
//! SIGKILL does; `@n` means at the n-th time the point is reached, counted over the process. The points are named after
//! the step of the protocol they stand behind or before.
//!
//! `FANIN_DISK_FULL=/path`: while a file of that name exists, the local log finds no space for another segment.

/// Reached the point `name`.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &str) {}

/// Whether faults may be injected in this build.
pub const ENABLED: bool = cfg!(feature = "failpoints");

/// Faults of the disk under the local log: none.
#[cfg(not(feature = "failpoints"))]
#[must_use]
pub fn disk_faults() -> Option<std::sync::Arc<dyn fanin_store::faults::Faults>> {
    None
}

#[cfg(feature = "failpoints")]
pub use armed::{disk_faults, reach};

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::PathBuf;
    use std::sync::{Arc, LazyLock};

    use fanin_store::faults::Faults;

    use parking_lot::Mutex;

    static POINTS: LazyLock<Mutex<BTreeMap<String, u64>>> = LazyLock::new(|| {
        let text = std::env::var("FANIN_FAILPOINTS").unwrap_or_default();
        let points = text.split(',').filter_map(|entry| {
            let (name, action) = entry.split_once('=')?;
            let count = match action.split_once('@') {
                Some(("kill", count)) => count.parse().ok()?,
                None if action == "kill" => 1,
                Some(_) | None => return None,
            };
            Some((name.trim().to_owned(), count))
        });
        Mutex::new(points.collect())
    });

    #[derive(Debug)]
    struct FullDisk {
        while_exists: PathBuf,
    }

    impl Faults for FullDisk {
        fn allocate(&self, _bytes: u64) -> io::Result<()> {
            if self.while_exists.exists() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        }
    }

    /// Faults of the disk under the local log, when the environment asks for any.
    #[must_use]
    pub fn disk_faults() -> Option<Arc<dyn Faults>> {
        let while_exists = PathBuf::from(std::env::var_os("FANIN_DISK_FULL")?);
        Some(Arc::new(FullDisk { while_exists }))
    }

    /// Reached the point `name`: ends the process with SIGKILL when it is armed and its count is up.
    pub fn reach(name: &str) {
        let mut points = POINTS.lock();
        let Some(left) = points.get_mut(name) else { return };
        *left -= 1;
        if *left == 0 {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        }
    }
}
