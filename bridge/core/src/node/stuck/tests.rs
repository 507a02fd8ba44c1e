//! Goal: a message counts as stuck exactly when it may, and what is asked, fetched and acknowledged of stuck ones keeps every bound. Method:
//! a node that acts, with claims and memories put there by hand; one input, all that came of it.

use super::*;
use crate::fold::{ClaimKey, NodeEntry, Owners};
use crate::ids::{Epoch, NodeUuid, TermsVersion};
use crate::node::{Identity, Policy, Stability};
use crate::record::{NodeState, SourceTerms, Terms};
use crate::recovery::{Disk, recover};

const SOURCE: Incarnation = Incarnation(7);
const OWN: NodeUuid = NodeUuid(5);
const NOW: Tick = Tick(100_000);

/// A node that acts alone. W is 2, the floor 3, the mark 10; 5, 6 and 8 are claimed by another, stable; so 4, 7, 9 and 10 lie open.
fn node() -> Node {
    let source = SourceTerms {
        stream: "S".to_owned(),
        filters: Vec::new(),
    };
    let identity = Identity {
        uuid: OWN,
        sources: [(SOURCE, source.clone())].into(),
        ..Identity::default()
    };
    let policy = Policy {
        stability: Stability::SyncAlways,
        ..Policy::default()
    };
    let mut node = recover(identity, policy, Disk::default());
    node.phase = Phase::Active;
    node.epoch = Some(Epoch::default());
    node.fold.terms = Terms {
        version: TermsVersion(1),
        sources: [(SOURCE, source)].into(),
        ..Terms::default()
    };
    node.fold.nodes.insert(OWN, active());
    node.fold.closed.insert(SOURCE, StreamSeq(2));
    claimed(&mut node, &[5, 6, 8]);
    let state = node.close.entry(SOURCE).or_default();
    state.stuck = Stuck {
        floor: StreamSeq(3),
        mark: StreamSeq(10),
        ..Stuck::default()
    };
    node
}

fn active() -> NodeEntry {
    NodeEntry {
        state: NodeState::Active,
        ..NodeEntry::default()
    }
}

fn claimed(node: &mut Node, seqs: &[u64]) {
    let mut owners = Owners::default();
    let seqs = seqs.iter().copied().collect();
    owners.assign(&seqs, ClaimKey::new(NodeUuid(99), 1));
    node.fold.owners.insert(SOURCE, owners);
}

fn stuck(node: &mut Node) -> &mut Stuck {
    &mut node.close.get_mut(&SOURCE).unwrap().stuck
}

fn ago(ms: u64) -> Tick {
    Tick(NOW.0 - ms)
}

/// What was asked for: looks, fetches, acknowledgements.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    looks: Vec<u64>,
    fetches: Vec<u64>,
    settles: Vec<u64>,
}

fn asked(out: &[Effect]) -> Asked {
    let mut asked = Asked::default();
    for effect in out {
        if let Effect::Audit { first, .. } = effect {
            asked.looks.push(first.0);
        } else if let Effect::FetchRepair { seq, .. } = effect {
            asked.fetches.push(seq.0);
        } else if let Effect::SettleBySeq { seqs, .. } = effect {
            asked.settles.extend(seqs.iter());
        }
    }
    asked
}

fn looks(node: &mut Node) -> Vec<u64> {
    let mut out = Vec::new();
    node.look_for_stuck(NOW, SOURCE, &mut out);
    asked(&out).looks
}

fn settles(node: &mut Node) -> Vec<u64> {
    let mut out = Vec::new();
    node.settle_stuck(NOW, SOURCE, &mut out);
    asked(&out).settles
}

/// Waiting counts while this node pulls at both ends of the time, and begins again when the counters go back or all that was marked is done.
#[test]
fn waiting_is_counted() {
    const GAP_MS: u64 = 100;
    let reading = |floor, delivered, pulling| Reading {
        floor: StreamSeq(floor),
        delivered: StreamSeq(delivered),
        pulling,
    };
    let begun = |pulling| {
        let mut stuck = Stuck::default();
        stuck.read(ago(0), reading(2, 10, pulling), GAP_MS);
        assert_eq!((stuck.mark, stuck.waited_ms), (StreamSeq(10), 0));
        stuck.read(ago(0).after(40), reading(2, 10, pulling), GAP_MS);
        stuck
    };
    let next = |before: bool, floor: u64, delivered: u64, pulling: bool, ms: u64| {
        let mut stuck = begun(before);
        stuck.read(ago(0).after(40 + ms), reading(floor, delivered, pulling), GAP_MS);
        (stuck.mark.0, stuck.waited_ms)
    };
    assert_eq!(next(true, 2, 10, true, 50), (10, 90));
    assert_eq!(next(true, 2, 10, true, 500), (10, 140), "at most the gap");
    assert_eq!(next(true, 9, 10, true, 50), (10, 90), "the floor rises");
    assert_eq!(next(true, 2, 12, true, 50), (10, 90), "more is delivered");
    assert_eq!(next(true, 2, 10, false, 50), (10, 40));
    assert_eq!(next(false, 2, 10, true, 50), (10, 0));
    assert_eq!(next(true, 1, 11, true, 50), (11, 0), "the floor went back");
    assert_eq!(next(true, 2, 9, true, 50), (9, 0), "the consumer is another one");
    assert_eq!(next(true, 10, 12, true, 50), (12, 0), "all is done");
}

/// Looks begin when the wait is over, by the node whose turn it is, on a fresh reading of a source that is pulled from.
#[test]
fn the_moment_of_the_first_look() {
    let policy = node().policy;
    let free = |waited_ms: u64, read_ms: u64, change: fn(&mut Node)| {
        let mut node = node();
        *stuck(&mut node) = Stuck {
            read_at: Some(ago(read_ms)),
            pulling: true,
            waited_ms,
            ..stuck(&mut node).clone()
        };
        change(&mut node);
        let mut out = Vec::new();
        node.free_stuck(NOW, &mut out);
        !asked(&out).looks.is_empty()
    };
    let (wait_ms, fresh_ms) = (policy.stuck_ms, policy.resend_ms - 1);
    assert!(free(wait_ms, fresh_ms, |_| {}));
    assert!(!free(wait_ms - 1, fresh_ms, |_| {}));
    assert!(!free(wait_ms, policy.resend_ms, |_| {}), "an old reading");
    assert!(!free(wait_ms, fresh_ms, |node| stuck(node).pulling = false));
    let behind: fn(&mut Node) = |node| {
        node.fold.nodes.insert(NodeUuid(1), active());
    };
    assert!(!free(wait_ms + policy.takeover_ms - 1, fresh_ms, behind));
    assert!(free(wait_ms + policy.takeover_ms, fresh_ms, behind));
    let again: fn(&mut Node) = |node| stuck(node).found_before = true;
    assert!(free(wait_ms / STUCK_AGAIN_DIVISOR, fresh_ms, again));
    assert!(!free(wait_ms / STUCK_AGAIN_DIVISOR - 1, fresh_ms, again));
}

/// Each gap from the floor to the mark is looked into once, at its first sequence that is not known.
#[test]
fn gaps_are_looked_into() {
    assert_eq!(looks(&mut node()), [4, 7, 9]);
    let with = |change: fn(&mut Node)| {
        let mut node = node();
        change(&mut node);
        looks(&mut node)
    };
    assert_eq!(with(|node| stuck(node).mark = StreamSeq(9)), [4, 7, 9]);
    assert_eq!(with(|node| stuck(node).mark = StreamSeq(8)), [4, 7]);
    assert_eq!(with(|node| stuck(node).mark = StreamSeq(7)), [4, 7]);
    assert_eq!(with(|node| stuck(node).mark = StreamSeq(6)), [4]);
    assert_eq!(with(|node| stuck(node).floor = StreamSeq(4)), [7, 9]);
    assert_eq!(with(|node| stuck(node).floor = StreamSeq(0)), [3, 7, 9]);
    let floor: fn(&mut Node) = |node| {
        let reading = Reading {
            floor: StreamSeq(7),
            delivered: StreamSeq(10),
            pulling: true,
        };
        let stuck = stuck(node).clone();
        node.on_floor(NOW, SOURCE, reading);
        node.close.get_mut(&SOURCE).unwrap().stuck = stuck;
    };
    assert_eq!(with(floor), [9], "below the highest floor it is no stuck one");
    assert_eq!(with(|node| stuck(node).passed.insert_range(4, 9)), [10]);
    assert_eq!(with(|node| stuck(node).passed.insert_range(9, 10)), [4, 7]);
    assert_eq!(
        with(|node| {
            node.in_hand.insert(SOURCE, [4, 9].into_iter().collect());
        }),
        [7, 10]
    );
    let both: fn(&mut Node) = |node| {
        claimed(node, &[20]);
        stuck(node).passed.union(&[4, 6, 8].into_iter().collect());
        node.in_hand.insert(SOURCE, [5, 7, 9].into_iter().collect());
    };
    assert_eq!(with(both), [10]);
    // The mark itself is claimed, or lies in a gap that ends behind it.
    let claimed_mark: fn(&mut Node) = |node| {
        stuck(node).mark = StreamSeq(8);
        stuck(node).passed.insert(7);
    };
    assert_eq!(with(claimed_mark), [4]);
    let within: fn(&mut Node) = |node| {
        claimed(node, &[5, 6, 20]);
        stuck(node).mark = StreamSeq(7);
        stuck(node).passed.insert(7);
    };
    assert_eq!(with(within), [4]);
    let wait: fn(&mut Node) = |node| {
        stuck(node).asked.insert(7, NOW);
        stuck(node).fetched.insert(9, NOW);
    };
    assert_eq!(with(wait), [4], "asked, and being fetched");
}

/// No more looks than there may be, those under way included; an answer that is lost is asked for again.
#[test]
fn looks_are_bounded_and_come_again() {
    let mut many = node();
    claimed(&mut many, &(4..=60).step_by(2).collect::<Vec<_>>());
    stuck(&mut many).mark = StreamSeq(60);
    let first: Vec<u64> = (5..).step_by(2).take(STUCK_LOOKS_MAX).collect();
    assert_eq!(looks(&mut many), first);
    assert_eq!(looks(&mut many), [0; 0]);
    let resend_ms = many.policy.resend_ms;
    for (ms, again) in [(resend_ms - 1, false), (resend_ms, true)] {
        let mut node = many.clone();
        stuck(&mut node).asked.values_mut().for_each(|at| *at = ago(ms));
        assert_eq!(looks(&mut node) == first, again);
    }
    let mut full = node();
    stuck(&mut full).asked = (100..100 + STUCK_LOOKS_MAX as u64 - 1)
        .map(|seq| (seq, NOW))
        .collect();
    assert_eq!(looks(&mut full), [4], "one more may go out");

    let mut node = node();
    stuck(&mut node).fetched = [
        (2, NOW),
        (3, NOW),
        (4, ago(resend_ms - 1)),
        (5, NOW),
        (7, ago(resend_ms)),
    ]
    .into();
    assert_eq!(looks(&mut node), [7, 9]);
    let kept: Vec<_> = stuck(&mut node).fetched.keys().copied().collect();
    assert_eq!(kept, [3, 4], "closed, claimed, or given up waiting for");
}

/// What is claimed right above the floor is acknowledged up to the first that is not, past what the source does not offer.
#[test]
fn claimed_ones_are_acknowledged() {
    let with = |floor: u64, change: fn(&mut Node)| {
        let mut node = node();
        stuck(&mut node).floor = StreamSeq(floor);
        change(&mut node);
        settles(&mut node)
    };
    assert_eq!(with(3, |_| {}), [0; 0], "4 is not claimed");
    assert_eq!(with(4, |_| {}), [5, 6]);
    assert_eq!(with(0, |_| {}), [1, 2]);
    assert_eq!(with(0, |node| claimed(node, &[3, 4, 6])), [1, 2, 3, 4]);
    assert_eq!(
        with(4, |node| stuck(node).passed.union(&[7].into_iter().collect())),
        [5, 6, 8]
    );
    assert_eq!(
        with(3, |node| stuck(node).passed.union(&[4].into_iter().collect())),
        [5, 6]
    );
    assert_eq!(with(4, |node| stuck(node).mark = StreamSeq(5)), [5]);
    assert_eq!(with(0, |node| stuck(node).mark = StreamSeq(1)), [1]);
    assert_eq!(with(4, |node| stuck(node).settle_from = StreamSeq(6)), [6]);
    assert_eq!(with(4, |node| node.phase = Phase::Joining), [0; 0]);
    assert_eq!(
        with(4, |node| node.policy.stability = Stability::After(10)),
        [0; 0],
        "not stable"
    );
    let close_ms = node().policy.close_ms;
    for (ms, goes) in [(close_ms - 1, false), (close_ms, true)] {
        let mut node = node();
        stuck(&mut node).floor = StreamSeq(4);
        stuck(&mut node).settled_at = Some(ago(ms));
        assert_eq!(!settles(&mut node).is_empty(), goes);
        assert_eq!(
            stuck(&mut node).settled_at,
            Some(if goes { NOW } else { ago(ms) })
        );
    }
}

/// The answer to the look at 4, of a node on which something was changed before: what is asked for, and what needs no second look.
fn answered(next_matching: Option<u64>, change: impl FnOnce(&mut Node)) -> (Asked, Vec<(u64, u64)>, bool) {
    let mut node = node();
    claimed(&mut node, &[]);
    stuck(&mut node).asked.insert(4, NOW);
    change(&mut node);
    let mut out = Vec::new();
    let next_matching = next_matching.map(StreamSeq);
    let was_one = node.on_stuck_audited(NOW, SOURCE, StreamSeq(4), next_matching, &mut out);
    let passed = stuck(&mut node).passed.ranges().to_vec();
    (asked(&out), passed, was_one)
}

fn got(fetches: &[u64], looks: &[u64]) -> Asked {
    Asked {
        looks: looks.to_vec(),
        fetches: fetches.to_vec(),
        settles: Vec::new(),
    }
}

/// What the source offers and nobody has claimed is fetched, and the gap behind it is looked into; what it does not offer needs no second
/// look.
#[test]
fn an_answer_decides() {
    let nothing = |_: &mut Node| {};
    assert_eq!(answered(None, nothing), (got(&[], &[]), vec![(4, 10)], true));
    assert_eq!(answered(Some(11), nothing), (got(&[], &[]), vec![(4, 10)], true));
    assert_eq!(answered(Some(4), nothing), (got(&[4], &[5]), vec![], true));
    assert_eq!(answered(Some(9), nothing), (got(&[9], &[10]), vec![(4, 8)], true));
    assert_eq!(answered(Some(10), nothing), (got(&[10], &[]), vec![(4, 9)], true));
    let unasked = |node: &mut Node| stuck(node).asked.clear();
    assert_eq!(answered(Some(4), unasked), (got(&[], &[]), vec![], false));
}

/// What is closed, claimed, in hand or being fetched by now is not fetched, and the look behind it is left to the next round.
#[test]
fn what_is_known_by_now_is_not_fetched() {
    let asked_for = |next, change: fn(&mut Node)| answered(Some(next), change).0;
    let closed: fn(&mut Node) = |node| {
        node.fold.closed.insert(SOURCE, StreamSeq(6));
    };
    assert_eq!(asked_for(6, closed), got(&[], &[]));
    assert_eq!(asked_for(7, closed), got(&[7], &[8]));
    assert_eq!(asked_for(5, |node| claimed(node, &[5])), got(&[], &[]));
    assert_eq!(asked_for(5, |node| claimed(node, &[6])), got(&[5], &[]));
    let in_hand: fn(&mut Node) = |node| {
        node.in_hand.insert(SOURCE, SeqSet::range(6, 6));
    };
    assert_eq!(asked_for(6, in_hand), got(&[], &[]));
    assert_eq!(asked_for(5, in_hand), got(&[5], &[]));
    let fetched: fn(&mut Node) = |node| {
        stuck(node).fetched.insert(5, NOW);
    };
    assert_eq!(asked_for(5, fetched), got(&[], &[]));
    let behind: fn(&mut Node) = |node| stuck(node).mark = StreamSeq(5);
    assert_eq!(asked_for(5, behind), got(&[5], &[]));
}

/// The bounds of what is fetched, looked for and remembered.
#[test]
fn answers_keep_the_bounds() {
    let max = STUCK_LOOKS_MAX as u64;
    let many = |count: u64| (100..100 + count).map(|seq| (seq, NOW));
    let fetching = |count| answered(Some(5), |node| stuck(node).fetched.extend(many(count))).0;
    assert_eq!(fetching(max - 1), got(&[5], &[6]));
    assert_eq!(fetching(max), got(&[], &[]));
    let looking = |count| answered(Some(5), |node| stuck(node).asked.extend(many(count))).0;
    assert_eq!(looking(max - 1), got(&[5], &[6]));
    assert_eq!(looking(max), got(&[5], &[]));
    let passed = |count: u64| {
        let ranges = answered(None, |node| {
            let seqs = (0..count).map(|n| 1_000 + 2 * n).collect();
            stuck(node).passed.union(&seqs);
        });
        ranges.1.len()
    };
    assert_eq!(passed(STUCK_PASSED_MAX as u64 - 1), STUCK_PASSED_MAX);
    assert_eq!(passed(STUCK_PASSED_MAX as u64), STUCK_PASSED_MAX);
}
