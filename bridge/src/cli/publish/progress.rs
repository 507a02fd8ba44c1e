//! How far a command has come, on a terminal only.

use std::io::{self, IsTerminal, Write as _};
use std::time::Instant;

use crate::cli::limits::PROGRESS_INTERVAL;

/// A line on standard error that is written over and over.
pub(super) struct Progress {
    shown: bool,
    last: Instant,
    started: Instant,
}

impl Progress {
    pub(super) fn new(enabled: bool) -> Progress {
        let now = Instant::now();
        Progress {
            shown: enabled && io::stderr().is_terminal(),
            last: now,
            started: now,
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Shows the count, if it is time again.
    pub(super) fn at(&mut self, stored: u64) {
        if self.shown && self.last.elapsed() >= PROGRESS_INTERVAL {
            self.last = Instant::now();
            let rate = stored as f64 / self.seconds().max(0.001);
            // Progress that cannot be shown is no failure.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{stored} stored, {rate:.0}/s");
        }
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
