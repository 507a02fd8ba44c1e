//! What a topic holds, for tools that compare nodes with the ledger.

use std::sync::Arc;
use std::time::Duration;

use fanin_core::delivery::{Cursor, DeadLetterReason};
use fanin_core::ids::{BatchNo, Offset, TermsVersion};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::app::AppTask;
use super::connection::AppCommand;
use super::deadletter::ListedDeadLetter;
use super::limits::STATS_WAIT_MS;
use super::{App, Topic};

/// A published batch that some application has not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBatch {
    /// The batch.
    pub batch: BatchNo,
    /// The offset of its first message.
    pub base: Offset,
    /// The terms it was won under.
    pub terms: TermsVersion,
}

/// How far an application is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppHoldings {
    /// The application.
    pub app: String,
    /// What it has finished, and its counted attempts.
    pub cursor: Cursor,
    /// The offset behind everything that its delivery has seen.
    pub seen: Offset,
    /// Unfinished below that, as its delivery counts.
    pub backlog: u64,
    /// What instances hold: offset, instance, and whether the handler has begun.
    pub held: Vec<(Offset, Arc<str>, bool)>,
    /// Its newest dead letters.
    pub dead_letters: Vec<ListedDeadLetter>,
    /// Since which terms it receives.
    pub since: Option<TermsVersion>,
}

impl Topic {
    /// The published batches that some application has not finished, in offset order.
    #[must_use]
    pub fn held_batches(&self) -> Vec<HeldBatch> {
        let index = self.shared.index.lock();
        let held = index.entries().map(|entry| HeldBatch {
            batch: entry.batch,
            base: entry.base,
            terms: entry.terms,
        });
        held.collect()
    }

    /// How far each application is. `None` for one whose task does not answer in time.
    pub async fn app_holdings(&self) -> Vec<Option<AppHoldings>> {
        let asked = self.apps.values().map(|app| self.ask_holdings(app));
        futures_util::future::join_all(asked).await
    }

    async fn ask_holdings(&self, app: &App) -> Option<AppHoldings> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            app.commands.send(AppCommand::Holdings(reply)).await.ok()?;
            answer.await.ok()
        };
        let mut found = timeout(Duration::from_millis(STATS_WAIT_MS), asked)
            .await
            .ok()
            .flatten()?;
        let letters = self.shared.dead_letters.lock();
        let own = letters.listed().filter(|letter| *letter.head.app == *found.app);
        found.dead_letters = own.cloned().collect();
        found.since = self.shared.since(app.number);
        Some(found)
    }
}

impl AppTask {
    pub(super) fn holdings(&self) -> AppHoldings {
        let held = self.instances.iter().flat_map(|(no, instance)| {
            let held = self.machine.held_by(*no).into_iter();
            held.map(|(_, offset, begun)| (offset, Arc::clone(&instance.name), begun))
        });
        AppHoldings {
            app: self.spec.name.to_string(),
            cursor: self.machine.cursor(),
            seen: self.machine.head(),
            backlog: self.machine.stats().backlog,
            held: held.collect(),
            dead_letters: Vec::new(),
            since: None,
        }
    }
}

/// The word for a dead letter's reason.
#[must_use]
pub fn reason_word(reason: DeadLetterReason) -> &'static str {
    match reason {
        DeadLetterReason::MaxAttempts => "max_attempts",
        DeadLetterReason::Rejected => "rejected",
        DeadLetterReason::Lost => "lost",
    }
}
