//! How far a command has come, on a terminal only.

use std::io::{self, IsTerminal as _, Stderr, Write};
use std::time::Instant;

use crate::cli::limits::PROGRESS_INTERVAL;

/// A line on standard error that is written over and over.
pub(super) struct Progress<W = Stderr> {
    out: W,
    shown: bool,
    last: Instant,
    started: Instant,
}

impl Progress {
    pub(super) fn new(enabled: bool) -> Progress {
        let out = io::stderr();
        let shown = enabled && out.is_terminal();
        Progress::on(out, shown, Instant::now())
    }
}

impl<W: Write> Progress<W> {
    fn on(out: W, shown: bool, now: Instant) -> Progress<W> {
        Progress {
            out,
            shown,
            last: now,
            started: now,
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Shows the count, if it is time again.
    pub(super) fn at(&mut self, stored: u64) {
        if self.shown {
            self.at_time(stored, Instant::now());
        }
    }

    fn at_time(&mut self, stored: u64, now: Instant) {
        if self.shown && now.saturating_duration_since(self.last) >= PROGRESS_INTERVAL {
            self.last = now;
            let seconds = now.saturating_duration_since(self.started).as_secs_f64();
            let rate = stored as f64 / seconds.max(0.001);
            // Progress that cannot be shown is no failure.
            let _ = write!(self.out, "\r\x1b[K{stored} stored, {rate:.0}/s");
            let _ = self.out.flush();
        }
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.shown {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: a terminal sees the count and the rate now and then and is left clean; anything else sees nothing. Method: times as
    //! arguments, what is written in memory.
    use super::*;

    fn shown(shown: bool) -> String {
        let start = Instant::now();
        let mut progress = Progress::on(Vec::new(), shown, start);
        progress.at_time(10, start + PROGRESS_INTERVAL / 2);
        progress.at_time(500, start + PROGRESS_INTERVAL);
        // Too soon behind the last one.
        progress.at_time(600, start + PROGRESS_INTERVAL + PROGRESS_INTERVAL / 2);
        progress.at_time(1_000, start + 4 * PROGRESS_INTERVAL);
        progress.clear();
        String::from_utf8(progress.out).unwrap()
    }

    #[test]
    fn a_terminal_sees_how_far_it_is() {
        assert_eq!(PROGRESS_INTERVAL.as_millis(), 250);
        assert_eq!(
            shown(true),
            "\r\x1b[K500 stored, 2000/s\r\x1b[K1000 stored, 1000/s\r\x1b[K"
        );
        assert_eq!(shown(false), "");
    }
}
