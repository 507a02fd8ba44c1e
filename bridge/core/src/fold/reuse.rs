//! Sequences given to two messages (P10). A source that is restored to an earlier copy keeps its creation time, hence its
//! incarnation, and gives the sequences it has lost to new messages. A message keeps its publish time for ever, so a time
//! outside those that the claim of a sequence names proves that the sequence was given away twice.

use super::{ClaimKey, Fold};
use crate::ids::{Incarnation, StreamSeq};
use crate::mutants::{self, Mutant};
use crate::seq_set::SeqSet;

/// What the fold keeps of the claims that W has passed, of one source: their entries are forgotten, this is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Passed {
    /// The highest claimed sequence at or below W; 0 for none. Holes behind it are not judged.
    pub claimed_through: StreamSeq,
    /// Newest publish time in the claims that own something at or below W, nanoseconds since the Unix epoch.
    pub newest_ns: i64,
}

/// Proof that a sequence names two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reused {
    /// The sequence.
    pub seq: StreamSeq,
    /// When the claimed message was published, at the earliest and at the latest. `i64::MIN` where only the latest is known.
    pub known_ns: (i64, i64),
}

/// Whether no message can have been published within both, each inclusive.
pub(crate) fn disjoint(a: (i64, i64), b: (i64, i64)) -> bool {
    a.1 < b.0 || b.1 < a.0
}

impl Fold {
    /// What is kept of the claims that W has passed.
    #[must_use]
    pub fn passed(&self, incarnation: Incarnation) -> Passed {
        self.passed.get(&incarnation).copied().unwrap_or_default()
    }

    /// The newest sequence known as claimed, if any: the source has given it, and everything before it.
    #[must_use]
    pub fn newest_claimed(&self, incarnation: Incarnation) -> Option<StreamSeq> {
        let owned = self.owners(incarnation).and_then(super::Owners::last);
        let passed = self.passed(incarnation).claimed_through;
        owned.or_else(|| Some(passed).filter(|seq| seq.0 > 0))
    }

    /// When the message of a claimed sequence was published, at the earliest and at the latest; `None` when nobody has claimed it.
    #[must_use]
    pub fn published_of(&self, incarnation: Incarnation, seq: StreamSeq) -> Option<(i64, i64)> {
        let passed = self.passed(incarnation);
        if seq <= passed.claimed_through {
            return Some((i64::MIN, passed.newest_ns));
        }
        let owner = self.owner(incarnation, seq)?;
        self.claims.get(&owner).map(|entry| entry.published_ns)
    }

    /// The proof, if there is one, that messages with these sequences (ascending ranges), all published within `times`, are not
    /// those that were claimed under them by another batch than `except`. Below W only a time behind all that was claimed is
    /// proof.
    #[must_use]
    pub fn reused(
        &self,
        incarnation: Incarnation,
        ranges: &[(u64, u64)],
        times: (i64, i64),
        except: Option<ClaimKey>,
    ) -> Option<Reused> {
        if mutants::on(Mutant::IgnoresReusedSequences) {
            return None;
        }
        let passed = self.passed(incarnation);
        let &(first, _) = ranges.first()?;
        if first <= passed.claimed_through.0 && times.0 > passed.newest_ns {
            return Some(Reused {
                seq: StreamSeq(first),
                known_ns: (i64::MIN, passed.newest_ns),
            });
        }
        self.others(incarnation, ranges, times, except)
            .next()
            .map(|(first, _, known_ns)| Reused {
                seq: StreamSeq(first),
                known_ns,
            })
    }

    /// The elements of `seqs` above W whose owners, other than `except`, claimed other messages than those published within
    /// `times`.
    #[must_use]
    pub(crate) fn other_messages(
        &self,
        incarnation: Incarnation,
        seqs: &SeqSet,
        times: (i64, i64),
        except: ClaimKey,
    ) -> SeqSet {
        let mut found = SeqSet::new();
        for (first, last, _) in self.others(incarnation, seqs.ranges(), times, Some(except)) {
            found.insert_range(first, last);
        }
        found
    }

    fn others<'a>(
        &'a self,
        incarnation: Incarnation,
        ranges: &'a [(u64, u64)],
        times: (i64, i64),
        except: Option<ClaimKey>,
    ) -> impl Iterator<Item = (u64, u64, (i64, i64))> + 'a {
        let owners = self.owners(incarnation);
        let overlaps = ranges.iter().flat_map(move |&(first, last)| {
            let owned = owners
                .into_iter()
                .flat_map(move |owners| owners.from(StreamSeq(first)));
            owned
                .take_while(move |(start, ..)| start.0 <= last)
                .map(move |(start, end, key)| (start.0.max(first), end.0.min(last), key))
        });
        overlaps.filter_map(move |(first, last, key)| {
            let known_ns = self.claims.get(&key)?.published_ns;
            (Some(key) != except && disjoint(known_ns, times)).then_some((first, last, known_ns))
        })
    }

    /// W moves: what is claimed up to `through` is kept in short, before its owners are forgotten.
    pub(super) fn pass(&mut self, incarnation: Incarnation, through: StreamSeq) {
        let Some(owners) = self.owners.get(&incarnation) else {
            return;
        };
        let mut passed = self.passed(incarnation);
        for (first, last, key) in owners.from(StreamSeq(0)) {
            if first > through {
                break;
            }
            let Some(entry) = self.claims.get(&key) else {
                continue;
            };
            let newest_ns = entry.published_ns.1;
            passed = Passed {
                newest_ns: if passed.claimed_through.0 == 0 {
                    newest_ns
                } else {
                    passed.newest_ns.max(newest_ns)
                },
                claimed_through: passed.claimed_through.max(last.min(through)),
            };
        }
        if passed.claimed_through.0 > 0 {
            self.passed.insert(incarnation, passed);
        }
    }
}
