//! What the product logs during a run: an invariant that it finds broken is a violation, and with a trace everything is
//! written down.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::future::Future;
use std::sync::{Arc, Once};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::mutants;
use crate::world::World;

/// The code under which a node logs that one of its invariants does not hold.
const INVARIANT: &str = "FAN-4099";

thread_local! {
    /// The first panic of a task on this thread that no run has taken yet. The tasks of a run would hide it.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

tokio::task_local! {
    /// The node whose life a task is.
    static NODE: Arc<str>;
}

/// A task that is a node's life: what it logs is the node's word.
pub fn of_node<F: Future>(node: Arc<str>, life: F) -> impl Future<Output = F::Output> {
    NODE.scope(node, life)
}

/// From now on panics of tasks are kept for [`take_panic`], besides being told as always.
pub fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANIC.with_borrow_mut(|panic| {
                panic.get_or_insert_with(|| info.to_string());
            });
            // A mutant's panic is a finding, told in one line.
            if !mutants::is_played() {
                before(info);
            }
        }));
    });
}

/// The panic of a task on this thread since this was last asked.
#[must_use]
pub fn take_panic() -> Option<String> {
    PANIC.take()
}

/// The code of a failed disk.
const DISK: &str = "FAN-4002";

/// The code of what a source lost before anybody had taken it. It speaks of nothing else that may be wrong.
const LOST: &str = "FAN-4038";

struct Collector {
    world: Arc<World>,
}

/// Collects what this thread logs until the guard is dropped.
#[must_use]
pub fn collect(world: &Arc<World>) -> DefaultGuard {
    let collector = Collector {
        world: Arc::clone(world),
    };
    tracing::subscriber::set_default(collector)
}

#[derive(Default)]
struct Line {
    text: String,
    code: String,
    /// The messages that it names.
    messages: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "code" {
            value.trim_matches('"').clone_into(&mut self.code);
        }
        if field.name() == "messages" {
            value.clone_into(&mut self.messages);
        }
        // Writing into a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value} "),
            name => write!(self.text, "{name}={value} "),
        };
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = if self.world.is_traced() {
            Level::DEBUG
        } else {
            Level::ERROR
        };
        metadata.is_event() && *metadata.level() <= most && metadata.target().starts_with("fanin")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.world.is_traced() {
            LevelFilter::DEBUG
        } else {
            LevelFilter::ERROR
        })
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level().as_str();
        self.world.note(level, || line.text.clone());
        if *event.metadata().level() != Level::ERROR {
            return;
        }
        match line.code.as_str() {
            INVARIANT => self
                .world
                .violate(format!("an invariant is broken: {}", line.text)),
            // A failed disk ends the process, which is started again.
            "" | DISK => {}
            LOST => {
                if let Ok(node) = NODE.try_with(Arc::clone) {
                    self.world.losses.tell(node, &line.messages);
                }
            }
            _ => self.world.tell(NODE.try_with(Arc::clone).ok(), &line.text),
        }
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        // No span is enabled, so none is made.
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
