//! From outcomes to figures: rates, CPU per delivery, ratios, and how much they spread.

use serde::Serialize;
use std::time::Duration;

use super::sides::Outcome;

/// The figures of one run of one side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// From the signal on.
    pub(super) deliveries_per_second: f64,
    /// From the first delivery on.
    pub(super) flowing_per_second: f64,
    pub(super) wall_s: f64,
    pub(super) first_delivery_s: f64,
    pub(super) hub_us: f64,
    pub(super) bridge_us: f64,
    pub(super) apps_us: f64,
    /// Hub, bridge and applications together.
    pub(super) total_us: f64,
    /// CPU seconds of everything else on the machine: what may have disturbed the run.
    pub(super) others_s: f64,
    pub(super) repeated: u64,
}

impl Figures {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let deliveries = outcome.deliveries.max(1) as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / deliveries;
        Self {
            deliveries_per_second: deliveries / outcome.wall.as_secs_f64(),
            flowing_per_second: deliveries / outcome.wall.saturating_sub(outcome.first).as_secs_f64(),
            wall_s: outcome.wall.as_secs_f64(),
            first_delivery_s: outcome.first.as_secs_f64(),
            hub_us: each(outcome.cpu.hub),
            bridge_us: each(outcome.cpu.bridge),
            apps_us: each(outcome.cpu.apps),
            total_us: each(outcome.cpu.measured()),
            others_s: outcome.cpu.others().as_secs_f64(),
            repeated: outcome.repeated,
        }
    }
}

/// The least, the middle and the greatest of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of no values: not numbers.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self {
            min: at(0),
            median: (at(last / 2) + at(last.div_ceil(2))) / 2.0,
            max: at(last),
        }
    }
}

/// One figure of both sides over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) native: Spread,
    pub(super) fanin: Spread,
    /// Fanin over native, repetition by repetition.
    pub(super) ratio: Spread,
}

impl Row {
    fn of(what: &'static str, pairs: &[(Figures, Figures)], pick: fn(&Figures) -> f64) -> Self {
        Self {
            what,
            native: Spread::of(pairs.iter().map(|(native, _)| pick(native))),
            fanin: Spread::of(pairs.iter().map(|(_, fanin)| pick(fanin))),
            ratio: Spread::of(pairs.iter().map(|(native, fanin)| pick(fanin) / pick(native))),
        }
    }
}

/// Every row, of pairs (native, fanin).
pub(super) fn rows(pairs: &[(Figures, Figures)]) -> Vec<Row> {
    vec![
        Row::of("deliveries/s", pairs, |figures| figures.deliveries_per_second),
        Row::of("  from the first delivery on", pairs, |figures| {
            figures.flowing_per_second
        }),
        Row::of("hub CPU us/delivery", pairs, |figures| figures.hub_us),
        Row::of("bridge CPU us/delivery", pairs, |figures| figures.bridge_us),
        Row::of("apps CPU us/delivery", pairs, |figures| figures.apps_us),
        Row::of("total CPU us/delivery", pairs, |figures| figures.total_us),
    ]
}

#[cfg(test)]
mod tests {
    // Goal: figures are what their names say. Method: numbers worked out by hand.
    use super::super::machine::Cpu;
    use super::*;

    fn outcome(wall: u64, hub: u64, bridge: u64) -> Outcome {
        let cpu = Cpu {
            hub: Duration::from_secs(hub),
            bridge: Duration::from_secs(bridge),
            apps: Duration::from_secs(4),
            machine: Duration::from_secs(hub + bridge + 4 + 3),
        };
        let wall = Duration::from_secs(wall);
        Outcome {
            deliveries: 1_000_000,
            wall,
            first: Duration::from_millis(5),
            cpu,
            repeated: 0,
        }
    }

    #[test]
    fn spread_of_few() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            }
        );
        assert_eq!(
            Spread::of([4.0, 2.0]),
            Spread {
                min: 2.0,
                median: 3.0,
                max: 4.0
            }
        );
        assert_eq!(Spread::of([7.0]).median, 7.0);
        assert!(Spread::of([]).median.is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        let figures = |wall, hub, bridge| Figures::of(&outcome(wall, hub, bridge));
        let pairs = [
            (figures(10, 12, 0), figures(2, 2, 3)),
            (figures(20, 12, 0), figures(5, 3, 3)),
        ];
        let rows = rows(&pairs);
        assert_eq!(rows[0].native.max, 100_000.0);
        assert_eq!((rows[0].ratio.min, rows[0].ratio.max), (4.0, 5.0));
        assert_eq!((rows[2].native.median, rows[2].fanin.min), (12.0, 2.0));
        assert_eq!(rows[2].ratio.max, 0.25);
        assert_eq!(rows[5].native.median, 16.0);
        assert_eq!(pairs[0].0.others_s, 3.0);
        assert!(rows[1].native.min > rows[0].native.min);
    }
}
