//! What an all-knowing reader knows: every record that ever landed, folded in order, and everything published.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use fanin_core::fold::{ClaimKey, Fold, Folded};
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq, TermsVersion};
use fanin_core::record::Terms;
use fanin_core::seq_set::SeqSet;

use crate::hub::{Entry, INC, Source};
use crate::properties::{Invariant, Violation};

/// A valid claim as it was decided.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What it won.
    pub won: SeqSet,
    /// What it did not win.
    pub lost: SeqSet,
    /// The terms it was valid under.
    pub terms: TermsVersion,
    /// When it landed.
    pub landed: u8,
    /// Publish times of its oldest and its newest message.
    pub published_ns: (i64, i64),
}

/// The whole history. It is a function of the records that landed, so their hash chain stands for it in a state's identity.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// The fold of every record.
    pub fold: Fold,
    /// Every record.
    pub history: BTreeMap<LedgerSeq, Entry>,
    /// Every valid claim.
    pub decided: BTreeMap<ClaimKey, Decided>,
    /// Every owner ever, also below W.
    pub owner_of: BTreeMap<(Incarnation, u64), ClaimKey>,
    /// Terms by version.
    pub terms: BTreeMap<TermsVersion, Terms>,
    /// What W passed without an owner, with the source's and the terms' consent.
    pub holes: BTreeSet<(Incarnation, u64)>,
    /// Where a record landed that nobody can fold.
    pub ended: Option<LedgerSeq>,
}

impl PartialEq for Truth {
    fn eq(&self, other: &Self) -> bool {
        self.fold.witness() == other.fold.witness() && self.ended == other.ended
    }
}

impl Eq for Truth {}

impl Hash for Truth {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fold.witness().hash(state);
        self.ended.hash(state);
    }
}

impl Truth {
    /// Takes a landed record in.
    ///
    /// # Errors
    /// I1, I2, I3 or I10 does not hold.
    pub(crate) fn take(
        &mut self,
        at: LedgerSeq,
        entry: &Entry,
        source: &Source,
        lazy: bool,
    ) -> Result<(), Violation> {
        self.history.insert(at, entry.clone());
        if self.ended.is_some() {
            return Ok(());
        }
        let before = (self.fold.terms().clone(), self.fold.watermarks().clone());
        let Ok(folded) = self.fold.apply(at, &entry.subject, &entry.bytes) else {
            self.ended = Some(at);
            return Ok(());
        };
        fanin_core::invariants::check_fold(&self.fold)
            .map_err(|text| Violation::new(Invariant::OneOwner, format!("the ledger at {at}: {text}")))?;
        match folded {
            Folded::Claim { key, won, lost } => self.decide(at, key, won, lost, entry.landed),
            Folded::Closed {
                incarnation, through, ..
            } => {
                let from = before.1.get(&incarnation).copied().unwrap_or_default();
                if through <= from {
                    return Err(Violation::new(
                        Invariant::OnlyGrows,
                        format!("W went from {from} to {through} at {at}"),
                    ));
                }
                self.check_close(at, incarnation, (from, through), &before.0, source)?;
                let landed = entry.landed;
                let owners =
                    (from.0 + 1..=through.0).filter_map(|seq| self.owner_of.get(&(incarnation, seq)));
                let mut fresh =
                    owners.filter(|key| self.decided.get(key).is_some_and(|found| found.landed >= landed));
                match fresh.next().filter(|_| lazy) {
                    Some(key) => Err(Violation::new(
                        Invariant::ClosesFinished,
                        format!("W passes a message of {key:?} at {at}, whose claim is not stable"),
                    )),
                    None => Ok(()),
                }
            }
            Folded::Terms(version) => {
                if version <= before.0.version {
                    return Err(Violation::new(
                        Invariant::OnlyGrows,
                        format!("terms {version} at {at}"),
                    ));
                }
                self.terms.insert(version, self.fold.terms().clone());
                Ok(())
            }
            Folded::Genesis
            | Folded::Epoch { .. }
            | Folded::ClaimRepeated(_)
            | Folded::ClaimVoid(..)
            | Folded::CloseVoid
            | Folded::Progress(_)
            | Folded::Checkpoint { .. }
            | Folded::Repeat => Ok(()),
        }
    }

    fn decide(
        &mut self,
        at: LedgerSeq,
        key: ClaimKey,
        won: SeqSet,
        lost: SeqSet,
        landed: u8,
    ) -> Result<(), Violation> {
        let entry = self.fold.claims().get(&key);
        let incarnation = entry.map_or(INC, |entry| entry.incarnation);
        let published_ns = entry.map(|entry| entry.published_ns).unwrap_or_default();
        for seq in won.iter() {
            if let Some(other) = self.owner_of.insert((incarnation, seq), key) {
                return Err(Violation::new(
                    Invariant::OneOwner,
                    format!("message {seq} has owner {other:?}, and {key:?} wins it at {at}"),
                ));
            }
        }
        let hosts = self.fold.nodes().get(&key.node).map(|node| &node.hosts);
        let unserved = self
            .fold
            .terms()
            .apps
            .keys()
            .find(|&app| hosts.is_some_and(|hosts| !hosts.contains(app)));
        if let Some(app) = unserved.filter(|_| !won.is_empty()) {
            let text = format!("{key:?} wins {won:?} at {at} in a life that does not host {app}");
            return Err(Violation::new(Invariant::ServesAll, text));
        }
        let terms = self.fold.terms().version;
        let decided = Decided {
            won,
            lost,
            terms,
            landed,
            published_ns,
        };
        match self.decided.insert(key, decided) {
            Some(_) => Err(Violation::new(
                Invariant::OwnerStays,
                format!("{key:?} is decided a second time at {at}"),
            )),
            None => Ok(()),
        }
    }

    fn check_close(
        &mut self,
        at: LedgerSeq,
        incarnation: Incarnation,
        (from, through): (StreamSeq, StreamSeq),
        terms: &Terms,
        source: &Source,
    ) -> Result<(), Violation> {
        for seq in (from.0 + 1..=through.0).filter(|_| incarnation == source.incarnation()) {
            if self.owner_of.contains_key(&(incarnation, seq)) {
                continue;
            }
            self.holes.insert((incarnation, seq));
            if source.offers(terms, seq) {
                return Err(Violation::new(
                    Invariant::ClosesFinished,
                    format!("W passes message {seq} at {at}, which exists, matches and has no owner"),
                ));
            }
        }
        Ok(())
    }

    /// Whether the hub may be told to forget a message: its claim is so old, or it is finished business.
    pub(crate) fn may_settle(&self, now: u8, lazy: bool, incarnation: Incarnation, seq: u64) -> bool {
        if StreamSeq(seq) <= self.fold.closed(incarnation) {
            return true;
        }
        let decided = self
            .owner_of
            .get(&(incarnation, seq))
            .and_then(|key| self.decided.get(key));
        decided.is_some_and(|decided| !lazy || decided.landed < now)
    }
}

/// Everything ever made visible: application and message to the bodies that did, with the batch.
pub type Published = BTreeMap<(String, Incarnation, u64), Vec<(usize, ClaimKey)>>;
