//! pull_batch
fn main() {}
