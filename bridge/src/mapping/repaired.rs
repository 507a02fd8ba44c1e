//! Joining a ledger that an operator's repair has begun, or is about to.

use fanin_core::record::NodeState;
use fanin_hub::LedgerError;
use fanin_hub::port::LedgerStream;

use super::disk::Epochs;
use super::join::{JoinContext, JoinError, SHORT_READS_MAX, pause, read_checkpoint};

/// A ledger that cannot be used, as the mapping tells about it.
pub(super) fn of_ledger(error: LedgerError) -> JoinError {
    // A repair seals the ledger before it takes it away.
    if let LedgerError::Differs { stream, mismatches } = &error
        && mismatches.iter().any(|mismatch| mismatch.setting == "sealed")
    {
        let stream = stream.clone();
        return JoinError::LedgerUnfinished { stream };
    }
    error.into()
}

/// A repaired ledger begins far behind 1, with a checkpoint. Before that is complete nothing may be appended. And in it no
/// EPOCH tells who holds a name, so a node that has none there yet asks the checkpoint.
pub(super) async fn check(
    context: &JoinContext<'_>,
    ledger: &dyn LedgerStream,
    epochs: &Epochs,
) -> Result<(), JoinError> {
    if ledger.info().await?.first_seq <= 1 || epochs.ledger_created_ns == ledger.created_ns() {
        return Ok(());
    }
    let mut stale_reads = 0;
    let complete = loop {
        match read_checkpoint(ledger).await? {
            Some(found) => break found,
            None if stale_reads >= SHORT_READS_MAX => {
                let stream = ledger.stream().to_owned();
                return Err(JoinError::LedgerUnfinished { stream });
            }
            None => {}
        }
        tokio::time::sleep(pause(stale_reads)).await;
        stale_reads += 1;
    };
    // One that cannot be loaded is met again by the fold, which halts on it.
    let Ok(fold) = complete.load() else { return Ok(()) };
    let holder = fold.nodes().iter().find(|(uuid, node)| {
        **uuid != context.uuid
            && node.name == context.options.node
            && matches!(node.state, NodeState::Active | NodeState::Draining)
    });
    match holder {
        Some((_, node)) => Err(JoinError::IdentityConflict {
            node: context.options.node.clone(),
            same_uuid: false,
            epoch: node.epoch,
            state: node.state,
        }),
        None => Ok(()),
    }
}
