//! The comparison as people and as scripts read it.

use serde_json::{Value, json};

use super::figures::{Figures, Row, Spread, rows};
use crate::cli::human;

/// What was compared.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) apps: u32,
    pub(super) messages: u64,
    pub(super) size: u32,
    pub(super) sync_always: bool,
    pub(super) server_version: String,
}

/// One JSON document.
pub(super) fn json(setting: &Setting, pairs: &[(Figures, Figures)]) -> Value {
    let runs = pairs
        .iter()
        .map(|(native, fanin)| json!({ "native": native, "fanin": fanin }));
    json!({
        "benchmark": "fanin-vs-native",
        "apps": setting.apps,
        "messages": setting.messages,
        "size": setting.size,
        "sync_always": setting.sync_always,
        "server_version": setting.server_version,
        "cpus": cpus(),
        "rows": rows(pairs),
        "repetitions": runs.collect::<Vec<_>>(),
    })
}

/// A table.
pub(super) fn table(setting: &Setting, pairs: &[(Figures, Figures)]) -> String {
    let head = ["min / median / max", "native", "fanin", "fanin/native"]
        .map(str::to_owned)
        .to_vec();
    let mut lines = vec![head];
    lines.extend(rows(pairs).iter().map(line));
    let disturbed = Spread::of(
        pairs
            .iter()
            .flat_map(|(native, fanin)| [native.others_s, fanin.others_s]),
    );
    let first = Spread::of(pairs.iter().map(|(_, fanin)| fanin.first_delivery_s * 1e3));
    format!(
        "{} messages of {} B to {} applications, {} repetitions, nats-server {} ({}), {} CPUs\n\n{}\n\
         fanin's time to the first delivery: {} ms. CPU used by everything else during a run: {} s.\n",
        setting.messages,
        setting.size,
        setting.apps,
        pairs.len(),
        setting.server_version,
        if setting.sync_always {
            "sync_interval always"
        } else {
            "default sync_interval"
        },
        cpus(),
        human::table(0, &lines),
        spread(&first, 0),
        spread(&disturbed, 1),
    )
}

/// What one repetition gave, on one line.
pub(super) fn progress(side: &str, number: u32, figures: &Figures) -> String {
    format!(
        "{number} {side}: {:.0} deliveries/s, CPU us/delivery: hub {:.2}, bridge {:.2}, apps {:.2} (others {:.1} s of {:.1} s)",
        figures.deliveries_per_second,
        figures.hub_us,
        figures.bridge_us,
        figures.apps_us,
        figures.others_s,
        figures.wall_s
    )
}

fn line(row: &Row) -> Vec<String> {
    let digits = if row.native.max.max(row.fanin.max) >= 1000.0 {
        0
    } else {
        2
    };
    let of = |values: &Spread, digits| {
        let is_nothing = !values.median.is_finite() || values.max == 0.0;
        if is_nothing {
            "-".to_owned()
        } else {
            spread(values, digits)
        }
    };
    vec![
        row.what.to_owned(),
        of(&row.native, digits),
        of(&row.fanin, digits),
        of(&row.ratio, 3),
    ]
}

fn spread(values: &Spread, digits: usize) -> String {
    format!(
        "{:.digits$} / {:.digits$} / {:.digits$}",
        values.min, values.median, values.max
    )
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

#[cfg(test)]
mod tests {
    // Goal: nothing is divided by nothing in the open, and both forms agree. Method: crafted figures.
    use super::*;

    #[test]
    fn a_figure_only_one_side_has_shows_no_ratio() {
        let native = Figures {
            deliveries_per_second: 100_000.0,
            flowing_per_second: 101_000.0,
            wall_s: 8.0,
            first_delivery_s: 0.01,
            hub_us: 12.0,
            bridge_us: 0.0,
            apps_us: 3.0,
            total_us: 15.0,
            others_s: 0.2,
            repeated: 0,
        };
        let fanin = Figures {
            bridge_us: 2.0,
            hub_us: 2.0,
            ..native
        };
        let setting = Setting {
            apps: 8,
            messages: 100_000,
            size: 1024,
            sync_always: false,
            server_version: "2.14.6".to_owned(),
        };
        let text = table(&setting, &[(native, fanin)]);
        let bridge = text.lines().find(|line| line.starts_with("bridge")).unwrap();
        let mut cells = bridge.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        assert_eq!(cells.next(), Some("bridge CPU us/delivery"));
        assert_eq!(
            (cells.next(), cells.next(), cells.next()),
            (Some("-"), Some("2.00 / 2.00 / 2.00"), Some("-"))
        );
        let json = json(&setting, &[(native, fanin)]);
        assert_eq!(json["rows"][3]["fanin"]["median"], 2.0);
        assert!(json["rows"][3]["ratio"]["median"].is_null());
        assert_eq!(json["repetitions"][0]["native"]["hub_us"], 12.0);
    }
}
