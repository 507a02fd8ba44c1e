//! Goal: ids are read as they are written everywhere; text, JSON and exit code of a trace name what is wrong, and every dead letter.
//! Method: tables, and traces put together by hand.
use fanin_core::ids::{BatchNo, LedgerSeq, NodeUuid};

use super::*;
use crate::audit::Finding;

#[test]
fn ids() {
    assert_eq!(message_id("ORDERS:12"), Ok(("ORDERS".to_owned(), 12)));
    for wrong in ["ORDERS", "ORDERS:", ":1", "ORDERS:0", "ORDERS:-1", "ORDERS:1x"] {
        assert!(message_id(wrong).is_err(), "{wrong}");
    }
}

fn won(done: bool) -> Ownership {
    Ownership::Won {
        node: "a".to_owned(),
        batch: 3,
        position: 9,
        terms: 1,
        done,
    }
}

fn traced(ownership: Ownership, owner: OwnerSays) -> Trace {
    Trace {
        id: "S:7".to_owned(),
        mapping: "m".to_owned(),
        message: None,
        is_wanted: true,
        found: Traced {
            ownership,
            owner,
            held: Vec::new(),
            letters: Vec::new(),
            unreachable: Vec::new(),
            findings: Vec::new(),
        },
    }
}

fn letter() -> Letter {
    Letter {
        node: "a".to_owned(),
        app: "billing".to_owned(),
        id: 4,
        reason: "rejected".to_owned(),
        attempts: 2,
    }
}

/// The number that the process ends with.
fn exit(trace: &Trace) -> u8 {
    match verdict(trace) {
        Ok(exit) => exit.code(),
        Err(failure) => failure.exit().code(),
    }
}

#[test]
fn exit_codes() {
    for (ownership, owner, wanted) in [
        (Ownership::Nobody, OwnerSays::NoOwner, 0),
        (Ownership::Closed, OwnerSays::NoOwner, 0),
        (won(false), OwnerSays::Holds, 0),
        (won(false), OwnerSays::TooNew, 0),
        (won(false), OwnerSays::Done, 0),
        (won(true), OwnerSays::Done, 0),
        (won(false), OwnerSays::NotAsked, 69),
        (won(true), OwnerSays::NotAsked, 69),
    ] {
        let mut trace = traced(ownership, owner);
        assert_eq!(exit(&trace), wanted, "{:?}", trace.found);
        trace.found.findings.push(Finding::NotHeld {
            node: "a".to_owned(),
            batch: BatchNo(3),
            position: LedgerSeq(9),
            messages: 20,
        });
        assert_eq!(exit(&trace), 1, "{:?}", trace.found);
        let told = verdict(&trace).unwrap_err().to_string();
        assert!(
            told.contains("S:7") && told.contains("does not hold them"),
            "{told}"
        );
    }
}

#[test]
fn findings_are_in_text_and_json() {
    let mut trace = traced(won(false), OwnerSays::Lacks);
    trace.found.findings.push(Finding::NotHeld {
        node: "a".to_owned(),
        batch: BatchNo(3),
        position: LedgerSeq(9),
        messages: 20,
    });
    let text = to_text(&trace);
    assert!(
        text.contains("  node    a does not hold it\n! node a owns 20 messages"),
        "{text}"
    );
    let json = to_json(&trace);
    assert_eq!(json["findings"][0]["kind"], "not_held", "{json:#}");
    assert_eq!(json["owner"], "lacks", "{json:#}");
    assert_eq!(json["node"], Value::Null, "{json:#}");
    assert_eq!(json["owner_asked"], true, "{json:#}");
}

/// A dead letter is named when its batch is gone, in whatever state the ledger has it, and once when the batch is there.
#[test]
fn dead_letters_are_named() {
    let told = "  billing: dead letter 4 on node a, rejected, 2 attempt(s)\n";
    for (ownership, owner) in [
        (won(true), OwnerSays::Done),
        (won(false), OwnerSays::Done),
        (Ownership::Closed, OwnerSays::NoOwner),
    ] {
        let mut trace = traced(ownership, owner);
        assert!(!to_text(&trace).contains("dead letter"));
        trace.found.letters.push(letter());
        let text = to_text(&trace);
        assert!(text.contains(told), "{text}");
        assert_eq!(
            to_json(&trace)["dead_letters"],
            json!([{ "node": "a", "app": "billing", "dead_letter": 4, "reason": "rejected", "attempts": 2 }])
        );
    }
    let mut trace = traced(won(false), OwnerSays::Holds);
    trace.found.letters.push(letter());
    let place = AppPlace::DeadLetter {
        id: 4,
        reason: "rejected".to_owned(),
        attempts: 2,
    };
    let held = Held {
        node: "a".to_owned(),
        uuid: NodeUuid(1),
        batch: BatchNo(3),
        batch_state: "published".to_owned(),
        offset: Some(5),
        apps: vec![("billing".to_owned(), place)],
    };
    trace.found.held.push(held.clone());
    let text = to_text(&trace);
    assert_eq!(text.matches("dead letter").count(), 1, "{text}");
    assert!(
        text.contains("  billing: dead letter 4, rejected, 2 attempt(s)\n"),
        "{text}"
    );
    let json = to_json(&trace);
    assert_eq!(
        json["node"],
        json!({
            "node": "a", "batch": 3, "batch_state": "published", "offset": 5,
            "apps": [{ "app": "billing", "state": "dead_letter", "dead_letter": 4, "reason": "rejected", "attempts": 2 }],
        })
    );
    // Of several that hold it each is shown.
    trace.found.held.push(Held {
        node: "b".to_owned(),
        ..held
    });
    let text = to_text(&trace);
    assert!(
        text.contains("  node    a: ") && text.contains("  node    b: "),
        "{text}"
    );
    assert_eq!(to_json(&trace)["also_on"][0]["node"], "b");
}

#[test]
fn what_nobody_claimed_and_what_is_closed() {
    let mut trace = traced(Ownership::Nobody, OwnerSays::NoOwner);
    assert!(trace.is_unknown());
    trace.message = Some(StoredMessage {
        seq: StreamSeq(7),
        subject: "s.x".to_owned(),
        headers: fanin_hub::Headers::default(),
        payload: bytes::Bytes::new(),
        published_ns: 0,
    });
    assert!(!trace.is_unknown());
    assert!(to_text(&trace).contains("  ledger  nobody has claimed it yet\n"));
    assert_eq!(
        to_json(&trace)["ledger"],
        json!({ "state": "unclaimed", "wanted": true })
    );
    trace.is_wanted = false;
    let text = to_text(&trace);
    assert!(text.contains("its subject is none of those"), "{text}");
    let mut trace = traced(Ownership::Closed, OwnerSays::NoOwner);
    trace.found.unreachable.push("n2".to_owned());
    let text = to_text(&trace);
    assert!(text.contains("was listed as given up, or is a hole"), "{text}");
    assert!(
        text.contains("not asked, also not for its dead letters: n2"),
        "{text}"
    );
    assert_eq!(to_json(&trace)["ledger"], json!({ "state": "closed" }));
}
