//! What a process costs, from `/proc`. Other systems answer with [`io::ErrorKind::NotFound`].

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time that process `pid` has used so far in user and kernel mode, all threads, in ticks of usually 10 ms.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_nanos(
        ticks.saturating_mul(1_000_000_000 / per_second),
    ))
}

/// Memory of process `pid` that is resident, in bytes.
pub fn rss(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident_bytes(&status).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Fields 14 and 15 of `stat`. The second field is the program's name, which may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    // Goal: the right fields are read. Method: a recorded line, and this process itself.
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_with_blanks_and_parentheses() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 17 5 0 0 20 0 1 0 100 1 2";
        assert_eq!(cpu_ticks(stat), Some(22));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1_263_616));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_cpu_time_only_grows() {
        let before = cpu_time(std::process::id()).unwrap();
        assert!(rss(std::process::id()).unwrap() > 100_000);
        assert!(cpu_time(std::process::id()).unwrap() >= before);
        assert_eq!(cpu_time(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
