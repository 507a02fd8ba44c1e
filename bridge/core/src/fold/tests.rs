//! Goal: what a state says, what it keeps and what is refused as one, at every bound. Method: states built by hand, with one thing
//! off; each case is a change of the fold that no other test noticed (`docs/mutation-testing.md`).

use super::*;
use crate::ids::{Attempt, BatchNo, Nonce};
use crate::limits::APPS_MAX;
use crate::wire::DecodeError;

const SOURCE: Incarnation = Incarnation(7);
const NODE: NodeUuid = NodeUuid(1);

/// A state with a source, a watermark and a node.
fn state() -> Fold {
    let mut fold = Fold::new();
    fold.position = LedgerSeq(9);
    fold.closed.insert(SOURCE, StreamSeq(5));
    fold.passed.insert(
        SOURCE,
        Passed {
            claimed_through: StreamSeq(5),
            newest_ns: 77,
        },
    );
    fold.nodes.insert(
        NODE,
        NodeEntry {
            name: "n".to_owned(),
            epoch: LedgerSeq(3),
            nonce: Nonce(4),
            done: SeqSet::range(2, 4),
            ..NodeEntry::default()
        },
    );
    fold
}

fn again(fold: &Fold) -> Result<Fold, DecodeError> {
    Fold::decode(&fold.encode()).map(|mut again| {
        // What was remembered of earlier positions is not part of the state.
        again.recent.clear();
        again
    })
}

#[test]
fn positions_and_watermarks_have_something_behind_them() {
    assert_eq!(again(&state()), Ok(state()));
    let mut last = state();
    last.position = LedgerSeq(u64::MAX - 1);
    last.closed.insert(SOURCE, StreamSeq(u64::MAX - 1));
    assert_eq!(again(&last), Ok(last));
    let mut position = state();
    position.position = LedgerSeq(u64::MAX);
    assert_eq!(again(&position), Err(DecodeError::Overflow));
    let mut closed = state();
    closed.closed.insert(SOURCE, StreamSeq(u64::MAX));
    assert_eq!(again(&closed), Err(DecodeError::Overflow));
}

#[test]
fn what_w_has_passed_lies_below_it_and_has_a_time() {
    let passed = |claimed_through, newest_ns| {
        let mut fold = state();
        let claimed_through = StreamSeq(claimed_through);
        fold.passed.insert(
            SOURCE,
            Passed {
                claimed_through,
                newest_ns,
            },
        );
        again(&fold)
    };
    let refused = Err(DecodeError::Invalid("claimed sequences above the watermark"));
    assert_eq!(passed(6, 77), refused);
    assert_eq!(passed(0, 77), refused);
    for (claimed_through, newest_ns) in [(5, 0), (1, 77), (5, -1)] {
        assert!(passed(claimed_through, newest_ns).is_ok());
    }
    // Nothing is nothing, not an entry that says so: equal states are equal values.
    let mut nothing = state();
    nothing.passed.clear();
    assert_eq!(again(&nothing), Ok(nothing));
}

#[test]
fn a_node_hosts_no_more_than_there_can_be() {
    let hosts = |count: usize| {
        let mut fold = state();
        let hosts = (0..count).map(|n| format!("a{n:04}")).collect();
        fold.nodes.entry(NODE).and_modify(|node| node.hosts = hosts);
        again(&fold).map(|fold| fold.nodes[&NODE].hosts.len())
    };
    assert_eq!(hosts(APPS_MAX), Ok(APPS_MAX));
    let refused = Err(DecodeError::Limit("hosted applications"));
    assert_eq!(hosts(APPS_MAX + 1), refused);
}

/// Records in order, each with the witness of what stands before it.
fn folded(bodies: Vec<Body>) -> Fold {
    let mut fold = Fold::new();
    for body in bodies {
        let position = fold.position().next();
        let record = Record {
            witness: fold.witness(),
            body,
        };
        fold.apply(position, &record.subject(), &record.encode()).unwrap();
    }
    fold
}

fn begun() -> Vec<Body> {
    let source = crate::record::SourceTerms {
        stream: "S".to_owned(),
        filters: Vec::new(),
    };
    vec![
        Body::Genesis(Genesis {
            rules: 1,
            features: [].into(),
        }),
        Body::Terms(Terms {
            version: TermsVersion(1),
            sources: [(SOURCE, source)].into(),
            apps: [].into(),
        }),
        Body::Epoch(EpochRecord {
            node_uuid: NODE,
            node: "n".to_owned(),
            nonce: Nonce(4),
            hosts: [].into(),
            state: NodeState::Active,
        }),
    ]
}

fn claim(batch: u64, seqs: SeqSet, published_ns: (i64, i64)) -> Body {
    let kind = ClaimKind::Normal;
    Body::Claim(Claim {
        node_uuid: NODE,
        epoch: LedgerSeq(3),
        batch: BatchNo(batch),
        attempt: Attempt(1),
        content_hash: crate::record::content_hash(SOURCE, &seqs, kind, published_ns),
        incarnation: SOURCE,
        seqs,
        terms: TermsVersion(1),
        kind,
        published_ns,
    })
}

fn close(through: u64) -> Body {
    Body::Close(Close {
        incarnation: SOURCE,
        through: StreamSeq(through),
        terms: TermsVersion(1),
        floor: StreamSeq(through),
        holes: 0,
    })
}

#[test]
fn the_rules_are_told() {
    let mut records = begun();
    records.truncate(1);
    let fold = folded(records);
    assert_eq!(fold.genesis().map(|genesis| genesis.rules), Some(1));
    assert_eq!(fold.genesis_at(), LedgerSeq(1));
    assert_eq!(
        (Fold::new().genesis(), Fold::new().genesis_at()),
        (None, LedgerSeq(0))
    );
}

/// Nothing is known as claimed before anything is; what W passes without a claim leaves no trace.
#[test]
fn only_claims_are_known_as_claimed() {
    let mut records = begun();
    assert_eq!(folded(records.clone()).newest_claimed(SOURCE), None);
    records.extend([claim(1, SeqSet::range(5, 6), (70, 80)), close(3)]);
    let fold = folded(records.clone());
    assert_eq!(fold.newest_claimed(SOURCE), Some(StreamSeq(6)));
    assert!(fold.passed.is_empty(), "{:?}", fold.passed);
    records.push(close(5));
    let fold = folded(records);
    let passed = Passed {
        claimed_through: StreamSeq(5),
        newest_ns: 80,
    };
    assert_eq!(fold.passed(SOURCE), passed);
    assert_eq!(fold.newest_claimed(SOURCE), Some(StreamSeq(6)));
}

/// A state may become another one only when nothing in it goes back (I3): one thing off at a time.
#[test]
fn a_state_never_goes_back() {
    let mut now = state();
    now.terms.version = TermsVersion(2);
    let later = |change: fn(&mut Fold)| {
        let mut later = now.clone();
        change(&mut later);
        now.may_become(&later)
    };
    assert!(later(|_| {}));
    assert!(later(|fold| fold.terms.version.0 += 1));
    assert!(!later(|fold| fold.terms.version.0 -= 1));
    assert!(later(|fold| fold.closed.entry(SOURCE).or_default().0 += 1));
    assert!(!later(|fold| fold.closed.entry(SOURCE).or_default().0 -= 1));
    assert!(!later(|fold| fold.closed.clear()));
    assert!(!later(|fold| fold.nodes.clear()));
    assert!(later(|fold| fold.nodes.entry(NODE).or_default().epoch.0 += 1));
    assert!(!later(|fold| fold.nodes.entry(NODE).or_default().epoch.0 -= 1));
    assert!(later(|fold| fold.nodes.entry(NODE).or_default().done.insert(1)));
    assert!(!later(|fold| fold
        .nodes
        .entry(NODE)
        .or_default()
        .done
        .remove_range(4, 4)));
}
