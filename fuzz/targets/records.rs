//! Ledger records and the sets in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fanin_fuzz::judges::records(bytes));
