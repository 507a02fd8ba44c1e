//! A source that was restored to an earlier copy, or created again: up to where it holds what was claimed before (P10). Nothing is
//! changed here.
//!
//! A message keeps its publish time, and claims name the times of their oldest and newest message. So what lies in the stream under
//! a claimed sequence is the claimed message if its time is among those of the claim. Of claims that W has passed the newest
//! time is known; but some may be of messages that have come since the restore, so that a time from before it, which a halted node
//! knows, counts where it is earlier. What is not proven to be the same message counts as another one: it rather comes twice
//! than never.

use fanin_core::fold::Fold;
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq};
use fanin_hub::ApiError;
use fanin_hub::port::Hub;

use super::gaps;
use super::limits::GAPS_MAX;
use super::nodes::{Break, NodeView};

/// A message of the stream: its sequence, and its publish time in nanoseconds since 1970.
pub type Seen = (StreamSeq, i64);

/// Where the messages that were claimed before end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    /// Everything at or below that matches was claimed before.
    pub through: StreamSeq,
    /// The first matching message behind it.
    pub next: Option<Seen>,
    /// Messages behind it that were claimed before, or that a node has staged: they come twice.
    pub again: u64,
    /// There may be more of these than were looked for.
    pub cut_short: bool,
}

/// A stream as it is now.
pub(crate) trait Messages {
    /// The first matching message at or behind a sequence.
    async fn next(&self, from: StreamSeq) -> Result<Option<Seen>, ApiError>;
    /// The publish time of the message at a sequence.
    async fn at(&self, seq: StreamSeq) -> Result<Option<i64>, ApiError>;
}

/// A stream of a hub, by the filters of a source.
pub(crate) struct OfHub<'a> {
    pub(crate) hub: &'a dyn Hub,
    pub(crate) stream: &'a str,
    pub(crate) filters: &'a [String],
}

impl Messages for OfHub<'_> {
    async fn next(&self, from: StreamSeq) -> Result<Option<Seen>, ApiError> {
        gaps::next(self.hub, self.stream, self.filters, from).await
    }

    async fn at(&self, seq: StreamSeq) -> Result<Option<i64>, ApiError> {
        let found = self.hub.fetch_message(self.stream, seq).await?;
        Ok(found.map(|message| i64::try_from(message.published_ns).unwrap_or(i64::MAX)))
    }
}

/// What all nodes together have found out about a restored stream, and who found the first of its other messages. What was known
/// before stays known, also when the node that told it does not answer any more.
#[must_use]
pub fn evidence(
    nodes: &[NodeView],
    stream: &str,
    before: Option<(String, Break)>,
) -> Option<(String, Break)> {
    let found = nodes.iter().filter_map(|node| {
        let found = node.breaks.get(stream)?;
        Some((node.name.clone(), *found))
    });
    before.into_iter().chain(found).reduce(|one, other| {
        // A time from before the restore is one for every node; the earliest of them rules out most.
        let known_ns = [one.1.known_ns, other.1.known_ns].into_iter().flatten().min();
        let is_exact = one.1.is_exact || other.1.is_exact;
        let (name, found) = if other.1.from < one.1.from { other } else { one };
        let from = found.from;
        (
            name,
            Break {
                from,
                known_ns,
                is_exact,
            },
        )
    })
}

/// Looks for the boundary in a stream that ends at `last`. As some node found out, from where it is broken on every message is
/// another one, and everything published behind the time known of the restore is.
///
/// # Errors
/// A request to the hub failed.
pub(crate) async fn boundary(
    messages: &impl Messages,
    fold: &Fold,
    old: Incarnation,
    last: StreamSeq,
    broken: Option<Break>,
) -> Result<Boundary, ApiError> {
    let from = broken.map_or(StreamSeq(u64::MAX), |found| found.from);
    let before_ns = broken.and_then(|found| found.known_ns).unwrap_or(i64::MAX);
    let end = last.min(StreamSeq(from.0.saturating_sub(1)));
    let closed = fold.closed(old).min(end);
    let newest_ns = fold.passed(old).newest_ns.min(before_ns);
    let mut through = passed(messages, newest_ns, closed).await?;
    if through == closed && closed < end {
        through = claimed(messages, fold, old, (closed, end), before_ns).await?;
    }
    Ok(Boundary {
        through,
        next: messages.next(through.next()).await?,
        ..Boundary::default()
    })
}

/// How far, at most through `closed`, the stream holds what claims named that W has passed, published at `newest_ns` at the
/// latest.
async fn passed(messages: &impl Messages, newest_ns: i64, closed: StreamSeq) -> Result<StreamSeq, ApiError> {
    // Times do not fall with the sequence, so that the first newer message can be found by halving.
    let (mut low, mut high) = (0, closed.0);
    let mut first_newer = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match messages.next(StreamSeq(middle + 1)).await? {
            Some((seq, at)) if seq <= closed && at <= newest_ns => low = seq.0,
            Some((seq, _)) if seq <= closed => {
                first_newer = Some(seq);
                high = middle;
            }
            Some(_) | None => high = middle,
        }
    }
    Ok(first_newer.map_or(closed, |seq| StreamSeq(seq.0 - 1)))
}

/// How far behind `closed`, at most through `end`, the stream holds what claims name that W has not passed, without a gap, published
/// at `before_ns` at the latest.
async fn claimed(
    messages: &impl Messages,
    fold: &Fold,
    old: Incarnation,
    (closed, end): (StreamSeq, StreamSeq),
    before_ns: i64,
) -> Result<StreamSeq, ApiError> {
    let before = |seq: StreamSeq| StreamSeq(seq.0 - 1);
    let mut from = closed.next();
    let owned = fold.owners(old).into_iter();
    let owned = owned.flat_map(|owners| owners.from(closed.next()));
    for (first, last, key) in owned {
        if first > end {
            break;
        }
        let times = fold.claims().get(&key).map(|entry| entry.published_ns);
        let last = last.min(end);
        let is_same =
            |at: i64| times.is_some_and(|(oldest, newest)| oldest <= at && at <= newest.min(before_ns));
        // The newest of them shows it for all.
        let newest = messages.at(last).await?;
        while let Some((seq, at)) = messages.next(from).await? {
            if seq > last {
                break;
            }
            if seq < first || !is_same(at) {
                return Ok(before(seq));
            }
            from = if newest.is_some_and(is_same) {
                last.next()
            } else {
                seq.next()
            };
        }
        from = last.next();
    }
    match messages.next(from).await? {
        Some((seq, _)) if seq <= end => Ok(before(seq)),
        Some(_) | None => Ok(end),
    }
}

/// Counts what comes twice behind a boundary, for all that was claimed before it or that nodes hold staged.
///
/// # Errors
/// A request to the hub failed.
pub(crate) async fn count_again(
    messages: &impl Messages,
    fold: &Fold,
    old: Incarnation,
    nodes: &[NodeView],
    last: StreamSeq,
    found: &mut Boundary,
) -> Result<(), ApiError> {
    let owned = fold.owners(old).into_iter();
    let owned = owned.flat_map(|owners| owners.from(found.through.next()));
    let mut ranges: Vec<(u64, u64, (i64, i64))> = Vec::new();
    for (first, through, key) in owned {
        let times = fold.claims().get(&key).map(|entry| entry.published_ns);
        ranges.extend(times.map(|times| (first.0, through.0, times)));
    }
    for batch in nodes.iter().flat_map(|node| node.batches.values()) {
        if !batch.decided && batch.incarnation == old {
            let held = batch.seqs.ranges().iter();
            ranges.extend(held.map(|&(first, through)| (first, through, batch.published_ns)));
        }
    }
    let mut looks = 0;
    for (first, through, times) in ranges {
        for seq in first.max(found.through.0 + 1)..=through.min(last.0) {
            if looks >= GAPS_MAX {
                found.cut_short = true;
                return Ok(());
            }
            looks += 1;
            let at = messages.at(StreamSeq(seq)).await?;
            if at.is_some_and(|at| times.0 <= at && at <= times.1) {
                found.again += 1;
            }
        }
    }
    Ok(())
}

/// What a repair has written of a source, to be read back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun<'a> {
    pub(crate) stream: &'a str,
    pub(crate) old: Incarnation,
    pub(crate) new: Incarnation,
    /// The terms go on naming the old one.
    pub(crate) keeps_old: bool,
    /// The W that the new one was given.
    pub(crate) through: StreamSeq,
    /// How far the ledger was read for that.
    pub(crate) read: LedgerSeq,
    /// An earlier run had given it a W.
    pub(crate) was_in_use: bool,
}

impl Begun<'_> {
    /// Why what was written does not do, by the ledger behind it: a CLOSE is void under other terms than those it names, and a node
    /// that had not halted may have claimed something after all.
    pub(crate) fn shortfall(&self, fold: &Fold) -> Option<String> {
        let (stream, through, terms) = (self.stream, self.through, fold.terms());
        let is_named = |incarnation| terms.sources.contains_key(&incarnation);
        if !is_named(self.new) || (is_named(self.old) && !self.keeps_old) {
            return Some(format!(
                "somebody has written other terms meanwhile (version {}), which name {stream} otherwise; run this again",
                terms.version
            ));
        }
        if self.was_in_use {
            return None;
        }
        let closed = fold.closed(self.new);
        if closed < through {
            return Some(format!(
                "the watermark of {stream} does not count, as other terms came before it: it is {closed} instead of {through}. No bridge \
                 takes anything from it; run this again"
            ));
        }
        let claims = fold.claims().values();
        let late = claims.filter(|claim| claim.incarnation == self.old && claim.position > self.read);
        let twice = late.map(|claim| {
            let mut won = claim.won();
            won.remove_range(0, through.0);
            won.len()
        });
        let twice: u64 = twice.sum();
        (twice > 0).then(|| {
            format!("it is written, but {twice} message(s) of {stream} behind {through} were claimed meanwhile: they come twice")
        })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the boundary lies behind the last message that is proven to have been claimed, whatever was restored. Method: a
    //! ledger of real records, and streams as a restore may leave them; sequence n was published at second n before it, and at
    //! second 1000 + n after it.
    use std::collections::BTreeMap;

    use fanin_core::ids::{Attempt, BatchNo, NodeUuid, Nonce, TermsVersion};
    use fanin_core::record::{
        Body, Claim, ClaimKind, Close, EpochRecord, Genesis, NodeState, Record, SourceTerms, Terms, Witness,
        content_hash,
    };
    use fanin_core::seq_set::SeqSet;

    use super::*;

    const OLD: Incarnation = Incarnation(3);
    const NODE: NodeUuid = NodeUuid(7);

    struct Stream(BTreeMap<u64, i64>);

    impl Messages for Stream {
        async fn next(&self, from: StreamSeq) -> Result<Option<Seen>, ApiError> {
            let found = self.0.range(from.0..).next();
            Ok(found.map(|(&seq, &at)| (StreamSeq(seq), at)))
        }

        async fn at(&self, seq: StreamSeq) -> Result<Option<i64>, ApiError> {
            Ok(self.0.get(&seq.0).copied())
        }
    }

    /// What was there through `kept`, and new messages through `last`.
    fn restored(kept: u64, last: u64) -> Stream {
        let at = |seq: u64| if seq <= kept { seq } else { 1000 + seq };
        Stream((1..=last).map(|seq| (seq, at(seq).cast_signed())).collect())
    }

    /// W is 10; claimed are 1 to 10, and behind W these ranges, a batch each.
    fn ledger(claims: &[(u64, u64)]) -> Fold {
        ledger_of(claims, 0)
    }

    /// The same, and then what came again has been claimed from 11 through `anew`, and passed by W.
    fn ledger_of(claims: &[(u64, u64)], anew: u64) -> Fold {
        let terms = Terms {
            version: TermsVersion(1),
            sources: BTreeMap::from([(
                OLD,
                SourceTerms {
                    stream: "S".to_owned(),
                    filters: Vec::new(),
                },
            )]),
            apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
        };
        let epoch = EpochRecord {
            node_uuid: NODE,
            node: "a".to_owned(),
            nonce: Nonce(1),
            hosts: ["x".to_owned()].into(),
            state: NodeState::Active,
        };
        let genesis = Genesis {
            rules: fanin_core::fold::RULES,
            ..Genesis::default()
        };
        let claim_at = |number: u64, (first, last): (u64, u64), since: i64| {
            let seqs = SeqSet::range(first, last);
            let times = (since + first.cast_signed(), since + last.cast_signed());
            Body::Claim(Claim {
                node_uuid: NODE,
                epoch: LedgerSeq(2),
                batch: BatchNo(number),
                content_hash: content_hash(OLD, &seqs, ClaimKind::Normal, times),
                incarnation: OLD,
                seqs,
                terms: TermsVersion(1),
                kind: ClaimKind::Normal,
                published_ns: times,
                attempt: Attempt(1),
            })
        };
        let claim = |number, range| claim_at(number, range, 0);
        let close = |through: u64| {
            Body::Close(Close {
                incarnation: OLD,
                through: StreamSeq(through),
                terms: TermsVersion(1),
                floor: StreamSeq(through),
                holes: 0,
            })
        };
        let mut bodies = vec![
            Body::Genesis(genesis),
            Body::Epoch(epoch),
            Body::Terms(terms),
            claim(1, (1, 10)),
            close(10),
        ];
        bodies.extend((2..).zip(claims).map(|(number, range)| claim(number, *range)));
        if anew > 0 {
            bodies.extend([claim_at(100, (11, anew), 1000), close(anew)]);
        }
        let mut fold = Fold::new();
        for (at, body) in (1..).zip(bodies) {
            let witness = Witness::default();
            let record = Record { witness, body };
            fold.apply(LedgerSeq(at), &record.subject(), &record.encode())
                .unwrap();
        }
        fold
    }

    fn found(stream: &Stream, claims: &[(u64, u64)], fresh: Option<u64>) -> (u64, u64) {
        let broken = fresh.map(|from| Break {
            from: StreamSeq(from),
            known_ns: None,
            is_exact: false,
        });
        found_in(stream, &ledger(claims), broken)
    }

    fn found_in(stream: &Stream, fold: &Fold, broken: Option<Break>) -> (u64, u64) {
        let last = StreamSeq(stream.0.keys().next_back().copied().unwrap_or(0));
        let run = async {
            let mut found = boundary(stream, fold, OLD, last, broken).await.unwrap();
            count_again(stream, fold, OLD, &[], last, &mut found)
                .await
                .unwrap();
            assert!(!found.cut_short);
            (found.through.0, found.again)
        };
        futures_util::FutureExt::now_or_never(run).unwrap()
    }

    #[test]
    fn the_boundary_is_behind_what_was_claimed() {
        let all = [(11, 14), (15, 20)];
        for kept in 0..=20 {
            for last in kept..=30 {
                assert_eq!(
                    found(&restored(kept, last), &all, None),
                    (kept, 0),
                    "{kept} of {last}"
                );
            }
        }
        // What nobody had claimed is delivered.
        assert_eq!(found(&restored(25, 30), &all, None), (20, 0));
    }

    #[test]
    fn what_lies_behind_a_gap_comes_again() {
        let holed = [(11, 14), (17, 20)];
        assert_eq!(found(&restored(20, 30), &holed, None), (14, 4));
        assert_eq!(found(&restored(18, 30), &holed, None), (14, 2));
        let mut gone = restored(20, 30);
        gone.0.retain(|seq, _| !(15..=16).contains(seq));
        assert_eq!(found(&gone, &holed, None), (20, 0), "a hole holds nothing back");
        gone.0.retain(|seq, _| ![9, 10, 12, 14, 20].contains(seq));
        assert_eq!(found(&gone, &holed, None), (20, 0), "what is gone says nothing");
        assert_eq!(found(&Stream(BTreeMap::new()), &holed, None), (0, 0));
    }

    #[test]
    fn a_node_knows_better() {
        // Claimed after the restore, and passed by W, which hides what came before them.
        let mut stream = restored(30, 30);
        for seq in 6..=30 {
            stream.0.insert(seq, 10);
        }
        assert_eq!(found(&stream, &[], None).0, 10);
        assert_eq!(found(&stream, &[], Some(6)).0, 5);
    }

    /// The stream alone goes back to 5, with no consumer: 6 to 20 come anew, the consumer gives out 11 to 20, they are claimed,
    /// and W passes them. A node that had looked at 10 finds another message there. Nobody has claimed what came as 6 to 10.
    #[test]
    fn what_came_since_does_not_hide_behind_what_was_claimed_since() {
        let stream = restored(5, 20);
        let fold = ledger_of(&[], 20);
        assert_eq!(fold.closed(OLD).0, 20);
        let broken = |known_ns| {
            Some(Break {
                from: StreamSeq(10),
                known_ns,
                is_exact: known_ns.is_some(),
            })
        };
        assert_eq!(found_in(&stream, &fold, broken(Some(10))).0, 5);
        assert_eq!(
            found_in(&stream, &fold, broken(None)).0,
            9,
            "times alone do not tell: this needs an operator's word"
        );
        // Behind W too: claims of what was there, and one that was gathered while the restore came.
        let stream = restored(15, 30);
        let claims = [(11, 18)];
        let mixed = Some(Break {
            from: StreamSeq(18),
            known_ns: Some(14),
            is_exact: true,
        });
        assert_eq!(found_in(&stream, &ledger(&claims), mixed), (14, 1));
    }

    #[test]
    fn what_nodes_found_is_put_together() {
        let node = |name: &str, from, known_ns, is_exact| NodeView {
            name: name.to_owned(),
            breaks: BTreeMap::from([(
                "S".to_owned(),
                Break {
                    from: StreamSeq(from),
                    known_ns,
                    is_exact,
                },
            )]),
            ..NodeView::default()
        };
        let nodes = [
            node("a", 9, Some(70), true),
            NodeView::default(),
            node("b", 6, None, false),
            node("c", 8, Some(60), false),
        ];
        let together = Break {
            from: StreamSeq(6),
            known_ns: Some(60),
            is_exact: true,
        };
        let all = Some(("b".to_owned(), together));
        assert_eq!(evidence(&nodes, "S", None), all);
        assert_eq!(evidence(&nodes, "T", None), None);
        assert_eq!(evidence(&nodes[1..2], "S", all.clone()), all);
    }

    /// What a repair wrote is read back: the terms, the W that counts, and that nobody has claimed anything meanwhile.
    #[test]
    fn what_was_written_is_read_back() {
        const NEW: Incarnation = Incarnation(4);
        let begun = |through, keeps_old| Begun {
            stream: "S",
            old: OLD,
            new: NEW,
            keeps_old,
            through: StreamSeq(through),
            read: LedgerSeq(5),
            was_in_use: false,
        };
        let mut fold = ledger(&[]);
        let put = |fold: &mut Fold, body| {
            let record = Record {
                witness: Witness::default(),
                body,
            };
            let at = fold.position().next();
            fold.apply(at, &record.subject(), &record.encode()).unwrap();
        };
        let told = |fold: &Fold, begun: Begun<'_>| begun.shortfall(fold).unwrap_or_default();
        assert!(told(&fold, begun(10, true)).contains("other terms"));
        let mut terms = fold.terms().clone();
        terms.version.0 += 1;
        let named = terms.sources[&OLD].clone();
        terms.sources.insert(NEW, named);
        put(&mut fold, Body::Terms(terms));
        let close = |terms| {
            Body::Close(Close {
                incarnation: NEW,
                through: StreamSeq(10),
                terms: TermsVersion(terms),
                floor: StreamSeq(10),
                holes: 0,
            })
        };
        put(&mut fold, close(1));
        assert!(told(&fold, begun(10, true)).contains("is 0 instead of 10"));
        put(&mut fold, close(2));
        assert_eq!(told(&fold, begun(10, true)), "");
        assert!(told(&fold, begun(10, false)).contains("other terms"));
        let late = ledger(&[(11, 14)]);
        let mut of_old = begun(12, true);
        of_old.new = OLD;
        assert!(told(&late, of_old).contains("is 10 instead of 12"));
        of_old.through = StreamSeq(10);
        assert!(told(&late, of_old).contains("4 message(s) of S behind 10"));
        of_old.read = late.position();
        assert_eq!(told(&late, of_old), "");
    }
}
