// Goal: the checker finds every kind of violation, and nothing else. Method: small histories by hand.
use super::*;
use crate::history::Delivery;

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

#[test]
fn what_a_bridge_lists_is_no_violation_when_the_hub_broke_its_promise() {
    let mut told = listed(Promise::Listed, 0);
    told.nodes[0].reasons.insert("halted: FAN-4030".to_owned());
    let verdict = judge(&[producer(&[1])], &told);
    assert!(verdict.green && verdict.apps["a"].missing.len() == 1, "{verdict}");
    told.nodes[0].reasons.clear();
    told.nodes[0].codes.insert("FAN-4041".to_owned(), 1);
    assert!(!judge(&[producer(&[1])], &told).green, "a repair lists nothing");
    told.nodes[0].codes.insert("FAN-4019".to_owned(), 1);
    assert!(judge(&[producer(&[1])], &told).green);
}
