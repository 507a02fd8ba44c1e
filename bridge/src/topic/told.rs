//! What every application's task of a topic is told.

use tokio::sync::watch;

/// A value that the tasks watch, each through a channel of its own. Of several receivers of one watch channel tokio wakes
/// them in an order drawn by chance; here they wake in the order of their numbers, so that a simulation replays exactly.
#[derive(Debug)]
pub(crate) struct Told<T>(Vec<watch::Sender<T>>);

impl<T: Clone> Told<T> {
    /// `count` tasks are told the value.
    pub(crate) fn new(count: usize, value: T) -> Told<T> {
        Told((0..count).map(|_| watch::Sender::new(value.clone())).collect())
    }

    /// What the task of this number, below `count`, is told.
    pub(crate) fn subscribe(&self, number: usize) -> watch::Receiver<T> {
        self.0[number].subscribe()
    }

    /// Tells everybody a value.
    pub(crate) fn send(&self, value: &T) {
        for sender in &self.0 {
            sender.send_replace(value.clone());
        }
    }

    /// Changes the value; who is told hears of it only when `change` says that it did.
    pub(crate) fn send_if_modified(&self, mut change: impl FnMut(&mut T) -> bool) {
        for sender in &self.0 {
            sender.send_if_modified(&mut change);
        }
    }
}
