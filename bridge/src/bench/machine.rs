//! CPU time of single processes and of the whole machine.

use std::io;
use std::time::Duration;

use super::error::BenchError;

/// CPU time of each part so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) hub: Duration,
    /// Nothing on the native side.
    pub(super) bridge: Duration,
    pub(super) apps: Duration,
    /// Everything that ran on the machine, these included.
    pub(super) machine: Duration,
}

impl Cpu {
    /// Reads it for these processes.
    pub(super) fn read(hub: u32, bridge: Option<u32>, apps: &[u32]) -> Result<Self, BenchError> {
        let of =
            |pid: u32| fanin_localhub::cpu_time(pid).map_err(BenchError::io("reading a process's CPU time"));
        Ok(Self {
            hub: of(hub)?,
            bridge: bridge.map_or(Ok(Duration::ZERO), of)?,
            apps: apps.iter().copied().map(of).sum::<Result<_, _>>()?,
            machine: busy_time().map_err(BenchError::io("reading the machine's CPU time"))?,
        })
    }

    /// What was used since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            hub: self.hub.saturating_sub(before.hub),
            bridge: self.bridge.saturating_sub(before.bridge),
            apps: self.apps.saturating_sub(before.apps),
            machine: self.machine.saturating_sub(before.machine),
        }
    }

    /// What the measured processes used together.
    pub(super) fn measured(self) -> Duration {
        self.hub + self.bridge + self.apps
    }

    /// What everything else on the machine used, benchmark driver and kernel threads included.
    pub(super) fn others(self) -> Duration {
        self.machine.saturating_sub(self.measured())
    }
}

/// CPU time in which the machine was not idle.
fn busy_time() -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let ticks = busy_ticks(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_nanos(
        ticks.saturating_mul(1_000_000_000 / per_second),
    ))
}

/// User, nice, system, interrupts and stolen time of the first line; idle and waiting left out.
fn busy_ticks(stat: &str) -> Option<u64> {
    let fields: Option<Vec<u64>> = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_ascii_whitespace()
        .take(8)
        .map(|field| field.parse().ok())
        .collect();
    match fields?.as_slice() {
        [user, nice, system, _idle, _iowait, irq, softirq, steal] => {
            Some(user + nice + system + irq + softirq + steal)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    // Goal: busy time leaves idle out and never stands still under load. Method: a crafted line; this process spins.
    use super::*;

    #[test]
    fn idle_time_is_left_out() {
        let stat = "cpu  10 20 30 9999 8888 1 2 3 500 600\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ticks(stat), Some(66));
        assert_eq!(busy_ticks("cpu 1 2"), None);
        assert_eq!(busy_ticks("intr 5"), None);
    }

    #[test]
    fn this_process_is_part_of_the_machine() {
        let pid = std::process::id();
        let before = Cpu::read(pid, None, &[]).unwrap();
        let spent = loop {
            let spent = Cpu::read(pid, None, &[]).unwrap().since(before);
            if spent.hub >= Duration::from_millis(50) {
                break spent;
            }
        };
        assert_eq!(spent.measured(), spent.hub);
        assert!(spent.machine > Duration::ZERO);
    }
}
