//! Exhaustive model checking of `fanin-core`: real nodes, a hub at its worst, disks that forget what was not synced, and
//! every order of steps that a configuration allows.
//!
//! Read `setup` (what is explored), `world` (the state, and what a node's effects do to it), `actions` (the steps),
//! `properties` and `guard` (what must hold), `heal` (liveness), `configs` and `mutants` (what is run).

mod action_text;
pub mod actions;
pub mod bridge;
pub mod configs;
pub mod configs_large;
mod guard;
mod heal;
pub mod hub;
mod lives;
pub mod mutants;
pub mod properties;
mod reuse;
pub mod run;
pub mod setup;
pub mod truth;
pub mod world;
