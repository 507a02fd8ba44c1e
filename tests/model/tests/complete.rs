//! Goal: in every ordinary configuration no invariant breaks in any reachable state, and from the sampled ones a fair run
//! publishes everything. Method: each is explored completely; a limit that cuts one off fails it.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "state counts are part of the result; a panic is the failure"
)]

use fanin_model::configs::{CI, named};
use fanin_model::run::{Limits, Outcome, explore, explore_shortest};
use fanin_model::setup::Setup;

/// States generated at most by one configuration here: the rest belongs to the large ones.
const STATES_MAX: usize = 2_000_000;

/// States generated at most by each run of all faults together.
const TOGETHER_STATES_MAX: usize = 50_000;

/// The configurations in a few tests of like length, so that two cores are busy.
const SHARES: [&[&str]; 4] = [
    &[
        "claims",
        "resend",
        "restart",
        "cold",
        "close",
        "holes",
        "filters",
        "four-close",
    ],
    &["claims-unreduced", "disk", "checkpoint", "apps"],
    &[
        "lazy-purge",
        "lazy-unwitnessed",
        "copy",
        "four-copy",
        "evacuation",
        "stranger",
        "recreated",
        "reused",
        "four",
    ],
    &["checkpoints", "parts", "lazy"],
];

fn explore_all(names: &[&str]) {
    for &name in names {
        let config = named(name).expect("a configuration of that name");
        let setup = Setup {
            config,
            mutant: None,
            blind: &[],
        };
        let limits = Limits {
            states_max: Some(STATES_MAX),
            ..Limits::default()
        };
        let report = explore_shortest(setup, limits);
        let seconds = report.took.as_secs_f64();
        println!(
            "{name}: {} states, {} unique, depth {}, {seconds:.1} s",
            report.states, report.unique, report.depth
        );
        assert_eq!(report.outcome, Outcome::Complete, "{name}");
    }
}

#[test]
fn claims_and_watermarks() {
    explore_all(SHARES[0]);
}

#[test]
fn disks_and_purges() {
    explore_all(SHARES[1]);
}

#[test]
fn operators_and_copies() {
    explore_all(SHARES[2]);
}

#[test]
fn checkpoints_and_power() {
    explore_all(SHARES[3]);
}

/// Goal: all faults together, four messages, break nothing either. Method: the two configurations that are too large to be
/// complete, as far as a test may go, once broadly and once deeply.
#[test]
fn everything_for_a_while() {
    for name in ["everything", "lies"] {
        for depth_first in [false, true] {
            let config = named(name).expect("a configuration of that name");
            let setup = Setup {
                config,
                mutant: None,
                blind: &[],
            };
            let limits = Limits {
                states_max: Some(TOGETHER_STATES_MAX),
                depth_first,
                ..Limits::default()
            };
            let report = explore(setup, limits);
            let seconds = report.took.as_secs_f64();
            println!(
                "{name}: {} states, depth {}, {seconds:.1} s",
                report.states, report.depth
            );
            assert_eq!(report.outcome, Outcome::Bounded, "{name}");
        }
    }
}

/// Goal: no configuration is forgotten. Method: the shares together are the list.
#[test]
fn every_configuration_is_explored() {
    let mut shared: Vec<_> = SHARES.iter().flat_map(|share| share.iter().copied()).collect();
    let mut listed: Vec<_> = CI.iter().map(|config| config.name).collect();
    shared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(shared, listed);
}

/// Goal: a run is the same every time. Method: one configuration twice, compared number by number.
#[test]
fn a_run_is_repeatable() {
    let run = || {
        let config = named("claims").expect("a configuration of that name");
        let setup = Setup {
            config,
            mutant: None,
            blind: &[],
        };
        let report = explore_shortest(setup, Limits::default());
        (report.states, report.unique, report.depth)
    };
    assert_eq!(run(), run());
}
