//! The offline checker: reads the histories and what the bridges list, and decides. It asks no process anything.
//!
//! Messages are known by the number in their body, as a hub that was rolled back gives one sequence to two messages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs, io};

use serde::Serialize;

use crate::explain::{Answers, Confirmation, Explainer, Stored, seq_of};
use crate::history::{self, Event, Line};
use crate::limits::{BITES_OF, SEEN_WITHIN, SHOWN_MAX};
use crate::listed::{Break, LISTED_FILE, Listed, Played, Promise, Takes};

/// The judgement on one application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AppVerdict {
    pub(crate) confirmed: usize,
    /// Only in doubt: the instance was killed, or the answer was lost.
    pub(crate) in_doubt: usize,
    pub(crate) missing: Vec<Finding>,
    pub(crate) repeated: Vec<Finding>,
    /// Confirmed although no producer was told that it is stored.
    pub(crate) unexpected: Vec<Finding>,
}

/// A message that an application did not confirm once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) number: usize,
    pub(crate) text: String,
    /// How a bridge lists it; never in a run that was promised to be exactly once.
    pub(crate) listed: Option<String>,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) green: bool,
    pub(crate) promise: Promise,
    pub(crate) stored: usize,
    pub(crate) published: Option<u64>,
    pub(crate) apps: BTreeMap<String, AppVerdict>,
    pub(crate) faults: BTreeMap<String, Played>,
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

/// All histories together.
#[derive(Debug, Default)]
struct Seen {
    stored: BTreeMap<usize, Stored>,
    answers: BTreeMap<String, Answers>,
    /// Nodes that delivered a message, whatever became of that.
    delivered_by: BTreeMap<usize, BTreeSet<String>>,
    unreadable: Vec<String>,
}

fn judge(histories: &[(String, Vec<Line>)], listed: &Listed) -> Verdict {
    let mut seen = Seen::default();
    for app in &listed.apps {
        seen.answers.entry(app.clone()).or_default();
    }
    for (name, lines) in histories {
        seen.read(name, lines);
    }
    // A producer has no application.
    seen.answers.remove("");
    let Seen {
        stored,
        answers,
        delivered_by,
        unreadable,
    } = seen;
    let mut explainer = match listed.promise {
        Promise::ExactlyOnce => None,
        Promise::Listed => Some(Explainer::new(listed, &stored, &delivered_by, &answers)),
    };
    let apps: BTreeMap<String, AppVerdict> = answers
        .iter()
        .map(|(app, answers)| (app.clone(), judge_app(app, &stored, answers, explainer.as_mut())))
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
        listed: listed.words(),
        violations: unreadable,
    };
    let defects = listed.nodes.iter().flat_map(|node| {
        let told = node.defects.iter();
        told.map(|defect| format!("{}: {defect}", node.node))
    });
    verdict.violations.extend(defects);
    verdict.violations.extend(listed.trouble.iter().cloned());
    verdict.violations.extend(toothless(listed));
    verdict.violations.extend(false_alarms(listed));
    verdict
        .violations
        .extend(listed.broken.and_then(|broken| blind(&broken, &stored)));
    verdict.want_all_explained();
    match listed.promise {
        Promise::ExactlyOnce => verdict.want_as_many_as_stored(),
        Promise::Listed => {}
    }
    if stored.is_empty() {
        verdict
            .violations
            .push("no message was stored: the run proves nothing".to_owned());
    }
    verdict.green = verdict.violations.is_empty();
    verdict
}

/// What a run proves nothing with: faults that never met anything.
fn toothless(listed: &Listed) -> Vec<String> {
    let mut found: Vec<String> = listed
        .faults
        .iter()
        .filter(|(_, played)| played.bit == 0 && played.planned >= BITES_OF)
        .map(|(kind, played)| format!("none of {} {kind} bit: {:?}", played.planned, played.missed))
        .collect();
    if listed.broken.is_some_and(|broken| !broken.bit) {
        found.push("the act that was to break the promise did not bite".to_owned());
    }
    found
}

/// Bridges that say that the source has lost messages, where nothing took any from it.
fn false_alarms(listed: &Listed) -> Vec<String> {
    if listed.broken.is_some_and(|broken| broken.takes != Takes::Nothing) {
        return Vec::new();
    }
    let told = listed.nodes.iter().flat_map(|node| {
        let losses = node.losses.iter();
        losses
            .filter(|loss| loss.lost_by_the_hub_from().is_some())
            .map(|loss| {
                format!(
                    "{} says that the source has lost {:?}, which it had not",
                    node.node, loss.seqs
                )
            })
    });
    told.collect()
}

/// Whether bridges had not looked at the source for so long that what they had not seen of it excuses nothing.
fn blind(broken: &Break, stored: &BTreeMap<usize, Stored>) -> Option<String> {
    let within_ms = u64::try_from(SEEN_WITHIN.as_millis()).unwrap_or(u64::MAX);
    let until_ms = broken.copied_ms?.saturating_sub(within_ms);
    let old = stored.values().filter(|message| message.at_ms < until_ms);
    let seq = old.filter_map(|message| seq_of(&message.id)).max()?;
    (seq > broken.seen).then(|| {
        format!(
            "no bridge had seen the source behind {}, and {seq} was stored {SEEN_WITHIN:?} before the copy",
            broken.seen
        )
    })
}

impl Seen {
    fn read(&mut self, name: &str, lines: &[Line]) {
        let mut app = String::new();
        // Deliveries of this life without an answer yet; those left at its end are in doubt.
        let mut open: BTreeMap<u64, &history::Delivery> = BTreeMap::new();
        for line in lines {
            match &line.event {
                Event::Started { app: of } => {
                    self.doubt(&app, std::mem::take(&mut open).into_values());
                    app.clone_from(of);
                    self.answers.entry(app.clone()).or_default();
                }
                Event::Stored { number, id } => {
                    let (id, at_ms) = (id.clone(), line.at_ms);
                    self.stored.insert(*number, Stored { id, at_ms });
                }
                Event::Delivered(delivery) => {
                    let nodes = self.delivered_by.entry(delivery.number).or_default();
                    nodes.insert(delivery.node.clone());
                    open.insert(delivery.nth, delivery);
                }
                Event::Confirmed { nth } => match open.remove(nth) {
                    Some(delivery) => {
                        let of_app = self.answers.entry(app.clone()).or_default();
                        let confirmed = of_app.confirmed.entry(delivery.number).or_default();
                        confirmed.push(Confirmation {
                            who: format!("{} by {name} at {}", delivery.id, delivery.node),
                            node: delivery.node.clone(),
                            id: delivery.id.clone(),
                            at_ms: line.at_ms,
                        });
                    }
                    None => self
                        .unreadable
                        .push(format!("{name} confirmed delivery {nth} that it never got")),
                },
                Event::Doubted { nth } => self.doubt(&app, open.remove(nth)),
                Event::Refused { nth } | Event::GivenBack { nth } => {
                    open.remove(nth);
                }
                Event::Interrupted { .. } => {}
            }
        }
        self.doubt(&app, open.into_values());
    }

    fn doubt<'a>(&mut self, app: &str, deliveries: impl IntoIterator<Item = &'a history::Delivery>) {
        let doubted = &mut self.answers.entry(app.to_owned()).or_default().doubted;
        for delivery in deliveries {
            let nodes = doubted.entry(delivery.number).or_default();
            nodes.insert(delivery.node.clone());
        }
    }
}

fn judge_app(
    app: &str,
    stored: &BTreeMap<usize, Stored>,
    answers: &Answers,
    mut explainer: Option<&mut Explainer<'_>>,
) -> AppVerdict {
    let mut verdict = AppVerdict {
        confirmed: answers.confirmed.len(),
        ..AppVerdict::default()
    };
    for (number, message) in stored
        .iter()
        .filter(|(number, _)| !answers.confirmed.contains_key(number))
    {
        let doubted = answers.doubted.get(number);
        let asked = explainer.as_deref_mut();
        let listed = match (asked, doubted) {
            // What is published in all topics together judges it.
            (None, Some(_)) => {
                verdict.in_doubt += 1;
                continue;
            }
            (None, None) => None,
            (Some(explainer), Some(nodes)) => {
                if explainer.settles_doubt(app, message, nodes) {
                    verdict.in_doubt += 1;
                    continue;
                }
                let missing = explainer.missing(app, *number, message);
                missing.or_else(|| explainer.doubt_at_one_that_is_down(nodes))
            }
            (Some(explainer), None) => explainer.missing(app, *number, message),
        };
        let in_doubt = if doubted.is_some() { ", in doubt" } else { "" };
        verdict.missing.push(Finding {
            number: *number,
            text: format!("{number} ({}{in_doubt})", message.id),
            listed,
        });
    }
    for (number, confirmations) in &answers.confirmed {
        let who: Vec<&str> = confirmations.iter().map(|one| one.who.as_str()).collect();
        let text = format!("{number}: {}", who.join(", "));
        let Some(message) = stored.get(number) else {
            let (number, listed) = (*number, None);
            verdict.unexpected.push(Finding { number, text, listed });
            continue;
        };
        if confirmations.len() > 1 {
            let asked = explainer.as_deref();
            verdict.repeated.push(Finding {
                number: *number,
                text,
                listed: asked.and_then(|explainer| explainer.repeated(confirmations, message)),
            });
        }
    }
    verdict
}

impl Verdict {
    fn want_all_explained(&mut self) {
        for (app, verdict) in &self.apps {
            for (what, list) in verdict.faulty() {
                let unlisted: Vec<&Finding> =
                    list.iter().filter(|finding| finding.listed.is_none()).collect();
                if !unlisted.is_empty() {
                    let unlisted_word = match self.promise {
                        Promise::ExactlyOnce => "",
                        Promise::Listed => "unlisted: ",
                    };
                    let text = shown(app, what, &unlisted);
                    self.violations.push(format!("{unlisted_word}{text}"));
                }
            }
        }
    }

    /// This judges also the messages in doubt, which the histories have to believe: nothing is left anywhere, so a message
    /// published in one place was handed over once.
    fn want_as_many_as_stored(&mut self) {
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
}

impl AppVerdict {
    fn faulty(&self) -> Vec<(&'static str, &[Finding])> {
        let all: [(&'static str, &[Finding]); 3] = [
            ("missing", &self.missing),
            ("acknowledged more than once", &self.repeated),
            ("acknowledged and never stored", &self.unexpected),
        ];
        all.into_iter().filter(|(_, list)| !list.is_empty()).collect()
    }
}

fn shown(app: &str, what: &str, list: &[&Finding]) -> String {
    let first: Vec<&str> = list
        .iter()
        .take(SHOWN_MAX)
        .map(|finding| finding.text.as_str())
        .collect();
    format!("{app}: {} {what}: {}", list.len(), first.join("; "))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, played)| {
                if played.missed.is_empty() {
                    format!("{} {kind}", played.bit)
                } else {
                    format!("{} of {} {kind}", played.bit, played.planned)
                }
            })
            .collect();
        let bit: usize = self.faults.values().map(|played| played.bit).sum();
        let planned: usize = self.faults.values().map(|played| played.planned).sum();
        writeln!(
            f,
            "{} messages stored, {bit} of {planned} faults bit ({})",
            self.stored,
            faults.join(", ")
        )?;
        for (kind, played) in &self.faults {
            for (why, count) in &played.missed {
                writeln!(f, "  did not bite: {count} {kind}: {why}")?;
            }
        }
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
        for (app, verdict) in &self.apps {
            for (what, list) in verdict.faulty() {
                let mut why: BTreeMap<&str, usize> = BTreeMap::new();
                for listed in list.iter().filter_map(|finding| finding.listed.as_deref()) {
                    *why.entry(listed).or_default() += 1;
                }
                for (why, count) in why {
                    writeln!(f, "  explained: {app}: {count} {what}: {why}")?;
                }
            }
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
