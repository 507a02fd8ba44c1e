//! What a node holds, in a file: for nodes whose sockets are on other machines. One JSON object a line: first what the file is,
//! then the node, its batches and its applications, last how many there are.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};

use fanin_core::ids::Epoch;
use fanin_proto::v1::{AppHolding, BatchHolding, HoldingsPart, NodeHoldings, holdings_part::Part};
use serde::{Deserialize, Serialize};

use super::ledger::Folded;
use super::limits::FILED_LINE_BYTES_MAX;
use super::nodes::{Answer, Filed, NodeView};

/// The format that this version writes, and the only one it reads.
const FORMAT: u32 = 1;

/// Why a file of holdings is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FiledError {
    /// The file system refused.
    #[error("the holdings {path} cannot be read", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("the holdings {path} cannot be used: line {line}: {what}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// They are of another mapping.
    #[error("the holdings {path} are of mapping {found}, not of {wanted}", path = path.display())]
    OtherMapping {
        /// The file.
        path: PathBuf,
        /// The mapping in it.
        found: String,
        /// The mapping looked at.
        wanted: String,
    },
    /// The node worked with another ledger of that mapping.
    #[error(
        "the holdings {path} of node {node} belong to another ledger than {stream}: another hub's, or one that was replaced since",
        path = path.display()
    )]
    OtherLedger {
        /// The file.
        path: PathBuf,
        /// The node.
        node: String,
        /// The ledger's stream.
        stream: String,
    },
    /// The node has begun a new life since.
    #[error(
        "the holdings {path} are stale: node {node} told them in epoch {epoch} and has begun epoch {newest} since",
        path = path.display()
    )]
    OldEpoch {
        /// The file.
        path: PathBuf,
        /// The node.
        node: String,
        /// Its epoch in the file.
        epoch: Epoch,
        /// Its newest epoch.
        newest: Epoch,
    },
    /// They were collected too long ago, or later than now by this machine's clock.
    #[error(
        "the holdings {path} are stale: node {node} told them {age_s} s ago by this machine's clock, at most {max_s} s are taken",
        path = path.display()
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// The node.
        node: String,
        /// Their age in seconds; negative when the clocks differ.
        age_s: i64,
        /// The greatest age taken, in seconds.
        max_s: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    fanin_holdings: u32,
    /// The version of the program that wrote it, for people.
    version: String,
    mapping: String,
    taken_ns: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Node(NodeHoldings),
    Batch(BatchHolding),
    App(AppHolding),
    /// How many parts there are.
    End(usize),
}

/// Writes what a node told about a mapping at `taken_ns`, nanoseconds since 1970.
///
/// # Errors
/// The output cannot be written.
pub fn write(
    out: &mut impl Write,
    mapping: &str,
    taken_ns: i64,
    parts: Vec<HoldingsPart>,
) -> std::io::Result<()> {
    let mut put = |text: serde_json::Result<String>| -> std::io::Result<()> {
        out.write_all(text?.as_bytes())?;
        out.write_all(b"\n")
    };
    put(serde_json::to_string(&Header {
        fanin_holdings: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mapping: mapping.to_owned(),
        taken_ns,
    }))?;
    let mut count = 0;
    for HoldingsPart { part } in parts {
        let line = match part {
            Some(Part::Node(node)) => Line::Node(node),
            Some(Part::Batch(batch)) => Line::Batch(batch),
            Some(Part::App(app)) => Line::App(app),
            // Not asked for; and parts of a later version are not understood.
            Some(Part::State(_)) | None => continue,
        };
        put(serde_json::to_string(&line))?;
        count += 1;
    }
    put(serde_json::to_string(&Line::End(count)))?;
    out.flush()
}

/// Reads what a node told about this mapping.
///
/// # Errors
/// [`FiledError`]: also when the end is missing.
pub fn read(path: &Path, mapping: &str) -> Result<NodeView, FiledError> {
    let failed = |source| FiledError::Io {
        path: path.to_owned(),
        source,
    };
    let malformed = |line: usize, what: String| FiledError::Malformed {
        path: path.to_owned(),
        line,
        what,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut next = || -> Result<Vec<u8>, FiledError> {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(FILED_LINE_BYTES_MAX);
        limited.read_until(b'\n', &mut line).map_err(failed)?;
        Ok(line)
    };
    let header: Header = serde_json::from_slice(&next()?).map_err(|error| malformed(1, error.to_string()))?;
    if header.fanin_holdings != FORMAT {
        return Err(malformed(1, "a format of another version".to_owned()));
    }
    if header.mapping != mapping {
        return Err(FiledError::OtherMapping {
            path: path.to_owned(),
            found: header.mapping,
            wanted: mapping.to_owned(),
        });
    }
    let mut answer = Answer::default();
    let mut count = 0;
    loop {
        let number = count + 2;
        let line = next()?;
        if line.is_empty() {
            return Err(malformed(number, "the end is missing".to_owned()));
        }
        let line = serde_json::from_slice(&line).map_err(|error| malformed(number, error.to_string()))?;
        let part = match line {
            Line::Node(node) => Part::Node(node),
            Line::Batch(batch) => Part::Batch(batch),
            Line::App(app) => Part::App(app),
            Line::End(parts) if parts == count => break,
            Line::End(_) => return Err(malformed(number, "parts are missing".to_owned())),
        };
        let part = HoldingsPart { part: Some(part) };
        answer
            .add(part)
            .map_err(|what| malformed(number, what.to_owned()))?;
        count += 1;
    }
    let mut view = answer.view().map_err(|what| malformed(2, what.to_owned()))?;
    view.filed = Some(Filed {
        path: path.to_owned(),
        taken_ns: header.taken_ns,
    });
    Ok(view)
}

/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Whether a view that stands in a file is young enough, at `now_ns` since 1970. One that was asked for is.
///
/// # Errors
/// [`FiledError::TooOld`].
pub fn check_age(view: &NodeView, now_ns: i64, max_s: u64) -> Result<(), FiledError> {
    let Some(filed) = &view.filed else { return Ok(()) };
    let age_s = now_ns.saturating_sub(filed.taken_ns) / SECOND_NS;
    if age_s.unsigned_abs() <= max_s {
        return Ok(());
    }
    Err(FiledError::TooOld {
        path: filed.path.clone(),
        node: view.name.clone(),
        age_s,
        max_s,
    })
}

/// Whether a view that stands in a file is of this ledger, and of the newest life of its node.
///
/// # Errors
/// [`FiledError::OtherLedger`] and [`FiledError::OldEpoch`].
pub fn check_ledger(view: &NodeView, folded: &Folded) -> Result<(), FiledError> {
    let Some(filed) = &view.filed else { return Ok(()) };
    if view.ledger_created_ns != folded.info.created_ns {
        return Err(FiledError::OtherLedger {
            path: filed.path.clone(),
            node: view.name.clone(),
            stream: folded.stream.clone(),
        });
    }
    let newest = folded.fold.nodes().get(&view.uuid).map(|entry| entry.epoch);
    match newest {
        Some(newest) if newest > view.epoch => Err(FiledError::OldEpoch {
            path: filed.path.clone(),
            node: view.name.clone(),
            epoch: view.epoch,
            newest,
        }),
        Some(_) | None => Ok(()),
    }
}
