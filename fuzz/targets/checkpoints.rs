//! Checkpoints: states, whole and in parts.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fanin_fuzz::judges::ledger::checkpoint_of(bytes));
