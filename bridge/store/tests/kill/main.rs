//! Goal: after SIGKILL at any moment, every confirmed commit is there, whole, and nothing is reported as damaged.
//! Method: this binary re-executes itself as a writer that prints the numbers of confirmed commits, kills it after a random
//! number of them, opens the log and checks; many times on one directory, so that recovery recovers recoveries.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print"
)]

use bytes::Bytes;
use fanin_store::{Class, Key, Op, Options, SegmentLog, Store};
use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

const CHILD: &str = "FANIN_STORE_KILL_CHILD";
const ROUNDS: u64 = 20;
const CONFIRMED_PER_ROUND: u64 = 400;
/// Keys behind the newest that are not yet released.
const KEPT: u64 = 200;
const IN_FLIGHT: usize = 8;

fn main() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_for_ever(Path::new(&dir));
    } else if std::env::args().any(|arg| arg == "--list") {
        println!("kill: test");
    } else {
        kill_and_check();
        println!("test kill ... ok ({ROUNDS} rounds)");
    }
}

fn options(dir: &Path) -> Options {
    Options {
        segment_bytes: 256 * 1024,
        ..Options::new(dir, 256 * 1024 * 1024)
    }
}

fn body(number: u64, part: u64) -> Bytes {
    let len = (number * 7919 + part * 131) % 6000;
    (0..len)
        .map(|i| (number + part + i * 13) as u8)
        .collect::<Vec<_>>()
        .into()
}

fn commit(number: u64) -> Vec<Op> {
    let key = |number, part| Key {
        space: part as u32,
        id: number,
    };
    let append = |part: u64| Op::Append {
        key: key(number, part),
        kind: 1,
        head: number.to_be_bytes().to_vec().into(),
        body: vec![body(number, part)],
    };
    let mut ops = vec![
        append(0),
        Op::Put {
            name: "last".into(),
            value: number.to_string().into(),
        },
        append(1),
    ];
    if let Some(old) = number.checked_sub(KEPT) {
        ops.extend([0, 1].map(|part| Op::Release { key: key(old, part) }));
    }
    ops
}

fn write_for_ever(dir: &Path) {
    let (log, recovered) = SegmentLog::open(options(dir)).unwrap();
    let last = recovered
        .values
        .get("last")
        .map_or(0, |v| String::from_utf8_lossy(v).parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut out = std::io::stdout();
    runtime.block_on(async {
        let mut waiting = VecDeque::new();
        for number in last + 1.. {
            waiting.push_back((number, log.commit(Class::Intake, commit(number))));
            if waiting.len() >= IN_FLIGHT
                && let Some((number, commit)) = waiting.pop_front()
            {
                commit.await.unwrap();
                writeln!(out, "{number}").unwrap();
                out.flush().unwrap();
            }
        }
    });
}

fn kill_and_check() {
    let dir = tempfile::TempDir::new().unwrap();
    let mut last = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let kill_after = RandomState::new().build_hasher().finish() % CONFIRMED_PER_ROUND + 1;
        let mut confirmed = last;
        for _ in 0..kill_after {
            confirmed = lines.next().unwrap().unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        // What the child printed before it died was confirmed too. A line without its end is not.
        for line in lines.map_while(Result::ok) {
            confirmed = line
                .parse::<u64>()
                .map_or(confirmed, |n| n.max(confirmed).min(confirmed + 1));
        }
        child.wait().unwrap();
        last = check(dir.path(), round, confirmed);
    }
}

/// Returns the number of the last commit found.
fn check(dir: &Path, round: u64, confirmed: u64) -> u64 {
    let (log, recovered) = SegmentLog::open(options(dir)).unwrap();
    assert!(
        recovered.damaged.is_empty(),
        "round {round}: {:?}",
        recovered.damaged
    );
    let last: u64 = String::from_utf8_lossy(&recovered.values["last"])
        .parse()
        .unwrap();
    assert!(
        last >= confirmed,
        "round {round}: {confirmed} was confirmed, {last} is the last there"
    );
    let mut parts: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for record in &recovered.records {
        let (number, part) = (record.key.id, record.key.space);
        assert_eq!(record.head, number.to_be_bytes().to_vec());
        assert_eq!(
            log.read_body(record.at).unwrap(),
            body(number, u64::from(part)),
            "round {round}"
        );
        parts.entry(number).or_default().push(part);
    }
    let expected: BTreeMap<_, _> = (last.saturating_sub(KEPT) + 1..=last)
        .map(|number| (number, vec![0, 1]))
        .collect();
    assert_eq!(
        parts, expected,
        "round {round}: every commit up to the last, whole; none behind it; none released"
    );
    last
}
