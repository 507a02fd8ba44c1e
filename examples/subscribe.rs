//! subscribe
fn main() {}
