//! The local log's files: input is a sequence of faults in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fanin_fuzz::judges::log::log_of(bytes));
