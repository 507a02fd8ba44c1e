//! Goal: no rule and no attack is left out of the gate, no mutant of the core is forgotten, and the gate can fail. Method: the
//! tables are read; one mutant that the model notices in a second is run, and the same verdict is judged against a table that
//! says otherwise.

use fanin_core::mutants::ENABLED;
use fanin_gate::entries::{Entry, entries, wanted};
use fanin_gate::table::{Index, lines};
use fanin_gate::verdict::{Effort, run};
use fanin_model::mutants::{Expected, ROWS, Row};

/// No seeds: the model alone.
const MODEL: Effort = Effort {
    from: 1,
    seeds: 0,
    harmless_seeds: 0,
    time: None,
};

fn entry(name: &str) -> Entry {
    let found = entries().into_iter().find(|entry| entry.name == name);
    found.unwrap_or_else(|| panic!("there is no mutant {name}"))
}

#[test]
fn every_rule_and_attack_has_a_mutant_that_must_be_caught() {
    let all = entries();
    let caught = all.iter().filter(|entry| !entry.is_harmless());
    let named: Vec<String> = caught.flat_map(Entry::stands_for).collect();
    let missing: Vec<String> = wanted()
        .into_iter()
        .filter(|word| !named.contains(word))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_switch_of_the_core_stands_in_a_row() {
    let source = include_str!("../../../bridge/core/src/mutants.rs");
    let (_, rest) = source.split_once("pub enum Mutant {").unwrap();
    let (switches, _) = rest.split_once("\n}").unwrap();
    let all = entries();
    let mut seen = 0;
    for line in switches.lines().filter(|line| line.ends_with(',')) {
        let name = line.trim().split([' ', ',']).next().unwrap();
        if name.starts_with("//") {
            continue;
        }
        seen += 1;
        assert!(all.iter().any(|entry| entry.name == name), "{name} is in no row");
    }
    assert!(seen > 30, "{seen} switches");
}

#[test]
fn a_gate_that_finds_nothing_fails() {
    const { assert!(ENABLED, "mutants need a build with debug assertions") };
    let caught = entry("LastClaimWins");
    let verdict = run(&caught, MODEL).unwrap();
    assert!(verdict.in_model() && verdict.is_well(&caught));
    let mut index = Index::default();
    index.add(&caught, &verdict);
    assert!(!index.missing().contains(&"P2".to_owned()));
    assert!(index.missing().contains(&"P1".to_owned()));

    // The same without the model: nothing has caught it.
    let blind = Entry {
        models: Vec::new(),
        ..caught.clone()
    };
    let nothing = run(&blind, MODEL).unwrap();
    assert!(!nothing.is_caught() && !nothing.is_well(&blind));
    assert!(lines(&blind, &nothing).contains("NOT AS IT MUST"));
    let mut index = Index::default();
    index.add(&blind, &nothing);
    assert!(index.missing().contains(&"P2".to_owned()));

    // A table that calls it harmless is wrong.
    let harmless: &'static Row = Box::leak(Box::new(Row {
        expected: Expected::Harmless("nothing"),
        ..**caught.models.first().unwrap()
    }));
    let wrong = Entry {
        sim: None,
        models: vec![harmless],
        ..caught
    };
    assert!(!verdict.is_well(&wrong));
    assert!(ROWS.len() > 50);
}
