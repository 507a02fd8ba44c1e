//! Messages at or below the shared consumer's acknowledgement floor that match and that nobody claimed. The hub is known to skip
//! some; the bridges find and repair them by themselves, one look a minute. Here they are listed at once.

use fanin_core::fold::Fold;
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_core::seq_set::SeqSet;
use fanin_hub::ApiError;
use fanin_hub::port::Hub;

use super::limits::{FINDINGS_LISTED_MAX, GAPS_MAX};
use super::source::{Messages, OfHub};

/// What a sweep found in one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// The watermark.
    pub closed: StreamSeq,
    /// The acknowledgement floor.
    pub floor: StreamSeq,
    /// Unclaimed matching messages between them, at most [`FINDINGS_LISTED_MAX`].
    pub unclaimed: Vec<StreamSeq>,
    /// Sequences between them that nobody owns.
    pub unowned: u64,
    /// Whether there were more gaps than were looked into, or more such messages than are listed.
    pub cut_short: bool,
}

/// Looks into every gap of the ownership between W and the floor.
///
/// # Errors
/// A request to the hub failed.
pub async fn sweep(
    hub: &dyn Hub,
    fold: &Fold,
    incarnation: Incarnation,
    (stream, filters): (&str, &[String]),
    floor: StreamSeq,
) -> Result<Sweep, ApiError> {
    let closed = fold.closed(incarnation);
    let mut sweep = Sweep {
        closed,
        floor,
        ..Sweep::default()
    };
    if floor <= closed {
        return Ok(sweep);
    }
    let all = SeqSet::range(closed.0 + 1, floor.0);
    let open = fold
        .owners(incarnation)
        .map_or_else(|| all.clone(), |owners| owners.unowned(&all));
    sweep.unowned = open.len();
    let messages = OfHub { hub, stream, filters };
    look_into(&messages, &open, &mut sweep).await?;
    Ok(sweep)
}

/// Lists what the stream holds of `open`, up to the bounds of a sweep.
async fn look_into(messages: &impl Messages, open: &SeqSet, sweep: &mut Sweep) -> Result<(), ApiError> {
    for (n, &(first, last)) in open.ranges().iter().enumerate() {
        if n >= GAPS_MAX {
            sweep.cut_short = true;
            break;
        }
        let mut from = first;
        while from <= last {
            let Some((found, _)) = messages.next(StreamSeq(from)).await? else {
                return Ok(());
            };
            if found.0 > last {
                break;
            }
            if sweep.unclaimed.len() >= FINDINGS_LISTED_MAX {
                sweep.cut_short = true;
                return Ok(());
            }
            sweep.unclaimed.push(found);
            from = found.0 + 1;
        }
    }
    Ok(())
}

/// Whether the stream holds a message at a sequence that matches one of the filters.
///
/// # Errors
/// A request to the hub failed.
pub async fn is_wanted(
    hub: &dyn Hub,
    (stream, filters): (&str, &[String]),
    seq: StreamSeq,
) -> Result<bool, ApiError> {
    let found = next(hub, stream, filters, seq).await?;
    Ok(found.is_some_and(|(found, _)| found == seq))
}

/// The first message at or behind a sequence that matches one of the filters, with its publish time in nanoseconds since 1970.
///
/// # Errors
/// A request to the hub failed.
pub(super) async fn next(
    hub: &dyn Hub,
    stream: &str,
    filters: &[String],
    from: StreamSeq,
) -> Result<Option<(StreamSeq, i64)>, ApiError> {
    let everything = [">".to_owned()];
    let filters = if filters.is_empty() {
        &everything[..]
    } else {
        filters
    };
    let mut first: Option<(StreamSeq, i64)> = None;
    for filter in filters {
        let found = hub.next_matching(stream, from, filter).await?;
        let found = found.map(|message| {
            let at = i64::try_from(message.published_ns).unwrap_or(i64::MAX);
            (message.seq, at)
        });
        first = [first, found].into_iter().flatten().min();
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    //! Goal: everything unclaimed is listed, and a sweep that leaves something out says so. Method: streams and gaps around the
    //! bounds.
    use super::*;

    /// Holds the sequences of a set.
    struct Stream(SeqSet);

    impl Messages for Stream {
        async fn next(&self, from: StreamSeq) -> Result<Option<(StreamSeq, i64)>, ApiError> {
            let mut behind = self.0.clone();
            if from.0 > 0 {
                behind.remove_range(0, from.0 - 1);
            }
            Ok(behind.first().map(|seq| (StreamSeq(seq), 0)))
        }

        async fn at(&self, seq: StreamSeq) -> Result<Option<i64>, ApiError> {
            Ok(self.0.contains(seq.0).then_some(0))
        }
    }

    fn swept(stream: SeqSet, open: &SeqSet) -> Sweep {
        let mut sweep = Sweep::default();
        let stream = Stream(stream);
        let looked = look_into(&stream, open, &mut sweep);
        futures_util::FutureExt::now_or_never(looked).unwrap().unwrap();
        sweep
    }

    fn set(ranges: &[(u64, u64)]) -> SeqSet {
        let mut set = SeqSet::new();
        for &(first, last) in ranges {
            set.insert_range(first, last);
        }
        set
    }

    #[test]
    fn what_lies_in_the_gaps_is_listed() {
        let sweep = swept(set(&[(1, 3), (6, 6), (9, 12)]), &set(&[(2, 4), (6, 9), (20, 30)]));
        let found: Vec<u64> = sweep.unclaimed.iter().map(|seq| seq.0).collect();
        assert_eq!((found, sweep.cut_short), (vec![2, 3, 6, 9], false));
    }

    #[test]
    fn a_list_that_is_cut_short_says_so() {
        const MAX: u64 = FINDINGS_LISTED_MAX as u64;
        for (stream, open, cut_short) in [
            (set(&[(1, MAX)]), set(&[(1, MAX)]), false),
            (set(&[(1, MAX)]), set(&[(1, MAX), (MAX + 5, MAX + 9)]), false),
            (set(&[(1, MAX + 1)]), set(&[(1, MAX)]), false),
            (set(&[(1, MAX + 1)]), set(&[(1, MAX + 1)]), true),
            (
                set(&[(1, MAX), (MAX + 7, MAX + 7)]),
                set(&[(1, MAX), (MAX + 5, MAX + 9)]),
                true,
            ),
        ] {
            let sweep = swept(stream, &open);
            assert_eq!(
                (sweep.unclaimed.len(), sweep.cut_short),
                (FINDINGS_LISTED_MAX, cut_short),
                "{open:?}"
            );
        }
    }

    #[test]
    fn more_gaps_than_are_looked_into_say_so() {
        const MAX: u64 = GAPS_MAX as u64;
        let gaps = |count: u64| {
            let mut set = SeqSet::new();
            for n in 1..=count {
                set.insert(2 * n);
            }
            set
        };
        // Behind all of them, so that each is looked into in vain.
        let stream = || set(&[(4 * MAX, 4 * MAX)]);
        assert!(!swept(stream(), &gaps(MAX)).cut_short);
        assert!(swept(stream(), &gaps(MAX + 1)).cut_short);
    }
}
