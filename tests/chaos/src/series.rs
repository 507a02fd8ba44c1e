//! Several runs, one after the other or some at once, and what is said of all of them.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use fanin_localhub::Version;
use futures_util::{StreamExt as _, stream};

use crate::error::RunError;
use crate::plan::{Kind, Wish};
use crate::run::{LABEL, Order, run, server_binary};
use crate::{Common, HubKind, Run, Sync, told};

/// The first server that can reset a consumer.
const RESETS_SINCE: Version = Version {
    major: 2,
    minor: 14,
    patch: 0,
};

/// One run of a series, but for its seed and server.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) hub: HubKind,
    pub(crate) sync: Sync,
    pub(crate) minutes: f64,
    /// Empty: the usual ones.
    pub(crate) faults: Vec<Kind>,
}

/// The slice: five minutes of faults. The last parts play one act each that breaks the promise, and nothing else.
const SLICE: [(HubKind, Sync, f64, Option<Kind>); 8] = [
    (HubKind::R1, Sync::Always, 2.0, None),
    (HubKind::R3, Sync::Always, 2.0, None),
    (HubKind::R1, Sync::Lazy, 0.5, None),
    (HubKind::R3, Sync::Lazy, 0.5, None),
    (HubKind::R1, Sync::Always, ALONE, Some(Kind::Purge)),
    (HubKind::R1, Sync::Always, ALONE, Some(Kind::Recreate)),
    (HubKind::R1, Sync::Always, ALONE, Some(Kind::FlipBit)),
    (HubKind::R1, Sync::Always, ALONE, Some(Kind::CutLog)),
];
/// Minutes of a part with one act only.
const ALONE: f64 = 0.1;

impl Run {
    pub(crate) fn part(&self) -> Part {
        Part {
            hub: self.hub,
            sync: self.sync,
            minutes: self.minutes,
            faults: self.faults.clone(),
        }
    }
}

impl Part {
    /// A hub that does not sync loses power at the end of a usual run: killing its processes alone takes nothing from it.
    fn kinds(&self) -> Vec<Kind> {
        if !self.faults.is_empty() {
            return self.faults.clone();
        }
        let mut kinds = Kind::within_promise();
        match (self.sync, self.hub) {
            (Sync::Always, _) => {}
            (Sync::Lazy, HubKind::R1) => kinds.push(Kind::RollBack),
            (Sync::Lazy, HubKind::R3) => kinds.extend([Kind::RollBack, Kind::RollBackOne]),
        }
        kinds
    }
}

/// Every run of a series: all parts with one seed, then all with the next.
pub(crate) async fn resolve(common: &Common, parts: &[Part]) -> Result<Vec<Order>, RunError> {
    let mut binaries = Vec::new();
    for wanted in &common.server {
        binaries.push(server_binary(Some(wanted.clone())).await?);
    }
    if binaries.is_empty() {
        binaries.push(server_binary(None).await?);
    }
    let seeds = (common.seed()..).zip(binaries.iter().cycle());
    let several = common.repeat > 1 || parts.len() > 1;
    let mut orders = Vec::new();
    for ((seed, binary), _) in seeds.zip(0..common.repeat) {
        for (number, part) in (1..).zip(parts) {
            let of_this = |dir: &std::path::PathBuf| {
                if several {
                    dir.join(format!("{seed}-{number}"))
                } else {
                    dir.clone()
                }
            };
            orders.push(Order {
                wish: Wish {
                    seed,
                    time: Duration::from_secs_f64(part.minutes * 60.0),
                    clustered: part.hub == HubKind::R3,
                    resets: binary.version() >= RESETS_SINCE,
                    kinds: part.kinds(),
                },
                hub: part.hub,
                sync: part.sync,
                binary: binary.clone(),
                faults: part.faults.clone(),
                dir: common.dir.as_ref().map(of_this),
            });
        }
    }
    Ok(orders)
}

/// Runs everything, says what came of each, and ends with 0 when all are green, 1 when one is red, 2 when one could not be done.
pub(crate) async fn series(common: &Common, parts: &[Part]) -> Result<ExitCode, RunError> {
    let orders = resolve(common, parts).await?;
    let mut lines = Vec::new();
    let (mut red, mut undone) = (0_usize, 0_usize);
    let jobs = usize::try_from(common.jobs).unwrap_or(1);
    let several = jobs > 1 && orders.len() > 1;
    let runs = stream::iter(orders.iter().enumerate())
        .map(|(number, order)| async move {
            let done = if several {
                LABEL.scope(order.words(), run(order)).await
            } else {
                run(order).await
            };
            (number, order, done)
        })
        .buffer_unordered(jobs);
    let mut runs = pin!(runs);
    while let Some((number, order, done)) = runs.next().await {
        let word = match done {
            Ok(verdict) => {
                told(&verdict, common.json, several.then(|| order.words()).as_deref())?;
                if verdict.green {
                    "green".to_owned()
                } else {
                    red += 1;
                    "RED".to_owned()
                }
            }
            Err(RunError(why)) => {
                undone += 1;
                eprintln!("fanin-chaos: {why}");
                "not done".to_owned()
            }
        };
        lines.push((number, format!("{word:8}  {}", order.words())));
    }
    lines.sort();
    if orders.len() > 1 {
        for (_, line) in &lines {
            eprintln!("{line}");
        }
        let green = orders.len() - red - undone;
        eprintln!("{green} of {} green, {red} red, {undone} not done", orders.len());
    }
    Ok(match (red, undone) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(2),
        (_, _) => ExitCode::from(1),
    })
}

/// Runs the slice, as often as asked for.
pub(crate) async fn slice(common: &Common) -> Result<ExitCode, RunError> {
    let parts = SLICE.map(|(hub, sync, minutes, act)| Part {
        hub,
        sync,
        minutes,
        faults: act.into_iter().collect(),
    });
    series(common, &parts).await
}

#[cfg(test)]
mod tests {
    // Goal: the slice has five minutes of faults and plays every kind, each act that breaks the promise included. Method: the plans of
    // its parts, with several seeds.
    use std::collections::BTreeSet;

    use clap::ValueEnum;

    use super::*;
    use crate::plan::Plan;

    #[test]
    fn the_slice_plays_every_kind() {
        let minutes: f64 = SLICE.iter().map(|(_, _, minutes, _)| minutes).sum();
        assert!((5.0..6.0).contains(&minutes), "{minutes}");
        let mut met = BTreeSet::new();
        for (seed, (hub, sync, minutes, act)) in (1..=4).flat_map(|seed| SLICE.map(|part| (seed, part))) {
            let part = Part {
                hub,
                sync,
                minutes,
                faults: act.into_iter().collect(),
            };
            let plan = Plan::new(&Wish {
                seed,
                time: Duration::from_secs_f64(minutes * 60.0),
                clustered: hub == HubKind::R3,
                resets: true,
                kinds: part.kinds(),
            });
            met.extend(plan.steps.iter().chain(&plan.last).map(|step| step.kind));
        }
        let all: BTreeSet<Kind> = Kind::value_variants().iter().copied().collect();
        assert_eq!(met, all);
    }
}
