//! The last minutes of this node, one sample a second, for the status page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fanin_proto::v1::StatusResponse;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::health::Health;
use super::limits::{STATUS_WAIT_MAX, TIMELINE_APPS_MAX, TIMELINE_SAMPLES, TIMELINE_STEP};

/// What an application was at in one sample.
#[derive(Clone, Copy, Default)]
struct AppSample {
    acked: u64,
    backlog: u64,
}

#[derive(Default)]
struct Line {
    won: VecDeque<u64>,
    apps: BTreeMap<String, VecDeque<AppSample>>,
}

/// Samples of every mapping and application, oldest first; applications beyond `TIMELINE_APPS_MAX` have none.
#[derive(Default)]
pub(super) struct Timeline {
    lines: Mutex<BTreeMap<String, Line>>,
}

impl Timeline {
    /// Samples `health` until it is dropped.
    pub(super) async fn keep(self: Arc<Self>, health: Arc<dyn Health>) {
        let mut ticks = interval(TIMELINE_STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            // A status that does not come is a gap of the line; the health checks tell why.
            if let Ok(status) = timeout(STATUS_WAIT_MAX, health.status()).await {
                self.sample(&status);
            }
        }
    }

    fn sample(&self, status: &StatusResponse) {
        let mut lines = self.lines.lock();
        lines.retain(|name, _| status.mappings.iter().any(|mapping| mapping.name == *name));
        let mut room = TIMELINE_APPS_MAX;
        for mapping in &status.mappings {
            let line = lines.entry(mapping.name.clone()).or_default();
            push(&mut line.won, mapping.won_messages);
            line.apps
                .retain(|name, _| mapping.apps.iter().any(|app| app.name == *name));
            for app in mapping.apps.iter().take(room) {
                let sample = AppSample {
                    acked: app.acked,
                    backlog: app.backlog_messages,
                };
                push(line.apps.entry(app.name.clone()).or_default(), sample);
            }
            room = room.saturating_sub(mapping.apps.len());
        }
    }

    /// Counters and backlogs by mapping and application.
    pub(super) fn to_json(&self) -> Value {
        let lines = self.lines.lock();
        let mappings: BTreeMap<&String, Value> = lines
            .iter()
            .map(|(name, line)| {
                let apps: BTreeMap<&String, Value> = line
                    .apps
                    .iter()
                    .map(|(app, samples)| {
                        let acked: Vec<u64> = samples.iter().map(|sample| sample.acked).collect();
                        let backlog: Vec<u64> = samples.iter().map(|sample| sample.backlog).collect();
                        (app, json!({ "acked": acked, "backlog": backlog }))
                    })
                    .collect();
                (name, json!({ "won": line.won, "apps": apps }))
            })
            .collect();
        json!({ "step_ms": TIMELINE_STEP.as_millis(), "mappings": mappings })
    }
}

fn push<T>(samples: &mut VecDeque<T>, sample: T) {
    if samples.len() == TIMELINE_SAMPLES {
        samples.pop_front();
    }
    samples.push_back(sample);
}

#[cfg(test)]
mod tests {
    use fanin_proto::v1::{AppStatus, MappingStatus};

    use super::*;

    fn status(apps: &[&str], acked: u64) -> StatusResponse {
        let apps = apps.iter().map(|name| AppStatus {
            name: (*name).to_owned(),
            acked,
            ..AppStatus::default()
        });
        let mapping = MappingStatus {
            name: "orders".to_owned(),
            won_messages: acked,
            apps: apps.collect(),
            ..MappingStatus::default()
        };
        StatusResponse {
            mappings: vec![mapping],
            ..StatusResponse::default()
        }
    }

    /// Goal: the line holds the last minutes and no more, whatever comes and goes. Method: twice as many samples as fit,
    /// then another application and another mapping.
    #[test]
    fn it_keeps_the_last_samples_only() {
        let timeline = Timeline::default();
        for acked in 0..2 * TIMELINE_SAMPLES as u64 {
            timeline.sample(&status(&["a"], acked));
        }
        let json = timeline.to_json();
        let won = json["mappings"]["orders"]["won"].as_array().unwrap();
        assert_eq!(won.len(), TIMELINE_SAMPLES);
        assert_eq!(won.last().unwrap(), 2 * TIMELINE_SAMPLES as u64 - 1);

        timeline.sample(&status(&["b"], 7));
        let apps = timeline.to_json()["mappings"]["orders"]["apps"].clone();
        assert_eq!(apps, json!({ "b": { "acked": [7], "backlog": [0] } }));
        timeline.sample(&StatusResponse::default());
        assert_eq!(timeline.to_json()["mappings"], json!({}));
    }

    /// Goal: no number of applications makes it grow without bound. Method: more than the limit.
    #[test]
    fn applications_beyond_the_limit_have_no_line() {
        let names: Vec<String> = (0..=TIMELINE_APPS_MAX).map(|n| format!("a{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let timeline = Timeline::default();
        timeline.sample(&status(&names, 1));
        assert_eq!(timeline.lines.lock()["orders"].apps.len(), TIMELINE_APPS_MAX);
    }
}
