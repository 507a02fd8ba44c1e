//! Many seeds: run on several threads, added up, the first failure shrunk and told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::faults::{FAULTS, Fault, Timing};
use crate::plan::{Kind, Plan, usual};
use crate::schedule::{Outcome, run};
use crate::shrink::shrink;

/// Lines of a failing run's trace that are shown.
const TRACE_LINES: usize = 80;

/// The bar: so much trouble a seed on average, or the runs are too kind.
pub const TROUBLE_A_SEED: u64 = 1_000;

/// Expected so often or more, a fault that was not played shows that nothing plays it: chance does so once in 160 000 times.
const EXPECTED_SURELY: f64 = 12.0;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many seeds.
    pub seeds: u64,
    /// No new seed is begun after this time.
    pub time: Option<Duration>,
    /// Threads.
    pub jobs: u64,
    /// Plans of this kind only.
    pub kind: Option<Kind>,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Its plan.
    pub plan: Plan,
    /// What came of it.
    pub outcome: Outcome,
}

/// Runs of one kind of plan added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Seeds.
    pub seeds: u64,
    /// Faults that are trouble.
    pub trouble: u64,
    /// Those of them that are nothing but delays.
    pub delays: u64,
}

/// Several runs added up.
#[derive(Clone, Debug)]
pub struct Report {
    /// Seeds run.
    pub seeds: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// Messages handed to applications.
    pub deliveries: u64,
    /// Faults by kind.
    pub faults: [u64; FAULTS],
    /// How often they were to be expected by their plans: hourly ones by their rates, others once a plan that has them.
    expected: [f64; FAULTS],
    /// Seeds and trouble by kind of plan.
    pub by_kind: BTreeMap<Kind, Sums>,
    /// Runs at whose end something was held, by kind of plan.
    pub held: u64,
    /// Deliveries that broke exactly-once and were told.
    pub wrong: u64,
    /// Wall clock of all of it.
    pub took: Duration,
    /// The first seeds that failed.
    pub failures: Vec<Failure>,
}

impl Report {
    fn new() -> Report {
        Report {
            seeds: 0,
            simulated_ms: 0,
            deliveries: 0,
            faults: [0; FAULTS],
            expected: [0.0; FAULTS],
            by_kind: BTreeMap::new(),
            held: 0,
            wrong: 0,
            took: Duration::ZERO,
            failures: Vec::new(),
        }
    }

    fn add(&mut self, seed: u64, plan: Plan, outcome: Outcome) {
        self.seeds += 1;
        self.simulated_ms += outcome.simulated_ms;
        self.deliveries += outcome.deliveries;
        self.held += u64::from(outcome.held);
        self.wrong += outcome.wrong;
        for (sum, count) in self.faults.iter_mut().zip(outcome.faults) {
            *sum += count;
        }
        for (fault, rate) in &plan.rates {
            self.expected[*fault as usize] += match fault.timing() {
                Timing::Hourly => (rate * plan.seconds) as f64 / 3_600.0,
                Timing::Chance => 1.0,
            };
        }
        let of_kind = self.by_kind.entry(plan.kind).or_default();
        of_kind.seeds += 1;
        of_kind.trouble += sum(&outcome.faults, Fault::is_trouble);
        of_kind.delays += sum(&outcome.faults, |fault| fault.is_trouble() && fault.is_delay());
        if !outcome.violations.is_empty() {
            self.failures.push(Failure { seed, plan, outcome });
        }
    }

    /// Faults of all kinds that are trouble.
    #[must_use]
    pub fn trouble(&self) -> u64 {
        sum(&self.faults, Fault::is_trouble)
    }

    /// The part of it that is nothing but delays.
    #[must_use]
    pub fn delays(&self) -> u64 {
        sum(&self.faults, |fault| fault.is_trouble() && fault.is_delay())
    }

    /// The trouble and its share without delays, for people.
    fn trouble_text(&self) -> String {
        let (all, seeds) = (self.trouble(), self.seeds.max(1) as f64);
        let grave = all - self.delays();
        format!(
            "{all} faults, {:.0} a seed; {grave} of them, {:.0} a seed ({:.0} %), more than a delay",
            all as f64 / seeds,
            grave as f64 / seeds,
            100.0 * grave as f64 / all.max(1) as f64,
        )
    }

    /// Whether there was as much trouble a seed, on average, as the bar demands, and every promise that plans of the kinds that
    /// were run may break was broken once at least.
    #[must_use]
    pub fn reaches_the_bar(&self) -> bool {
        self.seeds > 0 && self.is_trouble_enough() && self.unbroken().is_empty()
    }

    fn is_trouble_enough(&self) -> bool {
        self.trouble() >= TROUBLE_A_SEED * self.seeds
    }

    /// Faults that break promises, that some plan of the kinds that were run may have, and that were not played.
    #[must_use]
    pub fn unbroken(&self) -> Vec<Fault> {
        let may_play = |fault: Fault| self.by_kind.keys().any(|kind| usual(fault, *kind).is_some());
        let breaking = Fault::ALL.iter().copied().filter(|fault| fault.breaks_promises());
        breaking
            .filter(|fault| may_play(*fault) && self.faults[*fault as usize] == 0)
            .collect()
    }

    /// Faults that plans had so often that some must have been played, and that were not: nothing plays them.
    #[must_use]
    pub fn unplayed(&self) -> Vec<Fault> {
        let is_unplayed = |fault: &Fault| {
            let n = *fault as usize;
            self.expected[n] >= EXPECTED_SURELY && self.faults[n] == 0
        };
        Fault::ALL.iter().copied().filter(is_unplayed).collect()
    }

    /// How often each promise was broken, for people.
    fn broken_text(&self) -> String {
        let breaking = Fault::ALL.iter().filter(|fault| fault.breaks_promises());
        let counts = breaking.map(|fault| format!("{} {}", fault.word(), self.faults[*fault as usize]));
        let never: Vec<&str> = self.unbroken().into_iter().map(Fault::word).collect();
        format!(
            "promises broken: {}{}",
            counts.collect::<Vec<_>>().join(", "),
            if never.is_empty() {
                String::new()
            } else {
                format!("; NEVER: {}", never.join(", "))
            }
        )
    }

    /// The bar and what came of it, for people.
    #[must_use]
    pub fn bar_text(&self) -> String {
        let minutes = (self.took.as_secs_f64() / 60.0).max(1e-9);
        format!(
            "{}\nbar: {} seeds, {:.1} simulated hours, {} (at least {TROUBLE_A_SEED} a seed: {}), {:.0} a minute, \
             {} violations, {:.0} s",
            self.broken_text(),
            self.seeds,
            self.simulated_ms as f64 / 3_600_000.0,
            self.trouble_text(),
            if self.is_trouble_enough() { "yes" } else { "NO" },
            self.trouble() as f64 / minutes,
            self.failures.len(),
            self.took.as_secs_f64(),
        )
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        let minutes = (self.took.as_secs_f64() / 60.0).max(1e-9);
        let faults = self.trouble();
        // Writing into a string cannot fail.
        let _ = writeln!(
            out,
            "{} seeds, {} failed; {hours:.1} simulated hours, {} deliveries; {} in {:.1} s: {:.1} simulated hours and {:.0} \
             faults a minute",
            self.seeds,
            self.failures.len(),
            self.deliveries,
            self.trouble_text(),
            self.took.as_secs_f64(),
            hours / minutes,
            faults as f64 / minutes,
        );
        let _ = writeln!(
            out,
            "{} runs ended with a node held, {} deliveries too many were told by that",
            self.held, self.wrong
        );
        for (kind, sums) in &self.by_kind {
            let mean = |count: u64| count as f64 / sums.seeds.max(1) as f64;
            let _ = writeln!(
                out,
                "  plan {:<17} {} seeds, {:.0} faults a seed, {:.0} of them more than a delay",
                kind.word(),
                sums.seeds,
                mean(sums.trouble),
                mean(sums.trouble - sums.delays),
            );
        }
        for (fault, count) in Fault::ALL.iter().zip(self.faults) {
            let mild = match (fault.is_trouble(), fault.is_delay()) {
                (false, _) => " (no fault)",
                (true, true) => " (a delay)",
                (true, false) => "",
            };
            let _ = writeln!(out, "  {:<26} {count}{mild}", fault.word());
        }
        out
    }
}

fn sum(faults: &[u64; FAULTS], counts: impl Fn(Fault) -> bool) -> u64 {
    let of_all = Fault::ALL.iter().zip(faults);
    of_all
        .filter(|(fault, _)| counts(**fault))
        .map(|(_, count)| count)
        .sum()
}

impl Campaign {
    /// Runs it. `tell` hears of progress and failures as they come.
    ///
    /// # Errors
    /// When no runtime can be made.
    pub fn run(&self, tell: &(dyn Fn(&str) + Sync)) -> std::io::Result<Report> {
        let started = Instant::now();
        let next = AtomicU64::new(0);
        let ended = AtomicBool::new(false);
        let report = Mutex::new(Report::new());
        let broken = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= self.seeds || self.time.is_some_and(|time| started.elapsed() >= time) {
                            return;
                        }
                        let seed = self.from + n;
                        let plan = Plan::draw(seed, self.kind);
                        match run(seed, &plan, false) {
                            Ok(outcome) => {
                                if let Some(first) = outcome.violations.first() {
                                    tell(&format!("seed {seed} ({}): {first}", plan.kind.word()));
                                }
                                let mut report = report.lock();
                                report.add(seed, plan, outcome);
                                if report.seeds.is_multiple_of(1_000) {
                                    tell(&format!(
                                        "{} seeds in {} s",
                                        report.seeds,
                                        started.elapsed().as_secs()
                                    ));
                                }
                            }
                            Err(error) => {
                                *broken.lock() = Some(error);
                                ended.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = broken.into_inner() {
            return Err(error);
        }
        let mut report = report.into_inner();
        report.took = started.elapsed();
        report.failures.sort_by_key(|failure| failure.seed);
        Ok(report)
    }
}

/// The smallest plan under which a seed still fails, with the end of its history.
///
/// # Errors
/// When no runtime can be made.
pub fn explain(failure: &Failure) -> std::io::Result<String> {
    let (plan, _) = shrink(failure.seed, &failure.plan, failure.outcome.clone())?;
    let outcome = run(failure.seed, &plan, true)?;
    let lines: Vec<&str> = outcome.trace.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TRACE_LINES)..];
    Ok(format!(
        "seed {} fails\n{}shrunk to\n{plan}{}\n{} of {} lines of its history:\n{}\n",
        failure.seed,
        failure.plan,
        outcome.violations.join("\n"),
        shown.len(),
        lines.len(),
        shown.join("\n")
    ))
}
