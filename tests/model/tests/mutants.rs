//! Goal: every protocol rule is needed, and the model is not too kind to notice. Method: one rule at a time is switched off,
//! and the configuration named beside it must find a broken invariant; a rule that another one covers must be harmless in the
//! whole configuration, with the reason in the table.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "state counts are part of the result; a panic is the failure"
)]

use fanin_core::mutants::ENABLED;
use fanin_model::mutants::{Expected, ROWS};
use fanin_model::run::{Limits, explore};

/// One test for all: a mutant of the core is switched on for the whole process.
#[test]
fn every_mutant_ends_as_the_table_says() {
    const { assert!(ENABLED, "mutants need a build with debug assertions") };
    let mut unexpected = Vec::new();
    for row in ROWS {
        let setup = row.setup().expect("a configuration of that name");
        let report = explore(setup, Limits::default());
        let seconds = report.took.as_secs_f64();
        let name = row.mutant.name();
        println!(
            "{}, {name} in {}: {} states, {seconds:.1} s",
            row.rule, row.config, report.unique
        );
        if !row.is_as_expected(&report.outcome) {
            unexpected.push(format!("{name} in {}: {:?}", row.config, report.outcome));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

/// Goal: no rule and no attack is left out. Method: P1 to P11 and B1 to B20 each stand in a row whose mutant is found.
#[test]
fn every_rule_and_attack_has_a_mutant() {
    let words = |rule: &str| rule.split([' ', ';', ',']).map(str::to_owned).collect::<Vec<_>>();
    let found = ROWS.iter().filter(|row| row.expected == Expected::Found);
    let named: Vec<String> = found.flat_map(|row| words(row.rule)).collect();
    let rules = (1..=11).map(|n| format!("P{n}"));
    let attacks = (1..=20).map(|n| format!("B{n}"));
    let missing: Vec<_> = rules
        .chain(attacks)
        .filter(|name| !named.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
