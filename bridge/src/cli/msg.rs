//! `fanin msg`: one message, wherever it is.

use std::fmt::Write as _;

use clap::{Args as ClapArgs, Subcommand};
use fanin_core::ids::StreamSeq;
use fanin_hub::StoredMessage;
use fanin_hub::port::Hub;
use serde_json::{Value, json};

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::holdings::{self, FiledArgs};
use super::output;
use crate::audit::judge;
use crate::audit::trace::{AppPlace, Ownership, held_in, offset_in, ownership, place};
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
    ownership: Ownership,
    held: Option<Held>,
    owner_asked: bool,
    /// Active nodes that were not asked.
    unreachable: Vec<String>,
}

/// The owner's view.
struct Held {
    node: String,
    batch_state: String,
    offset: Option<u64>,
    apps: Vec<(String, AppPlace)>,
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
    let folded = cluster.read().await?;
    holdings::check(&nodes, &folded)?;
    let message = Hub::fetch_message(&cluster.hub, stream, seq)
        .await
        .map_err(|error| Failure::of(Exit::Unavailable, error.code(), error))?;
    let ownership = ownership(&folded.fold, look.incarnation, seq);
    let held = nodes.iter().find_map(|node| {
        let batch = held_in(node, look.incarnation, seq)?;
        let offset = offset_in(batch, seq);
        let apps = node.apps.iter().filter_map(|app| {
            let place = place(app, batch, look.incarnation, seq, offset?);
            Some((app.app.clone(), place))
        });
        Some(Held {
            node: node.name.clone(),
            batch_state: batch.state.clone(),
            offset,
            apps: apps.collect(),
        })
    });
    let owner_asked = match &ownership {
        Ownership::Won { node, .. } => nodes.iter().any(|view| view.name == *node),
        Ownership::Nobody | Ownership::Closed => true,
    };
    let unreachable = judge(&folded, &nodes, &[]).unreachable;
    let trace = Trace {
        id: format!("{stream}:{seq}"),
        mapping: cluster.options.name.clone(),
        message,
        ownership,
        held,
        owner_asked,
        unreachable,
    };
    if trace.message.is_none() && trace.ownership == Ownership::Nobody {
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
    match &trace.ownership {
        Ownership::Won { node, .. } if !trace.owner_asked => {
            let text = format!("node {node}, which owns {}, was not asked", trace.id);
            Err(Failure::new(Exit::Unavailable, codes::NOT_ALL_ASKED, text))
        }
        Ownership::Won { .. } | Ownership::Nobody | Ownership::Closed => Ok(Exit::Done),
    }
}

fn to_json(trace: &Trace) -> Value {
    let ledger = match &trace.ownership {
        Ownership::Nobody => json!({ "state": "unclaimed" }),
        Ownership::Closed => json!({ "state": "closed" }),
        Ownership::Won {
            node,
            batch,
            position,
            terms,
            done,
        } => {
            json!({ "state": if *done { "done" } else { "won" }, "node": node, "batch": batch, "position": position, "terms": terms })
        }
    };
    let node = trace.held.as_ref().map(|held| {
        let apps = held.apps.iter().map(|(app, place)| {
            let mut value = match place {
                AppPlace::NotEntitled => json!({ "state": "not_entitled" }),
                AppPlace::Finished => json!({ "state": "finished" }),
                AppPlace::DeadLetter {
                    id,
                    reason,
                    attempts,
                } => {
                    json!({ "state": "dead_letter", "dead_letter": id, "reason": reason, "attempts": attempts })
                }
                AppPlace::Held {
                    instance,
                    begun,
                    failed,
                } => {
                    json!({ "state": "held", "instance": instance, "begun": begun, "failed_attempts": failed })
                }
                AppPlace::Waiting { failed } => json!({ "state": "waiting", "failed_attempts": failed }),
            };
            value["app"] = json!(app);
            value
        });
        json!({ "node": held.node, "batch_state": held.batch_state, "offset": held.offset, "apps": apps.collect::<Vec<_>>() })
    });
    json!({
        "id": trace.id,
        "mapping": trace.mapping,
        "source": trace.message.as_ref().map(|message| json!({
            "subject": message.subject,
            "bytes": message.payload.len(),
            "published_ns": message.published_ns,
        })),
        "ledger": ledger,
        "node": node,
        "owner_asked": trace.owner_asked,
        "unreachable": trace.unreachable,
    })
}

fn to_text(trace: &Trace) -> String {
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
    match &trace.ownership {
        Ownership::Nobody => text.push_str("  ledger  nobody has claimed it yet\n"),
        Ownership::Closed => {
            text.push_str(
                "  ledger  closed: it was delivered and finished, or is a hole; its claim is forgotten\n",
            );
        }
        Ownership::Won {
            node,
            batch,
            position,
            terms,
            done,
        } => {
            let state = if *done {
                ", finished by every application"
            } else {
                ""
            };
            let _ = writeln!(
                text,
                "  ledger  won by node {node} in batch {batch}, claim at position {position}, terms {terms}{state}"
            );
        }
    }
    match &trace.held {
        Some(held) => {
            let offset = held
                .offset
                .map_or_else(String::new, |offset| format!(", topic offset {offset}"));
            let _ = writeln!(text, "  node    {}: {}{offset}", held.node, held.batch_state);
            for (app, place) in &held.apps {
                let _ = writeln!(text, "  {app}: {}", place_text(place));
            }
        }
        None if !trace.owner_asked => {
            text.push_str("  node    its owner was not asked; name its socket with --node, or its file with --holdings\n");
        }
        None => {}
    }
    text
}

fn place_text(place: &AppPlace) -> String {
    let failed = |count: u32| match count {
        0 => String::new(),
        count => format!(", {count} failed attempt(s)"),
    };
    match place {
        AppPlace::NotEntitled => "not for it: it entered the app set later".to_owned(),
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
mod tests {
    //! Goal: ids are read as they are written everywhere. Method: a table.
    use super::message_id;

    #[test]
    fn ids() {
        assert_eq!(message_id("ORDERS:12"), Ok(("ORDERS".to_owned(), 12)));
        for wrong in ["ORDERS", "ORDERS:", ":1", "ORDERS:0", "ORDERS:-1", "ORDERS:1x"] {
            assert!(message_id(wrong).is_err(), "{wrong}");
        }
    }
}
