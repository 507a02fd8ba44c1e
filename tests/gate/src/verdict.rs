//! One mutant, hunted in the simulation and looked for in the model.

use std::time::Duration;

use fanin_model::mutants as model;
use fanin_model::run::{Limits, Outcome, Report, explore};
use fanin_sim::mutants::{Expected, Hunt};

use crate::entries::Entry;

/// How far the gate goes.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// The first seed.
    pub from: u64,
    /// Seeds run at most for a mutant.
    pub seeds: u64,
    /// Seeds run for a mutant that another rule covers.
    pub harmless_seeds: u64,
    /// Time for the seeds of one mutant.
    pub time: Option<Duration>,
}

/// What came of a mutant.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What the simulation made of it; `None`: it was not hunted there.
    pub hunt: Option<Hunt>,
    /// What the model made of it, row by row.
    pub reports: Vec<(&'static model::Row, Report)>,
}

impl Verdict {
    /// Whether the simulation or the model found a violation.
    #[must_use]
    pub fn is_caught(&self) -> bool {
        self.in_sim() || self.in_model()
    }

    /// Whether the simulation found a violation that the rule prevents.
    #[must_use]
    pub fn in_sim(&self) -> bool {
        self.hunt.as_ref().is_some_and(Hunt::is_found)
    }

    /// Whether the model found a violation.
    #[must_use]
    pub fn in_model(&self) -> bool {
        let broken = |report: &Report| matches!(report.outcome, Outcome::Broken { .. });
        self.reports.iter().any(|(_, report)| broken(report))
    }

    /// Whether it came as it must: no violation with every rule on, and caught, or, where another rule covers it, not caught and the model complete.
    #[must_use]
    pub fn is_well(&self, entry: &Entry) -> bool {
        if self.hunt.as_ref().is_some_and(|hunt| hunt.without.is_some()) {
            return false;
        }
        if !entry.is_harmless() {
            return self.is_caught();
        }
        let complete = |report: &Report| report.outcome == Outcome::Complete;
        !self.in_sim() && self.reports.iter().all(|(_, report)| complete(report))
    }
}

/// Runs a mutant in the model, and in the simulation where that plays what it takes. One mutant at a time in a process.
///
/// # Errors
/// When no runtime for the simulation can be made, or a row names a configuration that does not exist.
pub fn run(entry: &Entry, effort: Effort) -> std::io::Result<Verdict> {
    let mut reports = Vec::new();
    for row in &entry.models {
        let setup = row.setup().ok_or_else(|| missing(row))?;
        reports.push((*row, explore(setup, Limits::default())));
    }
    let hunt = match entry.sim {
        Some(row) => {
            let seeds = match row.expected {
                Expected::Found => effort.seeds,
                Expected::Harmless(_) => effort.harmless_seeds,
                Expected::ModelOnly(_) => 0,
            };
            match seeds {
                0 => None,
                seeds => Some(row.hunt(effort.from, seeds, effort.time, None)?),
            }
        }
        None => None,
    };
    Ok(Verdict { hunt, reports })
}

fn missing(row: &model::Row) -> std::io::Error {
    std::io::Error::other(format!("there is no configuration {:?}", row.config))
}
