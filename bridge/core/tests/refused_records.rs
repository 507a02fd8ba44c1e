//! Goal: a record that no correct writer writes halts its readers, who tell what they found and what they expected, and changes nothing.
//! Method: one such record after another on a ledger that is well, folded directly. Each case is a change of the fold that no other test
//! noticed (`docs/mutation-testing.md`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

use fanin_core::fold::{ApplyError, Fold, Halt};
use fanin_core::ids::{Incarnation, LedgerSeq, TermsVersion};
use fanin_core::record::{Body, Genesis, Record, SourceTerms, Terms, Witness};

fn record(witness: Witness, body: Body) -> (String, Vec<u8>) {
    let record = Record { witness, body };
    (record.subject(), record.encode())
}

fn terms(version: u32) -> Body {
    let source = SourceTerms {
        stream: "S".to_owned(),
        filters: Vec::new(),
    };
    Body::Terms(Terms {
        version: TermsVersion(version),
        sources: [(Incarnation(7), source)].into(),
        apps: [("a".to_owned(), TermsVersion(1))].into(),
    })
}

/// A ledger of GENESIS and the first terms.
fn begun() -> Fold {
    let mut fold = Fold::new();
    let genesis = Body::Genesis(Genesis {
        rules: 1,
        features: [].into(),
    });
    for (position, body) in [(1, genesis), (2, terms(1))] {
        let (subject, bytes) = record(fold.witness(), body);
        fold.apply(LedgerSeq(position), &subject, &bytes).unwrap();
    }
    fold
}

/// Terms follow each other without a gap and never come again: two nodes that wrote the same version both believe theirs otherwise.
#[test]
fn terms_follow_each_other() {
    for version in [1, 3, u32::MAX] {
        let mut fold = begun();
        let before = fold.clone();
        let (subject, bytes) = record(fold.witness(), terms(version));
        let refused = fold.apply(LedgerSeq(3), &subject, &bytes);
        let Err(ApplyError::Halt(Halt::TermsOutOfOrder {
            position,
            found,
            expected,
        })) = refused
        else {
            panic!("version {version}: {refused:?}");
        };
        assert_eq!(
            (position, found, expected),
            (LedgerSeq(3), TermsVersion(version), 2)
        );
        assert!(fold == before, "version {version} changed the fold");
    }
    let mut fold = begun();
    let (subject, bytes) = record(fold.witness(), terms(2));
    fold.apply(LedgerSeq(3), &subject, &bytes).unwrap();
    assert_eq!(fold.terms().version, TermsVersion(2));
}
