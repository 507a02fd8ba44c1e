//! What is asked of bridges and ledger when a run has ended: what each bridge holds, whose the open claims are, and whether
//! `fanin ledger verify` finds anything.

use std::process::{Output, Stdio};
use std::time::Duration;

use fanin_proto::v1::holdings_part::Part;
use fanin_proto::v1::node_service_client::NodeServiceClient;
use fanin_proto::v1::{AppHolding, BatchHolding, HoldingsRequest, SeqRange};
use fanin_tests::process::{Bridge, binary_path};
use fanin_tests::wait::patience;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::error::{RunError, during};
use crate::limits::{ASK_TIMEOUT, HOLDINGS_BYTES_MAX};
use crate::listed::{Claim, DeadLetter, NodeListed, Ranges};
use crate::world::{Node, TOPIC};

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
        let (mut batches, mut apps) = (Vec::new(), Vec::new());
        while let Some(part) = parts.message().await.map_err(|error| told(&error))? {
            match part.part {
                Some(Part::Batch(batch)) => batches.push(batch),
                Some(Part::App(app)) => apps.push(app),
                Some(Part::Node(_) | Part::State(_)) | None => {}
            }
        }
        Ok((batches, apps))
    };
    let asked = timeout(patience(ASK_TIMEOUT), asked).await;
    let (batches, apps) = asked.unwrap_or_else(|_| Err("no answer".to_owned()))?;
    for app in &apps {
        let letters = app.dead_letters.iter().map(|letter| DeadLetter {
            app: app.app.clone(),
            seq: letter.seq,
            reason: letter.reason.clone(),
        });
        listed.dead_letters.extend(letters);
    }
    let unfinished_of = |batch: &BatchHolding| unfinished(batch, &apps);
    listed.holds = batches.iter().flat_map(unfinished_of).collect();
    listed.waiting = batches
        .iter()
        .filter(|batch| batch.decided && batch.base_offset.is_some())
        .flat_map(unfinished_of)
        .collect();
    Ok(())
}

/// What of a batch the ledger has not decided, or some application has not finished.
fn unfinished(batch: &BatchHolding, apps: &[AppHolding]) -> Ranges {
    let Some(base) = batch.base_offset.filter(|_| batch.decided) else {
        return batch.seqs.iter().map(|range| (range.first, range.last)).collect();
    };
    let waits = |offset: u64| apps.iter().any(|app| !has_finished(app, offset));
    let seqs = batch.seqs.iter().flat_map(|range| range.first..=range.last);
    let mut ranges: Ranges = Vec::new();
    for (_, seq) in (base..).zip(seqs).filter(|(offset, _)| waits(*offset)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == seq => *last = seq,
            Some(_) | None => ranges.push((seq, seq)),
        }
    }
    ranges
}

fn has_finished(app: &AppHolding, offset: u64) -> bool {
    let holds = |range: &SeqRange| range.first <= offset && offset <= range.last;
    offset < app.floor_offset || app.finished.iter().any(holds)
}

/// Runs `fanin ledger WORDS --json` as an operator would, on the first bridge's configuration.
async fn ledger(nodes: &[Node], words: &[&str]) -> Result<(Output, Value), RunError> {
    let what = || format!("fanin ledger {}", words.join(" "));
    let Some(first) = nodes.first() else {
        return Err(RunError("there is no bridge".to_owned()));
    };
    let mut command = Command::new(binary_path().map_err(during(what()))?);
    command
        .arg("ledger")
        .args(words)
        .arg("--json")
        .arg("--config")
        .arg(first.bridge.config_path())
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

/// The open claims by the ledger, as far as it can be read.
pub(crate) async fn claims(nodes: &[Node]) -> Result<Vec<Claim>, RunError> {
    let (_, told) = ledger(nodes, &["info", "--claims"]).await?;
    let claims = told
        .get("claims")
        .cloned()
        .unwrap_or_else(|| Value::Array(Vec::new()));
    serde_json::from_value(claims).map_err(during("reading the ledger's claims"))
}

/// What `fanin ledger verify` finds; nothing when all is well.
pub(crate) async fn findings(nodes: &[Node]) -> Result<Vec<String>, RunError> {
    let (output, told) = ledger(nodes, &["verify"]).await?;
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
