//! Whether a missing or repeated message is listed by a bridge: each by itself, by its number, and never by the mere fact that
//! something was said.

use std::collections::{BTreeMap, BTreeSet};

use crate::listed::{Break, Listed, NodeListed, Takes, holds};

/// One confirmation of a message by an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confirmation {
    /// Who confirmed: id, instance and node, for people.
    pub(crate) who: String,
    pub(crate) node: String,
    /// The id under which it was delivered.
    pub(crate) id: String,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
}

/// A message as its producer knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: String,
    /// When the hub's confirmation came, milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
}

/// The sequence of an id `STREAM:seq`.
pub(crate) fn seq_of(id: &str) -> Option<u64> {
    id.rsplit(':').next()?.parse().ok()
}

/// What the bridges list, ready to be asked.
#[derive(Debug)]
pub(crate) struct Explainer<'a> {
    listed: &'a Listed,
    /// Sequences that the hub gave to two messages: what is known of such a sequence may be meant of either.
    reused: BTreeSet<u64>,
    /// Nodes that delivered a message, by its number.
    delivered_by: &'a BTreeMap<usize, BTreeSet<String>>,
    /// Messages that lines count and do not name, which are still to be found.
    unnamed: u64,
    /// Messages that were put down to [`Self::unnamed`].
    counted: BTreeSet<usize>,
}

impl<'a> Explainer<'a> {
    pub(crate) fn new(
        listed: &'a Listed,
        stored: &BTreeMap<usize, Stored>,
        delivered_by: &'a BTreeMap<usize, BTreeSet<String>>,
    ) -> Self {
        let mut seqs = BTreeSet::new();
        let stored = stored.values().filter_map(|message| seq_of(&message.id));
        let reused = stored.filter(|seq| !seqs.insert(*seq)).collect();
        let losses = listed.nodes.iter().flat_map(|node| &node.losses);
        Self {
            listed,
            reused,
            delivered_by,
            unnamed: losses.map(crate::listed::Loss::unnamed).sum(),
            counted: BTreeSet::new(),
        }
    }

    /// Why an application never confirmed a message; `None` when no bridge says so.
    pub(crate) fn missing(&mut self, app: &str, number: usize, stored: &Stored) -> Option<String> {
        let seq = seq_of(&stored.id)?;
        let named = self.named(seq).or_else(|| self.dead_letter(app, seq));
        // A halt stops what comes in, never what was won and published.
        let withheld = |node: &NodeListed| node.delivers_though_halted() && holds(&node.waiting, seq);
        if named.is_none() && !self.reused.contains(&seq) && self.listed.nodes.iter().any(withheld) {
            return None;
        }
        named
            .or_else(|| self.owner_stands_still(number, seq))
            .or_else(|| self.taken_from_the_source(number, seq, stored.at_ms))
            .or_else(|| self.all_stand_still())
            .or_else(|| self.counted(number))
    }

    /// Why an application confirmed a message more than once; `None` when no bridge says so.
    pub(crate) fn repeated(
        &self,
        number: usize,
        confirmations: &[Confirmation],
        stored: &Stored,
    ) -> Option<String> {
        let broken = self.listed.broken?;
        let after = confirmations
            .iter()
            .filter(|confirmation| confirmation.at_ms > broken.ended_ms)
            .count();
        // Twice on one side of the break has nothing to do with it.
        if after != 1 || confirmations.len() != 2 {
            return None;
        }
        let ids: BTreeSet<&str> = confirmations.iter().map(|one| one.id.as_str()).collect();
        if ids.len() == 2 && broken.takes != Takes::Nothing && stored.at_ms > broken.copied_ms.unwrap_or(0) {
            return Some("the hub forgot it, and its producer stored it again".to_owned());
        }
        let seq = seq_of(&stored.id)?;
        let told = confirmations
            .iter()
            .find_map(|confirmation| self.standing_still(&confirmation.node));
        self.named(seq)
            .or(told)
            .or_else(|| self.owner_stands_still(number, seq))
    }

    /// A line that lists losses names it.
    fn named(&self, seq: u64) -> Option<String> {
        let mut losses = self
            .listed
            .nodes
            .iter()
            .flat_map(|node| node.losses.iter().map(move |loss| (node, loss)));
        let (node, loss) = losses.find(|(_, loss)| holds(&loss.seqs, seq))?;
        Some(format!("{} of {} names it", loss.code, node.node))
    }

    fn dead_letter(&self, app: &str, seq: u64) -> Option<String> {
        let is_it = |node: &&NodeListed| {
            let mut letters = node.dead_letters.iter();
            letters.any(|letter| letter.app == app && letter.seq == seq)
        };
        let node = self.listed.nodes.iter().find(is_it)?;
        Some(format!("a dead letter at {}", node.node))
    }

    /// Everyone who may own it, by what is held, claimed and delivered.
    fn owners(&self, number: usize, seq: u64) -> BTreeSet<&str> {
        let holders = self.listed.nodes.iter().filter(|node| holds(&node.holds, seq));
        let claimers = self.listed.claims.iter().filter(|claim| holds(&claim.won, seq));
        let delivered = self.delivered_by.get(&number).into_iter().flatten();
        holders
            .map(|node| node.node.as_str())
            .chain(claimers.map(|claim| claim.node.as_str()))
            .chain(delivered.map(String::as_str))
            .collect()
    }

    fn owner_stands_still(&self, number: usize, seq: u64) -> Option<String> {
        let owners = self.owners(number, seq);
        owners.into_iter().find_map(|owner| self.standing_still(owner))
    }

    fn standing_still(&self, name: &str) -> Option<String> {
        let node = self.listed.nodes.iter().find(|node| node.node == name)?;
        node.standing
            .is_told()
            .then(|| format!("{name} is {:?}", node.standing).to_lowercase())
    }

    /// Nobody owned it, the act took it from the source, and a bridge says that hub and bridges differ.
    fn taken_from_the_source(&self, number: usize, seq: u64, stored_ms: u64) -> Option<String> {
        let Break {
            copied_ms,
            ended_ms,
            takes,
        } = self.listed.broken?;
        let taken = match takes {
            Takes::Nothing => false,
            Takes::BehindTheCopy => {
                copied_ms.is_some_and(|copied| stored_ms > copied) && stored_ms <= ended_ms
            }
            Takes::Everything => stored_ms <= ended_ms,
        };
        let told = self.listed.nodes.iter().find(|node| node.standing.is_told())?;
        (taken && self.owners(number, seq).is_empty())
            .then(|| format!("the hub lost it, and {} is {:?}", told.node, told.standing).to_lowercase())
    }

    /// Nobody takes anything in any more, and says so.
    fn all_stand_still(&self) -> Option<String> {
        let all =
            !self.listed.nodes.is_empty() && self.listed.nodes.iter().all(|node| node.standing.is_told());
        all.then(|| "no bridge goes on".to_owned())
    }

    /// Lines that count and do not name explain as many messages as they count.
    fn counted(&mut self, number: usize) -> Option<String> {
        if !self.counted.contains(&number) {
            self.unnamed = self.unnamed.checked_sub(1)?;
            self.counted.insert(number);
        }
        Some("counted as given up".to_owned())
    }
}
