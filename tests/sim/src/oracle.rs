//! What the applications saw, and whether it is what was promised: during the run no delivery by a node that does not own
//! the message, none after a confirmed acknowledgement, no second confirmation; at rest each message finished by each
//! application.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fanin_core::ids::{Incarnation, NodeUuid};
use parking_lot::Mutex;

use crate::hub::SimHub;
use crate::plan::Kind;
use crate::world::World;

/// A published message.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its body.
    pub payload: Bytes,
    /// Whether the mapping wants it.
    pub wanted: bool,
}

/// What an application saw of a message.
#[derive(Clone, Debug, Default)]
struct Seen {
    attempts: u64,
    /// On which nodes.
    nodes: BTreeSet<NodeUuid>,
    /// Answered with an acknowledgement whose confirmation never came: perhaps durable.
    unconfirmed: u64,
    confirmed: u64,
    /// Delivered after it was confirmed, or by a second node.
    wrong: bool,
}

#[derive(Debug, Default)]
struct Book {
    /// When each incarnation of the source was made, nanoseconds since 1970.
    created: BTreeMap<u64, Incarnation>,
    /// The incarnations of lives that a stream lived after it was restored from a copy.
    lives: BTreeMap<Incarnation, Incarnation>,
    published: BTreeMap<(Incarnation, u64), Published>,
    /// Deleted from the source: unless somebody owns them, whether anybody gets them is open; but nobody gets them twice.
    deleted: BTreeSet<(Incarnation, u64)>,
    seen: BTreeMap<(u64, Incarnation, u64), Seen>,
    dead: BTreeMap<(u64, Incarnation, u64), u64>,
    /// Deliveries that no healthy run has, in plans where they are only counted.
    wrong: u64,
    deliveries: u64,
}

impl Book {
    fn is_finished(&self, (app, incarnation, seq): (u64, Incarnation, u64)) -> bool {
        let seen = self.seen.get(&(app, incarnation, seq));
        // A dead letter does not say which life of a stream it is of.
        let of = *self.lives.get(&incarnation).unwrap_or(&incarnation);
        seen.is_some_and(|seen| seen.confirmed + seen.unconfirmed > 0)
            || self.dead.contains_key(&(app, of, seq))
    }
}

/// Where the number of a stream's life stands in what the book calls its incarnation.
const LIFE_SHIFT: u32 = 48;

/// The book of what was published and seen.
#[derive(Debug)]
pub struct Oracle {
    world: Arc<World>,
    kind: Kind,
    book: Mutex<Book>,
}

/// A delivery, as an application sees it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The application's number.
    pub app: u64,
    /// The delivering node.
    pub node: NodeUuid,
    /// The message's source.
    pub incarnation: Incarnation,
    /// Its sequence.
    pub seq: u64,
    /// Its body.
    pub payload: Bytes,
}

impl Oracle {
    /// An empty book.
    #[must_use]
    pub fn new(world: &Arc<World>, kind: Kind) -> Oracle {
        Oracle {
            world: Arc::clone(world),
            kind,
            book: Mutex::default(),
        }
    }

    /// An incarnation of the source was made. What was in an earlier one is gone.
    pub fn created(&self, at_ns: u64, incarnation: Incarnation) {
        let mut book = self.book.lock();
        let gone: Vec<(Incarnation, u64)> = book.published.keys().copied().collect();
        book.deleted.extend(gone);
        book.created.insert(at_ns, incarnation);
    }

    /// A stream was restored from a copy that ends at a sequence: what it takes from now on is of another life, which the
    /// book keeps apart like another incarnation. What was behind the copy's end is gone.
    pub fn rolled_back(&self, at_ns: u64, incarnation: Incarnation, last: u64) {
        let mut book = self.book.lock();
        let lives = book.created.len() as u64;
        let life = Incarnation(incarnation.0 ^ (lives << LIFE_SHIFT));
        book.created.insert(at_ns, life);
        book.lives.insert(life, incarnation);
        let keys: Vec<(Incarnation, u64)> = book.published.keys().copied().collect();
        // Of whichever life: a copy may be older than the life before this one.
        let lives = &book.lives;
        let stream_of = |life: Incarnation| *lives.get(&life).unwrap_or(&life);
        let is_gone = |&(life, seq): &(Incarnation, u64)| stream_of(life) == incarnation && seq > last;
        let gone: Vec<(Incarnation, u64)> = keys.into_iter().filter(is_gone).collect();
        book.deleted.extend(gone);
    }

    /// Which incarnation took a message at a time.
    #[must_use]
    pub fn incarnation_at(&self, published_ns: u64) -> Option<Incarnation> {
        let book = self.book.lock();
        let made = book.created.range(..=published_ns).next_back();
        made.map(|(_, incarnation)| *incarnation)
    }

    /// A message was published.
    pub fn published(&self, incarnation: Incarnation, seq: u64, published: Published) {
        self.book.lock().published.insert((incarnation, seq), published);
    }

    /// A message was deleted from the source.
    pub fn deleted(&self, incarnation: Incarnation, seq: u64) {
        self.book.lock().deleted.insert((incarnation, seq));
    }

    /// A message was handed to an instance.
    pub fn attempted(&self, hub: &SimHub, attempt: &Attempt) {
        let Attempt {
            app,
            node,
            incarnation,
            seq,
            ..
        } = *attempt;
        let mut book = self.book.lock();
        book.deliveries += 1;
        let Some(published) = book.published.get(&(incarnation, seq)) else {
            drop(book);
            self.wrong(format!(
                "application {app} got message {seq}, which was never published"
            ));
            return;
        };
        let (changed, wanted) = (published.payload != attempt.payload, published.wanted);
        let seen = book.seen.entry((app, incarnation, seq)).or_default();
        seen.attempts += 1;
        seen.nodes.insert(node);
        let (confirmed, nodes) = (seen.confirmed, seen.nodes.len());
        let is_new = !seen.wrong && (confirmed > 0 || nodes > 1);
        seen.wrong |= is_new;
        book.wrong += u64::from(is_new);
        drop(book);
        if changed {
            self.wrong(format!("application {app} got message {seq} with another body"));
        }
        if !wanted {
            self.wrong(format!(
                "application {app} got message {seq}, which the filter leaves out"
            ));
        }
        if is_new && self.kind.is_exact() {
            let why = if confirmed > 0 {
                "after its acknowledgement was confirmed"
            } else {
                "from a second node"
            };
            self.wrong(format!(
                "DUPLICATE: application {app} got message {seq} again {why}"
            ));
        }
        if self.kind.is_exact() {
            let state = hub.state.lock();
            let owner = state.truth.owner(incarnation, seq).map(|key| key.node);
            let broken = state.truth.holds() && owner != Some(node);
            drop(state);
            if broken {
                self.wrong(format!(
                    "I5: node {node} delivers message {seq}, whose owner is {owner:?}"
                ));
            }
        }
    }

    fn wrong(&self, what: String) {
        self.world.violate(what);
    }

    /// The node says that an acknowledgement is durable.
    pub fn confirmed(&self, app: u64, incarnation: Incarnation, seq: u64) {
        self.world
            .note("oracle", || format!("app{app} has its answer to {seq} confirmed"));
        let mut book = self.book.lock();
        let seen = book.seen.entry((app, incarnation, seq)).or_default();
        seen.confirmed += 1;
        let twice = seen.confirmed > 1;
        drop(book);
        if twice && self.kind.is_exact() {
            self.wrong(format!(
                "DUPLICATE: application {app} had its acknowledgement of message {seq} confirmed twice"
            ));
        }
    }

    /// An instance acknowledged and will never hear whether that is durable.
    pub fn unconfirmed(&self, app: u64, incarnation: Incarnation, seq: u64) {
        let mut book = self.book.lock();
        book.seen.entry((app, incarnation, seq)).or_default().unconfirmed += 1;
    }

    /// The dead letters on all disks, anew.
    pub fn dead_letters(&self, letters: impl IntoIterator<Item = (u64, Incarnation, u64)>) {
        let mut book = self.book.lock();
        book.dead.clear();
        for letter in letters {
            *book.dead.entry(letter).or_default() += 1;
        }
    }

    /// What some of the `apps` applications has not finished although `is_owed` to it, at most `max` of it: application,
    /// source, sequence. A deleted message that the application has not seen counts only if somebody owns it: the source has
    /// to keep what nobody has claimed, and nothing else.
    #[must_use]
    pub fn unfinished(
        &self,
        apps: u64,
        max: usize,
        is_owed: impl Fn(u64, Incarnation, u64) -> bool,
        is_owned: impl Fn(Incarnation, u64) -> bool,
    ) -> Vec<(u64, Incarnation, u64)> {
        let book = self.book.lock();
        let mut out = Vec::new();
        for ((incarnation, seq), published) in &book.published {
            for app in 0..apps {
                let key = (app, *incarnation, *seq);
                let is_open = || {
                    let is_deleted = book.deleted.contains(&(*incarnation, *seq));
                    is_deleted && !book.seen.contains_key(&key) && !is_owned(*incarnation, *seq)
                };
                if published.wanted
                    && !book.is_finished(key)
                    && !is_open()
                    && is_owed(app, *incarnation, *seq)
                {
                    out.push(key);
                    if out.len() >= max {
                        return out;
                    }
                }
            }
        }
        out
    }

    /// What was finished more than once: application, sequence. Only to be asked at rest.
    #[must_use]
    pub fn finished_twice(&self) -> Vec<(u64, u64)> {
        let book = self.book.lock();
        let mut out = Vec::new();
        for ((app, incarnation, seq), seen) in &book.seen {
            let letters = book.dead.get(&(*app, *incarnation, *seq)).copied().unwrap_or(0);
            if seen.confirmed + letters > 1 {
                out.push((*app, *seq));
            }
        }
        out
    }

    /// Whether an application has finished a message of a source, in whichever life of it: what it said of it was confirmed, or
    /// it will not hear whether it was, or the message is a dead letter.
    #[must_use]
    pub fn is_finished(&self, app: u64, incarnation: Incarnation, seq: u64) -> bool {
        let book = self.book.lock();
        let lives = book.lives.iter().filter(|(_, of)| **of == incarnation);
        let mut lives = lives.map(|(life, _)| *life).chain([incarnation]);
        lives.any(|life| book.is_finished((app, life, seq)))
    }

    /// The incarnation that a node knows a life of a stream by.
    #[must_use]
    pub fn stream_of(&self, life: Incarnation) -> Incarnation {
        *self.book.lock().lives.get(&life).unwrap_or(&life)
    }

    /// What an application got after a confirmation or from a second node, with the data directories it got it from.
    #[must_use]
    pub fn doubled(&self) -> Vec<(u64, u64, BTreeSet<NodeUuid>)> {
        let book = self.book.lock();
        let wrong = book.seen.iter().filter(|(_, seen)| seen.wrong);
        wrong
            .map(|((app, _, seq), seen)| (*app, *seq, seen.nodes.clone()))
            .collect()
    }

    /// Deliveries after a confirmation or by a second node.
    #[must_use]
    pub fn wrong_deliveries(&self) -> u64 {
        self.book.lock().wrong
    }

    /// Deliveries in all.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.book.lock().deliveries
    }

    /// The last message that the mapping wants and the source still has.
    #[must_use]
    pub fn last_wanted(&self, incarnation: Incarnation) -> u64 {
        let book = self.book.lock();
        let wanted = book.published.iter().filter(|((of, seq), published)| {
            *of == incarnation && published.wanted && !book.deleted.contains(&(*of, *seq))
        });
        wanted.map(|((_, seq), _)| *seq).max().unwrap_or(0)
    }
}
