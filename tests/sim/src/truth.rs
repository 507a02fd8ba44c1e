//! What an all-knowing reader of the ledger knows: every record that ever landed, folded in order. Checks I1, I3 and I10 as
//! records land, and answers whose a message is.

use std::collections::{BTreeMap, BTreeSet};

use fanin_bridge::topic::SubjectFilter;
use fanin_core::fold::{ClaimKey, Fold, Folded};
use fanin_core::hash::Hash128;
use fanin_core::ids::{Incarnation, LedgerSeq, NodeUuid, StreamSeq, TermsVersion};
use fanin_core::invariants::check_fold;

use crate::hub::stream::Stream;
use crate::mutants::unmutated;

/// The whole history of one ledger.
#[derive(Debug, Default)]
pub struct Truth {
    fold: Fold,
    /// Every owner ever.
    owners: BTreeMap<(Incarnation, u64), Owned>,
    /// Milliseconds after which what the hub has confirmed survives a power loss.
    stable_ms: u64,
    /// Checkpoints by the position of their state: which parts have landed, and when all of them had.
    checkpoints: BTreeMap<u64, (BTreeSet<u32>, Option<u64>)>,
    /// The hub has broken a promise: from there on there is no one truth.
    ended: bool,
    /// Records taken; the fold itself is checked every so often only, as that walks over all of it.
    taken: u64,
}

/// How a message came to its owner.
#[derive(Clone, Copy, Debug)]
struct Owned {
    key: ClaimKey,
    /// The terms of the claim.
    terms: TermsVersion,
    /// When the claim landed, simulated milliseconds.
    at_ms: u64,
}

/// Every so many records the whole fold is checked.
const CHECK_EVERY: u64 = 16;

impl Truth {
    /// The empty ledger of a hub whose records survive a power loss after so many milliseconds.
    #[must_use]
    pub fn new(stable_ms: u64) -> Truth {
        Truth {
            stable_ms,
            ..Truth::default()
        }
    }

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
        now_ms: u64,
        suffix: &str,
        body: &[u8],
        streams: &BTreeMap<String, Stream>,
    ) -> Result<(), String> {
        if self.ended {
            return Ok(());
        }
        let folded = match unmutated(|| self.fold.apply(LedgerSeq(at), suffix, body)) {
            Ok(folded) => folded,
            Err(why) => {
                self.ended = true;
                return Err(format!("the record {at} on {suffix} cannot be folded: {why:?}"));
            }
        };
        self.taken += 1;
        if self.taken.is_multiple_of(CHECK_EVERY) {
            unmutated(|| check_fold(&self.fold))?;
        }
        match folded {
            Folded::Claim { key, won, .. } => {
                let Some(claim) = self.fold.claims().get(&key) else {
                    return Ok(());
                };
                let (incarnation, terms) = (claim.incarnation, claim.terms);
                let owned = Owned {
                    key,
                    terms,
                    at_ms: now_ms,
                };
                for seq in won.iter() {
                    if let Some(other) = self.owners.insert((incarnation, seq), owned) {
                        return Err(format!(
                            "I1, I2: message {seq} has a second owner at {at}: {:?}, then {key:?}",
                            other.key
                        ));
                    }
                }
            }
            Folded::Closed {
                incarnation,
                from,
                through,
            } => {
                self.check_stable(now_ms, incarnation, from, through)?;
                return self.check_closed(incarnation, from, through, streams);
            }
            Folded::Genesis
            | Folded::Terms(_)
            | Folded::Epoch { .. }
            | Folded::ClaimRepeated(_)
            | Folded::ClaimVoid(..)
            | Folded::CloseVoid
            | Folded::Progress(_)
            | Folded::Repeat => {}
            Folded::Checkpoint { of, part, parts } => {
                let (landed, whole_ms) = self.checkpoints.entry(of.position.0).or_default();
                landed.insert(part);
                if landed.len() >= parts as usize {
                    whole_ms.get_or_insert(now_ms);
                }
            }
        }
        Ok(())
    }

    /// I10 on a lazy hub: W passes only what survives a power loss.
    fn check_stable(
        &self,
        now_ms: u64,
        incarnation: Incarnation,
        from: StreamSeq,
        through: StreamSeq,
    ) -> Result<(), String> {
        let mut passed = self
            .owners
            .range((incarnation, from.0 + 1)..=(incarnation, through.0));
        match passed.find(|(_, owned)| now_ms < owned.at_ms + self.stable_ms) {
            Some(((_, seq), owned)) => Err(format!(
                "I10: W = {through} passes message {seq}, whose claim is {} ms old and stable after {}",
                now_ms - owned.at_ms,
                self.stable_ms
            )),
            None => Ok(()),
        }
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
        self.owners.get(&(incarnation, seq)).map(|owned| owned.key)
    }

    /// Whether an application is owed a message: the terms of its claim, or of now when nobody owns it, name it.
    #[must_use]
    pub fn is_owed(&self, app: &str, incarnation: Incarnation, seq: u64) -> bool {
        let claimed = self.owners.get(&(incarnation, seq)).map(|owned| owned.terms);
        let since = self.fold.terms().apps.get(app).copied();
        self.ended || since.is_some_and(|since| claimed.is_none_or(|terms| since <= terms))
    }

    /// The watermark.
    #[must_use]
    pub fn closed(&self, incarnation: Incarnation) -> u64 {
        self.fold.closed(incarnation).0
    }

    /// Whether a node may acknowledge a message to the hub: somebody owns it, and if that is another one its claim is
    /// stable; or it is at or below W, where everything is finished business. True when it is the node's own, above W.
    ///
    /// # Errors
    /// The rule that this breaks.
    pub fn may_settle(
        &self,
        node: &str,
        now_ms: u64,
        incarnation: Incarnation,
        seq: u64,
    ) -> Result<bool, String> {
        if self.ended {
            return Ok(false);
        }
        let Some(owned) = self.owners.get(&(incarnation, seq)) else {
            return match seq <= self.closed(incarnation) {
                true => Ok(false),
                false => Err(format!(
                    "P5: {node} settles message {seq}, which nobody has claimed"
                )),
            };
        };
        let owner = self.fold.nodes().get(&owned.key.node);
        let is_own = owner.is_some_and(|owner| owner.name == node);
        let age_ms = now_ms - owned.at_ms;
        if is_own || age_ms >= self.stable_ms {
            return Ok(is_own && seq > self.closed(incarnation));
        }
        Err(format!(
            "I9: {node} settles message {seq} of another node, whose claim is {age_ms} ms old and stable after {}",
            self.stable_ms
        ))
    }

    /// P7: what is purged stands in a checkpoint that is whole and survives a power loss.
    ///
    /// # Errors
    /// That it does not.
    pub fn may_purge(&self, node: &str, now_ms: u64, last: u64) -> Result<(), String> {
        let is_stable = |whole_ms: &Option<u64>| whole_ms.is_some_and(|ms| now_ms >= ms + self.stable_ms);
        let mut covering = self.checkpoints.range(last..);
        if self.ended || covering.any(|(_, (_, whole_ms))| is_stable(whole_ms)) {
            return Ok(());
        }
        Err(format!(
            "P7: {node} purges the record {last}, which stands in no whole checkpoint that is {} ms old",
            self.stable_ms
        ))
    }

    /// I4, I11: whether a node that has read up to a position has the state that the records up to there make. True as well
    /// where that is not known any more.
    #[must_use]
    pub fn agrees(&self, position: u64, hash: Hash128) -> bool {
        let known = self.fold.hash_at(LedgerSeq(position));
        self.ended || position == 0 || known.is_none_or(|known| known == hash)
    }

    /// The newest epoch of a data directory; 0 for none.
    #[must_use]
    pub fn epoch(&self, node: NodeUuid) -> u64 {
        self.fold.nodes().get(&node).map_or(0, |entry| entry.epoch.0)
    }

    /// The fold.
    #[must_use]
    pub fn fold(&self) -> &Fold {
        &self.fold
    }
}
