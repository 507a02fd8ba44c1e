//! What is asked of bridges and ledger when a run has ended: what each bridge holds, whose the open claims are, whether
//! `fanin ledger verify` finds anything, and what the dry run of a repair lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use fanin_proto::v1::holdings_part::Part;
use fanin_proto::v1::node_service_client::NodeServiceClient;
use fanin_proto::v1::{AppHolding, BatchHolding, HoldingsRequest, SeqRange};
use fanin_tests::process::{Bridge, binary_path};
use fanin_tests::wait::patience;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::error::{RunError, during};
use crate::limits::{ASK_TIMEOUT, HOLDINGS_BYTES_MAX};
use crate::listed::{Claim, DeadLetter, Held, Listing, NodeListed, Repair};
use crate::world::{Node, STREAM, TOPIC};

/// Written at the run's directory: a configuration with the source's next generation, for the dry run of its repair.
const NEXT_GENERATION_FILE: &str = "next-generation.json";

const NS_PER_MS: i64 = 1_000_000;

/// Adds what a bridge holds to what it lists.
pub(crate) async fn ask(bridge: &Bridge, listed: &mut NodeListed) -> Result<(), String> {
    let asked = async {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let endpoint = Endpoint::from_shared(bridge.socket()).map_err(|error| told(&error))?;
        let channel = endpoint.connect().await.map_err(|error| told(&error))?;
        let mut service = NodeServiceClient::new(channel).max_decoding_message_size(HOLDINGS_BYTES_MAX);
        let mapping = TOPIC.to_owned();
        let parts = service
            .holdings(HoldingsRequest {
                mapping,
                with_state: false,
            })
            .await;
        let mut parts = parts.map_err(|error| told(&error))?.into_inner();
        let (mut batches, mut apps, mut closed) = (Vec::new(), Vec::new(), None);
        while let Some(part) = parts.message().await.map_err(|error| told(&error))? {
            match part.part {
                Some(Part::Batch(batch)) => batches.push(batch),
                Some(Part::App(app)) => apps.push(app),
                Some(Part::Node(node)) => closed = node.closed.iter().map(|mark| mark.through).max(),
                Some(Part::State(_)) | None => {}
            }
        }
        Ok((batches, apps, closed))
    };
    let asked = timeout(patience(ASK_TIMEOUT), asked).await;
    let (batches, apps, closed) = asked.unwrap_or_else(|_| Err("no answer".to_owned()))?;
    listed.was_asked = true;
    listed.closed = closed.unwrap_or(0);
    let is_published = |batch: &&BatchHolding| batch.decided && batch.base_offset.is_some();
    let staged = batches.iter().filter(|batch| !is_published(batch));
    listed.staged = staged.flat_map(|batch| held(batch, |_| true)).collect();
    for app in &apps {
        let letters = app.dead_letters.iter().map(|letter| DeadLetter {
            app: app.app.clone(),
            seq: letter.seq,
            reason: letter.reason.clone(),
        });
        listed.dead_letters.extend(letters);
        let published = batches.iter().filter(is_published);
        let unfinished = |batch: &BatchHolding| {
            let base = batch.base_offset.unwrap_or(0);
            held(batch, |nth| !has_finished(app, base + nth))
        };
        listed
            .waiting
            .insert(app.app.clone(), published.flat_map(unfinished).collect());
        let above = app.finished.iter().filter(|range| range.last >= app.floor_offset);
        let above = above.map(|range| range.last - range.first.max(app.floor_offset) + 1);
        listed
            .finished
            .insert(app.app.clone(), app.floor_offset + above.sum::<u64>());
    }
    Ok(())
}

/// What of a batch is wanted, by each message's place in it, with the times of the whole batch.
fn held(batch: &BatchHolding, wanted: impl Fn(u64) -> bool) -> Vec<Held> {
    let milliseconds = |ns: i64| u64::try_from(ns / NS_PER_MS).unwrap_or(0);
    let seqs = batch.seqs.iter().flat_map(|range| range.first..=range.last);
    let mut all: Vec<Held> = Vec::new();
    for (_, seq) in (0..).zip(seqs).filter(|(nth, _)| wanted(*nth)) {
        match all.last_mut() {
            Some(held) if held.last + 1 == seq => held.last = seq,
            Some(_) | None => all.push(Held {
                first: seq,
                last: seq,
                oldest_ms: milliseconds(batch.oldest_ns),
                newest_ms: milliseconds(batch.newest_ns),
            }),
        }
    }
    all
}

fn has_finished(app: &AppHolding, offset: u64) -> bool {
    let holds = |range: &SeqRange| range.first <= offset && offset <= range.last;
    offset < app.floor_offset || app.finished.iter().any(holds)
}

/// Runs `fanin ledger WORDS --json` as an operator would, on the first bridge's configuration unless another is given.
async fn ledger(nodes: &[Node], config: Option<&Path>, words: &[&str]) -> Result<(Output, Value), RunError> {
    let what = || format!("fanin ledger {}", words.join(" "));
    let Some(first) = nodes.first() else {
        return Err(RunError("there is no bridge".to_owned()));
    };
    let config = config.map_or_else(|| first.bridge.config_path(), Path::to_path_buf);
    let mut command = Command::new(binary_path().map_err(during(what()))?);
    command
        .arg("ledger")
        .args(words)
        .arg("--json")
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for node in nodes {
        command.arg("--node").arg(node.bridge.socket());
    }
    let output = timeout(patience(ASK_TIMEOUT), command.output()).await;
    let output = output.map_err(during(what()))?.map_err(during(what()))?;
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok((output, value))
}

/// The open claims by the ledger, and how far it has the source closed, as far as it can be read.
pub(crate) async fn claims(nodes: &[Node]) -> Result<(Vec<Claim>, u64), RunError> {
    let (_, told) = ledger(nodes, None, &["info", "--claims"]).await?;
    let claims = told
        .get("claims")
        .cloned()
        .unwrap_or_else(|| Value::Array(Vec::new()));
    let sources = told.pointer("/terms/sources").and_then(Value::as_array);
    let closed = sources.into_iter().flatten();
    let closed = closed.filter_map(|source| source.get("closed_through").and_then(Value::as_u64));
    let closed = closed.max().unwrap_or(0);
    let claims = serde_json::from_value(claims).map_err(during("reading the ledger's claims"))?;
    Ok((claims, closed))
}

/// What the dry run of a repair lists: of the ledger, and, where that is well and a bridge says that the source is not, of the
/// source with its next generation. `Err` when one of them tells nothing.
pub(crate) async fn repair(nodes: &[Node], listed: &[NodeListed], dir: &Path) -> Result<Repair, RunError> {
    let (output, told) = ledger(nodes, None, &["repair", "--dry-run"]).await?;
    let silent = |what: &str, output: &Output| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        RunError(format!(
            "{what} ended with {} and lists nothing: {told}",
            output.status
        ))
    };
    let (Some(damage), Some(findings)) = (told.get("damage"), told.get("findings")) else {
        return Err(silent("ledger repair --dry-run", &output));
    };
    let read = during("reading what a repair lists");
    let damage: Vec<String> = serde_json::from_value(damage.clone()).map_err(read)?;
    let read = during("reading what a repair lists");
    let findings: Vec<Listing> = serde_json::from_value(findings.clone()).map_err(read)?;
    let closed = told.pointer("/state/closed").and_then(Value::as_object);
    let closed = closed.into_iter().flat_map(|closed| closed.values());
    let mut repair = Repair {
        damage,
        findings,
        closed: closed.filter_map(Value::as_u64).max().unwrap_or(0),
        taken_as_delivered: None,
    };
    if repair.damage.is_empty() && listed.iter().any(NodeListed::tells_of_the_source) {
        let config = next_generation(nodes, dir)?;
        let words = ["repair", "--source", STREAM, "--dry-run"];
        let (output, told) = ledger(nodes, Some(&config), &words).await?;
        let through = told
            .pointer("/taken_as_delivered/through")
            .and_then(Value::as_u64);
        let through = through.ok_or_else(|| silent("ledger repair --source --dry-run", &output))?;
        repair.taken_as_delivered = Some(through);
    }
    Ok(repair)
}

/// The first bridge's configuration with the source's next generation, as the manual asks for before a source is repaired.
fn next_generation(nodes: &[Node], dir: &Path) -> Result<PathBuf, RunError> {
    let Some(first) = nodes.first() else {
        return Err(RunError("there is no bridge".to_owned()));
    };
    let failed = "raising the source's generation";
    let text = fs::read(first.bridge.config_path()).map_err(during(failed))?;
    let mut config: Value = serde_json::from_slice(&text).map_err(during(failed))?;
    if let Some(source) = config.pointer_mut(&format!("/mappings/{TOPIC}/sources/0")) {
        source["generation"] = json!(1);
    }
    let path = dir.join(NEXT_GENERATION_FILE);
    fs::write(&path, config.to_string()).map_err(during(failed))?;
    Ok(path)
}

/// What `fanin ledger verify` finds; nothing when all is well.
pub(crate) async fn findings(nodes: &[Node]) -> Result<Vec<String>, RunError> {
    let (output, told) = ledger(nodes, None, &["verify"]).await?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let findings = told
        .get("findings")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut texts: Vec<String> = findings
        .iter()
        .filter_map(|finding| finding.get("text").and_then(Value::as_str))
        .map(|text| format!("ledger verify: {text}"))
        .collect();
    if texts.is_empty() {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        texts.push(format!("ledger verify ended with {}: {told}", output.status));
    }
    Ok(texts)
}

const _: () = assert!(ASK_TIMEOUT.as_secs() >= Duration::from_secs(10).as_secs());
