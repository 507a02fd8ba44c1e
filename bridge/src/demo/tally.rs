//! Counts what the instances recorded, per application and message.

use std::collections::BTreeMap;

use serde::Serialize;

use super::limits::{LINES_MAX, LISTED_IDS_MAX};
use super::record::{Happened, Record};

/// How often one application received one message and had an acknowledgement of it confirmed; stops at 255.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    received: u8,
    acked: u8,
}

/// Counts of one application.
#[derive(Clone, Debug, Default)]
struct AppTally {
    /// By sequence, from 1.
    cells: Vec<Cell>,
    /// Lines that name no message of the input.
    foreign: u64,
    received_ids: u64,
    received_lines: u64,
    acked_ids: u64,
    acked_lines: u64,
}

/// How the work was shared, by confirmed acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Share {
    /// Acknowledgements per node.
    pub(crate) nodes: BTreeMap<String, u64>,
    /// Acknowledgements per node and instance, as `node/instance`.
    pub(crate) instances: BTreeMap<String, u64>,
}

/// Everything recorded so far.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    stream: String,
    apps: BTreeMap<String, AppTally>,
    share: BTreeMap<String, Share>,
    /// Records that name an application the demo does not run.
    pub(crate) strangers: u64,
    /// All lines of both kinds: it grows while anything happens.
    pub(crate) lines: u64,
}

/// What one application has, of a given input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AppCounts {
    /// Messages that exactly one confirmed acknowledgement was recorded for.
    pub(crate) acknowledged_once: u64,
    /// Messages with more than one confirmed acknowledgement.
    pub(crate) acknowledged_twice: u64,
    /// Messages that were received, but no confirmed acknowledgement was recorded: the instance or its bridge was
    /// killed at that moment. An empty backlog at the end says that the node has the acknowledgement.
    pub(crate) outcome_unknown: u64,
    /// Messages that no instance ever received.
    pub(crate) missing: u64,
    /// Messages that were received exactly once.
    pub(crate) received_once: u64,
    /// Messages that were received more than once: after a kill, and before a confirmed acknowledgement.
    pub(crate) received_again: u64,
    /// Recorded lines that name no message of the input.
    pub(crate) foreign: u64,
    /// Some of the missing ones.
    pub(crate) missing_ids: Vec<String>,
    /// Some of those acknowledged twice.
    pub(crate) acknowledged_twice_ids: Vec<String>,
}

impl Tally {
    pub(crate) fn new(stream: &str, apps: impl IntoIterator<Item = String>) -> Self {
        let apps: BTreeMap<String, AppTally> =
            apps.into_iter().map(|app| (app, AppTally::default())).collect();
        let share = apps.keys().map(|app| (app.clone(), Share::default())).collect();
        Self {
            stream: stream.to_owned(),
            apps,
            share,
            strangers: 0,
            lines: 0,
        }
    }

    pub(crate) fn add(&mut self, record: &Record) {
        self.lines += 1;
        let (Some(app), Some(share)) = (self.apps.get_mut(&record.app), self.share.get_mut(&record.app))
        else {
            self.strangers += 1;
            return;
        };
        let of_stream = record
            .id
            .rsplit_once(':')
            .is_some_and(|(stream, _)| stream == self.stream);
        let sequence = record
            .sequence()
            .filter(|sequence| of_stream && (1..=LINES_MAX).contains(sequence));
        let Some(index) = sequence.and_then(|sequence| usize::try_from(sequence - 1).ok()) else {
            app.foreign += 1;
            return;
        };
        if index >= app.cells.len() {
            app.cells.resize(index + 1, Cell::default());
        }
        let Some(cell) = app.cells.get_mut(index) else {
            return;
        };
        match record.happened {
            Happened::Received => {
                app.received_ids += u64::from(cell.received == 0);
                app.received_lines += 1;
                cell.received = cell.received.saturating_add(1);
            }
            Happened::Acked => {
                app.acked_ids += u64::from(cell.acked == 0);
                app.acked_lines += 1;
                cell.acked = cell.acked.saturating_add(1);
                *share.nodes.entry(record.node.clone()).or_default() += 1;
                let instance = format!("{}/{}", record.node, record.instance);
                *share.instances.entry(instance).or_default() += 1;
            }
        }
    }

    pub(crate) fn apps(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(String::as_str)
    }

    pub(crate) fn share(&self, app: &str) -> Share {
        self.share.get(app).cloned().unwrap_or_default()
    }

    /// Messages an application received, and those it acknowledged, each counted once.
    pub(crate) fn progress(&self, app: &str) -> (u64, u64) {
        self.apps
            .get(app)
            .map_or((0, 0), |app| (app.received_ids, app.acked_ids))
    }

    /// Deliveries beyond the first of a message.
    pub(crate) fn again(&self, app: &str) -> u64 {
        self.apps
            .get(app)
            .map_or(0, |app| app.received_lines - app.received_ids)
    }

    /// Confirmed acknowledgements beyond the first of a message.
    pub(crate) fn twice(&self, app: &str) -> u64 {
        self.apps
            .get(app)
            .map_or(0, |app| app.acked_lines - app.acked_ids)
    }

    /// Whether every application received all of `published` messages.
    pub(crate) fn all_received(&self, published: u64) -> bool {
        self.apps.values().all(|app| app.received_ids >= published)
    }

    /// Judges an application against an input of `published` messages.
    pub(crate) fn counts(&self, app: &str, published: u64) -> AppCounts {
        let mut counts = AppCounts::default();
        let Some(app) = self.apps.get(app) else {
            return counts;
        };
        counts.foreign = app.foreign;
        for sequence in 1..=published.max(app.cells.len() as u64) {
            let index = usize::try_from(sequence - 1).unwrap_or(usize::MAX);
            let cell = app.cells.get(index).copied().unwrap_or_default();
            if sequence > published {
                counts.foreign += u64::from(cell.received) + u64::from(cell.acked);
                continue;
            }
            match cell.acked {
                0 if cell.received == 0 => {
                    counts.missing += 1;
                    list(&mut counts.missing_ids, &self.stream, sequence);
                }
                0 => counts.outcome_unknown += 1,
                1 => counts.acknowledged_once += 1,
                2.. => {
                    counts.acknowledged_twice += 1;
                    list(&mut counts.acknowledged_twice_ids, &self.stream, sequence);
                }
            }
            counts.received_once += u64::from(cell.received == 1);
            counts.received_again += u64::from(cell.received > 1);
        }
        counts
    }
}

fn list(ids: &mut Vec<String>, stream: &str, sequence: u64) {
    if ids.len() < LISTED_IDS_MAX {
        ids.push(format!("{stream}:{sequence}"));
    }
}

#[cfg(test)]
mod tests {
    // Goal: each kind of fault is counted as what it is. Method: crafted records.
    use super::super::record::sample;
    use super::*;

    fn tally(records: &[(Happened, u64)]) -> Tally {
        let mut tally = Tally::new("SHOP", ["billing".to_owned()]);
        for (happened, sequence) in records {
            tally.add(&sample(*happened, "billing", "node-1", *sequence));
        }
        tally
    }

    #[test]
    fn every_fault_has_its_column() {
        use Happened::{Acked, Received};
        let tally = tally(&[
            (Received, 1),
            (Acked, 1),
            (Received, 2),
            (Received, 2),
            (Acked, 2),
            (Received, 3),
            (Received, 4),
            (Acked, 4),
            (Acked, 4),
            (Received, 9),
        ]);
        let counts = tally.counts("billing", 6);
        assert_eq!((counts.acknowledged_once, counts.acknowledged_twice), (2, 1));
        assert_eq!((counts.outcome_unknown, counts.missing), (1, 2));
        assert_eq!((counts.received_once, counts.received_again), (3, 1));
        assert_eq!(counts.foreign, 1, "a sequence beyond the input");
        assert_eq!(counts.missing_ids, ["SHOP:5", "SHOP:6"]);
        assert_eq!(counts.acknowledged_twice_ids, ["SHOP:4"]);
        assert_eq!((tally.again("billing"), tally.twice("billing")), (1, 1));
        assert_eq!(
            tally.share("billing").nodes,
            BTreeMap::from([("node-1".to_owned(), 4)])
        );
        assert!(!tally.all_received(6));
    }

    #[test]
    fn what_belongs_to_nobody_is_counted_too() {
        let mut tally = tally(&[]);
        tally.add(&sample(Happened::Received, "shipping", "node-1", 1));
        let mut other = sample(Happened::Received, "billing", "node-1", 1);
        other.id = "OTHER:1".to_owned();
        tally.add(&other);
        assert_eq!((tally.strangers, tally.counts("billing", 0).foreign), (1, 1));
    }
}
