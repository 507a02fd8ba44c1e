//! Goal: whatever instances, clock and restarts do, each offset is finished once and never leased twice at a time.
//! Method: random operations on the machine and on a reference model made of plain maps, which judges each effect and
//! each answer; invariants after every step; restarts from the encoded cursor, the present one or an older one (then
//! the model goes back with it, as an application does whose acks were never confirmed).

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::delivery::VerdictError;
use proptest::prelude::*;

/// A delivery by a random number, taken modulo what exists.
type Pick = u16;

#[derive(Clone, Debug)]
enum Op {
    Grow(u64),
    Connect,
    Disconnect(Pick),
    Close(Pick),
    Grant(Pick, u64, u32),
    HandOver(u8, u64),
    Begin(Pick, Pick),
    Ack(Pick, Pick, u64),
    Retry(Pick, Pick, Option<u64>),
    Reject(Pick, Pick),
    Release(Pick, Pick, u64),
    Extend(Pick, Pick, u64),
    Skip(u64, u64),
    DeadLettered(Pick),
    Advance(u64),
    Pause(bool),
    Attempts(u32),
    Save,
    Restart(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    prop_oneof![
        3 => (1..40u64).prop_map(Op::Grow),
        3 => Just(Op::Connect),
        1 => pick().prop_map(Op::Disconnect),
        1 => pick().prop_map(Op::Close),
        4 => (pick(), 0..3_000u64, 0..30u32).prop_map(|(i, bytes, messages)| Op::Grant(i, bytes, messages)),
        12 => (1..20u8, 0..400u64).prop_map(|(count, size)| Op::HandOver(count, size)),
        4 => (pick(), pick()).prop_map(|(i, through)| Op::Begin(i, through)),
        8 => (pick(), pick(), 0..12u64).prop_map(|(i, first, more)| Op::Ack(i, first, more)),
        4 => (pick(), pick(), prop::option::of(0..2_000u64)).prop_map(|(i, d, after)| Op::Retry(i, d, after)),
        1 => (pick(), pick()).prop_map(|(i, d)| Op::Reject(i, d)),
        2 => (pick(), pick(), 0..5u64).prop_map(|(i, first, more)| Op::Release(i, first, more)),
        2 => (pick(), pick(), 0..5u64).prop_map(|(i, first, more)| Op::Extend(i, first, more)),
        2 => (0..60u64, 0..30u64).prop_map(|(ahead, more)| Op::Skip(ahead, more)),
        2 => pick().prop_map(Op::DeadLettered),
        4 => (0..1_500u64).prop_map(Op::Advance),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => (1..5u32).prop_map(Op::Attempts),
        1 => Just(Op::Save),
        1 => any::<bool>().prop_map(Op::Restart),
    ]
}

#[derive(Clone, Debug, Default)]
struct Lease {
    offset: u64,
    begun_until: Option<u64>,
}

/// What survives a restart.
#[derive(Clone, Debug, Default)]
struct Durable {
    finished: BTreeSet<u64>,
    attempts: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Model {
    durable: Durable,
    saved: (Vec<u8>, Durable),
    head: u64,
    held: BTreeMap<(InstanceNo, u64), Lease>,
    /// Instances with the number of deliveries given to them and whether they are closing.
    instances: BTreeMap<InstanceNo, (u64, bool)>,
    dead_lettering: BTreeSet<u64>,
    retry_at: BTreeMap<u64, u64>,
    connected_ever: u64,
}

struct World {
    rig: Rig,
    model: Model,
}

impl World {
    fn new() -> World {
        let rig = Rig::with(policy(), Cursor::default(), 0);
        let saved = (rig.machine.cursor().encode(), Durable::default());
        let model = Model {
            durable: Durable::default(),
            saved,
            head: 0,
            held: BTreeMap::new(),
            instances: BTreeMap::new(),
            dead_lettering: BTreeSet::new(),
            retry_at: BTreeMap::new(),
            connected_ever: 0,
        };
        World { rig, model }
    }

    fn instance(&self, pick: Pick) -> Option<InstanceNo> {
        let count = self.model.instances.len();
        (count > 0).then(|| {
            *self
                .model
                .instances
                .keys()
                .nth(usize::from(pick) % count)
                .expect("in range")
        })
    }

    /// A delivery number of the instance: mostly one given to it, now and then one beyond.
    fn delivery(&self, instance: InstanceNo, pick: Pick) -> u64 {
        1 + u64::from(pick) % (self.model.instances[&instance].0 + 2)
    }

    fn leased(&self, offset: u64) -> bool {
        self.model.held.values().any(|lease| lease.offset == offset)
    }

    /// The deliveries of a range that are not held although they were given.
    fn late(&self, instance: InstanceNo, first: u64, last: u64) -> Vec<u64> {
        let given = self.model.instances[&instance].0;
        (first..=last.min(given))
            .filter(|&d| !self.model.held.contains_key(&(instance, d)))
            .collect()
    }

    fn give_back(&mut self, keys: &[(InstanceNo, u64)]) {
        for key in keys {
            self.model.held.remove(key).expect("held");
        }
    }

    fn keys(&self, instance: InstanceNo, first: u64, last: u64) -> Vec<(InstanceNo, u64)> {
        self.model
            .held
            .keys()
            .copied()
            .filter(|&(i, d)| i == instance && d >= first && d <= last)
            .collect()
    }

    /// Judges the effects of the last call. `failed` are the leases that call had to end as failed,
    /// `acked` those it had to finish; both must be met exactly.
    fn judge(&mut self, acked: &[(InstanceNo, u64)], failed: &[(InstanceNo, u64)]) {
        let mut acked: BTreeSet<_> = acked.iter().copied().collect();
        let mut failed: BTreeMap<u64, (InstanceNo, u64)> = failed
            .iter()
            .map(|key| (self.model.held[key].offset, *key))
            .collect();
        for effect in self.rig.effects() {
            match effect {
                Effect::Finished {
                    offset,
                    outcome: Outcome::Acked,
                    instance,
                } => {
                    let (instance, delivery) = instance.expect("an ack names its delivery");
                    let key = (instance, delivery.0);
                    assert!(acked.remove(&key), "{key:?} was not acked");
                    assert_eq!(self.model.held.remove(&key).expect("held").offset, offset.0);
                    self.finish(offset.0);
                }
                Effect::Finished {
                    offset,
                    outcome: Outcome::DeadLettered,
                    ..
                } => {
                    assert!(
                        self.model.dead_lettering.remove(&offset.0),
                        "{offset} was no dead letter"
                    );
                    self.finish(offset.0);
                }
                Effect::Finished {
                    outcome: Outcome::Skipped,
                    ..
                } => panic!("nothing was skipped"),
                Effect::LeaseLost {
                    instance,
                    delivery,
                    offset,
                } => {
                    assert_eq!(failed.get(&offset.0), Some(&(instance, delivery.0)));
                }
                Effect::AttemptCounted {
                    offset,
                    attempts,
                    retry_at,
                    ..
                } => {
                    let key = failed.remove(&offset.0).expect("its lease had to end");
                    self.model.held.remove(&key).expect("held");
                    assert_eq!(attempts, self.count(offset.0));
                    assert!(attempts < self.rig.machine.policy().max_attempts);
                    self.model.retry_at.insert(offset.0, retry_at.0);
                }
                Effect::DeadLetter { offset, attempts, .. } => {
                    if let Some(key) = failed.remove(&offset.0) {
                        self.model.held.remove(&key).expect("held");
                        assert_eq!(attempts, self.count(offset.0));
                    }
                    assert!(!self.leased(offset.0) && !self.model.durable.finished.contains(&offset.0));
                    assert!(attempts >= self.rig.machine.policy().max_attempts);
                    assert!(
                        self.model.dead_lettering.insert(offset.0),
                        "{offset} is told twice"
                    );
                }
            }
        }
        assert!(
            acked.is_empty() && failed.is_empty(),
            "no effect for {acked:?}, {failed:?}"
        );
    }

    fn count(&mut self, offset: u64) -> u32 {
        let attempts = self.model.durable.attempts.entry(offset).or_insert(0);
        *attempts += 1;
        *attempts
    }

    fn finish(&mut self, offset: u64) {
        assert!(
            self.model.durable.finished.insert(offset),
            "{offset} is finished twice"
        );
        self.model.durable.attempts.remove(&offset);
        self.model.retry_at.remove(&offset);
    }

    fn hand_over(&mut self, size: u64) -> bool {
        let now = self.rig.now;
        let Some(candidate) = self.rig.machine.poll_next(now) else {
            return false;
        };
        let offset = candidate.offset.0;
        let attempts = self.model.durable.attempts.get(&offset).copied().unwrap_or(0);
        assert_eq!(candidate.attempt, attempts + 1);
        assert!(
            attempts < self.rig.machine.policy().max_attempts,
            "{offset} has no attempt left"
        );
        assert!(offset < self.model.head && !self.model.durable.finished.contains(&offset));
        assert!(!self.leased(offset), "{offset} would have two leases");
        assert!(!self.model.dead_lettering.contains(&offset));
        assert!(
            self.model.retry_at.get(&offset).is_none_or(|&at| at <= now.0),
            "{offset} is not due"
        );
        let Some(given) = self.rig.machine.hand_over(now, candidate.offset, size) else {
            return false;
        };
        let (count, closing) = self.model.instances.get_mut(&given.instance).expect("connected");
        *count += 1;
        assert!(!*closing, "a closing instance gets nothing");
        assert_eq!(given.delivery.0, *count, "numbers have no gaps");
        self.model.held.insert(
            (given.instance, *count),
            Lease {
                offset,
                begun_until: None,
            },
        );
        self.model.retry_at.remove(&offset);
        true
    }

    fn begun(&self, of: Option<InstanceNo>, until: u64) -> Vec<(InstanceNo, u64)> {
        let begun = self.model.held.iter().filter(|(key, lease)| {
            of.is_none_or(|instance| key.0 == instance) && lease.begun_until.is_some_and(|at| at <= until)
        });
        begun.map(|(key, _)| *key).collect()
    }

    fn prefetched(&self, instance: InstanceNo) -> Vec<(InstanceNo, u64)> {
        let prefetched = self
            .model
            .held
            .iter()
            .filter(|(key, lease)| key.0 == instance && lease.begun_until.is_none());
        prefetched.map(|(key, _)| *key).collect()
    }

    fn advance(&mut self, ms: u64) {
        self.rig.advance(ms);
        let expired = self.begun(None, self.rig.now.0);
        self.judge(&[], &expired);
    }

    fn restart(&mut self, from_saved: bool) {
        let bytes = if from_saved {
            self.model.durable = self.model.saved.1.clone();
            self.model.saved.0.clone()
        } else {
            self.rig.machine.cursor().encode()
        };
        let cursor = Cursor::decode(&bytes).expect("the own cursor is readable");
        for offset in 0..self.model.head {
            assert_eq!(
                cursor.is_finished(Offset(offset)),
                self.model.durable.finished.contains(&offset)
            );
        }
        let attempts: BTreeMap<u64, u32> = cursor.attempts.iter().map(|(o, &n)| (o.0, n)).collect();
        assert_eq!(attempts, self.model.durable.attempts);
        let policy = self.rig.machine.policy();
        self.rig.machine = AppDelivery::new(policy, cursor, Offset(self.model.head));
        self.model.held.clear();
        self.model.instances.clear();
        self.model.dead_lettering.clear();
        self.model.retry_at.clear();
    }

    fn connect(&mut self) -> InstanceNo {
        self.model.connected_ever += 1;
        let instance = InstanceNo(self.model.connected_ever);
        self.rig
            .machine
            .connect(instance)
            .expect("a new instance connects");
        self.model.instances.insert(instance, (0, false));
        instance
    }

    fn skip(&mut self, ahead: u64, more: u64) {
        let first = self.rig.floor() + ahead;
        let last = (first + more).min(self.model.head.saturating_sub(1));
        let skipped: Vec<u64> = (first..=last)
            .filter(|offset| *offset < self.model.head && !self.model.durable.finished.contains(offset))
            .filter(|&offset| !self.leased(offset) && !self.model.dead_lettering.contains(&offset))
            .collect();
        let done = self.rig.skip(first, first + more);
        assert_eq!(done, !skipped.is_empty());
        let told = self.rig.effects();
        assert_eq!(
            told,
            if done {
                vec![finished(last, Outcome::Skipped, None)]
            } else {
                Vec::new()
            }
        );
        for offset in skipped {
            self.finish(offset);
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Grow(count) => {
                self.model.head += count;
                self.rig.machine.extend_head(Offset(self.model.head));
            }
            Op::Connect if self.model.instances.len() < 4 => {
                self.connect();
            }
            Op::Connect => (),
            Op::Pause(paused) => self.rig.machine.set_paused(paused),
            Op::Attempts(max_attempts) => self.rig.machine.set_policy(Policy {
                max_attempts,
                ..policy()
            }),
            Op::Save => self.model.saved = (self.rig.machine.cursor().encode(), self.model.durable.clone()),
            Op::Restart(from_saved) => self.restart(from_saved),
            Op::Advance(ms) => self.advance(ms),
            Op::Skip(ahead, more) => {
                // A tick first: what is exhausted is a dead letter before, so that the model knows it.
                self.advance(0);
                self.skip(ahead, more);
            }
            Op::HandOver(count, size) => {
                for _ in 0..count {
                    if !self.hand_over(size) {
                        break;
                    }
                }
            }
            Op::DeadLettered(pick) => {
                let count = self.model.dead_lettering.len();
                if count > 0 {
                    let offset = *self
                        .model
                        .dead_lettering
                        .iter()
                        .nth(usize::from(pick) % count)
                        .expect("in range");
                    self.rig.dead_lettered(offset);
                }
            }
            Op::Disconnect(i)
            | Op::Close(i)
            | Op::Grant(i, ..)
            | Op::Begin(i, _)
            | Op::Ack(i, ..)
            | Op::Retry(i, ..)
            | Op::Reject(i, _)
            | Op::Release(i, ..)
            | Op::Extend(i, ..) => {
                if let Some(instance) = self.instance(i) {
                    self.apply_to(instance, op);
                }
            }
        }
        self.judge(&[], &[]);
    }

    fn apply_to(&mut self, instance: InstanceNo, op: Op) {
        let now = self.rig.now;
        match op {
            Op::Grant(_, bytes, messages) => self.rig.machine.grant(instance, bytes, messages),
            Op::Disconnect(_) => {
                let (begun, prefetched) = (self.begun(Some(instance), u64::MAX), self.prefetched(instance));
                self.rig.disconnect(instance);
                self.give_back(&prefetched);
                self.judge(&[], &begun);
                self.model.instances.remove(&instance);
            }
            Op::Close(_) => {
                self.rig.machine.close(instance, &mut self.rig.out);
                let prefetched = self.prefetched(instance);
                self.give_back(&prefetched);
                self.model.instances.get_mut(&instance).expect("connected").1 = true;
            }
            Op::Begin(_, through) => {
                let through = self.delivery(instance, through);
                self.rig.begin(instance, through);
                let deadline = now.0 + policy().lease_ms;
                for key in self.keys(instance, 1, through) {
                    self.model
                        .held
                        .get_mut(&key)
                        .expect("held")
                        .begun_until
                        .get_or_insert(deadline);
                }
            }
            Op::Ack(_, first, more) => {
                let first = self.delivery(instance, first);
                let (late, acked) = (
                    self.late(instance, first, first + more),
                    self.keys(instance, first, first + more),
                );
                assert_eq!(self.rig.ack(instance, first, first + more), late);
                self.judge(&acked, &[]);
            }
            Op::Release(_, first, more) => {
                let first = self.delivery(instance, first);
                let (late, released) = (
                    self.late(instance, first, first + more),
                    self.keys(instance, first, first + more),
                );
                assert_eq!(self.rig.release(instance, first, first + more), late);
                self.give_back(&released);
            }
            Op::Extend(_, first, more) => {
                let first = self.delivery(instance, first);
                let late =
                    self.rig
                        .machine
                        .extend(now, instance, DeliveryNo(first), DeliveryNo(first + more));
                assert!(
                    late.into_iter()
                        .map(|d| d.0)
                        .eq(self.late(instance, first, first + more))
                );
                for key in self.keys(instance, first, first + more) {
                    let lease = self.model.held.get_mut(&key).expect("held");
                    lease.begun_until = lease.begun_until.map(|_| now.0 + policy().lease_ms);
                }
            }
            Op::Retry(_, delivery, after_ms) => {
                let delivery = self.delivery(instance, delivery);
                let answer = self.rig.machine.retry(
                    now,
                    instance,
                    DeliveryNo(delivery),
                    after_ms,
                    SEED,
                    &mut self.rig.out,
                );
                assert_eq!(answer, self.expected_answer(instance, delivery));
                let failed = answer.ok().map(|()| (instance, delivery));
                self.judge(&[], failed.as_slice());
            }
            Op::Reject(_, delivery) => {
                let delivery = self.delivery(instance, delivery);
                let answer = self
                    .rig
                    .machine
                    .reject(now, instance, DeliveryNo(delivery), &mut self.rig.out);
                assert_eq!(answer, self.expected_answer(instance, delivery));
                if answer.is_ok() {
                    let lease = self.model.held.remove(&(instance, delivery)).expect("held");
                    assert_eq!(self.rig.effects().len(), 1);
                    assert!(self.model.dead_lettering.insert(lease.offset));
                }
            }
            Op::Grow(_)
            | Op::Connect
            | Op::HandOver(..)
            | Op::Skip(..)
            | Op::DeadLettered(_)
            | Op::Advance(_)
            | Op::Pause(_)
            | Op::Attempts(_)
            | Op::Save
            | Op::Restart(_) => unreachable!("not on an instance"),
        }
    }

    fn expected_answer(&self, instance: InstanceNo, delivery: u64) -> Result<(), VerdictError> {
        if delivery > self.model.instances[&instance].0 {
            Err(VerdictError::UnknownDelivery)
        } else if self.model.held.contains_key(&(instance, delivery)) {
            Ok(())
        } else {
            Err(VerdictError::NotHeld)
        }
    }

    /// Lets everything come to rest: one new instance acks whatever comes, dead letters become durable.
    fn drain(&mut self) {
        self.rig.machine.set_paused(false);
        for instance in self.model.instances.keys().copied().collect::<Vec<_>>() {
            self.apply_to(instance, Op::Disconnect(0));
        }
        let instance = self.connect();
        for _ in 0..1_000 {
            self.rig.machine.grant(instance, 1 << 20, 1_000);
            while self.hand_over(1) {}
            let given = self.model.instances[&instance].0;
            let acked = self.keys(instance, 1, given);
            self.rig
                .machine
                .ack(instance, DeliveryNo(1), DeliveryNo(given), &mut self.rig.out);
            self.judge(&acked, &[]);
            for offset in self.model.dead_lettering.clone() {
                self.rig.dead_lettered(offset);
                self.judge(&[], &[]);
            }
            match self.rig.machine.next_deadline() {
                Some(deadline) => self.advance(deadline.since(self.rig.now)),
                None if self.model.dead_lettering.is_empty() => break,
                None => (),
            }
        }
        assert_eq!(self.rig.floor(), self.model.head);
        assert_eq!(self.rig.machine.stats().backlog, 0);
        // `finish` refuses a second time, so this is exactly once.
        assert!(self.model.durable.finished.iter().copied().eq(0..self.model.head));
        assert_eq!(
            self.rig.machine.cursor(),
            Cursor {
                floor: Offset(self.model.head),
                ..Cursor::default()
            }
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_agree_with_the_reference(ops in prop::collection::vec(op(), 1..250)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
            invariants::check(&world.rig.machine).map_err(TestCaseError::fail)?;
        }
        world.drain();
    }
}
