//! What an application says on a call.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fanin_fuzz::judges::requests::requests_of(bytes));
