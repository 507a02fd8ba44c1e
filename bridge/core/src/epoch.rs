//! What to do when the compare-and-set of an EPOCH record fails (P8).

use std::collections::BTreeSet;

use crate::ids::{LedgerSeq, NodeUuid, Nonce};
use crate::record::{EpochRecord, NodeState};

/// The decision after a failed compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The last record is one this disk wrote and never heard of: it is ours. Try again on top of it, with a new nonce.
    Adopt(LedgerSeq),
    /// An earlier data directory of that name left in order or was evacuated: a fresh one may follow it.
    Succeed(LedgerSeq),
    /// Two bodies use one identity: refuse to start.
    Refuse {
        /// Whether the other has the same data directory identity (a copy), or only the same name.
        same_uuid: bool,
        /// Its epoch.
        epoch: LedgerSeq,
        /// Its state.
        state: NodeState,
    },
}

/// Decides. `last` is the last record on the node's epoch subject, at `at`; `intents` are nonces this disk wrote before
/// sending and never confirmed; `fresh` says that this disk never had an epoch in this ledger.
#[must_use]
pub fn on_conflict(
    last: &EpochRecord,
    at: LedgerSeq,
    uuid: NodeUuid,
    intents: &BTreeSet<Nonce>,
    fresh: bool,
) -> Conflict {
    if last.node_uuid == uuid && intents.contains(&last.nonce) && last.state == NodeState::Active {
        return Conflict::Adopt(at);
    }
    let left = matches!(last.state, NodeState::Closed | NodeState::Evacuated);
    if last.node_uuid != uuid && left && fresh {
        return Conflict::Succeed(at);
    }
    Conflict::Refuse {
        same_uuid: last.node_uuid == uuid,
        epoch: at,
        state: last.state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uuid: u128, nonce: u64, state: NodeState) -> EpochRecord {
        EpochRecord {
            node_uuid: NodeUuid(uuid),
            nonce: Nonce(nonce),
            state,
            ..EpochRecord::default()
        }
    }

    /// Goal: only an own, unconfirmed record is adopted ("P8 epoch without intent: stuck" of the model). Method: table.
    #[test]
    fn table() {
        let intents = BTreeSet::from([Nonce(7)]);
        let at = LedgerSeq(9);
        let decide = |record: &EpochRecord, fresh| on_conflict(record, at, NodeUuid(1), &intents, fresh);
        assert_eq!(
            decide(&record(1, 7, NodeState::Active), false),
            Conflict::Adopt(at)
        );
        let refused = |same_uuid, state| Conflict::Refuse {
            same_uuid,
            epoch: at,
            state,
        };
        assert_eq!(
            decide(&record(1, 8, NodeState::Active), false),
            refused(true, NodeState::Active)
        );
        assert_eq!(
            decide(&record(2, 7, NodeState::Active), true),
            refused(false, NodeState::Active)
        );
        assert_eq!(
            decide(&record(2, 7, NodeState::Closed), true),
            Conflict::Succeed(at)
        );
        assert_eq!(
            decide(&record(2, 7, NodeState::Evacuated), true),
            Conflict::Succeed(at)
        );
        assert_eq!(
            decide(&record(2, 7, NodeState::Evacuated), false),
            refused(false, NodeState::Evacuated)
        );
        assert_eq!(
            decide(&record(1, 7, NodeState::Evacuated), false),
            refused(true, NodeState::Evacuated)
        );
    }
}
