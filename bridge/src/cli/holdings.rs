//! What nodes hold, in files: `fanin ledger holdings` writes one on each machine, and the commands that look at all nodes take
//! any number of them beside the sockets that they can reach.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use super::bridge_socket::{self, SocketArgs};
use super::exit::Exit;
use super::failure::Failure;
use super::limits::FILED_AGE_DEFAULT;
use super::wait;
use crate::ambient::Ambient;
use crate::audit::filed::{self, FiledError};
use crate::audit::nodes::collect;
use crate::audit::{Folded, NodeError, NodeView};
use crate::telemetry::codes;

/// `fanin ledger holdings`.
#[derive(Debug, ClapArgs)]
pub(super) struct HoldingsArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// The mapping; may be left out when the node has one only.
    #[arg(short = 'm', long, value_name = "NAME")]
    mapping: Option<String>,
    /// Print errors as JSON; the holdings are JSON lines in any case.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
}

/// Files that `fanin ledger holdings` has written, for nodes that cannot be asked from here.
#[derive(Clone, Debug, ClapArgs)]
pub(super) struct FiledArgs {
    /// Files that `fanin ledger holdings` wrote on other machines.
    #[arg(long = "holdings", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// Greatest age of these files.
    #[arg(long = "holdings-max-age", value_name = "DURATION", default_value = FILED_AGE_DEFAULT, value_parser = wait::duration)]
    max_age: Duration,
}

/// Writes what a mapping holds on this node to standard output.
pub(super) async fn execute(args: &HoldingsArgs) -> Result<Exit, Failure> {
    let client = args.socket.connect(Duration::ZERO).await?;
    let status = client.status().await.map_err(bridge_socket::status_failed)?;
    let names: Vec<&str> = status
        .mappings
        .iter()
        .map(|mapping| mapping.name.as_str())
        .collect();
    let chosen = match (&args.mapping, names.as_slice()) {
        (Some(wanted), names) => names.iter().find(|name| *name == wanted).copied(),
        (None, [only]) => Some(*only),
        (None, _) => None,
    };
    let Some(mapping) = chosen else {
        let text = format!(
            "choose one of this node's mappings with --mapping: {}",
            names.join(", ")
        );
        return Err(Failure::new(Exit::Usage, codes::UNKNOWN_MAPPING, text));
    };
    // Before it is asked: the file is as old as the oldest thing in it.
    let taken_ns = Ambient::system().now_ns();
    let parts = collect(args.socket.address(), mapping, false)
        .await
        .map_err(node_failed)?;
    filed::write(&mut io::stdout().lock(), mapping, taken_ns, parts).map_err(Failure::output)?;
    Ok(Exit::Done)
}

fn node_failed(error: NodeError) -> Failure {
    let code = match &error {
        NodeError::Connect(_) => codes::BRIDGE_UNREACHABLE,
        NodeError::Call { .. } | NodeError::Timeout { .. } | NodeError::Malformed { .. } => {
            codes::BRIDGE_FAILED
        }
    };
    Failure::of(Exit::Unavailable, code, error)
}

impl FiledArgs {
    /// Says why files are of no use to a command.
    ///
    /// # Errors
    /// There are files.
    pub(super) fn refuse(&self, why: &str) -> Result<(), Failure> {
        if self.files.is_empty() {
            return Ok(());
        }
        let text = format!("--holdings is not taken: when {why}");
        Err(Failure::new(Exit::Usage, codes::HOLDINGS_UNUSABLE, text))
    }

    /// Adds the nodes in the files to those that were asked. One that was asked counts more than its file, and of several
    /// files of a node the newest.
    ///
    /// # Errors
    /// A file that cannot be used, of another mapping, or too old.
    pub(super) fn add_to(&self, asked: Vec<NodeView>, mapping: &str) -> Result<Vec<NodeView>, Failure> {
        let now_ns = Ambient::system().now_ns();
        let mut views = Vec::new();
        for path in &self.files {
            let view = filed::read(path, mapping).map_err(filed_failed)?;
            filed::check_age(&view, now_ns, self.max_age.as_secs()).map_err(filed_failed)?;
            views.push(view);
        }
        Ok(merged(asked, views))
    }
}

/// Whether everything that stands in files belongs to this ledger and to the newest lives of its nodes.
///
/// # Errors
/// A file that does not.
pub(super) fn check(nodes: &[NodeView], folded: &Folded) -> Result<(), Failure> {
    nodes
        .iter()
        .try_for_each(|node| filed::check_ledger(node, folded))
        .map_err(filed_failed)
}

fn merged(asked: Vec<NodeView>, mut filed: Vec<NodeView>) -> Vec<NodeView> {
    filed.sort_by_key(|view| std::cmp::Reverse(view.filed.as_ref().map(|filed| filed.taken_ns)));
    let mut known = BTreeSet::new();
    let mut all = asked;
    known.extend(all.iter().map(|view| view.uuid));
    all.extend(filed.into_iter().filter(|view| known.insert(view.uuid)));
    all
}

fn filed_failed(error: FiledError) -> Failure {
    let (exit, code) = match &error {
        FiledError::Io { .. } | FiledError::Malformed { .. } => (Exit::Io, codes::HOLDINGS_UNUSABLE),
        FiledError::OtherMapping { .. } | FiledError::OtherLedger { .. } => {
            (Exit::Failed, codes::HOLDINGS_FOREIGN)
        }
        FiledError::OldEpoch { .. } | FiledError::TooOld { .. } => (Exit::Failed, codes::HOLDINGS_STALE),
    };
    Failure::of(exit, code, error)
}

#[cfg(test)]
mod tests {
    //! Goal: each node counts once, with what is newest. Method: views of one node from a socket and from files.
    use fanin_core::ids::NodeUuid;

    use super::*;
    use crate::audit::nodes::Filed;

    fn view(uuid: u128, taken_ns: Option<i64>) -> NodeView {
        NodeView {
            uuid: NodeUuid(uuid),
            filed: taken_ns.map(|taken_ns| Filed {
                path: PathBuf::from("n.ndjson"),
                taken_ns,
            }),
            ..NodeView::default()
        }
    }

    #[test]
    fn a_node_counts_once() {
        let all = merged(
            vec![view(1, None)],
            vec![
                view(2, Some(5)),
                view(1, Some(9)),
                view(2, Some(7)),
                view(3, Some(1)),
            ],
        );
        let found: Vec<_> = all
            .iter()
            .map(|view| (view.uuid.0, view.filed.as_ref().map(|filed| filed.taken_ns)))
            .collect();
        assert_eq!(found, [(1, None), (2, Some(7)), (3, Some(1))]);
    }
}
