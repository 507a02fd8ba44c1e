//! Which process is killed or frozen when: a plan from a seed, tied to the progress of the feed rather than to time.

use std::time::Duration;

use super::limits::{DOWN_MAX, DOWN_MIN, PAUSE, PAUSE_QUICK};
use super::rng::Rng;

/// What happens to one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// SIGKILL of a bridge, started again after `down`.
    KillBridge {
        /// Index of the node.
        node: usize,
        /// How long it stays away.
        down: Duration,
    },
    /// SIGSTOP of a bridge, SIGCONT after `frozen`: longer than the hub waits for its answers.
    PauseBridge {
        /// Index of the node.
        node: usize,
        /// How long it is frozen.
        frozen: Duration,
    },
    /// SIGKILL of an instance, started again after `down`.
    KillInstance {
        /// Index of the instance, over all nodes and applications.
        instance: usize,
        /// How long it stays away.
        down: Duration,
    },
}

/// A blow and when it falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Thousandths of the input that are fed by then.
    pub(crate) at_permille: u64,
    pub(crate) blow: Blow,
}

/// The plan of one run, in order.
pub(crate) fn plan(seed: u64, quick: bool, nodes: usize, instances: usize) -> Vec<Fault> {
    let mut rng = Rng::new(seed ^ 0xfa11_fa11_fa11_fa11);
    let (bridge_kills, instance_kills, frozen) = if quick { (3, 3, PAUSE_QUICK) } else { (5, 6, PAUSE) };
    let index = |value: u64| usize::try_from(value).unwrap_or(0);
    // Node after node from a random one, so that the kills hit all of them.
    let first = index(rng.below(nodes as u64));
    let mut faults = vec![Fault {
        at_permille: 150,
        blow: Blow::PauseBridge {
            node: first % nodes.max(1),
            frozen,
        },
    }];
    for (kills, of_bridges) in [(bridge_kills, true), (instance_kills, false)] {
        for kill in 0..kills {
            // One kill in each of equal parts between 100 and 900 thousandths.
            let part = 800 / kills;
            let at_permille = 100 + kill * part + rng.below(part);
            let down =
                Duration::from_millis(rng.within(DOWN_MIN.as_millis() as u64, DOWN_MAX.as_millis() as u64));
            let blow = if of_bridges {
                Blow::KillBridge {
                    node: (first + 1 + index(kill)) % nodes.max(1),
                    down,
                }
            } else {
                Blow::KillInstance {
                    instance: index(rng.below(instances as u64)),
                    down,
                }
            };
            faults.push(Fault { at_permille, blow });
        }
    }
    faults.sort_by_key(|fault| fault.at_permille);
    faults
}

#[cfg(test)]
mod tests {
    // Goal: a seed is a plan that does what the demo promises. Method: many seeds.
    use super::*;

    #[test]
    fn every_plan_kills_and_freezes_enough_while_the_feed_runs() {
        for seed in 0..500 {
            for quick in [false, true] {
                let faults = plan(seed, quick, 3, 18);
                assert_eq!(faults, plan(seed, quick, 3, 18));
                let count = |is: fn(&Blow) -> bool| faults.iter().filter(|fault| is(&fault.blow)).count();
                assert!(count(|blow| matches!(blow, Blow::KillBridge { node: 0..3, .. })) >= 3);
                assert!(count(|blow| matches!(blow, Blow::KillInstance { instance: 0..18, .. })) >= 3);
                assert_eq!(
                    count(|blow| matches!(blow, Blow::PauseBridge { node: 0..3, .. })),
                    1
                );
                assert!(faults.iter().all(|fault| (50..950).contains(&fault.at_permille)));
                let nodes: std::collections::BTreeSet<usize> = faults
                    .iter()
                    .filter_map(|fault| match fault.blow {
                        Blow::KillBridge { node, .. } => Some(node),
                        Blow::PauseBridge { .. } | Blow::KillInstance { .. } => None,
                    })
                    .collect();
                assert_eq!(nodes.len(), 3, "every bridge is killed at least once");
            }
        }
        assert_ne!(plan(1, false, 3, 18), plan(2, false, 3, 18));
    }
}
