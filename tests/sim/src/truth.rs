//! What an all-knowing reader of the ledger knows: every record that ever landed, folded in order. Checks I1, I3 and I10 as
//! records land, and answers whose a message is.

use std::collections::BTreeMap;

use fanin_bridge::topic::SubjectFilter;
use fanin_core::fold::{ClaimKey, Fold, Folded};
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq, TermsVersion};
use fanin_core::invariants::check_fold;

use crate::hub::stream::Stream;

/// The whole history of one ledger.
#[derive(Debug, Default)]
pub struct Truth {
    fold: Fold,
    /// Every owner ever, with the terms of its claim.
    owners: BTreeMap<(Incarnation, u64), (ClaimKey, TermsVersion)>,
    /// The hub has broken a promise: from there on there is no one truth.
    ended: bool,
    /// Records taken; the fold itself is checked every so often only, as that walks over all of it.
    taken: u64,
}

/// Every so many records the whole fold is checked.
const CHECK_EVERY: u64 = 16;

impl Truth {
    /// Whether it still means anything.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.ended
    }

    /// The hub has broken a promise.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Takes a landed record in.
    ///
    /// # Errors
    /// The invariant that it breaks.
    pub fn take(
        &mut self,
        at: u64,
        suffix: &str,
        body: &[u8],
        streams: &BTreeMap<String, Stream>,
    ) -> Result<(), String> {
        if self.ended {
            return Ok(());
        }
        let folded = match self.fold.apply(LedgerSeq(at), suffix, body) {
            Ok(folded) => folded,
            Err(why) => {
                self.ended = true;
                return Err(format!("the record {at} on {suffix} cannot be folded: {why:?}"));
            }
        };
        self.taken += 1;
        if self.taken.is_multiple_of(CHECK_EVERY) {
            check_fold(&self.fold)?;
        }
        match folded {
            Folded::Claim { key, won, .. } => {
                let Some(claim) = self.fold.claims().get(&key) else {
                    return Ok(());
                };
                let (incarnation, terms) = (claim.incarnation, claim.terms);
                for seq in won.iter() {
                    if let Some((other, _)) = self.owners.insert((incarnation, seq), (key, terms)) {
                        return Err(format!(
                            "I1, I2: message {seq} has a second owner at {at}: {other:?}, then {key:?}"
                        ));
                    }
                }
            }
            Folded::Closed {
                incarnation,
                from,
                through,
            } => return self.check_closed(incarnation, from, through, streams),
            Folded::Genesis
            | Folded::Terms(_)
            | Folded::Epoch { .. }
            | Folded::ClaimRepeated(_)
            | Folded::ClaimVoid(..)
            | Folded::CloseVoid
            | Folded::Progress(_)
            | Folded::Checkpoint { .. }
            | Folded::Repeat => {}
        }
        Ok(())
    }

    /// I10: W covers claimed messages and holes only.
    fn check_closed(
        &self,
        incarnation: Incarnation,
        from: StreamSeq,
        through: StreamSeq,
        streams: &BTreeMap<String, Stream>,
    ) -> Result<(), String> {
        let source = self.fold.terms().sources.get(&incarnation);
        let filter = SubjectFilter::new(source.map(|source| source.filters.clone()).unwrap_or_default());
        let Some(stream) = streams
            .values()
            .find(|stream| stream.incarnation() == incarnation)
        else {
            return Ok(());
        };
        for seq in from.0 + 1..=through.0 {
            let unclaimed = !self.owners.contains_key(&(incarnation, seq));
            let is_there = stream
                .messages
                .get(&seq)
                .is_some_and(|message| filter.matches(&message.subject));
            if unclaimed && is_there {
                return Err(format!(
                    "I10: W = {through} covers message {seq}, which nobody claimed"
                ));
            }
        }
        Ok(())
    }

    /// Whose a message is, or was.
    #[must_use]
    pub fn owner(&self, incarnation: Incarnation, seq: u64) -> Option<ClaimKey> {
        self.owners.get(&(incarnation, seq)).map(|(key, _)| *key)
    }

    /// Whether an application is owed a message: the terms of its claim, or of now when nobody owns it, name it.
    #[must_use]
    pub fn is_owed(&self, app: &str, incarnation: Incarnation, seq: u64) -> bool {
        let claimed = self.owners.get(&(incarnation, seq)).map(|(_, terms)| *terms);
        let since = self.fold.terms().apps.get(app).copied();
        self.ended || since.is_some_and(|since| claimed.is_none_or(|terms| since <= terms))
    }

    /// The watermark.
    #[must_use]
    pub fn closed(&self, incarnation: Incarnation) -> u64 {
        self.fold.closed(incarnation).0
    }

    /// Whether a message may be acknowledged to the hub: somebody owns it, or it is finished business.
    #[must_use]
    pub fn may_settle(&self, incarnation: Incarnation, seq: u64) -> bool {
        self.ended || seq <= self.closed(incarnation) || self.owners.contains_key(&(incarnation, seq))
    }

    /// The fold.
    #[must_use]
    pub fn fold(&self) -> &Fold {
        &self.fold
    }
}
