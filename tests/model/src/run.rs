//! Exploring one setup, and telling what came of it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model as _};

use crate::actions::Model;
use crate::hub::Hub;
use crate::mutants::Mutant;
use crate::properties::Invariant;
use crate::setup::Setup;
use crate::world::{NAMES, World};

/// How far a run may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads of the checker.
    pub threads: usize,
    /// States generated, all together, after which a run ends as bounded.
    pub states_max: Option<usize>,
    /// Time after which a run ends as bounded.
    pub time_max: Option<Duration>,
    /// Depth first: the frontier stays small, and traces are not the shortest.
    pub depth_first: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            threads: 1,
            states_max: None,
            time_max: None,
            depth_first: false,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every reachable state was visited, and all of them are well.
    Complete,
    /// A limit ended the run; what was visited is well.
    Bounded,
    /// An invariant does not hold.
    Broken {
        /// Which.
        invariant: Invariant,
        /// The values that show it.
        text: String,
        /// The steps that lead there.
        trace: Vec<String>,
    },
}

/// What a run saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// States generated, with repetitions.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// The longest sequence of steps.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// Runs with a mutant of the core have the process to themselves; all others may run side by side.
static CORE: RwLock<()> = RwLock::new(());

/// Explores a setup.
#[must_use]
pub fn explore(setup: Setup, limits: Limits) -> Report {
    match setup.mutant {
        Some(Mutant::Core(mutant)) => {
            let _alone = CORE.write();
            fanin_core::mutants::switch(Some(mutant));
            let report = explore_unswitched(setup, limits);
            fanin_core::mutants::switch(None);
            report
        }
        Some(_) | None => {
            let _together = CORE.read();
            explore_unswitched(setup, limits)
        }
    }
}

fn explore_unswitched(setup: Setup, limits: Limits) -> Report {
    let begun = Instant::now();
    let model = Model {
        setup,
        deadline: limits.time_max.map(|most| begun + most),
        cut: Arc::default(),
    };
    let mut builder = model.clone().checker().threads(limits.threads).finish_when(HasDiscoveries::AnyFailures);
    let states_max = limits.states_max.or(setup.config.states_max);
    if let Some(states) = states_max {
        builder = builder.target_state_count(states);
    }
    if limits.depth_first {
        finish(&model, builder.spawn_dfs().join(), begun, states_max)
    } else {
        finish(&model, builder.spawn_bfs().join(), begun, states_max)
    }
}

fn finish(model: &Model, checker: impl Checker<Model>, begun: Instant, states_max: Option<usize>) -> Report {
    let took = begun.elapsed();
    let shortest = checker.discoveries().into_values().map(|path| path.into_vec()).min_by_key(Vec::len);
    let cut = states_max.is_some_and(|most| checker.state_count() >= most) || model.cut.load(Ordering::Relaxed);
    let outcome = match shortest {
        Some(path) => broken(model, path),
        None if cut => Outcome::Bounded,
        None => Outcome::Complete,
    };
    Report {
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        outcome,
    }
}

fn broken(model: &Model, path: Vec<(World, Option<crate::actions::Action>)>) -> Outcome {
    let mut trace = Vec::new();
    let last = path.last().map(|(world, _)| world.clone());
    for (world, action) in &path {
        let Some(action) = action else { continue };
        let mut line = action.to_string();
        match *action {
            crate::actions::Action::Land(flight) | crate::actions::Action::Repeat(flight) => {
                let _ = write!(line, ": {}", describe_flight(&world.hub, flight));
            }
            crate::actions::Action::Pull { pull, .. } => {
                let _ = write!(line, ": messages {:?}", model.setup.config.pulls[pull]);
            }
            _ => {}
        }
        trace.push(line);
        let _ = write!(trace.last_mut().unwrap_or(&mut String::new()), "");
    }
    trace.extend(last.iter().flat_map(describe));
    let violation = last.as_ref().and_then(|world| world.violation.clone());
    match violation {
        Some(found) => Outcome::Broken {
            invariant: found.invariant,
            text: found.text.clone(),
            trace,
        },
        None => Outcome::Broken {
            invariant: Invariant::Live,
            text: last.and_then(|world| model.heal(&world).err()).unwrap_or_default(),
            trace,
        },
    }
}

fn describe_flight(hub: &Hub, flight: usize) -> String {
    match hub.flights.iter().nth(flight) {
        Some(flight) => describe_record(&flight.entry.bytes),
        None => String::new(),
    }
}

fn describe_record(bytes: &[u8]) -> String {
    use fanin_core::record::{Body, Record};
    let Ok(record) = Record::decode(bytes) else {
        return "an unknown record".to_owned();
    };
    match record.body {
        Body::Genesis(_) => "GENESIS".to_owned(),
        Body::Terms(terms) => format!("TERMS {} {:?}", terms.version, terms.apps.keys()),
        Body::Epoch(epoch) => format!("EPOCH of {} {:?}, nonce {}", epoch.node, epoch.state, epoch.nonce),
        Body::Claim(claim) => format!(
            "CLAIM of node {}, epoch {}, batch {}, messages {:?}, terms {}",
            claim.node_uuid.0,
            claim.epoch,
            claim.batch,
            claim.seqs.iter().collect::<Vec<_>>(),
            claim.terms
        ),
        Body::Handoff(_) => "HANDOFF".to_owned(),
        Body::Close(close) => format!("CLOSE W = {}, terms {}", close.through, close.terms),
        Body::Progress(progress) => format!("PROGRESS of node {}: {:?}", progress.node_uuid.0, progress.done.ranges()),
        Body::Checkpoint(part) => format!("CHECKPOINT at {} part {} of {}", part.position, part.part + 1, part.parts),
    }
}

/// The last state, for people: the ledger and where everybody stands.
fn describe(world: &World) -> Vec<String> {
    let mut lines = vec!["-- the ledger".to_owned()];
    for (at, entry) in &world.truth.history {
        let gone = if world.hub.entries.contains_key(at) { "" } else { " (purged)" };
        lines.push(format!("@{at} {}{gone}", describe_record(&entry.bytes)));
    }
    for (who, bridge) in world.bridges.iter().enumerate() {
        let disk: Vec<_> = bridge.disk.batches.iter().map(|(n, kept)| (n.0, kept.seqs.ranges(), kept.resolution.is_some())).collect();
        let node = bridge.node().map(|node| (node.fold().position(), node.phase()));
        lines.push(format!("-- {}: position and phase {node:?}, disk {disk:?}", NAMES[who]));
    }
    lines
}
