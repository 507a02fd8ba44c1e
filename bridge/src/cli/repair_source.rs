//! `fanin ledger repair --source STREAM`: the way out when a source was restored to an earlier copy, or created again.
//!
//! The configuration names the source's next incarnation, as the operator has raised its generation. The terms get it, and its W
//! begins behind what the old one's claims prove to be claimed, so that nothing of that comes again and everything else is
//! delivered. The old consumer goes first, for only then do claims of the old incarnation come to an end, and what they say is
//! looked at again. The order of the steps makes each of them safe to be the last one: a bridge does not use a consumer that
//! begins behind its W, and W follows the terms.

use std::fmt::Write as _;

use bytes::Bytes;
use fanin_core::ids::{Incarnation, LedgerSeq, StreamSeq};
use fanin_core::record::{Body, Close, Record, Terms, Witness};
use fanin_hub::port::{Hub as _, LedgerRef};
use fanin_hub::{ConsumerError, CreatePolicy, LedgerError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::exit::Exit;
use super::failure::Failure;
use super::output;
use super::repair::{self, RepairArgs};
use super::source_plan::{Plan, blocking, look, refused};
use crate::audit::limits::{CALM_MIN, SETTLE_PAUSE, SETTLE_WAIT_MAX};
use crate::audit::source::Begun;
use crate::failpoint;
use crate::mapping::watch::consumer_spec;

pub(super) async fn execute(args: &RepairArgs, stream: &str) -> Result<Exit, Failure> {
    let cluster = args.cluster.open().await?;
    let plan = look(args, &cluster, stream, None).await?;
    if args.dry_run {
        tell(args, &cluster, &plan, false)?;
        return in_doubt(args, &plan, "nothing was written").map(|()| Exit::Done);
    }
    if let Err(failure) = in_doubt(args, &plan, "nothing was written") {
        tell(args, &cluster, &plan, false)?;
        return Err(failure);
    }
    repair::confirm(
        args,
        &format!("Source {stream} of mapping {} begins anew.", cluster.options.name),
    )?;
    let first = plan.found.through;
    let plan = settle(args, &cluster, plan).await?;
    if plan.found.through != first && !plan.only_finishes() {
        let text = format!(
            "note: since the first look what is taken as delivered has moved from {first} to {}",
            plan.found.through
        );
        output::note(&text);
    }
    let left = "the old consumer is deleted, so that nobody takes anything from this source; nothing else was written";
    if let Err(failure) = in_doubt(args, &plan, left) {
        tell(args, &cluster, &plan, false)?;
        return Err(failure);
    }
    write(&cluster, &plan).await?;
    tell(args, &cluster, &plan, true)?;
    let begun = Begun {
        stream: &plan.stream,
        old: plan.old,
        new: plan.new,
        keeps_old: plan.keeps_old(),
        through: plan.found.through,
        read: plan.read,
        was_in_use: plan.only_finishes(),
    };
    match begun.shortfall(&cluster.read().await?.fold) {
        None => Ok(Exit::Done),
        Some(why) => Err(refused(why)),
    }
}

/// Whether the operator's word is missing for something.
fn in_doubt(args: &RepairArgs, plan: &Plan, done: &str) -> Result<(), Failure> {
    let blocking = blocking(args, plan);
    if blocking.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "{} matter(s) are in doubt; {done}. To go on all the same pass {}",
        plan.findings.len(),
        blocking.join(" and ")
    )))
}

/// Takes the old consumer away, so that nobody is given anything more under the old incarnation, and looks again once the nodes that
/// have not halted are done with what they had been given. What is not done in time is staged then, and told as that.
async fn settle(args: &RepairArgs, cluster: &Cluster, first: Plan) -> Result<Plan, Failure> {
    if first.only_finishes() {
        return Ok(first);
    }
    delete_old(cluster, &first).await?;
    failpoint::reach("after_source_delete");
    let deadline = Instant::now() + SETTLE_WAIT_MAX;
    let (mut seen, mut since) = (None, Instant::now());
    loop {
        let plan = look(args, cluster, &first.stream, first.broken.clone()).await?;
        if (plan.old, plan.new) != (first.old, first.new) {
            return Err(refused(
                "the terms or the stream have changed meanwhile; run this again",
            ));
        }
        let now = (plan.at_work, plan.old_closed, plan.last_claim);
        if seen != Some(now) {
            (seen, since) = (Some(now), Instant::now());
        }
        let is_calm = plan.at_work == 0 && since.elapsed() >= CALM_MIN;
        if !plan.is_running || is_calm || Instant::now() >= deadline {
            return Ok(plan);
        }
        sleep(SETTLE_PAUSE).await;
    }
}

async fn delete_old(cluster: &Cluster, plan: &Plan) -> Result<(), Failure> {
    let spec = consumer_spec(&cluster.options, plan.old, &plan.source);
    spec.delete(&cluster.hub).await.map_err(consumer_failed)
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
        let mut made = hub.ensure_consumer(&spec, policy).await;
        if matches!(made, Err(ConsumerError::Differs { .. })) && !plan.is_used {
            // An earlier run, which knew less, had it begin further on. Nobody has used it.
            spec.delete(hub).await.map_err(consumer_failed)?;
            made = hub.ensure_consumer(&spec, policy).await;
        }
        made.map_err(consumer_failed)?;
        failpoint::reach("after_source_consumer");
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
        // A bridge that was started without the raised generation before it could read this may have made it anew.
        delete_old(cluster, plan).await?;
    }
    if !plan.closed && through.0 > 0 {
        close(&ledger, plan, &terms, (plan.new, through)).await?;
        failpoint::reach("after_source_close");
    }
    if !plan.keeps_old() {
        // Nobody can claim anything of it any more, so that its W may pass what is left: then its claims are forgotten once they are
        // done. No CLOSE counts for a source that the terms do not name.
        if plan.old_end > plan.old_closed {
            close(&ledger, plan, &terms, (plan.old, plan.old_end)).await?;
            failpoint::reach("after_source_old_close");
        }
        terms
            .sources
            .retain(|incarnation, named| *incarnation == plan.new || named.stream != *stream);
        put(&ledger, plan.witness, &mut terms, terms_at).await?;
    }
    Ok(())
}

async fn close(
    ledger: &LedgerRef,
    plan: &Plan,
    terms: &Terms,
    (incarnation, through): (Incarnation, StreamSeq),
) -> Result<(), Failure> {
    let close = Close {
        incarnation,
        through,
        terms: terms.version,
        floor: through,
        holes: 0,
    };
    append(ledger, plan.witness, Body::Close(close), None).await?;
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
        "new_from": plan.broken.as_ref().map(|(node, found)| json!({ "node": node, "seq": found.from.0, "restored_after": time(found.known_ns), "exact": found.is_exact })),
        "taken_as_delivered": { "through": plan.found.through.0, "published": time(plan.through_ns) },
        "delivered_from": plan.found.next.map(|(seq, at)| json!({ "seq": seq.0, "published": time(Some(at)) })),
        "again": plan.found.again,
        "keeps_old": plan.keeps_old(),
        "unreachable": plan.unreachable,
        "outdated": plan.outdated,
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
        if let Some((node, found)) = &plan.broken {
            let (from, known) = (found.from, time(found.known_ns));
            let about = if found.is_exact { "" } else { "perhaps " };
            let _ = writeln!(
                text,
                "  other messages than before from {from} on, as node {node} found out; restored {about}after {known}"
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
            plan.unreachable.len() + plan.outdated.len()
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
