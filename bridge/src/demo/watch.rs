//! Asks the bridges how they are, again and again, beside everything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fanin_sdk::Client;
use fanin_sdk::status::StatusResponse;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::limits::{STATUS_INTERVAL, STATUS_TIMEOUT};
use super::node_config::socket_uri;
use super::verdict::AtRest;

/// One node as it described itself last.
#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    /// When the question was sent.
    pub(crate) asked: Instant,
    /// The mapping's state, such as `active`.
    pub(crate) state: String,
    /// Why it is not active.
    pub(crate) reason: String,
    /// Messages that wait for an application, leases included, over all applications.
    pub(crate) backlog: u64,
    /// Messages in the hands of instances.
    pub(crate) in_flight: u64,
    /// Messages staged or claimed whose owner is not known yet, in batches.
    pub(crate) unresolved: u64,
    pub(crate) dead_letters: u64,
    /// Connected instances over all applications.
    pub(crate) instances: usize,
    /// What the hub says is not pulled, and not settled.
    pub(crate) pending: u64,
    pub(crate) ack_pending: u64,
}

impl NodeView {
    fn of(asked: Instant, status: &StatusResponse) -> Self {
        let mappings = &status.mappings;
        let apps = || mappings.iter().flat_map(|mapping| &mapping.apps);
        let sources = || mappings.iter().flat_map(|mapping| &mapping.sources);
        let (state, reason) = mappings
            .first()
            .map(|mapping| (mapping.state.clone(), mapping.reason.clone()))
            .unwrap_or_default();
        Self {
            asked,
            state,
            reason,
            backlog: apps().map(|app| app.backlog_messages).sum(),
            in_flight: apps().map(|app| app.in_flight).sum(),
            unresolved: mappings.iter().map(|mapping| mapping.unresolved_batches).sum(),
            dead_letters: apps().map(|app| app.dead_letters).sum(),
            instances: apps().map(|app| app.instances.len()).sum(),
            pending: sources().map(|source| source.pending).sum(),
            ack_pending: sources().map(|source| source.ack_pending).sum(),
        }
    }
}

/// The answers of all nodes; asking ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    views: Arc<Mutex<Vec<Option<NodeView>>>>,
    _askers: JoinSet<()>,
}

impl Watch {
    /// Asks the bridges behind these sockets from now on.
    pub(crate) fn start(sockets: &[PathBuf]) -> Self {
        let views = Arc::new(Mutex::new(vec![None; sockets.len()]));
        let mut askers = JoinSet::new();
        for (node, socket) in sockets.iter().enumerate() {
            askers.spawn(ask_on(socket.clone(), node, Arc::clone(&views)));
        }
        Self {
            views,
            _askers: askers,
        }
    }

    /// The last answer of each node; none when it did not answer the last question.
    pub(crate) fn views(&self) -> Vec<Option<NodeView>> {
        self.views.lock().clone()
    }

    /// What is left to do, from answers to questions asked after `since`. None while a node owes one.
    pub(crate) fn at_rest(&self, since: Instant) -> Option<AtRest> {
        let mut sum = AtRest::default();
        for view in self.views.lock().iter() {
            let view = view.as_ref().filter(|view| view.asked >= since)?;
            sum.backlog += view.backlog;
            sum.dead_letters += view.dead_letters;
        }
        Some(sum)
    }
}

async fn ask_on(socket: PathBuf, node: usize, views: Arc<Mutex<Vec<Option<NodeView>>>>) {
    loop {
        let asked = Instant::now();
        let answer = tokio::time::timeout(STATUS_TIMEOUT, ask(&socket))
            .await
            .ok()
            .flatten();
        if let Some(view) = views.lock().get_mut(node) {
            *view = answer.map(|status| NodeView::of(asked, &status));
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
}

/// A bridge that is down or frozen has no answer, which is nothing to tell about here.
async fn ask(socket: &Path) -> Option<StatusResponse> {
    let client = Client::builder()
        .socket(socket_uri(socket))
        .connect_timeout(STATUS_TIMEOUT);
    client.connect().await.ok()?.status().await.ok()
}

#[cfg(test)]
mod tests {
    // Goal: rest is known only when every node said so lately. Method: crafted answers.
    use fanin_sdk::status::{AppStatus, MappingStatus};

    use super::*;

    fn view(asked: Instant, backlog: u64) -> NodeView {
        let app = AppStatus {
            backlog_messages: backlog,
            dead_letters: 1,
            ..Default::default()
        };
        let mapping = MappingStatus {
            state: "active".to_owned(),
            apps: vec![app.clone(), app],
            ..Default::default()
        };
        NodeView::of(
            asked,
            &StatusResponse {
                mappings: vec![mapping],
                ..Default::default()
            },
        )
    }

    #[test]
    fn an_old_or_missing_answer_is_none() {
        let then = Instant::now();
        let now = then + STATUS_INTERVAL;
        let watch = |views| Watch {
            views: Arc::new(Mutex::new(views)),
            _askers: JoinSet::new(),
        };
        let all = watch(vec![Some(view(now, 3)), Some(view(now, 0))]);
        assert_eq!(
            all.at_rest(now),
            Some(AtRest {
                backlog: 6,
                dead_letters: 4
            })
        );
        assert_eq!(
            watch(vec![Some(view(now, 0)), Some(view(then, 0))]).at_rest(now),
            None
        );
        assert_eq!(watch(vec![Some(view(now, 0)), None]).at_rest(now), None);
    }
}
