//! The schedule: from a seed and nothing else, so that a seed tells the whole run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use crate::limits::{APPS, GAP_MAX, GAP_MIN, LASTS_MAX, LASTS_MIN, NODES, SERVERS_R3, WARM_UP};
use crate::listed::{Promise, Takes};

/// Kinds of faults, as `--faults` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// A bridge gets SIGKILL and is started again.
    KillNode,
    /// A bridge gets SIGSTOP, later SIGCONT.
    FreezeNode,
    /// An application instance gets SIGKILL and is started again.
    KillInstance,
    /// An application instance gets SIGSTOP, later SIGCONT.
    FreezeInstance,
    /// A server of the hub gets SIGKILL and is started again.
    KillHub,
    /// A server of the hub gets SIGSTOP, later SIGCONT.
    FreezeHub,
    /// The line between a bridge and a server is cut, refused, held, swallowed or slow.
    Link,
    /// The line between two servers of the hub, likewise.
    Route,
    /// The line between the producer and a server, likewise.
    ProducerLink,
    /// The leader of the source, of the ledger or of the consumer steps down.
    StepDown,
    /// The shared consumer loses all it knew: deleted and made again alike.
    ForgetConsumer,
    /// The shared consumer is set to any sequence, backwards or forwards, by the reset request (nats-server >= 2.14).
    ResetConsumer,
    /// The shared consumer is deleted, and later made again by the operator's word.
    DeleteConsumer,
    /// The file system below a bridge has no room.
    FillDisk,
    /// fsync below a bridge fails; the bridge ends itself and is started again later.
    FailSync,
    /// A staged batch on a killed bridge's disk has a flipped bit.
    DamageBatch,
    /// Last: the hub's store goes back to an earlier copy.
    RollBack,
    /// Last: the store of one server of a cluster goes back to an earlier copy, the others' do not.
    RollBackOne,
    /// Last: the source is purged while bridges are frozen.
    Purge,
    /// Last: the source stream is deleted and made again.
    Recreate,
    /// Last: any bit of a bridge's log is flipped.
    FlipBit,
    /// Last: a bridge's log loses its end.
    CutLog,
}

impl Kind {
    /// Whether the promise of exactly once does not cover it, so that it comes last and once.
    pub(crate) fn breaks(self) -> bool {
        matches!(
            self,
            Self::RollBack | Self::RollBackOne | Self::Purge | Self::Recreate | Self::FlipBit | Self::CutLog
        )
    }

    fn needs_cluster(self) -> bool {
        matches!(self, Self::Route | Self::StepDown | Self::RollBackOne)
    }

    /// As typed on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Every kind that is within the promise.
    pub(crate) fn within_promise() -> Vec<Self> {
        Self::value_variants()
            .iter()
            .copied()
            .filter(|kind| !kind.breaks())
            .collect()
    }
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Connections are closed; new ones are accepted.
    Cut,
    /// Closed, and new ones refused.
    Refuse,
    /// Everything is held back, and arrives later.
    Stall,
    /// Everything vanishes.
    Swallow,
    /// Requests vanish, replies arrive.
    SwallowRequests,
    /// Replies vanish, requests arrive.
    SwallowReplies,
    /// Everything arrives later by so many milliseconds in each direction.
    Delay(u64),
}

/// Whose leader steps down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    Source,
    Ledger,
    Consumer,
}

/// What of the hub's store goes back to an earlier copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    Everything,
    Ledger,
    /// With its consumers.
    Source,
}

/// One fault with its victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    KillNode { node: usize },
    FreezeNode { node: usize },
    KillInstance { instance: usize },
    FreezeInstance { instance: usize },
    KillHub { server: usize },
    FreezeHub { server: usize },
    Link { node: usize, server: usize, how: How },
    Route { from: usize, to: usize, how: How },
    ProducerLink { server: usize, how: How },
    StepDown { whose: Leader },
    ForgetConsumer,
    ResetConsumer { pick: u64 },
    DeleteConsumer { node: usize },
    FillDisk { node: usize },
    FailSync { node: usize },
    DamageBatch { node: usize, pick: u64 },
    RollBack { what: Back },
    RollBackOne { server: usize },
    Purge,
    Recreate,
    FlipBit { node: usize, pick: u64 },
    CutLog { node: usize, pick: u64 },
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// From the run's beginning.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: Kind,
    pub(crate) fault: Fault,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:7.2} s  for {:4.1} s  {:?}",
            self.at.as_secs_f64(),
            self.lasts.as_secs_f64(),
            self.fault
        )
    }
}

/// What a schedule is made from.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) clustered: bool,
    /// Whether the server knows how to reset a consumer.
    pub(crate) resets: bool,
    pub(crate) kinds: Vec<Kind>,
}

/// The whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In order of their beginnings.
    pub(crate) steps: Vec<Step>,
    /// What comes behind all of them, when everything is well again.
    pub(crate) last: Option<Step>,
    pub(crate) promise: Promise,
}

/// SplitMix64: one seed, one sequence, for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; zero when the bound is.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = usize::try_from(most.saturating_sub(least).as_millis()).unwrap_or(0);
        least + Duration::from_millis(self.below(span + 1) as u64)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).copied()
    }
}

impl Plan {
    pub(crate) fn new(wish: &Wish) -> Self {
        let mut rng = Rng::new(wish.seed);
        let possible = |kind: &&Kind| {
            (wish.clustered || !kind.needs_cluster()) && (wish.resets || **kind != Kind::ResetConsumer)
        };
        let kinds: Vec<Kind> = wish.kinds.iter().filter(possible).copied().collect();
        let usual: Vec<Kind> = kinds.iter().copied().filter(|kind| !kind.breaks()).collect();
        let breaking: Vec<Kind> = kinds.iter().copied().filter(|kind| kind.breaks()).collect();
        let servers = if wish.clustered { SERVERS_R3 } else { 1 };
        let mut busy: BTreeMap<String, Duration> = BTreeMap::new();
        let mut steps = Vec::new();
        let mut at = WARM_UP;
        while at < wish.time && !usual.is_empty() {
            let lasts = rng.between(LASTS_MIN, LASTS_MAX);
            if let Some(kind) = rng.pick(&usual) {
                let fault = Fault::of(kind, servers, &mut rng);
                let victim = fault.victim();
                let free = busy.get(&victim).is_none_or(|until| *until < at);
                // A victim suffers one fault at a time; others overlap as they like.
                if free {
                    busy.insert(victim, at + lasts + GAP_MIN);
                    steps.push(Step {
                        at,
                        lasts,
                        kind,
                        fault,
                    });
                }
            }
            at += rng.between(GAP_MIN, GAP_MAX);
        }
        let last = rng.pick(&breaking).map(|kind| Step {
            at: wish.time,
            lasts: rng.between(LASTS_MIN, LASTS_MAX),
            kind,
            fault: Fault::of(kind, servers, &mut rng),
        });
        let promise = match last {
            Some(_) => Promise::Listed,
            None => Promise::ExactlyOnce,
        };
        Self { steps, last, promise }
    }
}

impl Fault {
    fn of(kind: Kind, servers: usize, rng: &mut Rng) -> Self {
        let node = rng.below(NODES);
        let server = rng.below(servers);
        let instance = rng.below(NODES * APPS.len());
        let other = (server + 1 + rng.below(servers.saturating_sub(1))) % servers.max(1);
        let how = How::any(rng);
        let pick = rng.next();
        match kind {
            Kind::KillNode => Self::KillNode { node },
            Kind::FreezeNode => Self::FreezeNode { node },
            Kind::KillInstance => Self::KillInstance { instance },
            Kind::FreezeInstance => Self::FreezeInstance { instance },
            Kind::KillHub => Self::KillHub { server },
            Kind::FreezeHub => Self::FreezeHub { server },
            Kind::Link => Self::Link { node, server, how },
            Kind::Route => Self::Route {
                from: server.min(other),
                to: server.max(other),
                how,
            },
            Kind::ProducerLink => Self::ProducerLink { server, how },
            Kind::StepDown => Self::StepDown {
                whose: match pick % 3 {
                    0 => Leader::Source,
                    1 => Leader::Ledger,
                    _ => Leader::Consumer,
                },
            },
            Kind::ForgetConsumer => Self::ForgetConsumer,
            Kind::ResetConsumer => Self::ResetConsumer { pick },
            Kind::DeleteConsumer => Self::DeleteConsumer { node },
            Kind::FillDisk => Self::FillDisk { node },
            Kind::FailSync => Self::FailSync { node },
            Kind::DamageBatch => Self::DamageBatch { node, pick },
            Kind::RollBack => Self::RollBack {
                // A cluster's stores hang together; of one server's, any stream may be older than the others.
                what: match pick % 3 {
                    0 if servers == 1 => Back::Ledger,
                    1 if servers == 1 => Back::Source,
                    _ => Back::Everything,
                },
            },
            Kind::RollBackOne => Self::RollBackOne { server },
            Kind::Purge => Self::Purge,
            Kind::Recreate => Self::Recreate,
            Kind::FlipBit => Self::FlipBit { node, pick },
            Kind::CutLog => Self::CutLog { node, pick },
        }
    }

    /// What it takes from the source.
    pub(crate) fn takes(self) -> Takes {
        match self {
            Self::RollBack {
                what: Back::Everything | Back::Source,
            }
            | Self::RollBackOne { .. } => Takes::BehindTheCopy,
            Self::Recreate => Takes::Everything,
            // A purge takes messages as well, and no bridge halts for that: it has to name or count them.
            Self::Purge
            | Self::RollBack { what: Back::Ledger }
            | Self::FlipBit { .. }
            | Self::CutLog { .. }
            | Self::KillNode { .. }
            | Self::FreezeNode { .. }
            | Self::KillInstance { .. }
            | Self::FreezeInstance { .. }
            | Self::KillHub { .. }
            | Self::FreezeHub { .. }
            | Self::Link { .. }
            | Self::Route { .. }
            | Self::ProducerLink { .. }
            | Self::StepDown { .. }
            | Self::ForgetConsumer
            | Self::ResetConsumer { .. }
            | Self::DeleteConsumer { .. }
            | Self::FillDisk { .. }
            | Self::FailSync { .. }
            | Self::DamageBatch { .. } => Takes::Nothing,
        }
    }

    /// Whether it is over as soon as it is done, though its step lasts.
    pub(crate) fn is_momentary(self) -> bool {
        matches!(self, Self::Purge | Self::Recreate)
    }

    /// Who suffers it: two faults with one victim do not overlap.
    fn victim(self) -> String {
        match self {
            Self::KillNode { node }
            | Self::FreezeNode { node }
            | Self::FillDisk { node }
            | Self::FailSync { node }
            | Self::DamageBatch { node, .. }
            | Self::FlipBit { node, .. }
            | Self::CutLog { node, .. } => format!("node {node}"),
            Self::KillInstance { instance } | Self::FreezeInstance { instance } => {
                format!("instance {instance}")
            }
            Self::KillHub { server } | Self::FreezeHub { server } => format!("server {server}"),
            Self::Link { node, server, .. } => format!("link {node} {server}"),
            Self::Route { from, to, .. } => format!("route {from} {to}"),
            Self::ProducerLink { server, .. } => format!("producer {server}"),
            Self::StepDown { .. } => "leader".to_owned(),
            Self::ForgetConsumer | Self::ResetConsumer { .. } | Self::DeleteConsumer { .. } => {
                "consumer".to_owned()
            }
            Self::RollBack { .. } | Self::RollBackOne { .. } | Self::Purge | Self::Recreate => {
                "hub".to_owned()
            }
        }
    }
}

impl How {
    fn any(rng: &mut Rng) -> Self {
        match rng.below(7) {
            0 => Self::Cut,
            1 => Self::Refuse,
            2 => Self::Stall,
            3 => Self::Swallow,
            4 => Self::SwallowRequests,
            5 => Self::SwallowReplies,
            _ => Self::Delay(10 + rng.below(400) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    // Goal: a seed tells the whole run, every kind is met, and no victim suffers two faults at once. Method: many seeds.
    use super::*;

    fn wish(seed: u64, clustered: bool) -> Wish {
        Wish {
            seed,
            time: Duration::from_secs(120),
            clustered,
            resets: true,
            kinds: Kind::within_promise(),
        }
    }

    #[test]
    fn a_seed_tells_the_run() {
        assert_eq!(Plan::new(&wish(7, true)), Plan::new(&wish(7, true)));
        assert_ne!(Plan::new(&wish(7, true)), Plan::new(&wish(8, true)));
    }

    #[test]
    fn victims_suffer_one_fault_at_a_time_and_every_kind_is_met() {
        let mut met = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let plan = Plan::new(&wish(seed, true));
            assert!(plan.last.is_none() && plan.promise == Promise::ExactlyOnce);
            for (number, step) in plan.steps.iter().enumerate() {
                met.insert(step.kind);
                let same = |other: &&Step| other.fault.victim() == step.fault.victim();
                for later in plan.steps[number + 1..].iter().filter(same) {
                    assert!(later.at > step.at + step.lasts, "{step} and {later}");
                }
                if let Fault::Route { from, to, .. } = step.fault {
                    assert_ne!(from, to);
                }
            }
        }
        assert_eq!(met.len(), Kind::within_promise().len());
    }

    #[test]
    fn a_server_that_cannot_reset_a_consumer_is_not_asked_to() {
        let mut wish = wish(5, true);
        let resets = |wish: &Wish| {
            let steps = Plan::new(wish).steps;
            steps.iter().any(|step| step.kind == Kind::ResetConsumer)
        };
        assert!(resets(&wish));
        wish.resets = false;
        assert!(!resets(&wish));
    }

    #[test]
    fn a_single_server_has_no_cluster_faults_and_what_breaks_comes_last() {
        let mut wish = wish(3, false);
        assert!(
            Plan::new(&wish)
                .steps
                .iter()
                .all(|step| !step.kind.needs_cluster())
        );
        wish.kinds.push(Kind::RollBack);
        let plan = Plan::new(&wish);
        assert!(plan.steps.iter().all(|step| !step.kind.breaks()));
        assert_eq!(plan.last.map(|step| step.kind), Some(Kind::RollBack));
        assert_eq!(plan.promise, Promise::Listed);
    }
}
