//! Deterministic simulation: the real driver, core, topic and recovery on a simulated hub, disk, network and clock, with
//! simulated applications, all from one seed.
//!
//! Nothing of the bridge is copied. A node's life is `Mapping::restore` and `Mapping::run`; the hub stands behind the traits
//! of `fanin_hub::port`, the disk behind `fanin_store::Store`, time of day and chance behind `Ambient`. Everything runs on one
//! thread with a paused clock, so one seed and one plan give one history, byte by byte.
//!
//! | part | what it does |
//! |---|---|
//! | [`plan`] | what a run may do, drawn from its seed first |
//! | [`faults`] | every kind of trouble |
//! | [`schedule`] | one run: start, trouble, healing, rest |
//! | `judge` | what must hold while it runs, when it is at rest, and what has to be told |
//! | [`hub`] | streams, the shared consumer, ledgers, the network of each node |
//! | [`disk`], [`node`], [`apps`] | disks, lives of a node, instances of applications |
//! | [`truth`], [`oracle`] | what an all-knowing reader knows, and what the applications saw |
//! | [`mutants`] | rules switched off, one at a time |
//! | [`shrink`], [`report`] | the smallest plan that still fails; many seeds added up |
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    reason = "a harness: a fault or mutant that a part does not know is none of its business"
)]

pub mod apps;
mod breaking;
mod copies;
pub mod dice;
pub mod disk;
mod events;
pub mod faults;
pub mod hub;
mod judge;
pub mod logs;
pub mod losses;
pub mod mutants;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod report;
pub mod schedule;
pub mod shrink;
pub mod truth;
pub mod world;
