//! What a repair of a source would do, from what the nodes, the ledger and the stream say now.

use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq};
use fanin_core::record::{Terms, Witness};
use fanin_hub::port::Hub as _;

use super::cluster::{Cluster, SourceLook};
use super::exit::Exit;
use super::failure::Failure;
use super::holdings;
use super::repair::RepairArgs;
use crate::audit::nodes::Break;
use crate::audit::source::{Boundary, OfHub, boundary, count_again, evidence};
use crate::audit::{Folded, NodeView, judge};
use crate::mapping::join::Source;
use crate::mapping::view::State;
use crate::telemetry::codes;

/// What is known and what would be done.
pub(super) struct Plan {
    pub(super) stream: String,
    /// The incarnation in the terms, and its last sequence that was claimed.
    pub(super) old: Incarnation,
    pub(super) old_closed: StreamSeq,
    /// The configured one.
    pub(super) new: Incarnation,
    pub(super) source: Source,
    pub(super) last: StreamSeq,
    /// From which sequence on some node found other messages, who, and what is known of the time of the restore.
    pub(super) broken: Option<(String, Break)>,
    pub(super) found: Boundary,
    /// When the last message taken as delivered was published.
    pub(super) through_ns: Option<i64>,
    /// Batches of the old incarnation that nodes have staged, and that the ledger has not decided.
    pub(super) staged: u64,
    /// Those of them on nodes that have not halted, which still claim them.
    pub(super) at_work: u64,
    /// Whether a node was asked that has not halted.
    pub(super) is_running: bool,
    /// The newest claim of the old incarnation, and its newest claimed sequence.
    pub(super) last_claim: LedgerSeq,
    pub(super) old_end: StreamSeq,
    /// How far the ledger was read.
    pub(super) read: LedgerSeq,
    pub(super) unreachable: Vec<String>,
    /// Nodes that had not halted when the files were written that tell of them.
    pub(super) outdated: Vec<String>,
    pub(super) terms: Terms,
    pub(super) witness: Witness,
    pub(super) terms_at: LedgerSeq,
    /// The terms name the new incarnation already, from an earlier run.
    pub(super) named: bool,
    /// Its W stands too, or it is in use.
    pub(super) closed: bool,
    /// Something was claimed under it.
    pub(super) is_used: bool,
    pub(super) findings: Vec<(&'static str, String)>,
}

pub(super) fn refused(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text)
}

/// Reads and asks; changes nothing. `before` is what nodes told at an earlier look about where the stream is broken.
pub(super) async fn look(
    args: &RepairArgs,
    cluster: &Cluster,
    stream: &str,
    before: Option<(String, Break)>,
) -> Result<Plan, Failure> {
    let nodes = args
        .filed
        .add_to(cluster.ask_nodes().await, &cluster.options.name)?;
    let folded = cluster.read().await?;
    holdings::check(&nodes, &folded)?;
    let broken = evidence(&nodes, stream, before);
    of(cluster, &nodes, &folded, (stream, broken)).await
}

async fn of(
    cluster: &Cluster,
    nodes: &[NodeView],
    folded: &Folded,
    (stream, broken): (&str, Option<(String, Break)>),
) -> Result<Plan, Failure> {
    if let Some(halt) = &folded.halt {
        return Err(refused(format!(
            "the ledger {} is damaged itself: {halt}; repair it first, without --source",
            folded.stream
        )));
    }
    let sources = cluster.sources().await?;
    let Some(look) = sources
        .into_iter()
        .find(|look| look.source.terms.stream == stream)
    else {
        let text = format!("mapping {} has no source {stream:?}", cluster.options.name);
        return Err(Failure::new(Exit::Usage, codes::REPAIR_REFUSED, text));
    };
    let fold = &folded.fold;
    let terms = fold.terms().clone();
    let new = look.incarnation;
    let mut olds: Vec<Incarnation> = terms
        .sources
        .iter()
        .filter(|(incarnation, named)| **incarnation != new && named.stream == stream)
        .map(|(incarnation, _)| *incarnation)
        .collect();
    let named = terms.sources.contains_key(&new);
    // Of several the one that was in use last: that of the next lower generation, else that of the newest claim.
    olds.sort_by_key(|&old| (generation_of(&look, old), fold.passed(old).newest_ns));
    let Some(&old) = olds.last() else {
        let generation = look.source.generation;
        return Err(refused(if named {
            format!(
                "the terms name {stream} with generation {generation}, as this configuration does. If it was restored to an \
                 earlier copy, set its generation below sources to {} in the configuration of every node, without restarting \
                 any, and run this again",
                generation + 1
            )
        } else {
            format!("the terms do not name {stream}; there is nothing to repair")
        }));
    };
    let last = StreamSeq(look.source.info.last_seq);
    let messages = OfHub {
        hub: &cluster.hub,
        stream,
        filters: &look.source.terms.filters,
    };
    let failed = |error: fanin_hub::ApiError| Failure::of(Exit::Unavailable, error.code(), error);
    let bound = broken.as_ref().map(|(_, found)| *found);
    let mut found = boundary(&messages, fold, old, last, bound)
        .await
        .map_err(failed)?;
    count_again(&messages, fold, old, nodes, last, &mut found)
        .await
        .map_err(failed)?;
    let through = match found.through.0 {
        0 => None,
        _ => cluster
            .hub
            .fetch_message(stream, found.through)
            .await
            .map_err(failed)?,
    };
    let through_ns = through.map(|message| message.published_ns);
    let staged = |node: &&NodeView| {
        let batches = node.batches.values();
        let staged = batches.filter(|batch| !batch.decided && batch.incarnation == old);
        staged.count() as u64
    };
    let running = || nodes.iter().filter(|node| !is_halted(node));
    // What stands in the file of a node that goes on may be staged and claimed since, and more beside it.
    let outdated = running().filter(|node| node.filed.is_some());
    let of_old = fold.claims().values().filter(|claim| claim.incarnation == old);
    let is_used = fold.claims().values().any(|claim| claim.incarnation == new);
    let mut plan = Plan {
        stream: stream.to_owned(),
        old,
        old_closed: fold.closed(old),
        new,
        last,
        broken,
        found,
        through_ns: through_ns.and_then(|at| i64::try_from(at).ok()),
        staged: nodes.iter().map(|node| staged(&node)).sum(),
        at_work: running().map(|node| staged(&node)).sum(),
        is_running: running().next().is_some(),
        last_claim: of_old.map(|claim| claim.position).max().unwrap_or_default(),
        old_end: fold.newest_claimed(old).unwrap_or_default(),
        read: fold.position(),
        outdated: outdated.map(|node| node.name.clone()).collect(),
        unreachable: judge(folded, nodes, &[]).unreachable,
        witness: fold.witness(),
        terms_at: fold.terms_at(),
        named,
        closed: named && (fold.closed(new).0 > 0 || is_used),
        is_used,
        terms,
        source: look.source.clone(),
        findings: Vec::new(),
    };
    plan.judge(&look);
    Ok(plan)
}

/// A halted node takes nothing in and claims nothing, so that what it told once stays so.
fn is_halted(node: &NodeView) -> bool {
    node.state == State::Halted.word()
}

/// The generation under which a stream is of an incarnation; `None` when it is another stream.
fn generation_of(look: &SourceLook, incarnation: Incarnation) -> Option<u32> {
    let generations = 0..look.source.generation;
    generations
        .rev()
        .find(|generation| look.source.info.incarnation(u64::from(*generation)) == incarnation)
}

impl Plan {
    /// Whether claims of what nodes have staged must stay possible: those messages may be nowhere else any more.
    pub(super) fn keeps_old(&self) -> bool {
        self.staged > 0 || !self.unreachable.is_empty() || !self.outdated.is_empty()
    }

    /// Whether an earlier run has done its work, and the old incarnation can be left out now.
    pub(super) fn only_finishes(&self) -> bool {
        self.named && self.closed
    }

    fn judge(&mut self, look: &SourceLook) {
        for node in self.unreachable.clone() {
            let text =
                format!("node {node} could not be asked: it may know better where the stream was restored");
            self.findings.push(("not_asked", text));
        }
        for node in self.outdated.clone() {
            let text = format!(
                "node {node} had not halted when its file was written: it may have taken more since. Ask it by its socket"
            );
            self.findings.push(("not_asked", text));
        }
        if self.only_finishes() {
            return;
        }
        let is_recreated = generation_of(look, self.old).is_none();
        if self.broken.is_none() && !is_recreated {
            let text = format!(
                "no node that was asked has halted because of {}: nothing but publish times tells what is new in it",
                self.stream
            );
            self.findings.push(("no_evidence", text));
        }
        if let Some((node, found)) = self.broken.as_ref().filter(|(_, found)| !found.is_exact) {
            let text = format!(
                "node {node} found other messages from {}:{} on, but no node that was asked knows a message from before the restore that \
                 shows when it came: what came since may be taken as delivered. Compare the times with when the stream was restored",
                self.stream, found.from
            );
            self.findings.push(("no_time", text));
        }
        if self.found.again > 0 || self.found.cut_short {
            let at_least = if self.found.cut_short { "at least " } else { "" };
            let text = format!(
                "{at_least}{} message(s) behind {}:{} were claimed or staged before, behind others that were not: they come twice",
                self.found.again, self.stream, self.found.through
            );
            self.findings.push(("again", text));
        }
    }
}

/// The flags that the operator's word is missing for.
pub(super) fn blocking(args: &RepairArgs, plan: &Plan) -> Vec<&'static str> {
    let mut flags: Vec<&'static str> = Vec::new();
    for (kind, _) in &plan.findings {
        let (flag, is_given) = match *kind {
            "not_asked" => ("--ignore-unreachable", args.ignore_unreachable),
            _ => ("--accept-in-doubt", args.accept_in_doubt),
        };
        if !is_given && !flags.contains(&flag) {
            flags.push(flag);
        }
    }
    flags
}
