//! Makes a failing plan smaller, under the same seed, until nothing can be taken away any more.

use crate::plan::Plan;
use crate::schedule::{Outcome, run};

/// Runs tried at most.
const TRIES_MAX: usize = 200;

/// Plans a step smaller, the boldest steps first.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut out = Vec::new();
    let kinds: Vec<_> = plan.rates.keys().copied().collect();
    let half = kinds.len() / 2;
    if half > 1 {
        for part in [&kinds[..half], &kinds[half..]] {
            let mut less = plan.clone();
            less.rates.retain(|fault, _| !part.contains(fault));
            out.push(less);
        }
    }
    let mut number = |value: u64, least: u64, change: fn(&mut Plan, u64)| {
        for less in [least, value / 2, value.saturating_sub(1)] {
            if less >= least && less < value {
                let mut plan = plan.clone();
                change(&mut plan, less);
                out.push(plan);
            }
        }
    };
    number(plan.messages, 1, |plan, n| plan.messages = n);
    number(plan.seconds, 10, |plan, n| plan.seconds = n);
    number(plan.nodes, 1, |plan, n| plan.nodes = n);
    number(plan.apps, 1, |plan, n| plan.apps = n);
    number(plan.instances, 1, |plan, n| plan.instances = n);
    for fault in kinds {
        let mut less = plan.clone();
        less.rates.remove(&fault);
        out.push(less);
    }
    if plan.filtered || plan.gated {
        let mut less = plan.clone();
        (less.filtered, less.gated) = (false, false);
        out.push(less);
    }
    out
}

/// What kind of violation came first: the words before its first colon.
fn sort(outcome: &Outcome) -> Option<&str> {
    let first = outcome.violations.first()?;
    first.split(':').next()
}

/// The smallest plan found that still fails in the same way, with its outcome.
///
/// # Errors
/// When no runtime can be made.
pub fn shrink(seed: u64, plan: &Plan, outcome: Outcome) -> std::io::Result<(Plan, Outcome)> {
    let (mut plan, mut outcome) = (plan.clone(), outcome);
    if outcome.violations.is_empty() {
        return Ok((plan, outcome));
    }
    let mut tries = 0;
    'again: loop {
        for less in smaller(&plan) {
            if tries >= TRIES_MAX {
                return Ok((plan, outcome));
            }
            tries += 1;
            let tried = run(seed, &less, false)?;
            if sort(&tried) == sort(&outcome) {
                (plan, outcome) = (less, tried);
                continue 'again;
            }
        }
        return Ok((plan, outcome));
    }
}
