//! The protocol and the delivery rules of fanin: inputs in, effects out.
//!
//! No I/O, no clock, no threads, no randomness, no payloads, no dependencies. The same code decides in the bridge, in the
//! model checker and in the simulator.
//!
//! Read in this order: [`ids`] and [`record`] (what is said), [`fold`] (who owns what), [`batch`] and [`node`] (what one
//! bridge does about it), [`recovery`] (how it begins again), [`repair`] (a ledger that the hub lost, from what is left),
//! [`delivery`] (how one application gets its messages).
#![warn(missing_docs)]

pub mod batch;
pub mod checkpoint;
pub mod delivery;
pub mod effect;
pub mod epoch;
pub mod fold;
pub mod hash;
pub mod ids;
pub mod input;
pub mod invariants;
pub mod limits;
pub mod mutants;
pub mod node;
pub mod record;
pub mod recovery;
pub mod repair;
pub mod seq_set;
pub mod time_text;
pub mod wire;
