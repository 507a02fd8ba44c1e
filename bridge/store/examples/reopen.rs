//! Writes messages of 1 KiB in batches of 256, kills the writer with SIGKILL, and measures how long a start takes. Fails when a
//! record is missing or damaged, or when the start takes longer than [`LIMIT`].
//!
//! `cargo run --release -p fanin-store --example reopen -- DIR [MESSAGES]`; DIR must not exist yet or be empty.

use fanin_store::{Class, Key, Op, Options, SegmentLog, Store};
use std::{
    collections::VecDeque,
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const BATCH: u64 = 256;
const MESSAGE_BYTES: usize = 1024;
const QUOTA: u64 = 64 << 30;
const MESSAGES: u64 = 1_000_000;
const IN_FLIGHT: usize = 4;
/// The time a start may take.
const LIMIT: Duration = Duration::from_secs(3);
const WRITE: &str = "--write";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<_> = std::env::args().skip(1).collect();
    let child = args.last().is_some_and(|arg| arg == WRITE);
    if child {
        args.pop();
    }
    let dir = args.first().ok_or("give a directory")?;
    let messages = args.get(1).map_or(Ok(MESSAGES), |n| n.parse())?;
    if child {
        return write(dir, messages);
    }
    let mut writer = Command::new(std::env::current_exe()?)
        .args([dir, &messages.to_string(), WRITE])
        .stdout(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(writer.stdout.take().ok_or("no stdout")?)
        .lines()
        .next();
    // The writer waits with the log open. This is SIGKILL.
    writer.kill()?;
    let status = writer.wait()?;
    writeln!(
        std::io::stdout(),
        "{}; the writer ended with {status}",
        said.ok_or("the writer failed")??
    )?;
    let start = Instant::now();
    let (log, recovered) = SegmentLog::open(Options::new(dir, QUOTA))?;
    let took = start.elapsed();
    let records = recovered.records.len();
    writeln!(
        std::io::stdout(),
        "{messages} messages in {records} records ({} segments, {} MiB) opened in {:.1} ms",
        log.usage().segments,
        log.usage().bytes >> 20,
        took.as_secs_f64() * 1000.0,
    )?;
    if records as u64 != messages.div_ceil(BATCH) || !recovered.damaged.is_empty() {
        return Err("records are missing or damaged".into());
    }
    for record in &recovered.records {
        log.read_body(record.at)?;
    }
    if took > LIMIT {
        return Err(format!("the start took longer than {LIMIT:?}").into());
    }
    Ok(())
}

fn write(dir: &str, messages: u64) -> Result<(), Box<dyn Error>> {
    let (log, _) = SegmentLog::open(Options::new(dir, QUOTA))?;
    let message = bytes::Bytes::from(vec![0x5a; MESSAGE_BYTES]);
    let start = Instant::now();
    tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(async {
            let mut waiting = VecDeque::new();
            for id in 0..messages.div_ceil(BATCH) {
                let body = vec![message.clone(); BATCH.min(messages - id * BATCH) as usize];
                let head = bytes::Bytes::from(vec![7; 16 * body.len()]);
                let op = Op::Append {
                    key: Key { space: 0, id },
                    kind: 1,
                    head,
                    body,
                };
                waiting.push_back(log.commit(Class::Intake, vec![op]));
                if waiting.len() == IN_FLIGHT
                    && let Some(oldest) = waiting.pop_front()
                {
                    oldest.await?;
                }
            }
            for commit in waiting {
                commit.await?;
            }
            Ok::<_, fanin_store::CommitError>(())
        })?;
    let rate = messages as f64 / start.elapsed().as_secs_f64();
    writeln!(
        std::io::stdout(),
        "{messages} messages written and synced, {rate:.0} msg/s"
    )?;
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
