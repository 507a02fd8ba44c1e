// Goal: the checker finds every kind of violation, and nothing else. Method: small histories by hand.
use super::*;
use crate::history::Delivery;
use crate::listed::{
    Break, Claim, DeadLetter, Held, Listing, Loss, NodeListed, Repair, Source, Standing, Takes,
};

#[path = "check_listed_tests.rs"]
mod listed_tests;

fn lines(events: Vec<Event>) -> Vec<Line> {
    events.into_iter().map(|event| Line { at_ms: 1, event }).collect()
}

fn producer(numbers: &[usize]) -> (String, Vec<Line>) {
    let mut events = vec![Event::Started { app: String::new() }];
    events.extend(numbers.iter().map(|number| Event::Stored {
        number: *number,
        id: format!("S:{number}"),
    }));
    ("producer".to_owned(), lines(events))
}

fn instance(name: &str, deliveries: Vec<(u64, usize, Option<Event>)>) -> (String, Vec<Line>) {
    let mut events = vec![Event::Started { app: "a".to_owned() }];
    for (nth, number, answer) in deliveries {
        events.push(Event::Delivered(Delivery {
            nth,
            id: format!("S:{number}"),
            number,
            node: "n1".to_owned(),
            attempt: 1,
        }));
        events.extend(answer);
    }
    (name.to_owned(), lines(events))
}

fn listed(promise: Promise, published: u64) -> Listed {
    Listed {
        promise,
        apps: vec!["a".to_owned()],
        nodes: vec![NodeListed {
            node: "n1".to_owned(),
            published: Some(published),
            ..NodeListed::default()
        }],
        claims: Vec::new(),
        closed: 0,
        source: Source::default(),
        repair: None,
        broken: None,
        trouble: Vec::new(),
        faults: BTreeMap::new(),
    }
}

fn yes(nth: u64) -> Option<Event> {
    Some(Event::Confirmed { nth })
}

#[test]
fn once_each_is_green_and_doubt_is_believed() {
    let doubt = Some(Event::Doubted { nth: 2 });
    let one = instance("one", vec![(1, 1, yes(1)), (2, 2, doubt), (3, 3, None)]);
    let verdict = judge(&[producer(&[1, 2, 3]), one], &listed(Promise::ExactlyOnce, 3));
    assert!(verdict.green, "{verdict}");
    assert_eq!((verdict.apps["a"].confirmed, verdict.apps["a"].in_doubt), (1, 2));
}

#[test]
fn an_end_without_an_answer_is_doubt_also_before_another_life() {
    let (name, mut first) = instance("one", vec![(1, 1, None)]);
    first.extend(instance("one", vec![(1, 2, yes(1))]).1);
    let verdict = judge(
        &[producer(&[1, 2]), (name, first)],
        &listed(Promise::ExactlyOnce, 2),
    );
    assert!(verdict.green, "{verdict}");
    assert_eq!(verdict.apps["a"].in_doubt, 1);
}

#[test]
fn each_violation_is_found() {
    let red = |histories: &[(String, Vec<Line>)], listed: &Listed, text: &str| {
        let verdict = judge(histories, listed);
        let found = verdict
            .violations
            .iter()
            .any(|violation| violation.contains(text));
        assert!(!verdict.green && found, "{text}: {verdict}");
    };
    let once = listed(Promise::ExactlyOnce, 1);
    let back = Some(Event::GivenBack { nth: 1 });
    red(&[producer(&[1])], &once, "1 missing: 1 (S:1)");
    red(
        &[producer(&[1]), instance("one", vec![(1, 1, back)])],
        &once,
        "missing",
    );
    let (one, two) = (
        instance("one", vec![(1, 1, yes(1))]),
        instance("two", vec![(1, 1, yes(1))]),
    );
    red(
        &[producer(&[1]), one.clone(), two.clone()],
        &once,
        "more than once",
    );
    red(
        &[producer(&[1]), one.clone()],
        &listed(Promise::ExactlyOnce, 2),
        "2 messages are published",
    );
    red(&[producer(&[]), one.clone()], &once, "never stored");
    red(&[], &once, "proves nothing");
    let mut broken = once.clone();
    broken.nodes[0].defects.push("FAN-4099".to_owned());
    red(&[producer(&[1]), one.clone()], &broken, "FAN-4099");
    let mut stuck = once;
    stuck.trouble.push("no rest".to_owned());
    red(&[producer(&[1]), one.clone()], &stuck, "no rest");
    red(
        &[producer(&[1]), one, two],
        &listed(Promise::Listed, 2),
        "unlisted",
    );
}

/// What may explain the one message of a run that nobody confirmed, or that was confirmed twice.
type Change = fn(&mut Listed);

fn broken(takes: Takes) -> Listed {
    let mut listed = listed(Promise::Listed, 0);
    listed.nodes.push(NodeListed {
        node: "n2".to_owned(),
        ..NodeListed::default()
    });
    for node in &mut listed.nodes {
        node.was_asked = true;
        node.has_joined = true;
    }
    // Everything is stored and confirmed at millisecond 1 unless a test says otherwise.
    listed.broken = Some(Break {
        copied_ms: Some(0),
        ended_ms: 10,
        takes,
        seen: 1_000,
        bit: true,
    });
    listed
}

fn loss(code: &str, count: u64, seqs: &[(u64, u64)]) -> Loss {
    Loss {
        code: code.to_owned(),
        count,
        seqs: seqs.to_vec(),
    }
}

fn dead(app: &str, seq: u64) -> DeadLetter {
    DeadLetter {
        app: app.to_owned(),
        seq,
        reason: "lost".to_owned(),
    }
}

fn held(seq: u64) -> Held {
    Held {
        first: seq,
        last: seq,
        oldest_ms: 1,
        newest_ms: 1,
    }
}

/// The node halts, and says that the hub is why.
fn halt(node: &mut NodeListed, code: &str) {
    node.standing = Standing::Halted;
    node.reasons.insert(format!("halted: {code}: told"));
}

fn waits(node: &mut NodeListed, app: &str, seq: u64) {
    node.waiting.entry(app.to_owned()).or_default().push(held(seq));
}

fn owned(told: &mut Listed, node: &str, seq: u64) {
    told.claims.push(Claim {
        node: node.to_owned(),
        won: vec![(1, seq)],
    });
}

/// A repair of a damaged ledger.
fn repair(kind: &str, seq: u64) -> Option<Repair> {
    Some(Repair {
        damage: vec!["it ends before".to_owned()],
        findings: vec![Listing {
            kind: kind.to_owned(),
            text: String::new(),
            messages: vec![(seq, seq)],
        }],
        ..Repair::default()
    })
}

/// Goal: a missing message is listed by what speaks of it, and by nothing else. Method: message 7 is missing; each case adds
/// one thing.
#[test]
fn a_missing_message_must_be_listed_itself() {
    let cases: [(&str, bool, Takes, Change); 29] = [
        ("nothing", false, Takes::Everything, |_| {}),
        ("a loss that names it", true, Takes::Nothing, |told| {
            told.nodes[1].losses.push(loss("FAN-4049", 3, &[(5, 9)]));
        }),
        ("a loss that names others", false, Takes::Nothing, |told| {
            told.nodes[1].losses.push(loss("FAN-4049", 3, &[(8, 10)]));
        }),
        ("a loss that counts one", true, Takes::Nothing, |told| {
            told.nodes[1].losses.push(loss("FAN-4040", 1, &[]));
        }),
        (
            "a loss that names more than it has room for",
            true,
            Takes::Nothing,
            |told| {
                told.nodes[1].losses.push(loss("FAN-4040", 4, &[(8, 10)]));
            },
        ),
        ("damage without a dead letter", false, Takes::Nothing, |told| {
            told.nodes[0].losses.push(loss("FAN-4045", 1, &[]));
        }),
        ("its dead letter", true, Takes::Nothing, |told| {
            told.nodes[1].dead_letters.insert(dead("a", 7));
        }),
        ("another's dead letter", false, Takes::Nothing, |told| {
            told.nodes[1].dead_letters.insert(dead("a", 8));
            told.nodes[1].dead_letters.insert(dead("b", 7));
        }),
        ("a halted holder", true, Takes::Nothing, |told| {
            halt(&mut told.nodes[0], "FAN-4030");
            told.nodes[0].staged.push(held(7));
        }),
        ("a halted holder of another", false, Takes::Nothing, |told| {
            halt(&mut told.nodes[0], "FAN-4030");
            told.nodes[0].staged.push(held(8));
        }),
        ("a holder that goes on", false, Takes::Nothing, |told| {
            told.nodes[0].staged.push(held(7));
            halt(&mut told.nodes[1], "FAN-4030");
        }),
        ("a refused owner by the ledger", true, Takes::Nothing, |told| {
            told.nodes[1].standing = Standing::Refused;
            told.nodes[1].was_asked = false;
            owned(told, "n2", 7);
        }),
        (
            "a halted owner by the ledger that does not hold it",
            false,
            Takes::Nothing,
            |told| {
                halt(&mut told.nodes[1], "FAN-4030");
                owned(told, "n2", 7);
            },
        ),
        (
            "a halted owner by the ledger whose disk is not what it was",
            true,
            Takes::Nothing,
            |told| {
                halt(&mut told.nodes[1], "FAN-4010");
                told.nodes[1].has_joined = false;
                owned(told, "n2", 7);
            },
        ),
        ("a silent owner", false, Takes::Nothing, |told| {
            told.nodes[1].standing = Standing::Silent;
            told.nodes[1].was_asked = false;
            owned(told, "n2", 7);
        }),
        (
            "somebody halted who has nothing to do with it",
            false,
            Takes::Nothing,
            |told| {
                halt(&mut told.nodes[1], "FAN-4030");
                told.nodes[1].codes.insert("FAN-4030".to_owned(), 1);
            },
        ),
        (
            "behind the copy, and a halt",
            true,
            Takes::BehindTheCopy,
            |told| halt(&mut told.nodes[1], "FAN-4035"),
        ),
        (
            "behind the copy, and a halt for another reason",
            false,
            Takes::BehindTheCopy,
            |told| halt(&mut told.nodes[1], "FAN-4043"),
        ),
        (
            "behind the copy, and no halt",
            false,
            Takes::BehindTheCopy,
            |_| {},
        ),
        (
            "behind the copy, but still in the source",
            false,
            Takes::BehindTheCopy,
            |told| {
                halt(&mut told.nodes[1], "FAN-4035");
                told.source.push(7, 7);
            },
        ),
        ("in the copy, and a halt", false, Takes::BehindTheCopy, |told| {
            halt(&mut told.nodes[1], "FAN-4035");
            told.broken.as_mut().unwrap().copied_ms = Some(5);
        }),
        (
            "behind the copy, but with an owner that goes on",
            false,
            Takes::BehindTheCopy,
            |told| {
                halt(&mut told.nodes[1], "FAN-4035");
                told.nodes[0].staged.push(held(7));
            },
        ),
        (
            "published and withheld by a halted node",
            false,
            Takes::Nothing,
            |told| {
                halt(&mut told.nodes[0], "FAN-4030");
                waits(&mut told.nodes[0], "a", 7);
            },
        ),
        (
            "published and withheld by a node that was held before it joined",
            true,
            Takes::Nothing,
            |told| {
                halt(&mut told.nodes[0], "FAN-4019");
                told.nodes[0].has_joined = false;
                waits(&mut told.nodes[0], "a", 7);
            },
        ),
        (
            "held for another application only",
            false,
            Takes::Nothing,
            |told| {
                halt(&mut told.nodes[0], "FAN-4019");
                told.nodes[0].has_joined = false;
                waits(&mut told.nodes[0], "b", 7);
            },
        ),
        ("published and withheld by damage", true, Takes::Nothing, |told| {
            halt(&mut told.nodes[0], "FAN-4044");
            waits(&mut told.nodes[0], "a", 7);
        }),
        ("a repair lists it as lost", true, Takes::Nothing, |told| {
            told.repair = repair("missing", 7);
        }),
        ("a repair lists another", false, Takes::Nothing, |told| {
            told.repair = repair("missing", 8);
        }),
        ("a repair lists it as twice", false, Takes::Nothing, |told| {
            told.repair = repair("duplicate", 7);
        }),
    ];
    for (name, green, takes, change) in cases {
        let mut told = broken(takes);
        change(&mut told);
        let verdict = judge(&[producer(&[7])], &told);
        assert_eq!(verdict.green, green, "{name}: {verdict}");
        assert_eq!(verdict.apps["a"].missing.len(), 1, "{name}");
    }
}

/// Goal: lines that only count explain as many messages as they count, over all applications. Method: two messages are missing.
#[test]
fn a_count_explains_no_more_than_it_counts() {
    let mut told = broken(Takes::Nothing);
    told.apps.push("b".to_owned());
    told.nodes[0].losses.push(loss("FAN-4040", 1, &[]));
    let verdict = judge(&[producer(&[7, 8])], &told);
    assert!(!verdict.green, "{verdict}");
    told.nodes[1].losses.push(loss("FAN-4049", 1, &[]));
    let verdict = judge(&[producer(&[7, 8])], &told);
    assert!(verdict.green, "{verdict}");
}

/// Goal: a repetition is listed only across the break, and by what speaks of it. Method: message 7 is confirmed at two times;
/// the act ends at millisecond 10.
#[test]
fn a_repeated_message_must_be_listed_itself() {
    let halted: Change = |told| halt(&mut told.nodes[0], "FAN-4030");
    let cases: [(&str, bool, (u64, u64), Change); 11] = [
        ("nothing is told", false, (1, 20), |_| {}),
        ("its node halted", true, (1, 20), halted),
        ("its node halted for another reason", false, (1, 20), |told| {
            halt(&mut told.nodes[0], "FAN-4043");
        }),
        ("both before", false, (1, 2), halted),
        ("both behind", false, (11, 20), halted),
        ("another node halted", false, (1, 20), |told| {
            halt(&mut told.nodes[1], "FAN-4030");
        }),
        (
            "another node that would hold it by the ledger halted",
            false,
            (1, 20),
            |told| {
                halt(&mut told.nodes[1], "FAN-4030");
                owned(told, "n2", 7);
            },
        ),
        ("a loss names it", true, (1, 20), |told| {
            told.nodes[1].losses.push(loss("FAN-4040", 1, &[(7, 7)]));
        }),
        ("its node halted, and a repair lists it", true, (1, 20), |told| {
            halt(&mut told.nodes[0], "FAN-4030");
            told.repair = repair("duplicate", 7);
        }),
        (
            "its node halted, and a repair lists another",
            false,
            (1, 20),
            |told| {
                halt(&mut told.nodes[0], "FAN-4030");
                told.repair = repair("duplicate", 8);
            },
        ),
        ("a repair lists it, as lost", false, (1, 20), |told| {
            halt(&mut told.nodes[0], "FAN-4030");
            told.repair = repair("missing", 7);
        }),
    ];
    for (name, green, (first, second), change) in cases {
        let mut told = broken(Takes::Nothing);
        change(&mut told);
        let at = |name: &str, ms: u64| {
            let (name, mut lines) = instance(name, vec![(1, 7, yes(1))]);
            lines.iter_mut().for_each(|line| line.at_ms = ms);
            (name, lines)
        };
        let histories = [producer(&[7]), at("one", first), at("two", second)];
        let verdict = judge(&histories, &told);
        assert_eq!(verdict.green, green, "{name}: {verdict}");
        assert_eq!(verdict.apps["a"].repeated.len(), 1, "{name}");
    }
}

/// Goal: a producer that was not told in time stores its message again when the hub forgot it, and that is no repetition by a
/// bridge. Method: two ids of one message, confirmed on both sides of the break.
#[test]
fn a_message_that_the_producer_stored_again_is_another_one() {
    let (name, mut before) = instance("one", vec![(1, 7, yes(1))]);
    for line in &mut before {
        if let Event::Delivered(delivery) = &mut line.event {
            delivery.id = "S:6".to_owned();
        }
    }
    let (other, mut after) = instance("two", vec![(1, 7, yes(1))]);
    after.iter_mut().for_each(|line| line.at_ms = 20);
    let (of, mut stored) = producer(&[7]);
    stored.iter_mut().for_each(|line| line.at_ms = 15);
    let histories = [(of, stored), (name, before), (other, after)];
    assert!(judge(&histories, &broken(Takes::BehindTheCopy)).green);
    let kept = judge(&histories, &broken(Takes::Nothing));
    assert!(
        !kept.green,
        "a hub that forgot nothing stores nothing twice: {kept}"
    );
}

/// Goal: what else goes wrong is never pardoned by a halt. Method: trouble, and a number that no producer stored.
#[test]
fn trouble_and_strangers_stay_violations_in_a_broken_run() {
    let mut told = broken(Takes::Everything);
    told.nodes.iter_mut().for_each(|node| halt(node, "FAN-4030"));
    let one = instance("one", vec![(1, 9, yes(1))]);
    assert!(!judge(&[producer(&[7]), one], &told).green);
    assert!(judge(&[producer(&[7])], &told).green);
    told.trouble.push("n1 does not answer".to_owned());
    assert!(!judge(&[producer(&[7])], &told).green);
}
