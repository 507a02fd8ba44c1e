//! The fold over a ledger: input is a sequence of steps of writers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fanin_fuzz::judges::ledger::fold_of(bytes));
