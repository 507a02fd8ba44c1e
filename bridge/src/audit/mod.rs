//! The guarantee, recomputed from outside: the ledger is folded anew from the hub, and what it says is compared with what every
//! reachable node holds. Nothing is changed anywhere, but by what an operator's repair does with [`repair`].
//!
//! | part | what it does |
//! |---|---|
//! | [`ledger`] | reads and folds a mapping's ledger as every bridge does |
//! | [`nodes`] | asks nodes what they hold |
//! | [`filed`] | what a node holds, in a file |
//! | [`gaps`] | finds messages below the consumer's acknowledgement floor that nobody claimed |
//! | [`judge`] | compares; no I/O |
//! | [`accounts`] | what applications are owed, have finished and wait for |
//! | [`finding`] | what can be wrong |
//! | [`backup`] | a ledger's records in a file, and back |
//! | [`repair`] | what is known of a damaged ledger, and the state to begin another with |
//! | [`source`] | up to where a source holds what was claimed before it was restored or created again |
//! | [`trace`] | one message: where it is, for each application, and what is wrong about it |

pub(crate) mod accounts;
pub mod backup;
pub mod filed;
pub mod finding;
pub mod gaps;
pub mod judge;
pub mod ledger;
pub mod limits;
pub mod nodes;
pub mod repair;
pub mod source;
pub mod trace;

pub use finding::Finding;
pub use judge::{AppTotals, Report, judge};
pub use ledger::{AuditError, Folded, read_ledger};
pub use nodes::{NodeError, NodeView, ask_node};
