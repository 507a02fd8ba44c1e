//! The mutation gate: every protocol rule (P1 to P11) and every attack of the protocol's review (B1 to B20) has a switch in
//! test builds that turns its rule off; the simulation or the model must then find a violation. `docs/mutants.md` holds what
//! `cargo xtask mutation-gate` prints.
//!
//! | part | what it does |
//! |---|---|
//! | [`entries`] | the tables of simulation and model, one entry for each mutant |
//! | [`verdict`] | one entry run in both, and what came of it |
//! | [`table`] | the result as Markdown: by mutant, and by rule and attack |

pub mod entries;
pub mod table;
pub mod verdict;
