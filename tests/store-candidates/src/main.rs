//! Runs the candidates; see README.md. Each phase is a process of its own: this binary started again.

mod candidates;

use candidates::{Log, NAMES, Res, open};
use nix::sys::resource::{UsageWho, getrusage};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

const BATCH: u64 = 256;
const MESSAGE_BYTES: usize = 1024;
const MESSAGES: &str = "1000000";
const REPEATS: usize = 3;
/// The late row is synced so many commits before the writer dies: it lies where a log may also find a torn tail.
const LATE_COMMITS: u64 = 4;
/// Makes the numbers in rows as little compressible as the rest. Odd, so that it has an inverse.
const SCRAMBLE: u64 = 0x9e37_79b9_7f4a_7c15;
const UNSCRAMBLE: u64 = {
    let (mut inverse, mut round) = (1_u64, 0);
    while round < 6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(SCRAMBLE.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
};
const _: () = assert!(SCRAMBLE.wrapping_mul(UNSCRAMBLE) == 1);
/// What follows a row's number is a window of this pool: noise that does not compress, and known again when read.
const POOL_BYTES: usize = 4 << 20;

fn main() -> Res<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["write", name, dir, messages, rows] => write(name, dir.as_ref(), messages.parse()?, rows),
        ["reopen", name, dir, last, rows] => reopen(name, dir.as_ref(), last.parse()?, rows),
        ["check", name, dir, last, rows] => check(name, dir.as_ref(), last.parse()?, rows),
        ["all", dir] => NAMES
            .iter()
            .try_for_each(|name| run(name, dir.as_ref(), MESSAGES)),
        [name, dir] => run(name, dir.as_ref(), MESSAGES),
        [name, dir, messages] => run(name, dir.as_ref(), messages),
        _ => Err("usage: store-candidates all DIR | NAME DIR [MESSAGES]".into()),
    }
}

/// What one run of writing and opening again took.
struct Figures {
    rate: f64,
    cpu_us: f64,
    reopen_ms: f64,
}

fn run(name: &str, dir: &Path, messages: &str) -> Res<()> {
    println!("{name}: {}", crates(name)?);
    for rows in ["batch", "message"] {
        let late_dir = dir.join(format!("{name}-{rows}-late"));
        let dir = dir.join(format!("{name}-{rows}"));
        let last = row_count(messages.parse()?, rows);
        println!("{name}, a row per {rows}");
        let mut figures = Vec::new();
        for repeat in 1..=REPEATS {
            let _ = std::fs::remove_dir_all(&dir);
            let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
            let (rate, cpu_us) = write_and_kill(name, &dir, messages, rows)?;
            let disk = disk_bytes(&dir)? >> 20;
            if repeat == REPEATS {
                let _ = std::fs::remove_dir_all(&late_dir);
                copy(&dir, &late_dir)?;
            }
            let said = phase("reopen", name, &dir, &last.to_string(), rows)?.output()?;
            let said = String::from_utf8(said.stdout)?;
            let (reopen_ms, found) = said.trim().split_once(' ').ok_or("the reopen failed")?;
            let reopen_ms = reopen_ms.parse()?;
            println!(
                "  run {repeat}:  {rate:.0} msg/s, {cpu_us:.2} us CPU per message, {disk} MiB on disk; reopen {reopen_ms:.0} ms, \
                 last row {found}; load before it {}",
                load.split(' ').next().unwrap_or("unknown")
            );
            figures.push(Figures {
                rate,
                cpu_us,
                reopen_ms,
            });
        }
        println!(
            "  median (lowest to highest): {} msg/s, {} us CPU per message, reopen {} ms",
            spread(figures.iter().map(|f| f.rate).collect(), 0),
            spread(figures.iter().map(|f| f.cpu_us).collect(), 2),
            spread(figures.iter().map(|f| f.reopen_ms).collect(), 0),
        );
        let late = last - LATE_COMMITS * rows_per_commit(rows);
        let frame_dir = dir.with_extension("frame");
        let _ = std::fs::remove_dir_all(&frame_dir);
        copy(&late_dir, &frame_dir)?;
        let inside = 40;
        let behind = row_bytes(rows) + 8;
        for (what, dir, row, at) in [
            ("the middle row", &dir, last / 2, inside),
            ("the late row", &late_dir, late, inside),
            ("what follows the late row", &frame_dir, late, behind),
        ] {
            let hits = flip(dir, row, rows, at)?;
            let checked = phase("check", name, dir, &last.to_string(), rows)?.output()?;
            let said = String::from_utf8_lossy(&checked.stdout);
            let error = String::from_utf8_lossy(&checked.stderr);
            let error = error.lines().find(|l| !l.trim().is_empty()).unwrap_or("");
            let error: String = error.chars().take(300).collect();
            println!(
                "  bit flipped in {what} {row} ({hits}): {} {error}",
                said.trim_end()
            );
            std::fs::remove_dir_all(dir)?;
        }
    }
    Ok(())
}

fn phase(phase: &str, name: &str, dir: &Path, count: &str, rows: &str) -> Res<Command> {
    let dir = dir.to_str().ok_or("the directory's name is not UTF-8")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([phase, name, dir, count, rows]);
    Ok(command)
}

/// Messages per second, and microseconds of CPU per message.
fn write_and_kill(name: &str, dir: &Path, messages: &str, rows: &str) -> Res<(f64, f64)> {
    let mut writer = phase("write", name, dir, messages, rows)?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(writer.stdout.take().ok_or("no stdout")?).lines();
    let report = lines.next();
    // The writer still has everything open. This is SIGKILL.
    writer.kill()?;
    writer.wait()?;
    let report = report.ok_or("the writer said nothing")??;
    let (rate, cpu_us) = report.split_once(' ').ok_or("no figures")?;
    Ok((rate.parse()?, cpu_us.parse()?))
}

fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let at = |i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    let (low, middle, high) = (at(0), at(values.len() / 2), at(values.len().wrapping_sub(1)));
    format!("{middle:.digits$} ({low:.digits$} to {high:.digits$})")
}

/// How many crates a candidate is with all it rests on, and how many of them the product does not have otherwise.
fn crates(name: &str) -> Res<String> {
    let package = match name {
        "segment-log" => "fanin-store",
        "sqlite" => "rusqlite",
        other => other,
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "tree",
            "--locked",
            "--prefix",
            "none",
            "-e",
            "normal,build",
            "-p",
            package,
        ])
        .current_dir(here)
        .output()?;
    if !tree.status.success() {
        return Err(String::from_utf8(tree.stderr)?.into());
    }
    let product = std::fs::read_to_string(here.join("../../Cargo.lock"))?;
    let tree = String::from_utf8(tree.stdout)?;
    let all: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name, rest.split(' ').next().unwrap_or(rest)))
        .collect();
    let new = |(name, _): &&(&str, &str)| !product.contains(&format!("name = \"{name}\"\n"));
    Ok(format!(
        "{} crates, {} of them not in the product",
        all.len(),
        all.iter().filter(new).count()
    ))
}

fn copy(from: &Path, to: &Path) -> Res<()> {
    std::fs::create_dir_all(to)?;
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from)?);
        std::fs::create_dir_all(target.parent().ok_or("no parent")?)?;
        std::fs::copy(&file, target)?;
    }
    Ok(())
}

fn rows_per_commit(rows: &str) -> u64 {
    if rows == "batch" { 1 } else { BATCH }
}

fn row_bytes(rows: &str) -> usize {
    if rows == "batch" {
        MESSAGE_BYTES * BATCH as usize
    } else {
        MESSAGE_BYTES
    }
}

fn row_count(messages: u64, rows: &str) -> u64 {
    let batches = messages.div_ceil(BATCH);
    if rows == "batch" { batches } else { batches * BATCH }
}

fn pool() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..POOL_BYTES / 8).flat_map(|_| word()).collect()
}

/// The number first, then a window that depends on it.
fn make_row(pool: &[u8], number: u64, bytes: usize) -> Vec<u8> {
    let start = (number as usize * 7919) % (pool.len() - bytes);
    let mut row = pool[start..start + bytes].to_vec();
    row[..8].copy_from_slice(&number.wrapping_mul(SCRAMBLE).to_le_bytes());
    row
}

fn number_of(row: &[u8]) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&row[..8]);
    u64::from_le_bytes(number).wrapping_mul(UNSCRAMBLE)
}

fn write(name: &str, dir: &Path, messages: u64, rows: &str) -> Res<()> {
    let (pool, bytes) = (pool(), row_bytes(rows));
    let log = open(name, dir)?;
    let count = row_count(messages, rows);
    let per_commit = rows_per_commit(rows);
    let durable = Arc::new(AtomicU64::new(0));
    let cpu = || -> Res<f64> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
        Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
    };
    let (start, cpu_start) = (Instant::now(), cpu()?);
    let follower = {
        let (log, durable) = (Arc::clone(&log), Arc::clone(&durable));
        std::thread::spawn(move || follow(&*log, &durable, count))
    };
    for first in (1..=count).step_by(per_commit as usize) {
        let rows = (first..first + per_commit)
            .map(|number| make_row(&pool, number, bytes))
            .collect();
        log.commit(first, rows)?;
        durable.store(first + per_commit - 1, Ordering::Release);
        follower.thread().unpark();
    }
    let elapsed = start.elapsed().as_secs_f64();
    follower.join().map_err(|_| "the follower panicked")??;
    let messages = (count * bytes as u64 / MESSAGE_BYTES as u64) as f64;
    let cpu_us = (cpu()? - cpu_start) * 1e6 / messages;
    println!("{} {cpu_us}", messages / elapsed);
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

fn follow(log: &dyn Log, durable: &AtomicU64, count: u64) -> Res<()> {
    let mut next = 1;
    while next <= count {
        let until = durable.load(Ordering::Acquire);
        if until < next {
            std::thread::park();
            continue;
        }
        for number in next..=until {
            let row = log.read(number)?.ok_or("a durable row is not there")?;
            if number_of(&row) != number {
                return Err("a wrong row".into());
            }
        }
        next = until + 1;
    }
    Ok(())
}

fn reopen(name: &str, dir: &Path, last: u64, rows: &str) -> Res<()> {
    let start = Instant::now();
    let log = open(name, dir)?;
    let opened = start.elapsed().as_secs_f64() * 1000.0;
    let found = log
        .read(last)?
        .is_some_and(|row| row == make_row(&pool(), last, row_bytes(rows)));
    println!("{opened} {}", if found { "there" } else { "MISSING" });
    Ok(())
}

fn check(name: &str, dir: &Path, last: u64, rows: &str) -> Res<()> {
    let log = match open(name, dir) {
        Ok(log) => log,
        Err(error) => {
            println!("open fails: {error}");
            return Ok(());
        }
    };
    let pool = pool();
    let (mut missing, mut wrong, mut errors, mut what) = (0, 0, 0, String::new());
    for number in 1..=last {
        match log.read(number) {
            Ok(Some(row)) if row == make_row(&pool, number, row_bytes(rows)) => {}
            Ok(Some(_)) => wrong += 1,
            Ok(None) => missing += 1,
            Err(error) => {
                errors += 1;
                what = error.to_string();
            }
        }
    }
    println!(
        "opens; of {last} rows {missing} missing, {wrong} silently wrong, {errors} fail to read {what}; {}",
        log.notes()
    );
    Ok(())
}

fn files(dir: &Path) -> Res<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn disk_bytes(dir: &Path) -> Res<u64> {
    use std::os::unix::fs::MetadataExt;
    let sizes = files(dir)?
        .into_iter()
        .map(|file| Ok(std::fs::metadata(file)?.blocks() * 512));
    sizes.sum::<std::io::Result<u64>>().map_err(Into::into)
}

/// Flips a bit so many bytes behind every place on disk that holds the start of this row. Says in how many.
fn flip(dir: &Path, number: u64, rows: &str, behind: usize) -> Res<String> {
    let row = make_row(&pool(), number, row_bytes(rows));
    let mut hits = 0;
    for path in files(dir)? {
        let content = std::fs::read(&path)?;
        for start in memchr::memmem::find_iter(&content, &row[..64]) {
            let at = start + behind;
            let byte = content.get(at).ok_or("the file ends before the bit to flip")?;
            let file = std::fs::File::options().write(true).open(&path)?;
            file.write_all_at(&[byte ^ 1], at as u64)?;
            hits += 1;
        }
    }
    if hits == 0 {
        return Err(format!("row {number} is nowhere on disk in plain").into());
    }
    Ok(format!("in {hits} place(s) on disk"))
}
