//! Runs the tests with one mutant switched on.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::os::unix::process::ExitStatusExt as _;

use crate::Failed;
use crate::building::Built;

/// Tests with many cases, which run only where no other test notices a mutant. Names are filters of the test binaries.
const SLOW_OF_CORE: [&str; 1] = ["random"];
const SLOW_OF_ALL: [&str; 3] = ["fold_props", "cluster_props", "repair_props"];

/// Seconds of processor time for the quick tests and for the slow ones, each some ten times what they take: a mutant that loops is caught.
const QUICK_SECONDS: u64 = 20;
const SLOW_SECONDS: u64 = 60;

/// Most memory of one run, in bytes: a mutant that allocates without end is caught.
const MEMORY_BYTES: u64 = 4 << 30;

/// Cases of property tests that do not say how many.
const CASES: &str = "48";

/// What the tests made of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Caught,
    /// It ran out of processor time or memory.
    OutOfTime,
    Survived,
}

fn limit(pid: u32, resource: Resource, most: u64) -> Result<(), Failed> {
    let limits = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    prlimit(pid, resource, limits)
        .map(drop)
        .map_err(|error| Failed(format!("limits of a test process: {error}")))
}

/// Runs one test binary; `id` 0 switches nothing on.
fn run(test: &Path, dir: &Path, args: &[&str], id: u32, seconds: u64) -> Result<ExitStatus, Failed> {
    let told = |error| Failed::io(&test.display().to_string(), &error);
    let mut child = Command::new(test)
        .current_dir(dir)
        .args(args)
        .env("FANIN_MUTANT", id.to_string())
        .env("PROPTEST_CASES", CASES)
        .env("PROPTEST_MAX_SHRINK_ITERS", "0")
        .env("RUST_BACKTRACE", "0")
        .env("RUST_TEST_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(told)?;
    let limited = limit(child.id(), Resource::Cpu, seconds)
        .and_then(|()| limit(child.id(), Resource::As, MEMORY_BYTES));
    let status = child.wait().map_err(told)?;
    // A process that is over already needs no limits.
    if limited.is_err() && status.signal().is_some() {
        limited?;
    }
    Ok(status)
}

fn judge(built: &Built, id: u32) -> Result<Verdict, Failed> {
    let [core, all] = &built.tests;
    let skip = |slow: &[&'static str]| slow.iter().flat_map(|name| ["--skip", name]).collect::<Vec<_>>();
    let mut steps = vec![
        (core, skip(&SLOW_OF_CORE), QUICK_SECONDS),
        (all, skip(&SLOW_OF_ALL), QUICK_SECONDS),
    ];
    steps.extend(SLOW_OF_CORE.map(|name| (core, vec![name], SLOW_SECONDS)));
    steps.extend(SLOW_OF_ALL.map(|name| (all, vec![name], SLOW_SECONDS)));
    for (test, args, seconds) in steps {
        let status = run(test, &built.dir, &args, id, seconds)?;
        if !status.success() {
            return Ok(if status.signal().is_some() {
                Verdict::OutOfTime
            } else {
                Verdict::Caught
            });
        }
    }
    Ok(Verdict::Survived)
}

/// The verdict on each mutant, `jobs` at a time. `tell` hears of each as it comes.
pub(crate) fn all(
    built: &Built,
    ids: &[u32],
    jobs: usize,
    mut tell: impl FnMut(u32, Verdict),
) -> Result<(), Failed> {
    if judge(built, 0)? != Verdict::Survived {
        return Err(Failed("the tests fail without any mutant".to_owned()));
    }
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some(&id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((id, judge(built, id))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (id, verdict) in receiver {
            tell(id, verdict?);
        }
        Ok(())
    })
}
