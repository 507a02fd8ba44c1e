//! Whether a source still is what its claims say (P10): messages met again keep their publish times, and a stream never ends
//! before a sequence that it has given. And what others won of messages in hand here, so that nothing that was claimed counts as
//! given up.

#[cfg(test)]
mod tests;

use super::ends::Look;
use super::{Identity, Node, Phase};
use crate::batch::Batch;
use crate::effect::Effect;
use crate::fold::{ClaimKey, Fold, Halt, Reused};
use crate::ids::{BatchNo, Incarnation, StreamSeq, Tick};
use crate::input::FetchedMessage;
use crate::mutants::{self, Mutant};
use crate::record::{Body, Record};
use crate::seq_set::SeqSet;

/// What to look at in a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceProbe {
    /// The source has given this sequence, as a claim, a batch in hand or W shows; 0 when nothing is known.
    pub reaches: StreamSeq,
    /// The newest message known as claimed or in hand, whose publish time is to be compared.
    pub newest: Option<StreamSeq>,
    /// The one that was looked at last. It was there then, so that it has the same time now, or is gone.
    pub before: Option<StreamSeq>,
    /// Where the source ended when it was looked at last; `None` too when it had never had a message.
    pub end: Option<StreamSeq>,
}

impl SourceProbe {
    /// The messages to look at.
    pub fn messages(&self) -> impl Iterator<Item = StreamSeq> {
        let before = self.before.filter(|_| self.before != self.newest);
        let is_new = |end: &StreamSeq| Some(*end) != self.newest && Some(*end) != before;
        before
            .into_iter()
            .chain(self.newest)
            .chain(self.end.filter(is_new))
    }
}

impl Node {
    /// What `Input::SourceSeen` is to compare with, to be asked for before the source is looked at.
    #[must_use]
    pub fn source_probe(&self, incarnation: Incarnation) -> SourceProbe {
        let in_hand = self.in_hand.get(&incarnation).and_then(SeqSet::last);
        let newest = self.fold.newest_claimed(incarnation).max(in_hand.map(StreamSeq));
        let ends = self.ends.get(&incarnation).map(|end| end.last);
        SourceProbe {
            reaches: self.fold.closed(incarnation).max(newest.unwrap_or_default()),
            newest,
            before: self.looked.get(&incarnation).map(|&(seq, _)| seq),
            end: ends.filter(|end| end.0 > 0),
        }
    }

    /// A shrunk stream must be seen twice, `audit_ms` apart: a leader that is being replaced may answer from before. A message is
    /// either there with its time or not, whoever answers, so one with another time is believed at once. What was looked at is
    /// remembered, for the newest claim may be of a message that has come since the source went back.
    pub(super) fn on_source_seen(
        &mut self,
        now: Tick,
        incarnation: Incarnation,
        look: &Look<'_>,
        out: &mut Vec<Effect>,
    ) {
        let Look {
            reaches,
            last,
            probes,
            ..
        } = *look;
        if self.phase != Phase::Active || !self.identity.sources.contains_key(&incarnation) {
            return;
        }
        let looked = self.looked.get(&incarnation).copied();
        for &(seq, at) in probes {
            let differs = looked.filter(|&(known, known_at)| known == seq && known_at != at);
            let differs = differs.filter(|_| !mutants::on(Mutant::IgnoresReusedSequences));
            let reused = differs.map(|(seq, at)| Reused {
                seq,
                known_ns: (at, at),
            });
            let judged = self
                .halted_by(incarnation, reused, (at, at))
                .and_then(|()| self.judge_one(incarnation, seq, at));
            if let Err(halt) = judged {
                return self.halt(halt, out);
            }
        }
        // An end that nobody has taken says nothing of what was claimed.
        if let Some(&newest) = probes.iter().filter(|(seq, _)| *seq <= reaches).max() {
            self.looked.insert(incarnation, newest);
        }
        if last >= reaches || mutants::on(Mutant::IgnoresShrunkSources) {
            self.shrunk.remove(&incarnation);
            self.note_end(now, incarnation, look, out);
            return;
        }
        let Some(&since) = self.shrunk.get(&incarnation) else {
            self.shrunk.insert(incarnation, now);
            return;
        };
        if now.since(since) >= self.policy.audit_ms {
            let newest = self.fold.newest_claimed(incarnation);
            let newest = newest.and_then(|seq| self.fold.published_of(incarnation, seq));
            let halt = Halt::SourceShrank {
                stream: self.stream_of(incarnation),
                last,
                known: reaches,
                known_ns: newest.map_or(0, |times| times.1),
            };
            self.halt(halt, out);
        }
    }

    /// Whether arrived messages are those that their sequences were claimed for, or that are in hand under them.
    pub(super) fn judge_arrivals(
        &self,
        incarnation: Incarnation,
        messages: &[FetchedMessage],
    ) -> Result<(), Halt> {
        if self.phase != Phase::Active {
            return Ok(());
        }
        messages
            .iter()
            .try_for_each(|message| self.judge_one(incarnation, message.seq, message.published_ns))
    }

    fn judge_one(&self, incarnation: Incarnation, seq: StreamSeq, at: i64) -> Result<(), Halt> {
        let times = (at, at);
        let in_hand = self.in_hand.get(&incarnation);
        let reused = self
            .fold
            .reused(incarnation, &[(seq.0, seq.0)], times, None)
            .or_else(|| {
                in_hand.filter(|seqs| seqs.contains(seq.0))?;
                self.reused_in_hand(incarnation, &SeqSet::range(seq.0, seq.0), times, None)
            });
        self.halted_by(incarnation, reused, times)
    }

    /// Whether a record about to be folded claims other messages than those claimed, or in hand here, under the same sequences.
    /// Looked at beforehand, so that a halt leaves the fold and the batches as they agree. Of a source that is not configured
    /// (any more) nothing is judged: its generation was raised because of that.
    pub(super) fn judge_record(&self, record: &Record) -> Result<(), Halt> {
        let Body::Claim(claim) = &record.body else {
            return Ok(());
        };
        let key = ClaimKey {
            node: claim.node_uuid,
            batch: claim.batch,
        };
        let admitted = self
            .fold
            .admits_claim(claim.node_uuid, claim.epoch, claim.incarnation, claim.terms);
        if !self.identity.sources.contains_key(&claim.incarnation)
            || admitted.is_err()
            || self.fold.has_decided(key)
        {
            return Ok(());
        }
        let (incarnation, times) = (claim.incarnation, claim.published_ns);
        let reused = self
            .fold
            .reused(incarnation, claim.seqs.ranges(), times, Some(key))
            .or_else(|| self.reused_in_hand(incarnation, &claim.seqs, times, Some(key)));
        self.halted_by(incarnation, reused, times)
    }

    /// The same for a checkpoint about to be loaded: what it says was claimed, against what is in hand here.
    pub(super) fn judge_loaded(&self, fold: &Fold) -> Result<(), Halt> {
        for (&number, batch) in self.batches.iter().filter(|(_, batch)| batch.is_unresolved()) {
            if self.identity.sources.contains_key(&batch.incarnation) {
                let key = ClaimKey::new(self.identity.uuid, number.0);
                let ranges = batch.seqs.ranges();
                let reused = fold.reused(batch.incarnation, ranges, batch.published_ns, Some(key));
                self.halted_by(batch.incarnation, reused, batch.published_ns)?;
            }
        }
        Ok(())
    }

    /// The proof that messages of these times are not those in hand under the same sequences, in another batch than `except`.
    fn reused_in_hand(
        &self,
        incarnation: Incarnation,
        seqs: &SeqSet,
        times: (i64, i64),
        except: Option<ClaimKey>,
    ) -> Option<Reused> {
        let in_hand = self.in_hand.get(&incarnation)?.intersection(seqs);
        if in_hand.is_empty() || mutants::on(Mutant::IgnoresReusedSequences) {
            return None;
        }
        let others = self.batches.iter().filter(|&(&number, batch)| {
            let is_except = except == Some(ClaimKey::new(self.identity.uuid, number.0));
            batch.is_unresolved() && batch.incarnation == incarnation && !is_except
        });
        others
            .filter(|(_, batch)| crate::fold::disjoint(batch.published_ns, times))
            .find_map(|(_, batch)| {
                let seq = StreamSeq(in_hand.intersection(&batch.seqs).first()?);
                let known_ns = batch.published_ns;
                Some(Reused { seq, known_ns })
            })
    }

    fn halted_by(
        &self,
        incarnation: Incarnation,
        reused: Option<Reused>,
        found_ns: (i64, i64),
    ) -> Result<(), Halt> {
        match reused {
            None => Ok(()),
            Some(Reused { seq, known_ns }) => Err(Halt::SequenceReused {
                stream: self.stream_of(incarnation),
                seq,
                found_ns,
                known_ns,
            }),
        }
    }

    fn stream_of(&self, incarnation: Incarnation) -> String {
        let configured = self.identity.sources.get(&incarnation);
        let named = configured.or_else(|| self.fold.terms().sources.get(&incarnation));
        named.map_or_else(|| incarnation.to_string(), |source| source.stream.clone())
    }

    /// A valid claim was folded: what it won of messages in hand in other batches was not given up by anybody.
    pub(super) fn note_won_by_others(&mut self, key: ClaimKey, won: &SeqSet) {
        let Some(entry) = self.fold.claims().get(&key) else {
            return;
        };
        let (incarnation, times) = (entry.incarnation, entry.published_ns);
        let in_hand = self.in_hand.get(&incarnation).map(|set| set.intersection(won));
        let Some(in_hand) = in_hand.filter(|set| !set.is_empty()) else {
            return;
        };
        let own = self.identity.uuid;
        for (&number, batch) in &mut self.batches {
            // Of a source that is not configured any more the same sequence may name another message.
            let same = key != ClaimKey::new(own, number.0)
                && batch.incarnation == incarnation
                && !crate::fold::disjoint(batch.published_ns, times);
            if same && batch.is_unresolved() {
                batch.won_by_others.union(&in_hand.intersection(&batch.seqs));
            }
        }
    }

    /// The same for every claim that a loaded checkpoint still shows. Those that were finished and forgotten before are not known
    /// here any more: copies of theirs are told as given up, which is one line too many and never one too few.
    pub(super) fn note_loaded_claims(&mut self) {
        let in_hand = |incarnation| self.in_hand.get(incarnation);
        let claims = self.fold.claims().iter();
        let met = claims.filter(|(_, entry)| {
            let set = in_hand(&entry.incarnation);
            set.is_some_and(|set| !set.intersection(&entry.seqs).is_empty())
        });
        let met: Vec<_> = met.map(|(&key, entry)| (key, entry.won())).collect();
        for (key, won) in met {
            self.note_won_by_others(key, &won);
        }
    }
}

/// What of a resolved batch was not won and was given up: at or below W without a known owner. And, of a source that is not
/// configured any more, what lost to another message of the same sequence.
pub(super) fn given_up(
    fold: &Fold,
    identity: &Identity,
    number: BatchNo,
    batch: &Batch,
    not_won: &SeqSet,
) -> SeqSet {
    let mut given_up = not_won.clone();
    given_up.remove_range(fold.closed(batch.incarnation).0 + 1, u64::MAX);
    let mut given_up = given_up.difference(&batch.won_by_others);
    if !identity.sources.contains_key(&batch.incarnation) {
        let own = ClaimKey::new(identity.uuid, number.0);
        given_up.union(&fold.other_messages(batch.incarnation, not_won, batch.published_ns, own));
    }
    given_up
}
