//! What the bridges list at the end of a run, and what the run saw of them: everything that the checker knows beside the
//! histories.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the run leaves beside the histories.
pub(crate) const LISTED_FILE: &str = "listed.json";

/// Codes whose lines name or count messages that nobody gets.
const LOSS_CODES: [&str; 4] = ["FAN-4038", "FAN-4040", "FAN-4045", "FAN-4049"];

/// The source lost what no bridge had taken: its line names where that begins, and some of what it names may have been taken.
const LOST_BY_THE_HUB: &str = "FAN-4038";

/// Lost by damage: each becomes a dead letter, which names it, so that its count says nothing more.
const LOST_BY_DAMAGE: &str = "FAN-4045";

/// Damage below a mapping, which holds back also what is published.
const DAMAGE: [&str; 2] = ["FAN-4043", "FAN-4044"];

/// Codes with which a bridge refuses to start, or ends, as long as the hub or a disk is not what it was.
pub(crate) const REFUSALS: [&str; 10] = [
    "FAN-4003", "FAN-4004", "FAN-4005", "FAN-4007", "FAN-4010", "FAN-4011", "FAN-4012", "FAN-4019",
    "FAN-4035", "FAN-4036",
];

/// Codes with which a bridge says that the ledger or the source is not what it was. Others, as of its own disk, list nothing that
/// the hub lost or gave twice.
const HUB_CODES: [&str; 6] = [
    "FAN-2013", "FAN-4010", "FAN-4019", "FAN-4030", "FAN-4035", "FAN-4036",
];

/// Words of a reason that the source is not what it was.
const SOURCE_WORDS: [&str; 3] = ["FAN-4035", "FAN-4036", "created again"];

/// What was promised of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Promise {
    /// Each message once to each application.
    ExactlyOnce,
    /// The hub, or a disk, broke its own promise: whatever is missing or twice must be listed by a bridge.
    Listed,
}

/// What the last act of a run took from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Takes {
    /// Nothing: whatever is missing must be somewhere else.
    Nothing,
    /// Whatever was stored behind the copy.
    BehindTheCopy,
    /// Whatever was stored before the act was over.
    Everything,
}

/// The act that broke the promise. Times are milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Break {
    /// When the hub's stores were copied, if they were.
    pub(crate) copied_ms: Option<u64>,
    /// When it was over: what is confirmed later is on its other side.
    pub(crate) ended_ms: u64,
    pub(crate) takes: Takes,
    /// Where the source ended, as a bridge that ran right before the act had seen it at the most.
    pub(crate) seen: u64,
    /// Whether it bit.
    pub(crate) bit: bool,
}

/// How often faults of one kind were played.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Played {
    pub(crate) planned: usize,
    /// How many met something that they could harm.
    pub(crate) bit: usize,
    /// Why the others did not, and how many.
    pub(crate) missed: BTreeMap<String, usize>,
}

impl Played {
    /// Notes one more; `why_not` when it did not bite.
    pub(crate) fn note(&mut self, why_not: Option<String>) {
        self.planned += 1;
        match why_not {
            None => self.bit += 1,
            Some(why) => *self.missed.entry(why).or_default() += 1,
        }
    }
}

/// What the bridges said, and what the run saw of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) promise: Promise,
    /// Applications of the run.
    pub(crate) apps: Vec<String>,
    pub(crate) nodes: Vec<NodeListed>,
    /// Whose the messages are that some application has not finished, as the ledger tells at the end.
    pub(crate) claims: Vec<Claim>,
    /// How far the ledger, as it is at the end, has the source closed.
    pub(crate) closed: u64,
    /// What the source holds at the end of a run that broke the promise.
    pub(crate) source: Source,
    /// What `fanin ledger repair --dry-run` lists, where a bridge does not go on.
    pub(crate) repair: Option<Repair>,
    pub(crate) broken: Option<Break>,
    /// Why the run did not come to rest, or what else went wrong; empty when nothing did.
    pub(crate) trouble: Vec<String>,
    /// Faults by kind.
    pub(crate) faults: BTreeMap<String, Played>,
}

impl Listed {
    /// What bridges and ledger list, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let nodes = self.nodes.iter().flat_map(NodeListed::words);
        nodes.chain(self.repair.iter().flat_map(Repair::words)).collect()
    }
}

/// Sequences of the source, both ends included.
pub(crate) type Ranges = Vec<(u64, u64)>;

pub(crate) fn holds(ranges: &Ranges, seq: u64) -> bool {
    ranges.iter().any(|(first, last)| *first <= seq && seq <= *last)
}

/// Messages that a bridge holds: their sequences, both ends included, and the times of the oldest and the newest of their batch,
/// in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) oldest_ms: u64,
    pub(crate) newest_ms: u64,
}

/// Messages of the source with ascending sequences and numbers, both without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The number that the first of them carries.
    pub(crate) number: usize,
}

/// Every message of the source, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) runs: Vec<Run>,
}

impl Source {
    /// Adds the next message.
    pub(crate) fn push(&mut self, seq: u64, number: usize) {
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == seq && run.number_at(seq) == Some(number) => run.last = seq,
            Some(_) | None => self.runs.push(Run {
                first: seq,
                last: seq,
                number,
            }),
        }
    }

    /// The number that the message at a sequence carries; `None` when there is none.
    pub(crate) fn number_at(&self, seq: u64) -> Option<usize> {
        let behind = self.runs.partition_point(|run| run.first <= seq);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        if seq <= run.last { run.number_at(seq) } else { None }
    }
}

impl Run {
    /// The number at a sequence that is not before the first, whether or not the run goes so far.
    fn number_at(&self, seq: u64) -> Option<usize> {
        let behind = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.number.checked_add(behind)
    }
}

/// What the dry run of a repair lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repair {
    /// What is wrong with the ledger; empty when nothing is.
    pub(crate) damage: Vec<String>,
    pub(crate) findings: Vec<Listing>,
    /// How far the repaired ledger would have the source closed.
    pub(crate) closed: u64,
    /// Where the ledger is well and the source is not: the last message that the repair of the source takes as delivered. Everything
    /// behind it would be delivered.
    pub(crate) taken_as_delivered: Option<u64>,
}

impl Repair {
    /// What it lists, in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let damage = self
            .damage
            .iter()
            .map(|damage| format!("ledger repair: {damage}"));
        let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for finding in &self.findings {
            let (findings, messages) = kinds.entry(&finding.kind).or_default();
            *findings += 1;
            *messages += finding
                .messages
                .iter()
                .map(|(first, last)| last - first + 1)
                .sum::<u64>();
        }
        let findings = kinds.iter();
        let findings = findings.map(|(kind, (findings, messages))| {
            format!("ledger repair: {findings} x {kind}, which name {messages} messages")
        });
        let through = self.taken_as_delivered.iter();
        let through =
            through.map(|through| format!("ledger repair --source: taken as delivered through {through}"));
        damage.chain(findings).chain(through).collect()
    }
}

/// One finding of a repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) kind: String,
    pub(crate) text: String,
    /// The messages that it names.
    #[serde(default)]
    pub(crate) messages: Ranges,
}

/// An open claim of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) node: String,
    pub(crate) won: Ranges,
}

/// How a bridge stands at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    #[default]
    Serving,
    Halted,
    Fenced,
    /// It ended with the code of a refusal, and is not started again.
    Refused,
    /// It runs and does not answer, or ended for another reason.
    Silent,
}

impl Standing {
    /// Whether it says by its state that it does not go on.
    pub(crate) fn is_told(self) -> bool {
        match self {
            Self::Halted | Self::Fenced | Self::Refused => true,
            Self::Serving | Self::Silent => false,
        }
    }
}

/// A line of a log that lists messages as lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Loss {
    pub(crate) code: String,
    /// How many messages.
    pub(crate) count: u64,
    /// Which; a line names only so many.
    pub(crate) seqs: Ranges,
}

impl Loss {
    /// Reads a line of a log; `None` when it lists nothing.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(text).ok()?;
        let code = line.get("code").and_then(Value::as_str)?;
        if !LOSS_CODES.contains(&code) {
            return None;
        }
        let number = |name: &str| line.get(name).and_then(Value::as_u64);
        let seqs = ["messages", "seqs", "ranges", "sequences"]
            .into_iter()
            .find_map(|name| line.get(name));
        Some(Self {
            code: code.to_owned(),
            count: number("tombstoned").or_else(|| number("count")).unwrap_or(0),
            seqs: seqs.map(ranges_in).unwrap_or_default(),
        })
    }

    /// From where on it says that the source lost what nobody had taken.
    pub(crate) fn lost_by_the_hub_from(&self) -> Option<u64> {
        let first = self.seqs.iter().map(|(first, _)| *first).min();
        first.filter(|_| self.code == LOST_BY_THE_HUB)
    }

    /// Messages that it counts and does not name.
    pub(crate) fn unnamed(&self) -> u64 {
        if [LOST_BY_DAMAGE, LOST_BY_THE_HUB].contains(&self.code.as_str()) {
            return 0;
        }
        let named: u64 = self.seqs.iter().map(|(first, last)| last - first + 1).sum();
        self.count.saturating_sub(named)
    }
}

/// Ranges as a text (`12-15, 17`, also `12..=15`, also behind `STREAM:`) or as a list of numbers and pairs.
fn ranges_in(value: &Value) -> Ranges {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    let text = text.replace("],[", ";").replace("), (", ";");
    let pairs = text.contains("[[") || text.contains('(');
    let between: &[char] = if pairs { &[';'] } else { &[',', ' ', ';'] };
    let numbers = |part: &str| -> Vec<u64> {
        let part = part.rsplit(':').next().unwrap_or_default();
        let digits = part.split(|letter: char| !letter.is_ascii_digit());
        digits.filter_map(|digits| digits.parse().ok()).collect()
    };
    text.split(between)
        .filter_map(|part| {
            let numbers = numbers(part);
            let (first, last) = (*numbers.first()?, *numbers.last()?);
            (first <= last).then_some((first, last))
        })
        .collect()
}

/// A dead letter of an application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    pub(crate) app: String,
    pub(crate) seq: u64,
    pub(crate) reason: String,
}

/// One bridge at the end of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeListed {
    pub(crate) node: String,
    pub(crate) standing: Standing,
    /// Messages published in its topic; `None` when it could not be asked.
    pub(crate) published: Option<u64>,
    pub(crate) dead_letters: BTreeSet<DeadLetter>,
    pub(crate) tombstoned: u64,
    pub(crate) repaired: u64,
    /// States with their reasons that ask for an operator.
    pub(crate) reasons: BTreeSet<String>,
    /// Codes of warnings and errors in its log since the act that broke the promise, or since the beginning.
    pub(crate) codes: BTreeMap<String, u64>,
    /// Lines since then that list messages as lost.
    pub(crate) losses: Vec<Loss>,
    /// Whether it told what it holds; a bridge that does not run cannot.
    pub(crate) was_asked: bool,
    /// What it holds and has not published: nobody knows yet whose it is, or it is about to publish it.
    pub(crate) staged: Vec<Held>,
    /// By application, what it has published and that application has not finished: a mapping that halted delivers it all the same.
    pub(crate) waiting: BTreeMap<String, Vec<Held>>,
    /// By application, how many messages of its topic that application has finished, dead letters included.
    pub(crate) finished: BTreeMap<String, u64>,
    /// How far it knows the source to be closed.
    pub(crate) closed: u64,
    /// Whether it has joined in its present life. A mapping that is held before that, as its ledger is not what it was, delivers
    /// nothing yet: nobody knows whether it is still its to deliver.
    pub(crate) has_joined: bool,
    /// Panics and broken invariants in its log.
    pub(crate) defects: Vec<String>,
}

impl NodeListed {
    /// Whether it halted and has no reason to hold back what it has published.
    pub(crate) fn delivers_though_halted(&self) -> bool {
        let damaged = |reason: &String| DAMAGE.iter().any(|code| reason.contains(code));
        self.standing == Standing::Halted && self.has_joined && !self.reasons.iter().any(damaged)
    }

    /// Whether its disk may not hold what the ledger says that it owns, as it says itself.
    pub(crate) fn misses_own(&self) -> bool {
        let damaged = self
            .reasons
            .iter()
            .any(|reason| DAMAGE.iter().any(|code| reason.contains(code)));
        self.standing.is_told() && (!self.was_asked || !self.has_joined || damaged)
    }

    /// Whether it stands still and says that the hub is why.
    pub(crate) fn tells_of_the_hub(&self) -> bool {
        let told = |reason: &String| HUB_CODES.iter().any(|code| reason.contains(code));
        self.standing.is_told() && self.reasons.iter().any(told)
    }

    /// Whether it says that the source is not what it was.
    pub(crate) fn tells_of_the_source(&self) -> bool {
        let told = |reason: &String| SOURCE_WORDS.iter().any(|words| reason.contains(words));
        self.reasons.iter().any(told)
    }

    /// What it lists, in words; nothing when all is well.
    pub(crate) fn words(&self) -> Vec<String> {
        let count = |held: &[Held]| held.iter().map(|held| held.last - held.first + 1).sum::<u64>();
        let waiting = self.waiting.values().map(|held| count(held)).max();
        let dead = u64::try_from(self.dead_letters.len()).unwrap_or(u64::MAX);
        let counts = [
            ("dead letters", dead),
            ("tombstoned", self.tombstoned),
            ("repaired", self.repaired),
            ("held and not published", count(&self.staged)),
            ("published and unfinished", waiting.unwrap_or(0)),
        ];
        let counts = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{}: {count} {what}", self.node));
        let standing = match self.standing {
            Standing::Serving => None,
            other @ (Standing::Halted | Standing::Fenced | Standing::Refused | Standing::Silent) => {
                Some(format!("{}: {other:?}", self.node))
            }
        };
        let reasons = self
            .reasons
            .iter()
            .map(|reason| format!("{}: {reason}", self.node));
        let codes = self
            .codes
            .iter()
            .map(|(code, count)| format!("{}: {count} x {code}", self.node));
        standing
            .into_iter()
            .chain(counts)
            .chain(reasons)
            .chain(codes)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    // Goal: a line of a log is read as what it lists, however its ranges are written. Method: sample lines.
    use super::*;

    fn loss(rest: &str) -> Option<Loss> {
        Loss::parse(&format!("{{\"level\":\"WARN\",{rest}}}"))
    }

    #[test]
    fn lines_that_list_nothing_are_passed_over() {
        assert_eq!(loss("\"code\":\"FAN-4041\",\"seq\":3"), None);
        assert_eq!(loss("\"message\":\"FAN-4040\""), None);
        assert_eq!(Loss::parse("thread panicked, FAN-4040"), None);
    }

    #[test]
    fn counts_and_ranges_are_read() {
        let counted = loss("\"code\":\"FAN-4040\",\"tombstoned\":16").unwrap();
        assert_eq!((counted.unnamed(), counted.seqs.len()), (16, 0));
        for seqs in [
            "\"3-5,9\"",
            "\"3..=5, 9\"",
            "\"CHAOS:3-5, CHAOS:9\"",
            "[[3,5],[9,9]]",
            "\"[(3, 5), (9, 9)]\"",
        ] {
            let named = loss(&format!("\"code\":\"FAN-4049\",\"count\":6,\"seqs\":{seqs}"));
            let named = named.unwrap();
            assert!(
                holds(&named.seqs, 4) && holds(&named.seqs, 9),
                "{seqs}: {named:?}"
            );
            assert!(!holds(&named.seqs, 6), "{seqs}: {named:?}");
        }
        let named = loss("\"code\":\"FAN-4049\",\"count\":6,\"messages\":\"S1:3-5, S1:9, more\"").unwrap();
        assert_eq!(named.unnamed(), 2);
        let damaged = loss("\"code\":\"FAN-4045\",\"count\":6").unwrap();
        assert_eq!(damaged.unnamed(), 0, "dead letters name them");
    }

    #[test]
    fn a_source_is_kept_in_runs_and_asked_by_sequence() {
        let mut source = Source::default();
        for (seq, number) in [(3, 10), (4, 11), (6, 13), (7, 12), (8, 13)] {
            source.push(seq, number);
        }
        assert_eq!(source.runs.len(), 3);
        let at: Vec<Option<usize>> = (2..=9).map(|seq| source.number_at(seq)).collect();
        assert_eq!(
            at,
            [None, Some(10), Some(11), None, Some(13), Some(12), Some(13), None]
        );
    }
}
