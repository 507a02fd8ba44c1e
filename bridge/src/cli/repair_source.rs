//! `fanin ledger repair --source STREAM`: the way out when a source was restored to an earlier copy, or created again.
//!
//! The configuration names the source's next incarnation, as the operator has raised its generation. The terms get it, and its W
//! begins behind what the old one's claims prove to be claimed, so that nothing of that comes again and everything else is
//! delivered. The order of the steps makes each of them safe to be the last one: a bridge does not use a consumer that begins
//! behind its W, and W follows the terms.

use std::fmt::Write as _;

use bytes::Bytes;
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq};
use fanin_core::record::{Body, Close, Record, Terms, Witness};
use fanin_hub::port::{Hub as _, LedgerRef};
use fanin_hub::{ConsumerError, CreatePolicy, LedgerError};
use serde_json::{Value, json};

use super::cluster::{Cluster, SourceLook};
use super::exit::Exit;
use super::failure::Failure;
use super::holdings;
use super::output;
use super::repair::{self, RepairArgs};
use crate::audit::source::{Boundary, OfHub, boundary, count_again};
use crate::audit::{Folded, NodeView, judge};
use crate::failpoint;
use crate::mapping::join::Source;
use crate::mapping::watch::consumer_spec;
use crate::telemetry::codes;

/// What is known and what would be done.
struct Plan {
    stream: String,
    /// The incarnation in the terms, and its last sequence that was claimed.
    old: Incarnation,
    old_closed: StreamSeq,
    /// The configured one.
    new: Incarnation,
    source: Source,
    last: StreamSeq,
    /// From which sequence on some node found other messages.
    fresh: Option<(String, StreamSeq)>,
    found: Boundary,
    /// When the last message taken as delivered was published.
    through_ns: Option<i64>,
    /// Batches of the old incarnation that nodes have staged, and that the ledger has not decided.
    staged: u64,
    unreachable: Vec<String>,
    terms: Terms,
    witness: Witness,
    terms_at: LedgerSeq,
    /// The terms name the new incarnation already, from an earlier run.
    named: bool,
    /// Its W stands too, or it is in use.
    closed: bool,
    findings: Vec<(&'static str, String)>,
}

pub(super) async fn execute(args: &RepairArgs, stream: &str) -> Result<Exit, Failure> {
    let cluster = args.cluster.open().await?;
    let nodes = args
        .filed
        .add_to(cluster.ask_nodes().await, &cluster.options.name)?;
    let folded = cluster.read().await?;
    holdings::check(&nodes, &folded)?;
    let plan = look(&cluster, &nodes, &folded, stream).await?;
    let blocking = blocking(args, &plan);
    if args.dry_run || !blocking.is_empty() {
        tell(args, &cluster, &plan, false)?;
        if blocking.is_empty() {
            return Ok(Exit::Done);
        }
        let text = format!(
            "{} matter(s) are in doubt; nothing was written. To go on all the same pass {}",
            blocking.len(),
            blocking.join(" and ")
        );
        return Err(refused(text));
    }
    repair::confirm(
        args,
        &format!("Source {stream} of mapping {} begins anew.", cluster.options.name),
    )?;
    write(&cluster, &plan).await?;
    tell(args, &cluster, &plan, true)?;
    Ok(Exit::Done)
}

fn refused(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text)
}

/// Reads and asks; changes nothing.
async fn look(cluster: &Cluster, nodes: &[NodeView], folded: &Folded, stream: &str) -> Result<Plan, Failure> {
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
    let fresh = nodes.iter().filter_map(|node| {
        let from = node.breaks.get(stream)?;
        Some((*from, node.name.clone()))
    });
    let fresh = fresh.min().map(|(from, node)| (node, from));
    let messages = OfHub {
        hub: &cluster.hub,
        stream,
        filters: &look.source.terms.filters,
    };
    let failed = |error: fanin_hub::ApiError| Failure::of(Exit::Unavailable, error.code(), error);
    let bound = fresh.as_ref().map(|(_, from)| *from);
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
    let staged = nodes.iter().flat_map(|node| node.batches.values());
    let staged = staged.filter(|batch| !batch.decided && batch.incarnation == old);
    let is_used = fold.claims().values().any(|claim| claim.incarnation == new);
    let mut plan = Plan {
        stream: stream.to_owned(),
        old,
        old_closed: fold.closed(old),
        new,
        last,
        fresh,
        found,
        through_ns: through_ns.and_then(|at| i64::try_from(at).ok()),
        staged: staged.count() as u64,
        unreachable: judge(folded, nodes, &[]).unreachable,
        witness: fold.witness(),
        terms_at: fold.terms_at(),
        named,
        closed: named && (fold.closed(new).0 > 0 || is_used),
        terms,
        source: look.source.clone(),
        findings: Vec::new(),
    };
    plan.judge(&look);
    Ok(plan)
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
    fn keeps_old(&self) -> bool {
        self.staged > 0 || !self.unreachable.is_empty()
    }

    /// Whether an earlier run has done its work, and the old incarnation can be left out now.
    fn only_finishes(&self) -> bool {
        self.named && self.closed
    }

    fn judge(&mut self, look: &SourceLook) {
        for node in self.unreachable.clone() {
            let text =
                format!("node {node} could not be asked: it may know better where the stream was restored");
            self.findings.push(("not_asked", text));
        }
        if self.only_finishes() {
            return;
        }
        let is_recreated = generation_of(look, self.old).is_none();
        if self.fresh.is_none() && !is_recreated {
            let text = format!(
                "no node that was asked has halted because of {}: nothing but publish times tells what is new in it",
                self.stream
            );
            self.findings.push(("no_evidence", text));
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
fn blocking(args: &RepairArgs, plan: &Plan) -> Vec<&'static str> {
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

async fn write(cluster: &Cluster, plan: &Plan) -> Result<(), Failure> {
    let through = plan.found.through;
    let hub = &cluster.hub;
    if !plan.only_finishes() {
        let policy = match through.0 {
            0 => CreatePolicy::FromStart,
            _ => CreatePolicy::After(through),
        };
        let spec = consumer_spec(&cluster.options, plan.new, &plan.source);
        hub.ensure_consumer(&spec, policy)
            .await
            .map_err(consumer_failed)?;
        failpoint::reach("after_source_consumer");
        // Whoever still works by the old incarnation gets nothing more under it.
        let spec = consumer_spec(&cluster.options, plan.old, &plan.source);
        spec.delete(hub).await.map_err(consumer_failed)?;
    }
    let ledger = hub
        .ensure_ledger(&cluster.ledger())
        .await
        .map_err(ledger_failed)?;
    let (mut terms, mut terms_at) = (plan.terms.clone(), plan.terms_at);
    let stream = &plan.stream;
    if !plan.named {
        // Older ones than the last have nothing staged any more.
        terms
            .sources
            .retain(|incarnation, named| *incarnation == plan.old || named.stream != *stream);
        terms.sources.insert(plan.new, plan.source.terms.clone());
        terms_at = put(&ledger, plan.witness, &mut terms, terms_at).await?;
        failpoint::reach("after_source_terms");
    }
    if !plan.closed && through.0 > 0 {
        let close = Close {
            incarnation: plan.new,
            through,
            terms: terms.version,
            floor: through,
            holes: 0,
        };
        append(&ledger, plan.witness, Body::Close(close), None).await?;
        failpoint::reach("after_source_close");
    }
    if !plan.keeps_old() {
        terms
            .sources
            .retain(|incarnation, named| *incarnation == plan.new || named.stream != *stream);
        put(&ledger, plan.witness, &mut terms, terms_at).await?;
    }
    Ok(())
}

/// Appends the terms as the next version. Says where.
async fn put(
    ledger: &LedgerRef,
    witness: Witness,
    terms: &mut Terms,
    expect: LedgerSeq,
) -> Result<LedgerSeq, Failure> {
    terms.version.0 += 1;
    if let Err(error) = terms.check() {
        return Err(refused(format!("the terms cannot be written: {error}")));
    }
    append(ledger, witness, Body::Terms(terms.clone()), Some(expect)).await
}

async fn append(
    ledger: &LedgerRef,
    witness: Witness,
    body: Body,
    expect: Option<LedgerSeq>,
) -> Result<LedgerSeq, Failure> {
    let record = Record { witness, body };
    let bytes = Bytes::from(record.encode());
    let done = ledger.append(&record.subject(), None, bytes, expect).await;
    done.map(|ack| LedgerSeq(ack.seq))
        .map_err(|error| Failure::of(Exit::Failed, error.code(), error))
}

fn consumer_failed(error: ConsumerError) -> Failure {
    let exit = if error.retryable() {
        Exit::Unavailable
    } else {
        Exit::Failed
    };
    Failure::of(exit, error.code(), error)
}

fn ledger_failed(error: LedgerError) -> Failure {
    Failure::of(Exit::Failed, error.code(), error)
}

fn tell(args: &RepairArgs, cluster: &Cluster, plan: &Plan, written: bool) -> Result<(), Failure> {
    if args.json {
        output::print_json(&to_json(args, cluster, plan, written))
    } else {
        output::print(&to_text(cluster, plan, written))
    }
}

fn time(at: Option<i64>) -> String {
    at.map_or_else(|| "unknown".to_owned(), super::message_line::time_text)
}

fn to_json(args: &RepairArgs, cluster: &Cluster, plan: &Plan, written: bool) -> Value {
    let findings = plan
        .findings
        .iter()
        .map(|(kind, text)| json!({ "kind": kind, "text": text }));
    json!({
        "mapping": cluster.options.name,
        "source": plan.stream,
        "dry_run": args.dry_run,
        "written": written,
        "old": { "incarnation": plan.old.to_string(), "closed_through": plan.old_closed.0, "staged_batches": plan.staged },
        "new": { "incarnation": plan.new.to_string(), "generation": plan.source.generation },
        "last": plan.last.0,
        "new_from": plan.fresh.as_ref().map(|(node, from)| json!({ "node": node, "seq": from.0 })),
        "taken_as_delivered": { "through": plan.found.through.0, "published": time(plan.through_ns) },
        "delivered_from": plan.found.next.map(|(seq, at)| json!({ "seq": seq.0, "published": time(Some(at)) })),
        "again": plan.found.again,
        "keeps_old": plan.keeps_old(),
        "unreachable": plan.unreachable,
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn to_text(cluster: &Cluster, plan: &Plan, written: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "mapping {}, source {}: ends at {}; the terms name it as {} (closed through {}), the configuration as {} (generation {})",
        cluster.options.name,
        plan.stream,
        plan.last,
        plan.old,
        plan.old_closed,
        plan.new,
        plan.source.generation
    );
    if plan.only_finishes() {
        text.push_str("the new incarnation is in use already\n");
    } else {
        if let Some((node, from)) = &plan.fresh {
            let _ = writeln!(
                text,
                "  other messages than before from {from} on, as node {node} found out"
            );
        }
        let _ = writeln!(
            text,
            "  taken as delivered: through {} (published {})",
            plan.found.through,
            time(plan.through_ns)
        );
        let _ = match plan.found.next {
            Some((seq, at)) => writeln!(text, "  delivered: from {seq} on (published {})", time(Some(at))),
            None => writeln!(text, "  delivered: what comes from now on"),
        };
    }
    if plan.keeps_old() {
        let _ = writeln!(
            text,
            "  the old incarnation stays in the terms for {} staged batch(es) and {} node(s) not asked; run this again when they are done",
            plan.staged,
            plan.unreachable.len()
        );
    }
    for (_, finding) in &plan.findings {
        let _ = writeln!(text, "! {finding}");
    }
    if written {
        text.push_str("restart every bridge, with the generation raised in its configuration\n");
    }
    text
}
