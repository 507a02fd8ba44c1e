//! What the admin endpoint asks the node.

use std::time::Duration;

use crate::serve::StatusSource;

/// How one aspect of the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// In order.
    Pass,
    /// Not in order, and the node must not be called ready.
    Fail,
    /// Not in order, but applications can work: the hub is away, a mapping is gated or full.
    Condition,
}

/// One aspect of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A short name without blanks, such as `store` or `ledger/orders`.
    pub name: String,
    /// How it is.
    pub state: CheckState,
    /// Why, with its code when something is wrong; may be empty.
    pub detail: String,
}

impl Check {
    /// A check that passed.
    #[must_use]
    pub fn pass(name: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            state: CheckState::Pass,
            detail: String::new(),
        }
    }

    /// A check that makes the node unready.
    #[must_use]
    pub fn fail(name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            state: CheckState::Fail,
            detail: detail.into(),
        }
    }

    /// Something an operator should see that leaves the node ready.
    #[must_use]
    pub fn condition(name: impl Into<String>, detail: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            state: CheckState::Condition,
            detail: detail.into(),
        }
    }
}

/// The node, as the admin endpoint sees it.
pub trait Health: StatusSource {
    /// How long ago the loop that has stood still for the longest last moved. Zero when nothing runs yet.
    fn stalled_for(&self) -> Duration;

    /// Every aspect that readiness rests on: store writable, ledger joined per mapping, socket serving; and the
    /// conditions, the hub's absence among them. Must not block.
    fn checks(&self) -> Vec<Check>;

    /// Whether the local log failed, so that the process has to end.
    fn is_poisoned(&self) -> bool;

    /// Brings the gauges up to date that are looked up rather than counted; called before metrics are read.
    fn observe(&self);
}
