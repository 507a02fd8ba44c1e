//! The `fanin` binary.
fn main() {}
