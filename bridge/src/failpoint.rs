//! Fail points by name, for tests only: `FANIN_FAILPOINTS="after_stage=kill@3,before_settle=pause"`.
//!
//! Without the feature `failpoints` every call is empty and the variable is not read. `kill` ends the process at once, as
//! SIGKILL does; `@n` means at the n-th time the point is reached, counted over the process. The points are named after
//! the step of the protocol they stand behind or before.
//!
//! `FANIN_DISK_FULL=/path`: while a file of that name exists, the local log finds no space for another segment.
//! `FANIN_DISK_FAILING=/path`: while a file of that name exists, every sync of the local log fails.
//!
//! `FANIN_BATCH_WEIGHT=n`: each unfinished batch counts as n, so that few of them reach the bounds that are made for very many.
//!
//! `FANIN_AUDIT_MS=n`: what must be seen twice before it is believed is looked at again after n milliseconds.

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

/// What this many unfinished batches count as: themselves.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[must_use]
pub fn weigh(batches: usize) -> usize {
    batches
}

/// The time between two looks that must agree, milliseconds: as it is.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[must_use]
pub fn audit_ms(usual: u64) -> u64 {
    usual
}

#[cfg(feature = "failpoints")]
pub use armed::{audit_ms, disk_faults, reach, weigh};

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

    static BATCH_WEIGHT: LazyLock<usize> = LazyLock::new(|| {
        let text = std::env::var("FANIN_BATCH_WEIGHT").unwrap_or_default();
        text.parse().unwrap_or(1)
    });

    /// What this many unfinished batches count as.
    #[must_use]
    pub fn weigh(batches: usize) -> usize {
        batches.saturating_mul(*BATCH_WEIGHT)
    }

    /// The time between two looks that must agree, milliseconds, for which the environment may set another one.
    #[must_use]
    pub fn audit_ms(usual: u64) -> u64 {
        let text = std::env::var("FANIN_AUDIT_MS").unwrap_or_default();
        text.parse().unwrap_or(usual)
    }

    /// EIO, as a broken disk answers.
    const IO_ERROR: i32 = 5;

    /// Each fault lasts while its file exists.
    #[derive(Debug)]
    struct BadDisk {
        full: Option<PathBuf>,
        failing: Option<PathBuf>,
    }

    impl Faults for BadDisk {
        fn sync(&self) -> io::Result<()> {
            match &self.failing {
                Some(path) if path.exists() => Err(io::Error::from_raw_os_error(IO_ERROR)),
                Some(_) | None => Ok(()),
            }
        }

        fn allocate(&self, _bytes: u64) -> io::Result<()> {
            match &self.full {
                Some(path) if path.exists() => Err(io::ErrorKind::StorageFull.into()),
                Some(_) | None => Ok(()),
            }
        }
    }

    /// Faults of the disk under the local log, when the environment asks for any.
    #[must_use]
    pub fn disk_faults() -> Option<Arc<dyn Faults>> {
        let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
        let (full, failing) = (named("FANIN_DISK_FULL"), named("FANIN_DISK_FAILING"));
        if full.is_none() && failing.is_none() {
            return None;
        }
        Some(Arc::new(BadDisk { full, failing }))
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
