//! Every mutant with its rows in the simulation's and the model's table.

use fanin_model::mutants as model;
use fanin_sim::mutants as sim;

/// One mutant.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The rules it switches off and the attacks they stand against, as the tables name them.
    pub rule: &'static str,
    /// Where the simulation hunts it.
    pub sim: Option<&'static sim::Row>,
    /// Where the model looks for it.
    pub models: Vec<&'static model::Row>,
}

/// A rule without a number of its own is listed last.
const UNNUMBERED: u64 = 99;

impl Entry {
    /// Whether every table says that another rule covers it, and so that nothing may notice it.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        let in_sim = self
            .sim
            .is_none_or(|row| matches!(row.expected, sim::Expected::Harmless(_)));
        let in_model = |row: &&model::Row| matches!(row.expected, model::Expected::Harmless(_));
        in_sim && self.models.iter().all(in_model)
    }

    /// The rules (P1 to P11) and attacks (B1 to B20) it stands for.
    #[must_use]
    pub fn stands_for(&self) -> Vec<String> {
        let mut words = self.sim.map(|row| named(row.rule)).unwrap_or_default();
        words.extend(self.models.iter().flat_map(|row| named(row.rule)));
        words.sort();
        words.dedup();
        words
    }

    /// Whether a word chooses this entry: `all`, its name, or a rule or attack it stands for.
    #[must_use]
    pub fn is_chosen_by(&self, word: &str) -> bool {
        word == "all" || self.name == word || self.stands_for().iter().any(|named| named == word)
    }

    /// The number of its first rule.
    fn order(&self) -> u64 {
        let first = named(self.rule).into_iter().find(|word| word.starts_with('P'));
        first
            .and_then(|word| word[1..].parse().ok())
            .unwrap_or(UNNUMBERED)
    }
}

/// The rules and attacks in a text such as `P5, P7 stable; B3, B13`.
fn named(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_named = |word: &&str| {
        let number = word.strip_prefix(['P', 'B']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    words.filter(is_named).map(str::to_owned).collect()
}

/// All mutants, in the order of their rules.
#[must_use]
pub fn entries() -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    for row in sim::ROWS {
        all.push(Entry {
            name: row.mutant.name(),
            rule: row.rule,
            sim: Some(row),
            models: Vec::new(),
        });
    }
    for row in model::ROWS {
        let name = row.mutant.name();
        match all.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => entry.models.push(row),
            None => all.push(Entry {
                name,
                rule: row.rule,
                sim: None,
                models: vec![row],
            }),
        }
    }
    all.sort_by_key(Entry::order);
    all
}

/// Everything that must stand in the table: P1 to P11 and B1 to B20.
#[must_use]
pub fn wanted() -> Vec<String> {
    let rules = (1..=RULES).map(|n| format!("P{n}"));
    rules.chain((1..=ATTACKS).map(|n| format!("B{n}"))).collect()
}

/// Protocol rules.
const RULES: u64 = 11;
/// Attacks of the protocol's review.
const ATTACKS: u64 = 20;
