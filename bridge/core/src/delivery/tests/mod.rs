//! Tests of the delivery machine. Each drives the public interface only and checks the invariants as it goes.

mod credit;
mod cursor;
mod random;
mod redelivery;
mod restart;
mod told;
mod verdicts;
mod volume;
mod window;

use super::{AppDelivery, Backoff, Candidate, Cursor, Effect, HandOver, Outcome, Policy, invariants};
use crate::ids::{DeliveryNo, InstanceNo, Offset, Tick};

const ONE: InstanceNo = InstanceNo(1);
const TWO: InstanceNo = InstanceNo(2);
const SEED: u64 = 7;

/// Three attempts, waits of 100 and 200 ms without jitter, leases of 1 s.
fn policy() -> Policy {
    Policy {
        max_attempts: 3,
        backoff: Backoff {
            initial_ms: 100,
            factor_milli: 2_000,
            max_ms: 1_000,
            jitter_percent: 0,
        },
        lease_ms: 1_000,
        in_flight_max: 1_000_000,
        instance_in_flight_max: 1_000_000,
    }
}

/// A machine with a clock, which collects effects.
struct Rig {
    machine: AppDelivery,
    now: Tick,
    out: Vec<Effect>,
}

impl Rig {
    /// `head` messages, and instance 1 with ample credit.
    fn new(head: u64) -> Rig {
        let mut rig = Rig::with(policy(), Cursor::default(), head);
        rig.connect(ONE);
        rig
    }

    fn with(policy: Policy, cursor: Cursor, head: u64) -> Rig {
        let machine = AppDelivery::new(policy, cursor, Offset(head));
        let rig = Rig {
            machine,
            now: Tick(10_000),
            out: Vec::new(),
        };
        rig.check();
        rig
    }

    fn connect(&mut self, instance: InstanceNo) {
        self.machine.connect(instance).expect("a new instance connects");
        self.machine.grant(instance, 1 << 30, 65_536);
    }

    fn check(&self) {
        invariants::check(&self.machine).expect("the invariants hold");
    }

    /// Effects since the last call.
    fn effects(&mut self) -> Vec<Effect> {
        self.check();
        std::mem::take(&mut self.out)
    }

    fn next(&mut self, size: u64) -> Option<(Candidate, HandOver)> {
        let candidate = self.machine.poll_next(self.now)?;
        let given = self.machine.hand_over(self.now, candidate.offset, size)?;
        assert_eq!(given.attempt, candidate.attempt);
        self.check();
        Some((candidate, given))
    }

    /// Hands over as much as goes; returns the offsets in order.
    fn hand_over_all(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.next(1))
            .map(|(candidate, _)| candidate.offset.0)
            .collect()
    }

    fn begin(&mut self, instance: InstanceNo, through: u64) {
        self.machine.begin(self.now, instance, DeliveryNo(through));
        self.check();
    }

    fn ack(&mut self, instance: InstanceNo, first: u64, last: u64) -> Vec<u64> {
        let late = self
            .machine
            .ack(instance, DeliveryNo(first), DeliveryNo(last), &mut self.out);
        self.check();
        late.into_iter().map(|delivery| delivery.0).collect()
    }

    fn release(&mut self, instance: InstanceNo, first: u64, last: u64) -> Vec<u64> {
        let late = self
            .machine
            .release(instance, DeliveryNo(first), DeliveryNo(last), &mut self.out);
        self.check();
        late.into_iter().map(|delivery| delivery.0).collect()
    }

    fn retry(&mut self, delivery: u64, after_ms: Option<u64>) {
        let delivery = DeliveryNo(delivery);
        self.machine
            .retry(self.now, ONE, delivery, after_ms, SEED, &mut self.out)
            .expect("the delivery is held");
        self.check();
    }

    fn disconnect(&mut self, instance: InstanceNo) {
        self.machine.disconnect(self.now, instance, SEED, &mut self.out);
        self.check();
    }

    fn advance(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        self.machine.tick(self.now, SEED, &mut self.out);
        self.check();
    }

    fn skip(&mut self, first: u64, last: u64) -> bool {
        let finished = self.machine.skip(Offset(first), Offset(last), &mut self.out);
        self.check();
        finished
    }

    fn dead_lettered(&mut self, offset: u64) {
        self.machine.dead_lettered(Offset(offset), &mut self.out);
        self.check();
    }

    fn floor(&self) -> u64 {
        self.machine.floor().0
    }
}

fn finished(offset: u64, outcome: Outcome, by: Option<(InstanceNo, u64)>) -> Effect {
    let instance = by.map(|(instance, delivery)| (instance, DeliveryNo(delivery)));
    Effect::Finished {
        offset: Offset(offset),
        outcome,
        instance,
    }
}
