//! Messages at or below the shared consumer's acknowledgement floor that match and that nobody claimed. The hub is known to skip
//! some; the bridges find and repair them by themselves, one look a minute. Here they are listed at once.

use fanin_core::fold::Fold;
use fanin_core::ids::{Incarnation, StreamSeq};
use fanin_core::seq_set::SeqSet;
use fanin_hub::ApiError;
use fanin_hub::port::Hub;

use super::limits::{FINDINGS_LISTED_MAX, GAPS_MAX};

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
    /// Whether there were more gaps than were looked into.
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
    for (n, &(first, last)) in open.ranges().iter().enumerate() {
        if n >= GAPS_MAX {
            sweep.cut_short = true;
            break;
        }
        let mut from = first;
        while from <= last && sweep.unclaimed.len() < FINDINGS_LISTED_MAX {
            let Some((found, _)) = next(hub, stream, filters, StreamSeq(from)).await? else {
                break;
            };
            if found.0 > last {
                break;
            }
            sweep.unclaimed.push(found);
            from = found.0 + 1;
        }
    }
    Ok(sweep)
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
