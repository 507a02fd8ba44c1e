//! The result as Markdown, as it stands in `docs/mutants.md`.

use std::collections::BTreeMap;
use std::fmt::Write;

use fanin_model::mutants as model;
use fanin_model::run::{Outcome, Report};
use fanin_sim::mutants::{Expected, Hunt, short};

use crate::entries::{Entry, wanted};
use crate::verdict::Verdict;

/// The head of the table of mutants.
pub const HEAD: &str = "\
| rule; attacks | mutant | the simulation: noticed by | plan, seed | seeds | s | the model: noticed by | configuration | steps | states | s |
|---|---|---|---|---|---|---|---|---|---|---|";

/// The lines of one mutant: one, or one for each configuration of the model that looks for it.
#[must_use]
pub fn lines(entry: &Entry, verdict: &Verdict) -> String {
    let mut in_sim = simulated(entry, verdict.hunt.as_ref());
    let mut out = String::new();
    let mark = if verdict.is_well(entry) {
        ""
    } else {
        " **NOT AS IT MUST**"
    };
    let mut add = |rule: &str, of_model: &str| {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "| {rule} | {}{mark} | {in_sim} | {of_model} |", entry.name);
        in_sim = "as above | | |".to_owned();
    };
    for (row, report) in &verdict.reports {
        add(row.rule, &modelled(row, report));
    }
    if verdict.reports.is_empty() {
        add(entry.rule, "- | | | |");
    }
    out.truncate(out.trim_end().len());
    out
}

fn simulated(entry: &Entry, hunt: Option<&Hunt>) -> String {
    let Some(row) = entry.sim else {
        return "- | | |".to_owned();
    };
    let why = match row.expected {
        Expected::Found => String::new(),
        Expected::Harmless(why) | Expected::ModelOnly(why) => format!("nothing: {why}"),
    };
    let Some(hunt) = hunt else {
        return format!("{why} | | |");
    };
    let (seeds, seconds) = (hunt.seeds, hunt.took.as_secs_f64());
    if let Some(what) = &hunt.without {
        return format!(
            "**WITH EVERY RULE ON: {}** | | {seeds} | {seconds:.1}",
            short(what)
        );
    }
    match &hunt.found {
        Some((seed, kind, what)) => format!(
            "{} | {}, {seed} | {seeds} | {seconds:.1}",
            short(what),
            kind.word()
        ),
        None if why.is_empty() => format!("**nothing** | | {seeds} | {seconds:.1}"),
        None => format!("{why} | | {seeds} | {seconds:.1}"),
    }
}

fn modelled(row: &model::Row, report: &Report) -> String {
    let (noticed, steps) = match (&report.outcome, row.expected) {
        (Outcome::Broken { invariant, steps, .. }, _) => (invariant.title().to_owned(), steps.to_string()),
        (Outcome::Complete, model::Expected::Harmless(why)) => {
            (format!("nothing, complete: {why}"), "-".to_owned())
        }
        (Outcome::Complete, model::Expected::Found) => ("**nothing**, complete".to_owned(), "-".to_owned()),
        (Outcome::Bounded, _) => ("**nothing**, bounded".to_owned(), "-".to_owned()),
    };
    let (states, seconds) = (report.unique, report.took.as_secs_f64());
    format!("{noticed} | {} | {steps} | {states} | {seconds:.1}", row.config)
}

/// Which mutants, caught where, stand for each rule and attack.
#[derive(Clone, Debug, Default)]
pub struct Index {
    caught: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Enters what came of a mutant; one that was not caught stands for nothing.
    pub fn add(&mut self, entry: &Entry, verdict: &Verdict) {
        let by = match (verdict.in_sim(), verdict.in_model()) {
            (true, true) => "both",
            (true, false) => "simulation",
            (false, true) => "model",
            (false, false) => return,
        };
        for word in entry.stands_for() {
            let of_word = self.caught.entry(word).or_default();
            of_word.push(format!("{} ({by})", entry.name));
        }
    }

    /// The rules and attacks without a mutant that was caught.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let is_missing = |word: &String| !self.caught.contains_key(word);
        wanted().into_iter().filter(is_missing).collect()
    }

    /// A line for each rule and attack.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = "| rule, attack | mutants that were caught, and where |\n|---|---|\n".to_owned();
        for word in wanted() {
            let of_word = self.caught.get(&word).map(|names| names.join(", "));
            let shown = of_word.unwrap_or_else(|| "**none**".to_owned());
            // Writing into a string cannot fail.
            let _ = writeln!(out, "| {word} | {shown} |");
        }
        out
    }
}
