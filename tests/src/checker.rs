//! Judges afterwards whether each application got each message exactly once.
//!
//! "Once" is one acknowledgement that a node confirmed as durable. An acknowledgement whose answer was lost (the node was
//! killed, the connection broke) may have been durable: such a message is *in doubt* for the application, and is not
//! missing if it never comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::REPORT_IDS_MAX;

/// One acknowledgement, as the application saw it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Confirmation {
    /// Application.
    pub app: Arc<str>,
    /// Instance of it.
    pub instance: Arc<str>,
    /// Node that delivered.
    pub node: Arc<str>,
    /// Message id, `STREAM:seq`.
    pub id: String,
    /// Attempt of the delivery, from 1.
    pub attempt: u32,
}

/// Collects acknowledgements of any number of instances.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    confirmed: Vec<Confirmation>,
    in_doubt: Vec<Confirmation>,
}

impl Recorder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node confirmed this acknowledgement.
    pub fn confirmed(&self, what: Confirmation) {
        self.seen.lock().confirmed.push(what);
    }

    /// The application acknowledged and never learned whether that is durable.
    pub fn in_doubt(&self, what: Confirmation) {
        self.seen.lock().in_doubt.push(what);
    }

    /// Confirmations so far, all applications.
    pub fn count(&self) -> usize {
        self.seen.lock().confirmed.len()
    }

    /// Acknowledgements so far whose answer was lost, whether or not the message was confirmed later: how much work the
    /// faults of a test really hit.
    pub fn doubts(&self) -> usize {
        self.seen.lock().in_doubt.len()
    }

    /// Different messages that `app` has confirmed or in doubt so far.
    pub fn settled_by(&self, app: &str) -> usize {
        let seen = self.seen.lock();
        let both = seen.confirmed.iter().chain(&seen.in_doubt);
        both.filter(|one| &*one.app == app)
            .map(|one| &one.id)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Every confirmation so far.
    pub fn confirmations(&self) -> Vec<Confirmation> {
        self.seen.lock().confirmed.clone()
    }

    /// Compares what was recorded with what each of `apps` should have got.
    pub fn judge(&self, expected: &[String], apps: &[&str]) -> Report {
        let seen = self.seen.lock();
        Report::new(expected, apps, &seen.confirmed, &seen.in_doubt)
    }
}

/// The judgement on one application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppReport {
    /// Expected messages without any confirmation, and not in doubt.
    pub missing: Vec<String>,
    /// Messages confirmed more than once, with all their confirmations.
    pub repeated: BTreeMap<String, Vec<Confirmation>>,
    /// Confirmed messages that nobody expected.
    pub unexpected: Vec<String>,
    /// Expected messages that are only in doubt.
    pub in_doubt: Vec<String>,
    /// Confirmations per node and instance.
    pub shares: BTreeMap<(Arc<str>, Arc<str>), usize>,
    /// Confirmations of a second or later attempt.
    pub redelivered: usize,
}

/// The judgement on all applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many messages each application should have got.
    pub expected: usize,
    /// Findings per application.
    pub apps: BTreeMap<String, AppReport>,
}

impl Report {
    fn new(
        expected: &[String],
        apps: &[&str],
        confirmed: &[Confirmation],
        in_doubt: &[Confirmation],
    ) -> Self {
        let ids: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        let mut names: BTreeSet<&str> = apps.iter().copied().collect();
        names.extend(confirmed.iter().map(|one| &*one.app));
        let judged = names.into_iter().map(|app| {
            let of_app = |one: &&Confirmation| &*one.app == app;
            let mut by_id: BTreeMap<&str, Vec<&Confirmation>> = BTreeMap::new();
            let mut report = AppReport::default();
            for one in confirmed.iter().filter(of_app) {
                by_id.entry(&one.id).or_default().push(one);
                *report
                    .shares
                    .entry((one.node.clone(), one.instance.clone()))
                    .or_default() += 1;
                report.redelivered += usize::from(one.attempt > 1);
            }
            let doubtful: BTreeSet<&str> = in_doubt
                .iter()
                .filter(of_app)
                .map(|one| one.id.as_str())
                .collect();
            // An application that nobody listed must not have got anything.
            let wanted = if apps.contains(&app) {
                ids.clone()
            } else {
                BTreeSet::new()
            };
            for id in wanted.iter().filter(|id| !by_id.contains_key(*id)) {
                let list = if doubtful.contains(id) {
                    &mut report.in_doubt
                } else {
                    &mut report.missing
                };
                list.push((*id).to_owned());
            }
            for (id, all) in by_id {
                if !wanted.contains(id) {
                    report.unexpected.push(id.to_owned());
                }
                if all.len() > 1 {
                    report
                        .repeated
                        .insert(id.to_owned(), all.into_iter().cloned().collect());
                }
            }
            (app.to_owned(), report)
        });
        Self {
            expected: ids.len(),
            apps: judged.collect(),
        }
    }

    /// Whether each application got each message once. Messages in doubt are not held against it.
    pub fn is_exactly_once(&self) -> bool {
        let clean =
            |app: &AppReport| app.missing.is_empty() && app.repeated.is_empty() && app.unexpected.is_empty();
        self.apps.values().all(clean)
    }

    /// Messages in doubt, all applications.
    pub fn in_doubt(&self) -> usize {
        self.apps.values().map(|app| app.in_doubt.len()).sum()
    }

    /// # Panics
    /// Unless each application got each message once; the message is the whole report.
    #[track_caller]
    pub fn assert_exactly_once(&self) {
        assert!(self.is_exactly_once(), "not exactly once\n{self}");
    }

    /// # Panics
    /// Unless each application got each message once and none is in doubt: for tests in which no answer can be lost.
    #[track_caller]
    pub fn assert_exactly_once_without_doubt(&self) {
        self.assert_exactly_once();
        assert_eq!(self.in_doubt(), 0, "acknowledgements without an answer\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} messages expected by each application", self.expected)?;
        for (name, app) in &self.apps {
            let confirmed: usize = app.shares.values().sum();
            writeln!(
                f,
                "{name}: {confirmed} confirmed ({} redelivered), {} missing, {} repeated, {} unexpected, {} in doubt",
                app.redelivered,
                app.missing.len(),
                app.repeated.len(),
                app.unexpected.len(),
                app.in_doubt.len(),
            )?;
            for ((node, instance), share) in &app.shares {
                writeln!(f, "  {node} {instance}: {share}")?;
            }
            for (what, ids) in [
                ("missing", &app.missing),
                ("unexpected", &app.unexpected),
                ("in doubt", &app.in_doubt),
            ] {
                if !ids.is_empty() {
                    let shown: Vec<&str> = ids.iter().take(REPORT_IDS_MAX).map(String::as_str).collect();
                    let more = if ids.len() > shown.len() { " ..." } else { "" };
                    writeln!(f, "  {what}: {}{more}", shown.join(" "))?;
                }
            }
            for (id, all) in app.repeated.iter().take(REPORT_IDS_MAX) {
                let by: Vec<String> = all
                    .iter()
                    .map(|one| format!("{}/{} attempt {}", one.node, one.instance, one.attempt))
                    .collect();
                writeln!(f, "  repeated {id}: {}", by.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    // Goal: the checker sees each kind of violation, and nothing else. Method: one hand-made history per kind.
    use super::*;

    fn confirmation(app: &str, node: &str, id: &str, attempt: u32) -> Confirmation {
        let instance = format!("{app}-{node}").into();
        Confirmation {
            app: app.into(),
            instance,
            node: node.into(),
            id: id.to_owned(),
            attempt,
        }
    }

    fn ids(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_clean_history_is_exactly_once() {
        let recorder = Recorder::new();
        for id in ["S:1", "S:2"] {
            recorder.confirmed(confirmation("a", "n1", id, 1));
            recorder.confirmed(confirmation("b", "n2", id, 2));
        }
        let report = recorder.judge(&ids(&["S:1", "S:2"]), &["a", "b"]);
        report.assert_exactly_once_without_doubt();
        assert_eq!(report.apps["b"].redelivered, 2);
        assert_eq!(report.apps["a"].shares[&("n1".into(), "a-n1".into())], 2);
        assert_eq!((recorder.count(), recorder.settled_by("a")), (4, 2));
    }

    #[test]
    fn a_missing_message_is_found_per_application() {
        let recorder = Recorder::new();
        recorder.confirmed(confirmation("a", "n1", "S:1", 1));
        let report = recorder.judge(&ids(&["S:1"]), &["a", "b"]);
        assert!(!report.is_exactly_once());
        assert!(report.apps["a"].missing.is_empty());
        assert_eq!(report.apps["b"].missing, ["S:1"]);
    }

    #[test]
    fn a_second_confirmation_is_found_wherever_it_was_given() {
        let recorder = Recorder::new();
        recorder.confirmed(confirmation("a", "n1", "S:1", 1));
        recorder.confirmed(confirmation("a", "n2", "S:1", 1));
        let report = recorder.judge(&ids(&["S:1"]), &["a"]);
        assert_eq!(report.apps["a"].repeated["S:1"].len(), 2);
        let text = report.to_string();
        assert!(
            !report.is_exactly_once() && text.contains("n1/a-n1 attempt 1, n2/a-n2 attempt 1"),
            "{text}"
        );
    }

    #[test]
    fn strange_messages_and_strange_applications_are_found() {
        let recorder = Recorder::new();
        recorder.confirmed(confirmation("a", "n1", "S:1", 1));
        recorder.confirmed(confirmation("a", "n1", "S:9", 1));
        recorder.confirmed(confirmation("x", "n1", "S:1", 1));
        let report = recorder.judge(&ids(&["S:1"]), &["a"]);
        assert!(!report.is_exactly_once());
        assert_eq!(report.apps["a"].unexpected, ["S:9"]);
        assert_eq!(report.apps["x"].unexpected, ["S:1"]);
    }

    #[test]
    fn doubt_excuses_a_missing_confirmation_but_not_a_repeated_one() {
        let recorder = Recorder::new();
        recorder.in_doubt(confirmation("a", "n1", "S:1", 1));
        recorder.in_doubt(confirmation("a", "n1", "S:2", 1));
        recorder.confirmed(confirmation("a", "n1", "S:2", 2));
        let report = recorder.judge(&ids(&["S:1", "S:2"]), &["a"]);
        report.assert_exactly_once();
        assert_eq!((report.in_doubt(), recorder.settled_by("a")), (1, 2));
        recorder.confirmed(confirmation("a", "n1", "S:2", 3));
        assert!(!recorder.judge(&ids(&["S:1", "S:2"]), &["a"]).is_exactly_once());
    }

    #[test]
    fn a_long_list_is_cut_but_counted() {
        let expected: Vec<String> = (1..=50).map(|seq| format!("S:{seq:03}")).collect();
        let text = Recorder::new().judge(&expected, &["a"]).to_string();
        assert!(
            text.contains("50 missing") && text.contains("S:020 ...") && !text.contains("S:021"),
            "{text}"
        );
    }
}
