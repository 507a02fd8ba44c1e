//! Goal: the simulation is not too kind, and a gate that fails can be seen to fail. Method: a few rules that it misses within a
//! few seeds are switched off, one at a time; each must lead to a violation, and the same seeds hold with every rule on.
//! `cargo xtask mutation-gate` does this with every rule, and the model's tests with those that it notices.

use std::collections::BTreeSet;

use fanin_core::mutants::ENABLED;
use fanin_sim::mutants::{Expected, ROWS, short};

/// Seeds that each of these mutants may take.
const SEEDS: u64 = 8;

/// Mutants that show within a few seeds: of the node's machine, the disk, the hub's words, and its
/// identity.
const QUICK: [&str; 6] = [
    "ClaimsUnsynced",
    "LastClaimWins",
    "DropsStagedAtStart",
    "SettlesOnArrival",
    "ConfirmsUnsynced",
    "SharedNonce",
];

/// One test for all: a mutant of the core is switched on for the whole process.
#[test]
fn rules_that_are_missed_at_once() {
    const { assert!(ENABLED, "mutants need a build with debug assertions") };
    for name in QUICK {
        let row = ROWS
            .iter()
            .find(|row| row.mutant.name() == name)
            .unwrap_or_else(|| panic!("{name} is no mutant"));
        let hunt = row.hunt(1, SEEDS, None, None).unwrap();
        let (seed, kind, what) = hunt
            .found
            .unwrap_or_else(|| panic!("{name}: nothing within {SEEDS} seeds"));
        println!(
            "{name}: seed {seed} ({}), {:.1} s: {}",
            kind.word(),
            hunt.took.as_secs_f64(),
            short(&what)
        );
        // The rule is what is missed: with it the same plan holds.
        assert_eq!(hunt.without, None, "{name}");
    }
}

/// Every row says what is expected, and no mutant stands in two rows.
#[test]
fn each_mutant_has_one_row() {
    let names: BTreeSet<String> = ROWS.iter().map(|row| row.mutant.name()).collect();
    assert_eq!(names.len(), ROWS.len());
    let reasons = ROWS.iter().filter_map(|row| match row.expected {
        Expected::Found => None,
        Expected::Harmless(why) | Expected::ModelOnly(why) => Some(why),
    });
    assert!(reasons.into_iter().all(|why| !why.is_empty()));
}
