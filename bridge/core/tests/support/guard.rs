//! The invariants, checked after every step.

use fanin_core::effect::Effect;
use fanin_core::fold::ClaimKey;
use fanin_core::ids::StreamSeq;
use fanin_core::invariants;
use fanin_core::node::{Phase, Stability};
use fanin_core::record::Body as RecordBody;

use super::{INC, World};

impl World {
    /// What a node may ask for, given the phase it was in, and in the order in which it asks.
    pub(super) fn guard(&self, who: usize, before: &Phase, effects: &[Effect]) {
        assert!(
            !matches!(before, Phase::Fenced(_)) || effects.is_empty(),
            "I12: {effects:?} behind its own fence"
        );
        let mut acts = matches!(before, Phase::Active);
        for effect in effects {
            match effect {
                Effect::Joined(_) => acts = true,
                Effect::Halt(_) | Effect::Fence(_) => acts = false,
                Effect::Append { .. }
                | Effect::Audit { .. }
                | Effect::FetchRepair { .. }
                | Effect::Purge { .. }
                | Effect::Settle { .. }
                | Effect::SettleBySeq { .. }
                | Effect::Stage { .. } => {
                    assert!(acts, "I15, P8: {effect:?} from a node that was {before:?}");
                }
                Effect::Turned { settle, delay, .. } => {
                    assert!(
                        acts || (settle.is_empty() && delay.is_empty()),
                        "I15, P8: {effect:?} in {before:?}"
                    );
                }
                Effect::Resolve { .. } => {
                    assert!(
                        acts || matches!(before, Phase::Joining),
                        "I15: {effect:?} in {before:?}"
                    );
                }
                Effect::Fact(_)
                | Effect::LoadCheckpoint
                | Effect::PersistDone(_)
                | Effect::Release(_)
                | Effect::Tail { .. }
                | Effect::TermsInForce(_) => {}
            }
            self.guard_effect(who, effect);
        }
    }

    fn guard_effect(&self, who: usize, effect: &Effect) {
        let bridge = &self.bridges[who];
        let knows_truth = !self.truth.ended && !bridge.astray;
        if let Effect::Append { record, .. } = effect {
            let bytes = record.encode();
            assert_eq!(
                fanin_core::record::Record::decode(&bytes).as_ref(),
                Ok(&**record),
                "a record that nobody can read halts every bridge for good"
            );
        }
        match effect {
            Effect::Append { record, .. } => match &record.body {
                RecordBody::Claim(claim) => {
                    let kept = bridge.disk.image.batches.get(&claim.batch);
                    assert!(
                        kept.is_some_and(|kept| kept.seqs == claim.seqs && !kept.damaged),
                        "I6: {claim:?} without a durable stage"
                    );
                    assert_eq!(
                        self.node(who).ledger_short(),
                        None,
                        "{claim:?} into a nearly full ledger"
                    );
                }
                RecordBody::Progress(progress) => {
                    assert!(
                        bridge.disk.image.done.is_superset(&progress.done),
                        "{progress:?} is not durable"
                    );
                }
                RecordBody::Genesis(_)
                | RecordBody::Terms(_)
                | RecordBody::Epoch(_)
                | RecordBody::Handoff(_)
                | RecordBody::Close(_)
                | RecordBody::Checkpoint(_) => {}
            },
            Effect::Settle { batch, won } => {
                let resolution = bridge
                    .disk
                    .image
                    .batches
                    .get(batch)
                    .and_then(|kept| kept.resolution.as_ref());
                assert!(
                    resolution.is_some_and(|found| found.won == *won),
                    "I8: settles {batch} before it is published"
                );
            }
            Effect::Turned { settle: seqs, .. } | Effect::SettleBySeq { seqs, .. } if knows_truth => {
                for seq in seqs.iter() {
                    self.guard_settle(who, seq);
                }
            }
            Effect::Resolve { batch, won, .. } if knows_truth => {
                let key = ClaimKey {
                    node: bridge.uuid,
                    batch: *batch,
                };
                let decided = self.truth.decided.get(&key);
                let decided =
                    decided.unwrap_or_else(|| panic!("I5, I7: {key:?} is resolved without a valid claim"));
                assert_eq!(
                    decided.won, *won,
                    "I5, I7: {key:?} publishes other messages than it won"
                );
                for seq in decided.lost.iter() {
                    let other = self
                        .truth
                        .owner_of
                        .get(&(INC, seq))
                        .is_some_and(|&owner| owner != key);
                    assert!(
                        other || StreamSeq(seq) <= self.closed(),
                        "I7: {key:?} tombstones {seq} without a reason"
                    );
                }
            }
            Effect::Turned { .. }
            | Effect::SettleBySeq { .. }
            | Effect::Resolve { .. }
            | Effect::Audit { .. }
            | Effect::Fact(_)
            | Effect::Fence(_)
            | Effect::FetchRepair { .. }
            | Effect::Halt(_)
            | Effect::Joined(_)
            | Effect::LoadCheckpoint
            | Effect::PersistDone(_)
            | Effect::Purge { .. }
            | Effect::Release(_)
            | Effect::Stage { .. }
            | Effect::Tail { .. }
            | Effect::TermsInForce(_) => {}
        }
    }

    /// I8 for own messages met again, I9 for everybody else's. What is at or below W is finished business for its owner
    /// too (P6): its claim is stable and stays in the ledger until the batch is done.
    fn guard_settle(&self, who: usize, seq: u64) {
        let bridge = &self.bridges[who];
        let known = bridge
            .node
            .as_ref()
            .map(|node| node.fold().closed(INC))
            .unwrap_or_default();
        assert!(
            known <= self.closed(),
            "I3: node {who} knows a watermark that nobody wrote"
        );
        if StreamSeq(seq) <= known {
            return;
        }
        if let Some(key) = self
            .truth
            .owner_of
            .get(&(INC, seq))
            .filter(|key| key.node == bridge.uuid)
        {
            let kept = bridge.disk.image.batches.get(&key.batch);
            let visible = kept.is_none_or(|kept| kept.resolution.is_some());
            let reported = bridge.disk.image.done.contains(key.batch.0) || kept.is_some();
            assert!(
                visible && reported,
                "I8: message {seq} is settled before it is published"
            );
            return;
        }
        let age_ms = match bridge.policy.stability {
            Stability::SyncAlways => 0,
            Stability::After(ms) => ms,
        };
        assert!(
            self.truth.may_settle(self.now, seq, age_ms),
            "I9: message {seq} is settled, its claim is not stable"
        );
    }

    /// The state of one node, and its agreement with the truth (I4, I11).
    pub(super) fn check(&mut self, who: usize) {
        let Some(node) = &self.bridges[who].node else {
            return;
        };
        if matches!(node.phase(), Phase::Fenced(_)) {
            return;
        }
        if let Err(broken) = invariants::check(node) {
            panic!("node {who}: {broken}");
        }
        let position = node.fold().position();
        let bridge = &self.bridges[who];
        if position != bridge.checked && !bridge.astray {
            if let Some(state) = self.truth.states.get(&position) {
                assert!(
                    *state == node.fold().encode(),
                    "I4, I11: node {who} differs from the truth at {position}"
                );
            }
            for (other, peer) in self.bridges.iter().enumerate() {
                if let Some(peer) = peer.node.as_ref().filter(|_| other != who && !peer.astray) {
                    invariants::check_agree(node.fold(), peer.fold()).expect("I4");
                }
            }
            self.bridges[who].checked = position;
        }
    }
}
