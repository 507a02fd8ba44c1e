//! A source that was restored to an earlier copy, or created again: up to where it holds what was claimed before (P10). Nothing is
//! changed here.
//!
//! A message keeps its publish time, and claims name the times of their oldest and newest message. So what lies in the stream under
//! a claimed sequence is the claimed message if its time is among those of the claim. Of claims that W has passed the newest
//! time is known. What is not proven to be the same message counts as another one: it rather comes twice than never.

use fanin_core::fold::Fold;
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_hub::ApiError;
use fanin_hub::port::Hub;

use super::gaps;
use super::limits::GAPS_MAX;
use super::nodes::NodeView;

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

/// Looks for the boundary in a stream that ends at `last`. From `fresh` on every message is another one, as some node found out.
///
/// # Errors
/// A request to the hub failed.
pub(crate) async fn boundary(
    messages: &impl Messages,
    fold: &Fold,
    old: Incarnation,
    last: StreamSeq,
    fresh: Option<StreamSeq>,
) -> Result<Boundary, ApiError> {
    let fresh = fresh.unwrap_or(StreamSeq(u64::MAX));
    let end = last.min(StreamSeq(fresh.0.saturating_sub(1)));
    let closed = fold.closed(old).min(end);
    let mut through = passed(messages, fold, old, closed).await?;
    if through == closed && closed < end {
        through = claimed(messages, fold, old, (closed, end)).await?;
    }
    Ok(Boundary {
        through,
        next: messages.next(through.next()).await?,
        ..Boundary::default()
    })
}

/// How far, at most through `closed`, the stream holds what claims named that W has passed.
async fn passed(
    messages: &impl Messages,
    fold: &Fold,
    old: Incarnation,
    closed: StreamSeq,
) -> Result<StreamSeq, ApiError> {
    let newest_ns = fold.passed(old).newest_ns;
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

/// How far behind `closed`, at most through `end`, the stream holds what claims name that W has not passed, without a gap.
async fn claimed(
    messages: &impl Messages,
    fold: &Fold,
    old: Incarnation,
    (closed, end): (StreamSeq, StreamSeq),
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
        let is_same = |at: i64| times.is_some_and(|(oldest, newest)| oldest <= at && at <= newest);
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

#[cfg(test)]
mod tests {
    //! Goal: the boundary lies behind the last message that is proven to have been claimed, whatever was restored. Method: a
    //! ledger of real records, and streams as a restore may leave them; sequence n was published at second n before it, and at
    //! second 1000 + n after it.
    use std::collections::BTreeMap;

    use fanin_core::ids::{Attempt, BatchNo, LedgerSeq, NodeUuid, Nonce, TermsVersion};
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
        let claim = |number: u64, (first, last): (u64, u64)| {
            let seqs = SeqSet::range(first, last);
            let times = (first.cast_signed(), last.cast_signed());
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
        let close = Close {
            incarnation: OLD,
            through: StreamSeq(10),
            terms: TermsVersion(1),
            floor: StreamSeq(10),
            holes: 0,
        };
        let mut bodies = vec![
            Body::Genesis(genesis),
            Body::Epoch(epoch),
            Body::Terms(terms),
            claim(1, (1, 10)),
            Body::Close(close),
        ];
        bodies.extend((2..).zip(claims).map(|(number, range)| claim(number, *range)));
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
        let fold = ledger(claims);
        let last = StreamSeq(stream.0.keys().next_back().copied().unwrap_or(0));
        let run = async {
            let mut found = boundary(stream, &fold, OLD, last, fresh.map(StreamSeq))
                .await
                .unwrap();
            count_again(stream, &fold, OLD, &[], last, &mut found)
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
}
