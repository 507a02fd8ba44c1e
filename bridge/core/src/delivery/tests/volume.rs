//! Goal: the hot path does constant work per message. Method: a million messages over two instances in batches; a
//! quadratic step anywhere would not end in the time of a test run.

use super::*;

const MESSAGES: u64 = 1_000_000;
const BATCH: u64 = 256;

#[test]
fn a_million_messages_over_two_instances() {
    let mut machine = AppDelivery::new(policy(), Cursor::default(), Offset(0));
    for instance in [ONE, TWO] {
        machine.connect(instance).expect("a new instance connects");
        machine.grant(instance, 1 << 20, 1_024);
    }
    let mut out = Vec::new();
    let mut now = Tick(0);
    let mut acked_through = [0, 0];
    let mut finished = 0;
    while finished < MESSAGES {
        now = now.after(1);
        machine.extend_head(Offset(MESSAGES.min(machine.floor().0 + 4 * BATCH)));
        while let Some(candidate) = machine.poll_next(now) {
            machine
                .hand_over(now, candidate.offset, 1_024)
                .expect("credit covers it");
        }
        // Each instance begins and acks one batch, so that a second stays prefetched with it.
        for (instance, acked) in [ONE, TWO].into_iter().zip(&mut acked_through) {
            let given = machine.last_delivery(instance).expect("connected").0;
            let through = given.min(*acked + BATCH);
            machine.begin(now, instance, DeliveryNo(through));
            let late = machine.ack(instance, DeliveryNo(*acked + 1), DeliveryNo(through), &mut out);
            assert!(late.is_empty());
            machine.grant(
                instance,
                (through - *acked) * 1_024,
                u32::try_from(through - *acked).expect("small"),
            );
            *acked = through;
        }
        finished += out.len() as u64;
        out.clear();
    }
    assert_eq!(finished, MESSAGES);
    assert_eq!(machine.floor(), Offset(MESSAGES));
    assert!(
        acked_through[0].abs_diff(acked_through[1]) <= BATCH,
        "shared evenly: {acked_through:?}"
    );
    assert_eq!(machine.next_deadline(), None);
    invariants::check(&machine).expect("the invariants hold");
}
