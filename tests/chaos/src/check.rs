//! The offline checker: reads the histories and what the bridges list, and decides. It asks no process anything.
//!
//! Messages are known by the number in their body, as a hub that was rolled back gives one sequence to two messages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};

use crate::history::{self, Event, Line};
use crate::limits::SHOWN_MAX;

/// What the run leaves beside the histories.
pub(crate) const LISTED_FILE: &str = "listed.json";

/// Codes that tell of messages that may be missing or twice: a node that is fenced, a log or its identity that cannot be used, a
/// ledger or source that is another one or lost what it had, a halt, messages given up by the source, damage, loss by damage.
const LOSS_CODES: [&str; 13] = [
    "FAN-3008", "FAN-4007", "FAN-4010", "FAN-4011", "FAN-4012", "FAN-4019", "FAN-4030", "FAN-4035",
    "FAN-4036", "FAN-4040", "FAN-4044", "FAN-4045", "FAN-4049",
];

/// What was promised of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Promise {
    /// Each message once to each application.
    ExactlyOnce,
    /// The hub, or a disk, broke its own promise: whatever is missing or twice must be listed by a bridge.
    Listed,
}

/// What the bridges said, and what the run saw of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) promise: Promise,
    /// Applications of the run.
    pub(crate) apps: Vec<String>,
    pub(crate) nodes: Vec<NodeListed>,
    /// Why the run did not come to rest, or what else went wrong; empty when nothing did.
    pub(crate) trouble: Vec<String>,
    /// Faults by kind.
    pub(crate) faults: BTreeMap<String, usize>,
}

/// One bridge at the end of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeListed {
    pub(crate) node: String,
    /// Messages published in its topic; `None` when it could not be asked.
    pub(crate) published: Option<u64>,
    pub(crate) dead_letters: u64,
    pub(crate) tombstoned: u64,
    pub(crate) repaired: u64,
    /// States with their reasons that ask for an operator.
    pub(crate) reasons: BTreeSet<String>,
    /// Codes of warnings and errors in its log since the act that broke the promise, or since the beginning.
    pub(crate) codes: BTreeMap<String, u64>,
    /// Panics and broken invariants in its log.
    pub(crate) defects: Vec<String>,
}

/// The judgement on one application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AppVerdict {
    pub(crate) confirmed: usize,
    /// Only in doubt: the instance was killed, or the answer was lost.
    pub(crate) in_doubt: usize,
    pub(crate) missing: Vec<String>,
    pub(crate) repeated: Vec<String>,
    /// Confirmed although no producer was told that it is stored.
    pub(crate) unexpected: Vec<String>,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) green: bool,
    pub(crate) promise: Promise,
    pub(crate) stored: usize,
    pub(crate) published: Option<u64>,
    pub(crate) apps: BTreeMap<String, AppVerdict>,
    pub(crate) faults: BTreeMap<String, usize>,
    /// What the bridges list, in words.
    pub(crate) listed: Vec<String>,
    /// What makes the run red.
    pub(crate) violations: Vec<String>,
}

/// Reads `dir` and judges.
///
/// # Errors
/// When a history or the list cannot be read.
pub(crate) fn judge_dir(dir: &Path) -> io::Result<Verdict> {
    let listed = serde_json::from_slice(&fs::read(dir.join(LISTED_FILE))?)?;
    Ok(judge(&history::read_all(dir)?, &listed))
}

/// All acknowledgements of one application by message number.
#[derive(Debug, Default)]
struct Answers {
    /// Who confirmed it: instance, node and id.
    confirmed: BTreeMap<usize, Vec<String>>,
    doubted: BTreeSet<usize>,
}

fn judge(histories: &[(String, Vec<Line>)], listed: &Listed) -> Verdict {
    let mut stored: BTreeMap<usize, String> = BTreeMap::new();
    let mut answers: BTreeMap<String, Answers> = BTreeMap::new();
    for app in &listed.apps {
        answers.entry(app.clone()).or_default();
    }
    let mut unreadable = Vec::new();
    for (name, lines) in histories {
        read_history(name, lines, &mut stored, &mut answers, &mut unreadable);
    }
    let apps: BTreeMap<String, AppVerdict> = answers
        .iter()
        .map(|(app, answers)| (app.clone(), judge_app(&stored, answers)))
        .collect();
    let published = listed
        .nodes
        .iter()
        .map(|node| node.published)
        .sum::<Option<u64>>();
    let mut verdict = Verdict {
        green: false,
        promise: listed.promise,
        stored: stored.len(),
        published,
        apps,
        faults: listed.faults.clone(),
        listed: listed.nodes.iter().flat_map(NodeListed::words).collect(),
        violations: unreadable,
    };
    let defects = listed.nodes.iter().flat_map(|node| {
        let told = node.defects.iter();
        told.map(|defect| format!("{}: {defect}", node.node))
    });
    verdict.violations.extend(defects);
    match listed.promise {
        Promise::ExactlyOnce => verdict.want_exactly_once(listed),
        Promise::Listed => verdict.want_listed(listed),
    }
    if stored.is_empty() {
        verdict
            .violations
            .push("no message was stored: the run proves nothing".to_owned());
    }
    verdict.green = verdict.violations.is_empty();
    verdict
}

fn read_history(
    name: &str,
    lines: &[Line],
    stored: &mut BTreeMap<usize, String>,
    answers: &mut BTreeMap<String, Answers>,
    unreadable: &mut Vec<String>,
) {
    let mut app = String::new();
    // Deliveries of this life without an answer yet; those left at its end are in doubt.
    let mut open: BTreeMap<u64, (usize, String)> = BTreeMap::new();
    for line in lines {
        match &line.event {
            Event::Started { app: of } => {
                let doubted = &mut answers.entry(of.clone()).or_default().doubted;
                doubted.extend(std::mem::take(&mut open).into_values().map(|(number, _)| number));
                app.clone_from(of);
            }
            Event::Stored { number, id } => {
                stored.insert(*number, id.clone());
            }
            Event::Delivered(delivery) => {
                let who = format!("{} by {name} at {}", delivery.id, delivery.node);
                open.insert(delivery.nth, (delivery.number, who));
            }
            Event::Confirmed { nth } => match open.remove(nth) {
                Some((number, who)) => {
                    let of_app = answers.entry(app.clone()).or_default();
                    of_app.confirmed.entry(number).or_default().push(who);
                }
                None => unreadable.push(format!("{name} confirmed delivery {nth} that it never got")),
            },
            Event::Doubted { nth } => {
                if let Some((number, _)) = open.remove(nth) {
                    answers.entry(app.clone()).or_default().doubted.insert(number);
                }
            }
            Event::Refused { nth } | Event::GivenBack { nth } => {
                open.remove(nth);
            }
            Event::Interrupted { .. } => {}
        }
    }
    if let Some(of_app) = answers.get_mut(&app) {
        of_app
            .doubted
            .extend(open.into_values().map(|(number, _)| number));
    }
    // A producer has no application.
    answers.remove("");
}

fn judge_app(stored: &BTreeMap<usize, String>, answers: &Answers) -> AppVerdict {
    let mut verdict = AppVerdict {
        confirmed: answers.confirmed.len(),
        ..AppVerdict::default()
    };
    for (number, id) in stored
        .iter()
        .filter(|(number, _)| !answers.confirmed.contains_key(number))
    {
        if answers.doubted.contains(number) {
            verdict.in_doubt += 1;
        } else {
            verdict.missing.push(format!("{number} ({id})"));
        }
    }
    for (number, who) in &answers.confirmed {
        if who.len() > 1 {
            verdict.repeated.push(format!("{number}: {}", who.join(", ")));
        }
        if !stored.contains_key(number) {
            verdict.unexpected.push(format!("{number}: {}", who.join(", ")));
        }
    }
    verdict
}

impl NodeListed {
    /// What it lists, in words; nothing when all is well.
    fn words(&self) -> Vec<String> {
        let counts = [
            ("dead letters", self.dead_letters),
            ("tombstoned", self.tombstoned),
            ("repaired", self.repaired),
        ];
        let counts = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{}: {count} {what}", self.node));
        let reasons = self
            .reasons
            .iter()
            .map(|reason| format!("{}: {reason}", self.node));
        let codes = self
            .codes
            .iter()
            .map(|(code, count)| format!("{}: {count} x {code}", self.node));
        counts.chain(reasons).chain(codes).collect()
    }

    /// Whether it tells an operator of messages that may be missing or twice.
    fn tells(&self) -> bool {
        LOSS_CODES.iter().any(|code| {
            self.codes.contains_key(*code) || self.reasons.iter().any(|reason| reason.contains(code))
        })
    }
}

impl Verdict {
    fn want_exactly_once(&mut self, listed: &Listed) {
        self.violations.extend(listed.trouble.iter().cloned());
        for (app, verdict) in &self.apps {
            for (what, list) in verdict.faulty() {
                self.violations.push(shown(app, what, list));
            }
        }
        // This judges also the messages in doubt, which the histories have to believe: nothing is left anywhere, so a message
        // published in one place was handed over once.
        match self.published {
            Some(published) if published == self.stored as u64 => {}
            Some(published) => self.violations.push(format!(
                "{published} messages are published in all topics together, {} are stored",
                self.stored
            )),
            None => self
                .violations
                .push("not every bridge told what it has published".to_owned()),
        }
    }

    fn want_listed(&mut self, listed: &Listed) {
        let told = listed.nodes.iter().any(NodeListed::tells);
        for (app, verdict) in &self.apps {
            for (what, list) in verdict.faulty() {
                if !told {
                    self.violations
                        .push(format!("unlisted: {}", shown(app, what, list)));
                }
            }
        }
    }
}

impl AppVerdict {
    fn faulty(&self) -> Vec<(&'static str, &[String])> {
        let all: [(&'static str, &[String]); 3] = [
            ("missing", &self.missing),
            ("acknowledged more than once", &self.repeated),
            ("acknowledged and never stored", &self.unexpected),
        ];
        all.into_iter().filter(|(_, list)| !list.is_empty()).collect()
    }
}

fn shown(app: &str, what: &str, list: &[String]) -> String {
    let first: Vec<&str> = list.iter().take(SHOWN_MAX).map(String::as_str).collect();
    format!("{app}: {} {what}: {}", list.len(), first.join("; "))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        writeln!(
            f,
            "{} messages stored, {} faults ({})",
            self.stored,
            self.faults.values().sum::<usize>(),
            faults.join(", ")
        )?;
        for (app, verdict) in &self.apps {
            writeln!(
                f,
                "  {app}: {} confirmed, {} only in doubt, {} missing, {} more than once",
                verdict.confirmed,
                verdict.in_doubt,
                verdict.missing.len(),
                verdict.repeated.len()
            )?;
        }
        for line in &self.listed {
            writeln!(f, "  listed: {line}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        f.write_str(if self.green { "green" } else { "RED" })
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
