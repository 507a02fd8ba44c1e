//! Exploring one setup, and telling what came of it.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model as _};

use crate::actions::{Action, Model};
use crate::hub::Hub;
use crate::mutants::Mutant;
use crate::properties::{Invariant, Violation};
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

/// States generated on the way to a shortest trace; breadth first, each waiting state takes some ten kilobytes.
const BREADTH_STATES_MAX: usize = 2_000_000;

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
        /// How many steps lead there.
        steps: usize,
        /// These steps, and where everybody stands then.
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

/// Explores a setup depth first, which needs little memory; what is found there is sought again breadth first, for the
/// shortest way to it.
#[must_use]
pub fn explore_shortest(setup: Setup, limits: Limits) -> Report {
    let depth_first = Limits {
        depth_first: true,
        ..limits
    };
    let first = explore(setup, depth_first);
    if !matches!(first.outcome, Outcome::Broken { .. }) {
        return first;
    }
    let most = limits
        .states_max
        .unwrap_or(BREADTH_STATES_MAX)
        .min(BREADTH_STATES_MAX);
    let breadth_first = Limits {
        states_max: Some(most),
        ..limits
    };
    let second = explore(setup, breadth_first);
    if matches!(second.outcome, Outcome::Broken { .. }) {
        second
    } else {
        first
    }
}

fn explore_unswitched(setup: Setup, limits: Limits) -> Report {
    let begun = Instant::now();
    let model = Model {
        setup,
        deadline: limits.time_max.map(|most| begun + most),
        cut: Arc::default(),
        found: Arc::default(),
        over: Arc::default(),
    };
    let mut builder = model
        .clone()
        .checker()
        .threads(limits.threads)
        .finish_when(HasDiscoveries::AnyFailures);
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
    model.over.store(true, Ordering::Relaxed);
    let shortest = checker
        .discoveries()
        .into_values()
        .map(|path| path.into_vec())
        .min_by_key(Vec::len);
    let cut =
        states_max.is_some_and(|most| checker.state_count() >= most) || model.cut.load(Ordering::Relaxed);
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

fn broken(model: &Model, path: Vec<(World, Option<Action>)>) -> Outcome {
    let mut trace = Vec::new();
    let last = path.last().map(|(world, _)| world.clone());
    for (world, action) in &path {
        let Some(action) = action else { continue };
        let mut line = action.to_string();
        if let Action::Land(flight) | Action::Repeat(flight) = *action {
            let _ = write!(line, ": {}", describe_flight(&world.hub, flight));
        }
        if let Action::Pull { pull, .. } = *action {
            let _ = write!(line, ": messages {:?}", model.setup.config.pulls[pull]);
        }
        trace.push(line);
    }
    let steps = trace.len();
    trace.extend(last.iter().flat_map(describe));
    let found = last.and_then(|world| match &world.violation {
        Some(found) => Some((**found).clone()),
        None => model.heal(&world).err(),
    });
    // The checker only says that a property does not hold here; the world says which values show it.
    let found = found.unwrap_or(Violation {
        invariant: Invariant::Live,
        text: String::new(),
    });
    Outcome::Broken {
        invariant: found.invariant,
        text: found.text,
        steps,
        trace,
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
        Body::Progress(progress) => format!(
            "PROGRESS of node {}: {:?}",
            progress.node_uuid.0,
            progress.done.ranges()
        ),
        Body::Checkpoint(part) => format!(
            "CHECKPOINT at {} part {} of {}",
            part.position,
            part.part + 1,
            part.parts
        ),
    }
}

/// The last state, for people: the ledger and where everybody stands.
fn describe(world: &World) -> Vec<String> {
    let mut lines = vec!["-- the ledger".to_owned()];
    for (at, entry) in &world.truth.history {
        let gone = if world.hub.entries.contains_key(at) {
            ""
        } else {
            " (purged)"
        };
        lines.push(format!("@{at} {}{gone}", describe_record(&entry.bytes)));
    }
    for (who, bridge) in world.bridges.iter().enumerate() {
        let disk: Vec<_> = bridge
            .disk
            .batches
            .iter()
            .map(|(n, kept)| (n.0, kept.seqs.ranges(), kept.resolution.is_some()))
            .collect();
        let node = bridge.node().map(|node| (node.fold().position(), node.phase()));
        lines.push(format!(
            "-- {}: position and phase {node:?}, disk {disk:?}",
            NAMES[who]
        ));
    }
    lines
}
