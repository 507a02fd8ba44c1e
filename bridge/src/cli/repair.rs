//! `fanin ledger repair`: another ledger in the place of one that the hub truncated, split, regrew or lost.
//!
//! The order of the steps makes each of them safe to be the last one: the records are in a file before anything changes; the old
//! stream is sealed before the nodes are asked for the last time; and no bridge joins a ledger without its checkpoint.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args as ClapArgs;
use fanin_core::checkpoint;
use fanin_core::ids::{LedgerSeq, StreamSeq};
use fanin_core::record::{Body, Record};
use fanin_core::repair::{Finding, Merged};
use fanin_hub::ledger::AppendError;
use fanin_hub::{FoundLedger, Ledger, LedgerError, LedgerOptions, Renewal};
use serde_json::{Value, json};

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::failure::Failure;
use super::holdings::FiledArgs;
use super::output;
use super::repair_source;
use crate::audit::backup::{self, BackupError};
use crate::audit::limits::{SETTLE_PAUSE, SETTLE_WAIT_MAX};
use crate::audit::repair::{Evidence, Surviving, fold};
use crate::failpoint;
use crate::telemetry::codes;

#[derive(Debug, ClapArgs)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// Not the ledger: a source stream that was restored to an earlier copy or created again. Raise its generation first.
    #[arg(long, value_name = "STREAM", conflicts_with_all = ["backup", "from_backup"])]
    source: Option<String>,
    #[command(flatten)]
    pub(super) filed: FiledArgs,
    /// Read only: show what survives, what each node knows, and what would be written; exit code 1 when something is in doubt.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Where the surviving records go [default: a name in the working directory].
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// A backup that an earlier run wrote, which had taken the old ledger away and ended before its end.
    #[arg(long, value_name = "FILE")]
    from_backup: Option<PathBuf>,
    /// Go on although something is in doubt; it is listed.
    #[arg(long)]
    pub(super) accept_in_doubt: bool,
    /// Go on although an active node could not be asked.
    #[arg(long)]
    pub(super) ignore_unreachable: bool,
    /// Do not ask.
    #[arg(short = 'f', long)]
    force: bool,
    /// Print JSON.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
}

/// What was done.
enum Outcome {
    /// Nothing was changed.
    Nothing,
    /// The new ledger is complete.
    Written {
        /// Where the old ledger's records are, if there were any.
        backup: Option<PathBuf>,
    },
}

/// What is known and what would be done.
struct Plan {
    found: Option<FoundLedger>,
    evidence: Evidence,
    merged: Merged,
    damage: Vec<String>,
}

pub(super) async fn execute(args: &RepairArgs) -> Result<Exit, Failure> {
    if let Some(stream) = &args.source {
        return repair_source::execute(args, stream).await;
    }
    args.filed.refuse("repairing a ledger, nodes are asked again once it is sealed; name their sockets with --node, forwarded by `ssh -L` from other machines")?;
    let cluster = args.cluster.open().await?;
    let plan = look(args, &cluster).await?;
    if args.dry_run {
        tell(args, &cluster, &plan, &Outcome::Nothing)?;
        return if plan.damage.is_empty() || blocking(args, &plan).is_empty() {
            Ok(Exit::Done)
        } else {
            let text = format!("{} matter(s) are in doubt", blocking(args, &plan).len());
            Err(Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text))
        };
    }
    refuse(args, &cluster, &plan)?;
    confirm(
        args,
        &format!(
            "The ledger of mapping {} is replaced by another.",
            cluster.options.name
        ),
    )?;
    let saved = match &plan.found {
        Some(found) => Some(take_away(args, found).await?),
        None => None,
    };
    // Sealed, the ledger is what it will ever be: now what the nodes say is the last word.
    let plan = settle(args, &cluster).await?;
    if let Err(refused) = refuse(args, &cluster, &plan) {
        output::note("note: the old ledger is sealed; the mapping is held until a repair ends");
        return Err(refused);
    }
    if let Some(found) = &plan.found {
        found.delete().await.map_err(ledger_failed)?;
        failpoint::reach("after_repair_delete");
    }
    write(&cluster, &plan, saved.as_deref().or(args.from_backup.as_deref())).await?;
    let backup = saved.or_else(|| args.from_backup.clone());
    tell(args, &cluster, &plan, &Outcome::Written { backup })?;
    Ok(Exit::Done)
}

/// Reads and asks; changes nothing.
async fn look(args: &RepairArgs, cluster: &Cluster) -> Result<Plan, Failure> {
    let nodes = cluster.ask_memories().await;
    let mut evidence = Evidence {
        nodes,
        ..Evidence::default()
    };
    for look in cluster.sources().await? {
        let end = StreamSeq(look.source.info.last_seq);
        evidence.ends.insert(look.incarnation, end);
        evidence
            .configured
            .sources
            .insert(look.incarnation, look.source.terms);
    }
    let found = Ledger::find(&cluster.hub, &cluster.ledger())
        .await
        .map_err(ledger_failed)?;
    if let Some(found) = &found {
        let items = backup::read_all(found).await.map_err(backup_failed)?;
        let (fold, halt) = fold(&items);
        let is_begun = found.first_seq.0 > 1 && fold.position().0 == 0;
        evidence.ledger = Some(Surviving {
            created_ns: found.ledger.created_ns(),
            predecessors: found.ledger.predecessors().clone(),
            last: found.last_seq,
            records: items.len(),
            fold,
            halt,
            unfinished: found.sealed || is_begun,
        });
    }
    if let Some(path) = &args.from_backup {
        let (header, items) = backup::read(path).map_err(backup_failed)?;
        let (fold, halt) = fold(&items);
        evidence.backup = Some(Surviving {
            created_ns: header.created_ns,
            predecessors: header.predecessors.into_iter().collect(),
            last: LedgerSeq(header.last_seq),
            records: items.len(),
            fold,
            halt,
            unfinished: false,
        });
    }
    let merged = evidence.merge();
    let damage = evidence.damage();
    Ok(Plan {
        found,
        evidence,
        merged,
        damage,
    })
}

/// What keeps a repair from being done without the operator's word.
fn blocking(args: &RepairArgs, plan: &Plan) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for finding in &plan.merged.findings {
        let accepted = match finding {
            Finding::NotAsked { .. } => args.ignore_unreachable,
            Finding::Duplicate { .. }
            | Finding::ClosedElsewhere { .. }
            | Finding::Split { .. }
            | Finding::Disputed { .. }
            | Finding::Missing { .. }
            | Finding::Finished { .. }
            | Finding::TermsDiffer { .. }
            | Finding::TermsLost { .. } => args.accept_in_doubt,
        };
        if !accepted {
            all.push(finding.to_string());
        }
    }
    all.extend(plan.evidence.not_understood().filter(|_| !args.accept_in_doubt));
    all
}

fn refuse(args: &RepairArgs, cluster: &Cluster, plan: &Plan) -> Result<(), Failure> {
    if plan.damage.is_empty() {
        let text = format!(
            "the ledger of mapping {} is not damaged; there is nothing to repair. Bridges that halted have to be restarted",
            cluster.options.name
        );
        return Err(Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text));
    }
    let blocking = blocking(args, plan);
    if blocking.is_empty() {
        return Ok(());
    }
    tell(args, cluster, plan, &Outcome::Nothing)?;
    let is_unreachable = |finding: &Finding| matches!(finding, Finding::NotAsked { .. });
    let unreachable = plan.merged.findings.iter().any(is_unreachable) && !args.ignore_unreachable;
    let others = plan
        .merged
        .findings
        .iter()
        .any(|finding| !is_unreachable(finding));
    let others = (others || plan.evidence.not_understood().is_some()) && !args.accept_in_doubt;
    let mut words = Vec::new();
    if unreachable {
        words.push("--ignore-unreachable");
    }
    if others {
        words.push("--accept-in-doubt");
    }
    let text = format!(
        "{} matter(s) are in doubt; nothing was written. To go on all the same pass {}",
        blocking.len(),
        words.join(" and ")
    );
    Err(Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text))
}

/// Asks at the terminal, unless the operator's word was given already.
///
/// # Errors
/// The answer is no, or there is nobody to ask.
pub(super) fn confirm(args: &RepairArgs, what: &str) -> Result<(), Failure> {
    if args.force {
        return Ok(());
    }
    let refused = |text: &str| Err(Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text));
    if !std::io::stdin().is_terminal() {
        return refused("standard input is no terminal to ask at; pass --force");
    }
    output::note(&format!("{what} Type yes to go on."));
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(_) if line.trim() == "yes" => Ok(()),
        Ok(_) | Err(_) => refused("nothing was changed"),
    }
}

/// Writes the records to a file and seals the stream; then once more, as bridges may have appended meanwhile.
async fn take_away(args: &RepairArgs, found: &FoundLedger) -> Result<PathBuf, Failure> {
    let path = args.backup.clone().unwrap_or_else(|| {
        PathBuf::from(format!(
            "{}-{}.ndjson",
            found.ledger.stream(),
            found.ledger.created_ns()
        ))
    });
    save(&path, found).await?;
    failpoint::reach("after_repair_backup");
    if !found.sealed {
        found.seal().await.map_err(ledger_failed)?;
        failpoint::reach("after_repair_seal");
        let info = found.ledger.info().await.map_err(ledger_failed)?;
        let sealed = FoundLedger {
            last_seq: LedgerSeq(info.last_seq),
            ..found.clone()
        };
        save(&path, &sealed).await?;
    }
    failpoint::reach("after_repair_sealed_backup");
    Ok(path)
}

async fn save(path: &Path, found: &FoundLedger) -> Result<(), Failure> {
    let items = backup::read_all(found).await.map_err(backup_failed)?;
    backup::write(path, found, &items).map_err(backup_failed)
}

/// Looks until every bridge that reads on has read the ledger to its end.
async fn settle(args: &RepairArgs, cluster: &Cluster) -> Result<Plan, Failure> {
    let deadline = tokio::time::Instant::now() + SETTLE_WAIT_MAX;
    loop {
        let plan = look(args, cluster).await?;
        let Some(ledger) = &plan.evidence.ledger else {
            return Ok(plan);
        };
        let behind = plan.evidence.nodes.iter().find(|node| {
            !node.ledger_suspect
                && node.memory.is_some()
                && node.ledger_created_ns == ledger.created_ns
                && node.position < ledger.fold.position()
        });
        let Some(node) = behind else { return Ok(plan) };
        if tokio::time::Instant::now() >= deadline {
            let text = format!(
                "node {} does not read the ledger to its end; stop its bridge, or look at its log, and run this again",
                node.name
            );
            return Err(Failure::new(Exit::TryLater, codes::REPAIR_REFUSED, text));
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// Begins the new ledger and writes its state.
async fn write(cluster: &Cluster, plan: &Plan, backup: Option<&Path>) -> Result<(), Failure> {
    let merged = &plan.merged;
    let renewal = Renewal {
        first: merged.first,
        predecessors: plan.evidence.predecessors(),
    };
    let ledger = Ledger::begin(&cluster.hub, &options(cluster, plan, backup).await?, &renewal)
        .await
        .map_err(ledger_failed)?;
    failpoint::reach("after_repair_begin");
    let append = async |record: Record, expect: Option<LedgerSeq>| {
        let body = Bytes::from(record.encode());
        let done = ledger.append(&record.subject(), None, body, expect).await;
        done.map_err(append_failed)
    };
    let witness = merged.fold.witness();
    if let Some(genesis) = merged.fold.genesis().cloned() {
        let body = Body::Genesis(genesis);
        append(Record { witness, body }, Some(LedgerSeq(0))).await?;
        failpoint::reach("after_repair_genesis");
    }
    let mut terms = merged.fold.terms().clone();
    if terms.version.0 > 0 {
        terms.version.0 += 1;
        let body = Body::Terms(terms);
        append(Record { witness, body }, Some(LedgerSeq(0))).await?;
        failpoint::reach("after_repair_terms");
    }
    let Some(records) = checkpoint::write(&merged.fold) else {
        let text = "the state is larger than a checkpoint may be";
        return Err(Failure::new(Exit::Failed, codes::REPAIR_REFUSED, text));
    };
    for record in records {
        append(record, None).await?;
        failpoint::reach("after_repair_part");
    }
    Ok(())
}

/// The settings of the new ledger: what the rules need, the size that the old one had, replicas as the sources have.
async fn options(cluster: &Cluster, plan: &Plan, backup: Option<&Path>) -> Result<LedgerOptions, Failure> {
    let mut options = cluster.ledger();
    options.max_bytes = cluster.options.config.ledger.max_bytes.0;
    let mut old = plan.found.as_ref().map(|found| found.config.clone());
    if let (None, Some(path)) = (&old, backup) {
        old = Some(backup::read(path).map_err(backup_failed)?.0.config);
    }
    let number = |name: &str| old.as_ref()?.get(name)?.as_u64();
    options.max_bytes = number("max_bytes").unwrap_or(options.max_bytes);
    let replicas = cluster
        .sources()
        .await?
        .into_iter()
        .map(|look| look.source.info.replicas);
    options.replicas = replicas.chain(number("num_replicas")).max().unwrap_or(1);
    Ok(options)
}

fn ledger_failed(error: LedgerError) -> Failure {
    let exit = if error.retryable() {
        Exit::Unavailable
    } else {
        Exit::Failed
    };
    Failure::of(exit, error.code(), error)
}

fn append_failed(error: AppendError) -> Failure {
    Failure::of(Exit::Failed, error.code(), error)
}

fn backup_failed(error: BackupError) -> Failure {
    match error {
        BackupError::Tail(error) => Failure::of(Exit::Failed, error.code(), error),
        BackupError::Silent(_) => Failure::of(Exit::Unavailable, fanin_hub::codes::HUB_SILENT, error),
        BackupError::Io { .. } | BackupError::Malformed { .. } => {
            Failure::of(Exit::Io, codes::BACKUP_UNUSABLE, error)
        }
    }
}

fn tell(args: &RepairArgs, cluster: &Cluster, plan: &Plan, outcome: &Outcome) -> Result<(), Failure> {
    if args.json {
        output::print_json(&to_json(args, cluster, plan, outcome))
    } else {
        output::print(&to_text(cluster, plan, outcome))
    }
}

fn to_json(args: &RepairArgs, cluster: &Cluster, plan: &Plan, outcome: &Outcome) -> Value {
    let (written, backup) = match outcome {
        Outcome::Nothing => (false, None),
        Outcome::Written { backup } => (true, backup.as_ref()),
    };
    let survives = |found: &Surviving| {
        json!({
            "created_ns": found.created_ns,
            "last": found.last.0,
            "records": found.records,
            "folded_to": found.fold.position().0,
            "halt": found.halt.as_ref().map(ToString::to_string),
            "unfinished": found.unfinished,
        })
    };
    let nodes = plan.evidence.nodes.iter().map(|node| {
        json!({
            "node": node.name,
            "node_uuid": node.uuid.to_string(),
            "state": node.state,
            "reason": node.reason,
            "epoch": node.epoch.0,
            "read": node.read.0,
            "in_memory": node.memory.as_ref().map(|fold| fold.position().0),
            "batches": node.batches.len(),
            "done_batches": node.done.len(),
        })
    });
    let mut findings: Vec<Value> = plan
        .merged
        .findings
        .iter()
        .map(|finding| json!({ "kind": finding.kind(), "text": named(plan, finding), "messages": finding.ranges() }))
        .collect();
    let text = plan.evidence.not_understood();
    findings.extend(text.map(|text| json!({ "kind": "not_understood", "text": text })));
    json!({
        "mapping": cluster.options.name,
        "dry_run": args.dry_run,
        "written": written,
        "damage": plan.damage,
        "ledger": plan.evidence.ledger.as_ref().map(survives),
        "from_backup": plan.evidence.backup.as_ref().map(survives),
        "backup": backup.map(|path| path.display().to_string()),
        "nodes": nodes.collect::<Vec<_>>(),
        "findings": findings,
        "state": {
            "first": plan.merged.first.0,
            "terms": plan.merged.fold.terms().version.0,
            "claims": plan.merged.fold.claims().len(),
            "closed": plan.merged.fold.watermarks().iter()
                .map(|(incarnation, through)| (incarnation.to_string(), through.0))
                .collect::<std::collections::BTreeMap<_, _>>(),
        },
    })
}

fn to_text(cluster: &Cluster, plan: &Plan, outcome: &Outcome) -> String {
    let mut text = String::new();
    let stream = cluster.ledger().stream();
    let _ = match &plan.evidence.ledger {
        Some(found) => writeln!(
            text,
            "mapping {}, ledger {stream}: {} records up to {}, understood up to {}",
            cluster.options.name,
            found.records,
            found.last,
            found.fold.position()
        ),
        None => writeln!(
            text,
            "mapping {}: there is no ledger {stream}",
            cluster.options.name
        ),
    };
    if let Some(found) = &plan.evidence.backup {
        let _ = writeln!(text, "backup: {} records up to {}", found.records, found.last);
    }
    for node in &plan.evidence.nodes {
        let memory = match &node.memory {
            Some(fold) => format!("has its state at {} in memory", fold.position()),
            None => "has no state in memory".to_owned(),
        };
        let _ = writeln!(
            text,
            "  node {} ({}): epoch {}, has read up to {}, {memory}; {} batches, {} done",
            node.name,
            node.state,
            node.epoch,
            node.read,
            node.batches.len(),
            node.done.len()
        );
    }
    if plan.damage.is_empty() {
        text.push_str("no damage: there is nothing to repair\n");
        return text;
    }
    for damage in &plan.damage {
        let _ = writeln!(text, "damage: {damage}");
    }
    for finding in &plan.merged.findings {
        let _ = writeln!(text, "! {}", named(plan, finding));
    }
    if let Some(left_out) = plan.evidence.not_understood() {
        let _ = writeln!(text, "! {left_out}");
    }
    let does = match outcome {
        Outcome::Nothing => "would begin",
        Outcome::Written { .. } => "begins",
    };
    let _ = writeln!(
        text,
        "the new ledger {does} at {} with terms {}, {} open claims",
        plan.merged.first,
        plan.merged.fold.terms().version.0 + 1,
        plan.merged.fold.claims().len()
    );
    for (incarnation, through) in plan.merged.fold.watermarks() {
        let _ = writeln!(
            text,
            "  {}: W {through}",
            stream_of(plan, &incarnation.to_string())
        );
    }
    if let Outcome::Written { backup } = outcome {
        if let Some(path) = backup {
            let _ = writeln!(text, "the old ledger's records are in {}", path.display());
        }
        text.push_str("restart the bridges that had halted; those that had not joined go on by themselves\n");
    }
    text
}

/// A finding with the stream's name in the place of its incarnation.
fn named(plan: &Plan, finding: &Finding) -> String {
    let mut text = finding.to_string();
    let known: BTreeSet<String> = (plan.merged.fold.terms().sources.keys())
        .map(ToString::to_string)
        .collect();
    for incarnation in known {
        text = text.replace(&incarnation, &stream_of(plan, &incarnation));
    }
    text
}

fn stream_of(plan: &Plan, incarnation: &str) -> String {
    let sources = &plan.merged.fold.terms().sources;
    let found = sources.iter().find(|(key, _)| key.to_string() == incarnation);
    found.map_or_else(|| incarnation.to_owned(), |(_, source)| source.stream.clone())
}
