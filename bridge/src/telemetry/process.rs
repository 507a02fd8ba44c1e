//! What this process costs, in the names Prometheus uses for every process.

use std::fmt::Write as _;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Memory of this process that is resident, bytes; 0 where the system does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    fanin_localhub::rss(std::process::id()).unwrap_or(0)
}

/// Memory, CPU time, open files and start time as Prometheus text. What the system does not tell is left out.
#[must_use]
pub fn render(started: SystemTime) -> String {
    let mut text = String::new();
    let pid = std::process::id();
    if let Ok(bytes) = fanin_localhub::rss(pid) {
        put(
            &mut text,
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory, bytes.",
            bytes as f64,
        );
    }
    if let Ok(cpu) = fanin_localhub::cpu_time(pid) {
        let help = "User and system CPU time, seconds.";
        put(
            &mut text,
            "process_cpu_seconds_total",
            "counter",
            help,
            cpu.as_secs_f64(),
        );
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        put(
            &mut text,
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            files.count() as f64,
        );
    }
    if let Some(limit) = open_files_limit() {
        put(
            &mut text,
            "process_max_fds",
            "gauge",
            "Most file descriptors that may be open.",
            limit,
        );
    }
    if let Ok(since) = started.duration_since(UNIX_EPOCH) {
        let help = "When the process started, seconds since 1970.";
        put(
            &mut text,
            "process_start_time_seconds",
            "gauge",
            help,
            since.as_secs_f64(),
        );
    }
    text
}

fn put(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
    );
}

fn open_files_limit() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    //! Goal: the figures are there and plausible. Method: this process.
    use super::*;

    #[test]
    fn figures_of_this_process() {
        let text = render(SystemTime::now());
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} ")))
                .unwrap();
            line.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1.6e9);
    }
}
