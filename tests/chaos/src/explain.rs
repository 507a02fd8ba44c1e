//! Whether a missing or repeated message is listed by a bridge: each by itself, by its number, and never by the mere fact that
//! something was said.

use std::collections::{BTreeMap, BTreeSet};

use crate::listed::{Break, Held, Listed, Loss, NodeListed, Takes, holds};

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

/// All acknowledgements of one application by message number.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) confirmed: BTreeMap<usize, Vec<Confirmation>>,
    /// With the nodes whose answer was lost.
    pub(crate) doubted: BTreeMap<usize, BTreeSet<String>>,
}

/// What the bridges list, ready to be asked.
#[derive(Debug)]
pub(crate) struct Explainer<'a> {
    listed: &'a Listed,
    /// When each message was stored under a sequence, in order: several, when the hub gave it away again.
    stored_at: BTreeMap<u64, Vec<u64>>,
    /// The first sequence that the source has lost, or holds another message under, when the act took something from it. What lies
    /// there now was stored behind the act.
    taken_from: Option<u64>,
    /// Nodes that delivered a message, by its number.
    delivered_by: &'a BTreeMap<usize, BTreeSet<String>>,
    /// How many messages an application has finished at a node beyond those that it knows to be confirmed there.
    finished: BTreeMap<(String, String), u64>,
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
        answers: &BTreeMap<String, Answers>,
    ) -> Self {
        let mut stored_at: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut taken_from = None;
        for (number, message) in stored {
            let Some(seq) = seq_of(&message.id) else { continue };
            stored_at.entry(seq).or_default().push(message.at_ms);
            if listed.source.number_at(seq) != Some(*number) {
                taken_from = Some(taken_from.map_or(seq, |from: u64| from.min(seq)));
            }
        }
        stored_at.values_mut().for_each(|times| times.sort_unstable());
        let losses = listed.nodes.iter().flat_map(|node| &node.losses);
        Self {
            listed,
            stored_at,
            taken_from: taken_from
                .filter(|_| listed.broken.is_some_and(|broken| broken.takes != Takes::Nothing)),
            delivered_by,
            finished: finished_unseen(listed, answers),
            unnamed: losses.map(Loss::unnamed).sum(),
            counted: BTreeSet::new(),
        }
    }

    /// Whether a message whose answers were all lost is accounted for: a node holds it for the application, or one that delivered it
    /// has finished more messages than are known to be confirmed there, this one among them.
    pub(crate) fn settles_doubt(&mut self, app: &str, stored: &Stored, nodes: &BTreeSet<String>) -> bool {
        let Some(seq) = seq_of(&stored.id) else {
            return false;
        };
        if self
            .listed
            .nodes
            .iter()
            .any(|node| self.has(node, app, seq, stored))
        {
            return true;
        }
        // A node that lost it by damage knows it as a dead letter, which the explainer asks for.
        if self.dead_letter(app, seq).is_some() {
            return false;
        }
        let most = nodes
            .iter()
            .map(|node| (node.clone(), app.to_owned()))
            .max_by_key(|key| self.finished.get(key).copied().unwrap_or(0));
        let Some(left) = most.and_then(|key| self.finished.get_mut(&key)) else {
            return false;
        };
        match left.checked_sub(1) {
            Some(fewer) => {
                *left = fewer;
                true
            }
            None => false,
        }
    }

    /// Why nobody can be asked about a message in doubt: the node that delivered it is down, and says so.
    pub(crate) fn doubt_at_one_that_is_down(&self, nodes: &BTreeSet<String>) -> Option<String> {
        let down =
            |node: &&NodeListed| node.standing.is_told() && !node.was_asked && nodes.contains(&node.node);
        let node = self.listed.nodes.iter().find(down)?;
        Some(format!("in doubt, and {} is {:?}", node.node, node.standing).to_lowercase())
    }

    /// Why an application never confirmed a message; `None` when no bridge says so.
    pub(crate) fn missing(&mut self, app: &str, number: usize, stored: &Stored) -> Option<String> {
        let seq = seq_of(&stored.id)?;
        let named = self.named(seq).or_else(|| self.dead_letter(app, seq));
        // A halt stops what comes in, never what was won and published.
        let withheld = |node: &NodeListed| {
            node.delivers_though_halted() && self.among(node.waiting.get(app), seq, stored)
        };
        if named.is_none() && self.listed.nodes.iter().any(withheld) {
            return None;
        }
        named
            .or_else(|| self.holder_stands_still(app, seq, stored))
            .or_else(|| self.claimer_stands_still(seq))
            .or_else(|| self.repair_lists(seq, &["missing"]))
            .or_else(|| self.taken_from_the_source(number, seq, stored))
            .or_else(|| self.waits_at_the_hub(number, seq, stored))
            .or_else(|| self.counted(number))
    }

    /// Why an application confirmed a message more than once; `None` when no bridge says so.
    pub(crate) fn repeated(&self, confirmations: &[Confirmation], stored: &Stored) -> Option<String> {
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
        let kinds = ["duplicate", "closed_elsewhere", "split", "disputed", "finished"];
        self.named(seq)
            .or_else(|| self.repair_lists(seq, &kinds))
            .or_else(|| self.halt_tells(confirmations))
    }

    /// A line that lists losses names it.
    fn named(&self, seq: u64) -> Option<String> {
        let mut losses = self
            .listed
            .nodes
            .iter()
            .flat_map(|node| node.losses.iter().map(move |loss| (node, loss)));
        let names = |loss: &Loss| loss.lost_by_the_hub_from().is_none() && holds(&loss.seqs, seq);
        let (node, loss) = losses.find(|(_, loss)| names(loss))?;
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

    /// Whether what is held under a sequence can be this message. Of two that the hub gave one sequence to, the batch's times tell.
    fn among<'h>(&self, held: impl IntoIterator<Item = &'h Vec<Held>>, seq: u64, stored: &Stored) -> bool {
        let times = self.stored_at.get(&seq).map_or(&[][..], Vec::as_slice);
        let before = times.iter().rfind(|at| **at < stored.at_ms).copied();
        let is_last = times.last().is_none_or(|last| *last <= stored.at_ms);
        let is_it = |held: &Held| {
            let is_older = !is_last && held.oldest_ms > stored.at_ms;
            let is_newer = before.is_some_and(|before| held.newest_ms <= before);
            held.first <= seq && seq <= held.last && !is_older && !is_newer
        };
        held.into_iter().flatten().any(is_it)
    }

    fn has(&self, node: &NodeListed, app: &str, seq: u64, stored: &Stored) -> bool {
        self.among(
            std::iter::once(&node.staged).chain(node.waiting.get(app)),
            seq,
            stored,
        )
    }

    fn was_reused(&self, seq: u64) -> bool {
        self.stored_at.get(&seq).is_some_and(|times| times.len() > 1)
    }

    /// A bridge that stands still has it in its hands for this application.
    fn holder_stands_still(&self, app: &str, seq: u64, stored: &Stored) -> Option<String> {
        let mut still = self.listed.nodes.iter().filter(|node| node.standing.is_told());
        let node = still.find(|node| self.has(node, app, seq, stored))?;
        Some(format!("{} holds it, and is {:?}", node.node, node.standing).to_lowercase())
    }

    /// The ledger names a bridge that is down, or whose disk does not hold what it owned, as that bridge says. Of one that could tell
    /// what it holds, a claim says nothing: it would hold the message, or has finished it.
    fn claimer_stands_still(&self, seq: u64) -> Option<String> {
        let mut claims = self.listed.claims.iter().filter(|claim| holds(&claim.won, seq));
        claims.find_map(|claim| {
            let mut nodes = self.listed.nodes.iter();
            let node = nodes.find(|node| node.node == claim.node && node.misses_own())?;
            Some(format!("owned by {}, which is {:?}", node.node, node.standing).to_lowercase())
        })
    }

    /// The dry run of a repair names it.
    fn repair_lists(&self, seq: u64, kinds: &[&str]) -> Option<String> {
        let mut findings = self.listed.repair.iter().flat_map(|repair| &repair.findings);
        let is_it = |kind: &str| kinds.contains(&kind);
        let finding = findings.find(|finding| is_it(&finding.kind) && holds(&finding.messages, seq))?;
        Some(format!("ledger repair lists it as {}", finding.kind))
    }

    /// One of the two that confirmed it stands still because of the hub. Where a repair of the ledger lists what came twice, that
    /// has to name it instead.
    fn halt_tells(&self, confirmations: &[Confirmation]) -> Option<String> {
        if self
            .listed
            .repair
            .as_ref()
            .is_some_and(|repair| !repair.damage.is_empty())
        {
            return None;
        }
        let concerned = |node: &&NodeListed| confirmations.iter().any(|one| one.node == node.node);
        let mut nodes = self.listed.nodes.iter().filter(concerned);
        let node = nodes.find(|node| node.tells_of_the_hub())?;
        Some(format!("{} is {:?}", node.node, node.standing).to_lowercase())
    }

    /// Whether anybody may have had it: by what is held, claimed and delivered.
    fn is_owned(&self, number: usize, seq: u64, stored: &Stored) -> bool {
        let held = |node: &NodeListed| {
            self.among(
                std::iter::once(&node.staged).chain(node.waiting.values()),
                seq,
                stored,
            )
        };
        // A claim tells no times: of two messages of one sequence it may mean either.
        let claimed = !self.was_reused(seq) && self.listed.claims.iter().any(|claim| holds(&claim.won, seq));
        claimed || self.delivered_by.contains_key(&number) || self.listed.nodes.iter().any(held)
    }

    /// Nobody owned it, the act took it from the source, where it is no more, and a bridge says that hub and bridges differ, or from
    /// where on the hub lost what nobody had taken. Or no bridge can say anything, for none had seen the source go so far.
    fn taken_from_the_source(&self, number: usize, seq: u64, stored: &Stored) -> Option<String> {
        let Break {
            copied_ms,
            ended_ms,
            takes,
            seen,
            bit: _,
        } = self.listed.broken?;
        let taken = match takes {
            Takes::Nothing => false,
            Takes::BehindTheCopy => {
                copied_ms.is_some_and(|copied| stored.at_ms > copied) && stored.at_ms <= ended_ms
            }
            Takes::Everything => stored.at_ms <= ended_ms,
        };
        let is_gone = self.listed.source.number_at(seq) != Some(number);
        if !taken || !is_gone || self.is_owned(number, seq, stored) {
            return None;
        }
        let nodes = &self.listed.nodes;
        if let Some(told) = nodes.iter().find(|node| node.tells_of_the_hub()) {
            return Some(format!("the hub lost it, and {} is {:?}", told.node, told.standing).to_lowercase());
        }
        let from = |node: &NodeListed| node.losses.iter().filter_map(Loss::lost_by_the_hub_from).min();
        if let Some(told) = nodes
            .iter()
            .find(|node| from(node).is_some_and(|from| from <= seq))
        {
            return Some(format!("the hub lost it, as {} tells", told.node));
        }
        (takes == Takes::BehindTheCopy && seq > seen)
            .then(|| "the hub lost it before any bridge had seen it there".to_owned())
    }

    /// Nobody takes anything in any more, and says so; nobody owned it; and it lies in the source, where no watermark has passed it.
    fn waits_at_the_hub(&self, number: usize, seq: u64, stored: &Stored) -> Option<String> {
        let nodes = &self.listed.nodes;
        let all = !nodes.is_empty() && nodes.iter().all(|node| node.standing.is_told());
        let is_there = self.listed.source.number_at(seq) == Some(number);
        (all && is_there && !self.has_passed(seq) && !self.is_owned(number, seq, stored))
            .then(|| "it waits at the hub, and no bridge goes on".to_owned())
    }

    /// Whether nobody will take a message of the source any more, though nobody owned it. The repair of the source says where it goes
    /// on, if that is what it needs. Else what was stored behind the act has a sequence that no watermark means, and everything
    /// else is taken only above the highest watermark that anybody knows.
    fn has_passed(&self, seq: u64) -> bool {
        let repair = self.listed.repair.as_ref();
        if let Some(through) = repair.and_then(|repair| repair.taken_as_delivered) {
            return seq <= through;
        }
        let known = self.listed.nodes.iter().map(|node| node.closed);
        let closed = known
            .chain(repair.map(|repair| repair.closed))
            .chain([self.listed.closed]);
        let is_new = self.taken_from.is_some_and(|from| seq >= from);
        !is_new && closed.max().is_some_and(|closed| seq <= closed)
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

/// How many messages each application has finished at each node, beyond those confirmed there and its dead letters.
fn finished_unseen(listed: &Listed, answers: &BTreeMap<String, Answers>) -> BTreeMap<(String, String), u64> {
    let mut all = BTreeMap::new();
    for node in &listed.nodes {
        for (app, finished) in &node.finished {
            let confirmed = answers
                .get(app)
                .into_iter()
                .flat_map(|answers| answers.confirmed.values());
            let ids: BTreeSet<(&str, usize)> = confirmed
                .enumerate()
                .flat_map(|(message, all)| all.iter().map(move |one| (one, message)))
                .filter(|(one, _)| one.node == node.node)
                .map(|(one, message)| (one.id.as_str(), message))
                .collect();
            let dead = node.dead_letters.iter().filter(|letter| letter.app == *app);
            let seen = u64::try_from(ids.len() + dead.count()).unwrap_or(u64::MAX);
            let left = finished.saturating_sub(seen);
            all.insert((node.node.clone(), app.clone()), left);
        }
    }
    all
}
