//! What an all-knowing reader knows: every record that ever landed, folded in order, and everything published.

use std::collections::BTreeMap;

use fanin_core::fold::{ClaimKey, Fold, Folded};
use fanin_core::ids::{Incarnation, LedgerSeq, Offset, StreamSeq, TermsVersion, Tick};
use fanin_core::record::Terms;
use fanin_core::seq_set::SeqSet;

use super::hub::{INC, Source};

/// A valid claim as it was decided.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) won: SeqSet,
    pub(crate) lost: SeqSet,
    pub(crate) terms: TermsVersion,
    pub(crate) landed: Tick,
}

/// The whole history.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) fold: Fold,
    /// The canonical state at every position (I4, I11).
    pub(crate) states: BTreeMap<LedgerSeq, Vec<u8>>,
    pub(crate) decided: BTreeMap<ClaimKey, Decided>,
    /// Every owner ever, also below W.
    pub(crate) owner_of: BTreeMap<(Incarnation, u64), ClaimKey>,
    pub(crate) terms: BTreeMap<TermsVersion, Terms>,
    /// A record that nobody can fold landed: from there on there is no truth.
    pub(crate) ended: bool,
}

impl Truth {
    /// Takes a landed record in. Panics when I1, I2, I3 or I10 breaks.
    pub(crate) fn take(&mut self, now: Tick, at: LedgerSeq, subject: &str, bytes: &[u8], source: &Source) {
        if self.ended {
            return;
        }
        let before = self.fold.clone();
        let Ok(folded) = self.fold.apply(at, subject, bytes) else {
            self.ended = true;
            return;
        };
        fanin_core::invariants::check_fold(&self.fold).expect("a consistent fold");
        match folded {
            Folded::Claim { key, won, lost } => {
                for seq in won.iter() {
                    let other = self.owner_of.insert((INC, seq), key);
                    assert_eq!(other, None, "I1, I2: message {seq} has a second owner at {at}");
                }
                let terms = self.fold.terms().version;
                assert!(
                    self.decided
                        .insert(
                            key,
                            Decided {
                                won,
                                lost,
                                terms,
                                landed: now
                            }
                        )
                        .is_none()
                );
            }
            Folded::Closed {
                incarnation,
                from,
                through,
            } => {
                assert!(through > from, "I3");
                for seq in (from.0 + 1..=through.0).filter(|_| incarnation == INC) {
                    let claimed = self.owner_of.contains_key(&(INC, seq));
                    let hole = !source.offers(before.terms(), seq);
                    assert!(
                        claimed || hole,
                        "I10: W passes message {seq}, which exists and which nobody claimed"
                    );
                }
            }
            Folded::Terms(version) => {
                assert!(version > before.terms().version, "I3");
                self.terms.insert(version, self.fold.terms().clone());
            }
            Folded::Epoch { uuid, .. } => {
                let earlier = before
                    .nodes()
                    .get(&uuid)
                    .map(|entry| entry.epoch)
                    .unwrap_or_default();
                assert!(self.fold.nodes()[&uuid].epoch > earlier, "I3");
            }
            Folded::Genesis
            | Folded::ClaimRepeated(_)
            | Folded::ClaimVoid(..)
            | Folded::CloseVoid
            | Folded::Progress(_)
            | Folded::Checkpoint { .. }
            | Folded::Repeat => {}
        }
        self.states.insert(at, self.fold.encode());
    }

    /// Whether the hub may be told to forget a message: claimed so long ago, or finished business (I9).
    pub(crate) fn may_settle(&self, now: Tick, seq: u64, age_ms: u64) -> bool {
        if StreamSeq(seq) <= self.fold.closed(INC) {
            return true;
        }
        let decided = self
            .owner_of
            .get(&(INC, seq))
            .and_then(|key| self.decided.get(key));
        decided.is_some_and(|decided| now.since(decided.landed) >= age_ms)
    }
}

/// One message made visible to one application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) body: usize,
    pub(crate) key: ClaimKey,
    pub(crate) offset: Offset,
}

/// Everything ever made visible: application and source sequence to where.
pub(crate) type Published = BTreeMap<(String, u64), Vec<Publication>>;
