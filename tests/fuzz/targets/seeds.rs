//! Goal: what the coverage-guided targets begin with, and what they once failed on, is judged in every ordinary test run. Method: every
//! file of `fuzz/seeds/` goes to the judge of its folder. `UPDATE_FUZZ_SEEDS=1` writes those that can be made again; the others were
//! found by libFuzzer and kept because they go far.

use std::fs;
use std::path::{Path, PathBuf};

use fanin_fuzz::judges::TARGETS;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Seeds made for a target.
const MADE: usize = 6;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target)
}

fn make(target: &str, seeds: impl Strategy<Value = Vec<u8>>) {
    let mut runner = TestRunner::deterministic();
    let folder = folder(target);
    fs::create_dir_all(&folder).unwrap();
    for number in 0..MADE {
        let seed = seeds.new_tree(&mut runner).unwrap().current();
        fs::write(folder.join(format!("made-{number}")), seed).unwrap();
    }
}

fn make_all() {
    make(
        "records",
        crate::records::record().prop_map(|record| record.encode()),
    );
    make("stage", crate::stage::seed());
    make("requests", crate::requests::conversation());
    make("hub", crate::hub::block());
    fs::create_dir_all(folder("config")).unwrap();
    for (name, text) in [
        ("minimal", include_str!("../../../config/samples/minimal.yaml")),
        ("tour", include_str!("../../../config/samples/tour.yaml")),
    ] {
        fs::write(folder("config").join(name), text).unwrap();
    }
}

#[test]
fn seeds_are_judged() {
    if std::env::var_os("UPDATE_FUZZ_SEEDS").is_some() {
        make_all();
    }
    for (target, judge) in TARGETS {
        let mut seeds: Vec<PathBuf> = fs::read_dir(folder(target))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for seed in seeds {
            // Shown only when the judge fails.
            eprintln!("{}", seed.display());
            judge(&fs::read(&seed).unwrap());
        }
    }
}

/// Goal: no target is without a file for libFuzzer, or the other way round. Method: the files of `fuzz/targets/` against the list.
#[test]
fn every_target_has_its_file() {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/targets")).unwrap();
    let mut found: Vec<String> = files
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let mut listed: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}
