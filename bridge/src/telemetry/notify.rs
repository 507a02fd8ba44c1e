//! Notes to the service manager (systemd, `Type=notify`). Without `NOTIFY_SOCKET` in the environment they do nothing.

use sd_notify::NotifyState;

use super::codes;

/// The bridge has recovered and serves its socket. `status` is shown by `systemctl status`.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A new line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// The bridge is stopping.
pub fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// A manager that cannot be told is no reason to stop working.
fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(code = codes::NOTIFY_FAILED, %error, "the service manager cannot be notified");
    }
}
