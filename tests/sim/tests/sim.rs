//! Goal: one seed gives one history; the simulation finds what breaks the rules; a short slice of seeds of each kind holds.
//! Method: runs of the real mapping on the simulated hub, disk, network and clock. `cargo xtask sim` runs many more.

use fanin_sim::dice::Dice;
use fanin_sim::faults::Fault;
use fanin_sim::plan::{Kind, Plan};
use fanin_sim::report::{Campaign, explain};
use fanin_sim::schedule::run;
use fanin_sim::shrink::shrink;

/// Seeds of each kind of plan.
const SEEDS: u64 = 10;

fn slice(kind: Kind) -> std::io::Result<()> {
    let campaign = Campaign {
        from: 1,
        seeds: SEEDS,
        time: None,
        jobs: 1,
        kind: Some(kind),
    };
    let report = campaign.run(&|_| ())?;
    if let Some(failure) = report.failures.first() {
        panic!("{}", explain(failure)?);
    }
    // A slice in which nothing happened would prove nothing.
    assert!(report.trouble() > 100 * SEEDS, "{}", report.text());
    assert!(report.deliveries > 100 * SEEDS, "{}", report.text());
    assert_eq!(report.unplayed(), [], "{}", report.text());
    Ok(())
}

#[test]
fn honest_hubs() {
    slice(Kind::Honest).unwrap();
}

#[test]
fn malicious_hubs() {
    slice(Kind::Malicious).unwrap();
}

/// A hub that confirms before it syncs, and loses power.
#[test]
fn lazy_hubs() {
    slice(Kind::Lazy).unwrap();
}

#[test]
fn broken_hubs() {
    slice(Kind::Broken).unwrap();
}

#[test]
fn copied_disks() {
    slice(Kind::Identity).unwrap();
}

#[test]
fn one_seed_gives_one_history() {
    for seed in 1..=3 {
        let plan = Plan::draw(seed, None);
        let (first, second) = (run(seed, &plan, true).unwrap(), run(seed, &plan, true).unwrap());
        assert!(
            first.trace.len() > 10_000,
            "a history of {} bytes",
            first.trace.len()
        );
        assert!(
            first.trace == second.trace,
            "seed {seed}: {:?}",
            first
                .trace
                .lines()
                .zip(second.trace.lines())
                .find(|(first, second)| first != second)
        );
        let untraced = run(seed, &plan, false).unwrap();
        assert_eq!(
            (untraced.faults, untraced.simulated_ms, untraced.deliveries),
            (first.faults, first.simulated_ms, first.deliveries),
            "writing the history down changes it"
        );
    }
}

/// Plans in which nothing goes wrong but these, so often an hour or in ten thousand operations: each has found a fault once.
fn only(kind: Kind, rates: &[(Fault, u64)]) -> std::io::Result<()> {
    for seed in 1..=8 {
        let mut plan = Plan::draw(seed, Some(kind));
        plan.rates = rates.iter().copied().collect();
        plan.messages = plan.messages.min(300);
        let outcome = run(seed, &plan, false)?;
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:?}\n{plan}",
            outcome.violations
        );
    }
    Ok(())
}

/// A node that had nothing left to append when the ledger was full never heard that there was room again.
#[test]
fn a_ledger_that_was_full_is_used_again() {
    only(Kind::Honest, &[(Fault::LedgerFull, 200)]).unwrap();
}

/// A restart forgot that the ledger had lost its end: messages were delivered again as repairs.
#[test]
fn a_ledger_that_lost_its_end_is_not_taken_up_in_silence() {
    only(Kind::Broken, &[(Fault::LedgerRollback, 60)]).unwrap();
}

/// The ledger loses its end and grows again under readers whose connections go on: a node that hears where its own record stands
/// halts.
#[test]
fn a_ledger_that_lost_its_end_under_open_connections_is_not_gone_on_with() {
    only(Kind::Broken, &[(Fault::LedgerRollbackUnseen, 120)]).unwrap();
}

/// A node met a checkpoint of the half of a split hub that it had not read, and went on with it.
#[test]
fn a_ledger_of_another_half_is_not_taken_up_in_silence() {
    let mut rates = vec![(Fault::LedgerSplit, 60), (Fault::Crash, 60)];
    only(Kind::Broken, &rates).unwrap();
    rates.push((Fault::OneWayOut, 60));
    only(Kind::Broken, &rates).unwrap();
}

/// A whole plan as it was drawn for a seed when it found a fault: without what was not played then.
fn whole(kind: Kind, seed: u64) -> std::io::Result<()> {
    let mut plan = Plan::draw(seed, Some(kind));
    plan.rates.remove(&Fault::LedgerRollbackUnseen);
    plan.rates.remove(&Fault::SourceRollback);
    let outcome = run(seed, &plan, false)?;
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    Ok(())
}

/// A checkpoint of another history covered what a node had read and showed neither its epoch nor a batch it had decided: the
/// node went on with it, and what it had published stood in no ledger (I5).
#[test]
fn seed_374_a_checkpoint_that_does_not_know_its_reader_is_not_taken_up() {
    whole(Kind::Broken, 374).unwrap();
}

/// A source that is restored from a copy gives sequences away again; what has them by then is told.
#[test]
fn a_source_that_was_rolled_back_is_told() {
    only(Kind::Broken, &[(Fault::SourceRollback, 120)]).unwrap();
}

/// What the consumer passes without delivering it is found and repaired, whether anybody was to redeliver it or not.
#[test]
fn skipped_messages_are_repaired() {
    only(Kind::Malicious, &[(Fault::MessagesSkipped, 200)]).unwrap();
}

/// A dead letter that was durable before the cursor that is past it was made a second time.
#[test]
fn a_dead_letter_is_made_once() {
    let rates = [
        (Fault::Retry, 2_000),
        (Fault::InstanceDies, 100),
        (Fault::CrashAtWrite, 100),
        (Fault::TornCrash, 9_000),
    ];
    only(Kind::Honest, &rates).unwrap();
}

/// A disk rolled back within one epoch is the one theft that nobody can see: so where it may happen, and exactly once is
/// demanded all the same, the oracle has something to find.
#[test]
fn a_duplicate_is_found_and_its_plan_shrinks() {
    let found = (1..=40).find_map(|seed| {
        let mut plan = Plan::draw(seed, Some(Kind::Identity));
        plan.kind = Kind::Malicious;
        plan.rates.insert(Fault::DiskCloned, 120);
        let outcome = run(seed, &plan, false).unwrap();
        let is_found = outcome.violations.iter().any(|v| v.contains("DUPLICATE"));
        is_found.then_some((seed, plan, outcome))
    });
    let (seed, plan, outcome) = found.expect("a clone that delivers what its original delivered");
    let (small, still) = shrink(seed, &plan, outcome).unwrap();
    assert!(!still.violations.is_empty());
    assert!(small.rates.len() < plan.rates.len(), "{small}");
    assert!(small.rate(Fault::DiskCloned) > 0, "{small}");
}

#[test]
fn purposes_have_numbers_of_their_own() {
    let numbers = |seed, purpose| {
        let dice = Dice::of(seed, purpose);
        [dice.next(), dice.next()]
    };
    assert_eq!(numbers(1, 2), numbers(1, 2));
    assert_ne!(numbers(1, 2), numbers(1, 3));
    assert_ne!(numbers(1, 2), numbers(2, 2));
}
