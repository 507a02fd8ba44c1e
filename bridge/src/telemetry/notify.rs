//! Notes to the service manager (systemd, `Type=notify`). Without `NOTIFY_SOCKET` in the environment they do nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use sd_notify::NotifyState;
use tokio::time::interval;

use super::codes;
use crate::admin::Health;
use crate::admin::limits::STALL_MAX;

/// How often within its patience the watchdog is fed; the manager's own advice is twice, and a busy machine may be late.
const WATCHDOG_SHARE: u32 = 3;

/// Whether the manager has been told that the bridge is stopping. Held while a word is sent, so that words keep their order.
static IS_STOPPING: Mutex<bool> = Mutex::new(false);

/// The bridge has recovered and serves its socket. `status` is shown by `systemctl status`. Not sent once it is stopping.
pub fn ready(status: &str) {
    let is_stopping = IS_STOPPING.lock();
    if *is_stopping {
        return;
    }
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A new line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The bridge is stopping.
pub fn stopping(status: &str) {
    let mut is_stopping = IS_STOPPING.lock();
    *is_stopping = true;
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Feeds the manager's watchdog, if it wants that (`WatchdogSec=`), for as long as every mapping's loop moves and the local log can
/// be written: a process whose pipeline stands still is restarted, and nothing is lost by that.
pub async fn feed_watchdog(health: Arc<dyn Health>) {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) else {
        return;
    };
    let mut ticks = interval(patience / WATCHDOG_SHARE);
    loop {
        ticks.tick().await;
        if health.stalled_for() < STALL_MAX && !health.is_poisoned() {
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// A manager that cannot be told is no reason to stop working.
fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(code = codes::NOTIFY_FAILED, %error, "the service manager cannot be notified");
    }
}
