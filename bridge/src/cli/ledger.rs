//! `fanin ledger`: what a mapping's ledger says, and whether the nodes agree.

use std::fmt::Write as _;

use clap::{Args as ClapArgs, Subcommand};
use fanin_core::fold::Halt;
use fanin_core::record::NodeState;
use serde_json::{Value, json};

use super::cluster::{Cluster, ClusterArgs, SourceLook};
use super::exit::Exit;
use super::failure::Failure;
use super::holdings::{self, FiledArgs, HoldingsArgs};
use super::human;
use super::output;
use super::repair::{self, RepairArgs};
use crate::audit::{Finding, Folded, Report, judge};
use crate::telemetry::codes;

/// `fanin ledger`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Show what the ledger says: terms, watermarks, nodes, open claims
    Info(InfoArgs),
    /// Recompute who owns what from the ledger and compare it with what the nodes hold
    Verify(VerifyArgs),
    /// Print what a mapping holds on this node, for `ledger verify` and `msg trace` on another machine
    Holdings(HoldingsArgs),
    /// Put another ledger in the place of one that the hub truncated, split or lost
    Repair(Box<RepairArgs>),
}

#[derive(Debug, ClapArgs)]
struct InfoArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// With --json, also list every open claim: its node, and the sequences that it won.
    #[arg(long)]
    claims: bool,
    /// Print JSON.
    #[arg(short = 'j', long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct VerifyArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    filed: FiledArgs,
    /// Do not count it as a finding that an active node could not be asked.
    #[arg(long)]
    ignore_unreachable: bool,
    /// Print JSON.
    #[arg(short = 'j', long)]
    json: bool,
}

impl Args {
    pub(super) fn wants_json(&self) -> bool {
        match &self.command {
            LedgerCommand::Info(args) => args.json,
            LedgerCommand::Verify(args) => args.json,
            LedgerCommand::Holdings(args) => args.json,
            LedgerCommand::Repair(args) => args.json,
        }
    }
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        LedgerCommand::Info(args) => info(args).await,
        LedgerCommand::Verify(args) => verify(args).await,
        LedgerCommand::Holdings(args) => holdings::execute(args).await,
        LedgerCommand::Repair(args) => repair::execute(args).await,
    }
}

async fn info(args: &InfoArgs) -> Result<Exit, Failure> {
    let cluster = args.cluster.open().await?;
    let folded = cluster.read().await?;
    if args.json {
        let mut told = info_json(&cluster, &folded);
        if let (true, Some(told)) = (args.claims, told.as_object_mut()) {
            told.insert("claims".to_owned(), claims_json(&folded));
        }
        output::print_json(&told)?;
    } else {
        output::print(&info_text(&cluster, &folded))?;
    }
    Ok(Exit::Done)
}

async fn verify(args: &VerifyArgs) -> Result<Exit, Failure> {
    let cluster = args.cluster.open().await?;
    // In this order: whatever a node knows of the ledger must be in it when that is read.
    let nodes = args
        .filed
        .add_to(cluster.ask_nodes().await, &cluster.options.name)?;
    let sources = cluster.sources().await?;
    let folded = cluster.read_beside(&nodes).await?;
    holdings::check(&nodes, &folded)?;
    let sweeps = cluster.sweeps(&folded, &sources).await?;
    let mut report = judge(&folded, &nodes, &sweeps);
    if args.ignore_unreachable {
        report.findings.retain(|finding| !finding.is_unreachable());
    }
    if args.json {
        output::print_json(&report_json(&cluster, &folded, &sources, &report))?;
    } else {
        output::print(&report_text(&cluster, &folded, &sources, &report))?;
    }
    verdict(&report, &cluster.options.name)
}

/// Nothing found; only nodes that were not asked, so that nothing is proven for them; or something that is wrong.
fn verdict(report: &Report, mapping: &str) -> Result<Exit, Failure> {
    if report.findings.is_empty() {
        return Ok(Exit::Done);
    }
    if report.findings.iter().all(Finding::is_unreachable) {
        let text = format!(
            "mapping {mapping} is verified in part: not asked were {}",
            report.unreachable.join(", ")
        );
        return Err(Failure::new(Exit::Unavailable, codes::NOT_ALL_ASKED, text));
    }
    let text = format!(
        "{} finding(s): the guarantee does not hold, or cannot be shown to hold, for mapping {mapping}",
        report.findings.len(),
    );
    Err(Failure::new(Exit::Failed, codes::NOT_VERIFIED, text))
}

fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Closed => "closed",
        NodeState::Evacuated => "evacuated",
    }
}

fn info_json(cluster: &Cluster, folded: &Folded) -> Value {
    let fold = &folded.fold;
    let nodes = fold.nodes().iter().map(|(uuid, node)| {
        json!({
            "node": node.name,
            "node_uuid": uuid.to_string(),
            "epoch": node.epoch.0,
            "state": state_word(node.state),
            "hosts": node.hosts,
            "done_batches": node.done.len(),
        })
    });
    json!({
        "mapping": cluster.options.name,
        "stream": folded.stream,
        "position": fold.position().0,
        "hash": fold.witness().hash.to_string(),
        "bytes": folded.info.bytes,
        "max_bytes": folded.info.max_bytes,
        "records": folded.info.messages,
        "checkpoint": folded.checkpoint.map(|position| position.0),
        "halt": folded.halt.as_ref().map(ToString::to_string),
        "cure": folded.halt.as_ref().map(Halt::cure),
        "terms": {
            "version": fold.terms().version.0,
            "apps": fold.terms().apps.iter().map(|(app, since)| (app.clone(), since.0)).collect::<std::collections::BTreeMap<_, _>>(),
            "sources": fold.terms().sources.iter().map(|(incarnation, source)| json!({
                "stream": source.stream,
                "incarnation": incarnation.to_string(),
                "subjects": source.filters,
                "closed_through": fold.closed(*incarnation).0,
            })).collect::<Vec<_>>(),
        },
        "nodes": nodes.collect::<Vec<_>>(),
        "open_claims": fold.claims().len(),
    })
}

fn claims_json(folded: &Folded) -> Value {
    let nodes = folded.fold.nodes();
    let claims = folded.fold.claims().iter().map(|(key, claim)| {
        json!({
            "node": nodes.get(&key.node).map_or_else(|| key.node.to_string(), |node| node.name.clone()),
            "node_uuid": key.node.to_string(),
            "batch": key.batch.0,
            "position": claim.position.0,
            "incarnation": claim.incarnation.to_string(),
            "won": claim.won().ranges(),
        })
    });
    claims.collect()
}

fn info_text(cluster: &Cluster, folded: &Folded) -> String {
    let fold = &folded.fold;
    let mut text = String::new();
    let limit = match u64::try_from(folded.info.max_bytes) {
        Ok(max) => format!(" of {}", human::bytes(max)),
        Err(_) => String::new(),
    };
    let _ = writeln!(
        text,
        "mapping {}, ledger {}: position {}, {} records, {}{limit}",
        cluster.options.name,
        folded.stream,
        fold.position(),
        folded.info.messages,
        human::bytes(folded.info.bytes)
    );
    match folded.checkpoint {
        Some(position) => {
            let _ = writeln!(
                text,
                "checkpoint at {position}, {} records behind it",
                folded.records
            );
        }
        None => text.push_str("no checkpoint yet\n"),
    }
    if let Some(halt) = &folded.halt {
        let _ = writeln!(text, "HALTED: {halt}\ncure: {}", halt.cure());
    }
    let apps: Vec<_> = fold.terms().apps.keys().map(String::as_str).collect();
    let _ = writeln!(text, "terms {}: {}", fold.terms().version, apps.join(", "));
    for (incarnation, source) in &fold.terms().sources {
        let _ = writeln!(
            text,
            "  {} ({incarnation}): W {}, subjects {}",
            source.stream,
            fold.closed(*incarnation),
            if source.filters.is_empty() {
                "all".to_owned()
            } else {
                source.filters.join(" ")
            }
        );
    }
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row(["node", "state", "epoch", "done", "uuid"])];
    rows.extend(fold.nodes().iter().map(|(uuid, node)| {
        vec![
            node.name.clone(),
            state_word(node.state).to_owned(),
            node.epoch.to_string(),
            node.done.len().to_string(),
            uuid.to_string(),
        ]
    }));
    text.push_str(&human::table(2, &rows));
    let _ = writeln!(text, "{} open claims", fold.claims().len());
    text
}

fn report_json(cluster: &Cluster, folded: &Folded, sources: &[SourceLook], report: &Report) -> Value {
    let findings = report
        .findings
        .iter()
        .map(|finding| json!({ "kind": finding.kind(), "text": finding.to_string() }));
    let apps = report.apps.iter().map(|(app, totals)| {
        json!({
            "app": app,
            "published": totals.published,
            "finished": totals.finished,
            "waiting": totals.waiting,
            "dead_letters": totals.dead_letters,
        })
    });
    let sources = sources.iter().map(|look| {
        json!({
            "stream": look.source.terms.stream,
            "incarnation": look.incarnation.to_string(),
            "closed_through": folded.fold.closed(look.incarnation).0,
            "ack_floor": look.floor.map(|floor| floor.0),
            "pending": look.pending.0,
            "ack_pending": look.pending.1,
        })
    });
    json!({
        "mapping": cluster.options.name,
        "ledger": { "stream": folded.stream, "position": folded.fold.position().0, "checkpoint": folded.checkpoint.map(|p| p.0) },
        "verified": report.findings.is_empty(),
        "findings": findings.collect::<Vec<_>>(),
        "nodes": report.nodes,
        "unreachable": report.unreachable,
        "sources": sources.collect::<Vec<_>>(),
        "open_claims": report.open_claims,
        "open_messages": report.open_messages,
        "done_claims": report.done_claims,
        "too_new_messages": report.too_new,
        "apps": apps.collect::<Vec<_>>(),
    })
}

fn report_text(cluster: &Cluster, folded: &Folded, sources: &[SourceLook], report: &Report) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "mapping {}, ledger {} up to position {}, nodes asked: {}",
        cluster.options.name,
        folded.stream,
        folded.fold.position(),
        if report.nodes.is_empty() {
            "none".to_owned()
        } else {
            report.nodes.join(", ")
        }
    );
    if !report.unreachable.is_empty() {
        let _ = writeln!(text, "  not asked: {}", report.unreachable.join(", "));
    }
    for look in sources {
        let floor = look
            .floor
            .map_or_else(|| "unknown".to_owned(), |floor| floor.to_string());
        let _ = writeln!(
            text,
            "  {}: closed through {}, acknowledgement floor {floor}, {} to deliver, {} delivered and not settled",
            look.source.terms.stream,
            folded.fold.closed(look.incarnation),
            look.pending.0,
            look.pending.1
        );
    }
    let _ = writeln!(
        text,
        "  {} open claims with {} messages, {} done, {} messages claimed too lately to compare",
        report.open_claims, report.open_messages, report.done_claims, report.too_new
    );
    text.push_str(
        "  of the open claims, at the nodes asked, by application; dead letters are all that these nodes list:\n",
    );
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut rows = vec![row([
        "application",
        "published",
        "finished",
        "waiting",
        "dead letters",
    ])];
    rows.extend(report.apps.iter().map(|(app, totals)| {
        vec![
            app.clone(),
            totals.published.to_string(),
            totals.finished.to_string(),
            totals.waiting.to_string(),
            totals.dead_letters.to_string(),
        ]
    }));
    text.push_str(&human::table(2, &rows));
    for finding in &report.findings {
        let _ = writeln!(text, "! {finding}");
    }
    if report.findings.is_empty() {
        let of_whom = if report.unreachable.is_empty() {
            ""
        } else {
            ", as far as the nodes asked go"
        };
        let _ = writeln!(
            text,
            "verified: every message has one owner that holds it, and nothing below the floor is unclaimed{of_whom}"
        );
    }
    text
}
