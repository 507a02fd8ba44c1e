//! `fanin msg`: one message, wherever it is.

use std::fmt::Write as _;

use clap::{Args as ClapArgs, Subcommand};
use fanin_core::ids::StreamSeq;
use fanin_hub::port::Hub;
use fanin_hub::{ApiError, StoredMessage};
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::holdings::{self, FiledArgs};
use super::output;
use crate::audit::gaps;
use crate::audit::trace::{self, AppPlace, Held, Letter, OwnerSays, Ownership, Traced};
use crate::telemetry::codes;

/// `fanin msg`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: MsgCommand,
}

#[derive(Debug, Subcommand)]
enum MsgCommand {
    /// Show where a message is: source, owner, and each application on its node
    Trace(TraceArgs),
}

#[derive(Debug, ClapArgs)]
struct TraceArgs {
    /// The message's id, STREAM:seq.
    #[arg(value_name = "ID", value_parser = message_id)]
    id: (String, u64),
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    filed: FiledArgs,
    /// Print JSON.
    #[arg(short = 'j', long)]
    json: bool,
}

fn message_id(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is no message id; write STREAM:seq, for example ORDERS:1234");
    let (stream, seq) = text.rsplit_once(':').ok_or_else(wrong)?;
    let seq: u64 = seq.parse().map_err(|_| wrong())?;
    if stream.is_empty() || seq == 0 {
        return Err(wrong());
    }
    Ok((stream.to_owned(), seq))
}

impl Args {
    pub(super) fn wants_json(&self) -> bool {
        let MsgCommand::Trace(args) = &self.command;
        args.json
    }
}

/// What was found out.
struct Trace {
    id: String,
    mapping: String,
    message: Option<StoredMessage>,
    /// The stream holds it, and a filter of the mapping's source matches its subject.
    is_wanted: bool,
    found: Traced,
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    let MsgCommand::Trace(args) = &args.command;
    let (stream, seq) = (&args.id.0, StreamSeq(args.id.1));
    let cluster = args.cluster.open().await?;
    let nodes = args
        .filed
        .add_to(cluster.ask_nodes().await, &cluster.options.name)?;
    let sources = cluster.sources().await?;
    let Some(look) = sources.iter().find(|look| look.source.terms.stream == *stream) else {
        let names: Vec<&str> = sources
            .iter()
            .map(|look| look.source.terms.stream.as_str())
            .collect();
        let text = format!(
            "mapping {} has no source {stream:?}; it has: {}",
            cluster.options.name,
            names.join(", ")
        );
        return Err(Failure::new(Exit::Usage, codes::UNKNOWN_MESSAGE, text));
    };
    // Behind the nodes and the acknowledgement floor: what they know of the ledger must be in it.
    let folded = cluster.read_beside(&nodes).await?;
    holdings::check(&nodes, &folded)?;
    let failed = |error: ApiError| Failure::of(Exit::Unavailable, error.code(), error);
    let message = Hub::fetch_message(&cluster.hub, stream, seq)
        .await
        .map_err(failed)?;
    let filters = &look.source.terms.filters;
    let is_wanted = gaps::is_wanted(&cluster.hub, (stream, filters), seq)
        .await
        .map_err(failed)?;
    let meant = trace::Message {
        stream,
        incarnation: look.incarnation,
        seq,
        is_passed: is_wanted && look.floor.is_some_and(|floor| seq <= floor),
    };
    let trace = Trace {
        id: format!("{stream}:{seq}"),
        mapping: cluster.options.name.clone(),
        message,
        is_wanted,
        found: trace::trace(&folded, &nodes, meant),
    };
    if trace.is_unknown() {
        let text = format!(
            "{} is not in its stream, and no node owns it: it was never there, or was removed before anyone claimed it",
            trace.id
        );
        return Err(Failure::new(Exit::Failed, codes::UNKNOWN_MESSAGE, text));
    }
    if args.json {
        output::print_json(&to_json(&trace))?;
    } else {
        output::print(&to_text(&trace))?;
    }
    verdict(&trace)
}

impl Trace {
    /// Nobody has anything to tell of it.
    fn is_unknown(&self) -> bool {
        let found = &self.found;
        self.message.is_none()
            && found.ownership == Ownership::Nobody
            && found.held.is_empty()
            && found.letters.is_empty()
            && found.findings.is_empty()
    }

    /// Dead letters that are not shown beside the batch that holds the message: it is finished there and gone, or is another node's.
    fn letters_apart(&self) -> impl Iterator<Item = &Letter> {
        let is_shown = |letter: &Letter| {
            let mut held = self.found.held.iter().filter(|held| held.node == letter.node);
            held.any(|held| {
                let mut places = held.apps.iter().filter(|(app, _)| *app == letter.app);
                places.any(|(_, place)| matches!(place, AppPlace::DeadLetter { id, .. } if *id == letter.id))
            })
        };
        let letters = self.found.letters.iter();
        letters.filter(move |letter| !is_shown(letter))
    }
}

/// It is where the ledger says; or something is wrong; or its owner was not asked, so that nothing is known of it there.
fn verdict(trace: &Trace) -> Result<Exit, Failure> {
    let Trace { id, found, .. } = trace;
    if !found.findings.is_empty() {
        let findings: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
        let text = format!("{id} is not as the guarantee says: {}", findings.join("; "));
        return Err(Failure::new(Exit::Failed, codes::NOT_VERIFIED, text));
    }
    match (&found.ownership, found.owner) {
        (Ownership::Won { node, .. }, OwnerSays::NotAsked) => {
            let text = format!("node {node}, which owns {id}, was not asked");
            Err(Failure::new(Exit::Unavailable, codes::NOT_ALL_ASKED, text))
        }
        (Ownership::Won { .. } | Ownership::Nobody | Ownership::Closed, _) => Ok(Exit::Done),
    }
}

fn to_json(trace: &Trace) -> Value {
    let found = &trace.found;
    let mut ledger = match &found.ownership {
        Ownership::Nobody => json!({ "wanted": trace.is_wanted }),
        Ownership::Closed => json!({}),
        Ownership::Won {
            node,
            batch,
            position,
            terms,
            done: _,
        } => {
            json!({ "node": node, "batch": batch, "position": position, "terms": terms })
        }
    };
    ledger["state"] = json!(found.ownership.word());
    let mut nodes = found.held.iter().map(held_json);
    let letters = found.letters.iter().map(|letter| {
        json!({
            "node": letter.node,
            "app": letter.app,
            "dead_letter": letter.id,
            "reason": letter.reason,
            "attempts": letter.attempts,
        })
    });
    let findings = found
        .findings
        .iter()
        .map(|finding| json!({ "kind": finding.kind(), "text": finding.to_string() }));
    json!({
        "id": trace.id,
        "mapping": trace.mapping,
        "source": trace.message.as_ref().map(|message| json!({
            "subject": message.subject,
            "bytes": message.payload.len(),
            "published_ns": message.published_ns,
        })),
        "ledger": ledger,
        "owner": found.owner.word(),
        "node": nodes.next(),
        "also_on": nodes.collect::<Vec<_>>(),
        "dead_letters": letters.collect::<Vec<_>>(),
        "owner_asked": found.owner != OwnerSays::NotAsked,
        "unreachable": found.unreachable,
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn held_json(held: &Held) -> Value {
    let apps = held.apps.iter().map(|(app, place)| {
        let mut value = match place {
            AppPlace::NotEntitled | AppPlace::Finished => json!({}),
            AppPlace::DeadLetter { id, reason, attempts } => {
                json!({ "dead_letter": id, "reason": reason, "attempts": attempts })
            }
            AppPlace::Held {
                instance,
                begun,
                failed,
            } => {
                json!({ "instance": instance, "begun": begun, "failed_attempts": failed })
            }
            AppPlace::Waiting { failed } => json!({ "failed_attempts": failed }),
        };
        value["app"] = json!(app);
        value["state"] = json!(place.word());
        value
    });
    json!({
        "node": held.node,
        "batch": held.batch.0,
        "batch_state": held.batch_state,
        "offset": held.offset,
        "apps": apps.collect::<Vec<_>>(),
    })
}

fn to_text(trace: &Trace) -> String {
    let found = &trace.found;
    let mut text = format!("{}, mapping {}\n", trace.id, trace.mapping);
    match &trace.message {
        Some(message) => {
            let _ = writeln!(
                text,
                "  source  {}, {} bytes, stored at {}",
                message.subject,
                message.payload.len(),
                super::message_line::time_text(i64::try_from(message.published_ns).unwrap_or(i64::MAX))
            );
        }
        None => text.push_str("  source  not in the stream any more\n"),
    }
    let _ = writeln!(text, "  ledger  {}", ledger_text(trace));
    for held in &found.held {
        let offset = held
            .offset
            .map_or_else(String::new, |offset| format!(", topic offset {offset}"));
        let _ = writeln!(text, "  node    {}: {}{offset}", held.node, held.batch_state);
        for (app, place) in &held.apps {
            let _ = writeln!(text, "  {app}: {}", place_text(place));
        }
    }
    if let Some(says) = owner_text(found) {
        let _ = writeln!(text, "  node    {says}");
    }
    for letter in trace.letters_apart() {
        let _ = writeln!(
            text,
            "  {}: dead letter {} on node {}, {}, {} attempt(s)",
            letter.app, letter.id, letter.node, letter.reason, letter.attempts
        );
    }
    if !found.unreachable.is_empty() {
        let nodes = found.unreachable.join(", ");
        let _ = writeln!(text, "  not asked, also not for its dead letters: {nodes}");
    }
    for finding in &found.findings {
        let _ = writeln!(text, "! {finding}");
    }
    text
}

fn ledger_text(trace: &Trace) -> String {
    match &trace.found.ownership {
        Ownership::Nobody if trace.message.is_some() && !trace.is_wanted => {
            "nobody claims it: its subject is none of those that the mapping takes".to_owned()
        }
        Ownership::Nobody => "nobody has claimed it yet".to_owned(),
        Ownership::Closed => {
            "closed: it was finished by every application, was listed as given up, or is a hole; its claim is forgotten".to_owned()
        }
        Ownership::Won {
            node,
            batch,
            position,
            terms,
            done,
        } => {
            let state = match (done, trace.found.letters.is_empty()) {
                (true, true) => ", finished by every application",
                (true, false) => ", finished by every application, or a dead letter of it",
                (false, _) => "",
            };
            format!("won by node {node} in batch {batch}, claim at position {position}, terms {terms}{state}")
        }
    }
}

/// What the owner says where it holds nothing.
fn owner_text(found: &Traced) -> Option<String> {
    let Ownership::Won { node, done, .. } = &found.ownership else {
        return None;
    };
    match found.owner {
        OwnerSays::NotAsked => Some(
            "its owner was not asked; name its socket with --node, or its file with --holdings".to_owned(),
        ),
        OwnerSays::TooNew => Some(format!(
            "{node} had not read the claim yet when it was asked; ask again"
        )),
        OwnerSays::Done if !done => Some(format!(
            "{node}: finished by every application there, and not reported yet"
        )),
        OwnerSays::Lacks => Some(format!("{node} does not hold it")),
        OwnerSays::Done | OwnerSays::Holds | OwnerSays::NoOwner => None,
    }
}

fn place_text(place: &AppPlace) -> String {
    let failed = |count: u32| match count {
        0 => String::new(),
        count => format!(", {count} failed attempt(s)"),
    };
    match place {
        AppPlace::NotEntitled => "not for it: by its node it entered the app set later".to_owned(),
        AppPlace::Finished => "finished".to_owned(),
        AppPlace::DeadLetter { id, reason, attempts } => {
            format!("dead letter {id}, {reason}, {attempts} attempt(s)")
        }
        AppPlace::Held {
            instance,
            begun,
            failed: count,
        } => {
            let word = if *begun { "being handled by" } else { "handed to" };
            format!("{word} {instance}{}", failed(*count))
        }
        AppPlace::Waiting { failed: count } => format!("waiting{}", failed(*count)),
    }
}

#[cfg(test)]
#[path = "msg_tests.rs"]
mod tests;
