//! Who gets what: every application everything once, filters and terms, memory and disk, slow and lost clients.

use std::{collections::BTreeSet, sync::Arc};

use fanin_bridge::topic::SubjectFilter;
use fanin_core::ids::TermsVersion;
use fanin_proto::v1::{Retry, Verdicts};
use parking_lot::Mutex;

use crate::harness::{Client, World, app, eventually, ids, policy, range};

/// (application, instance, id) of each confirmed delivery.
type Seen = Arc<Mutex<Vec<(&'static str, String, String)>>>;

/// Acks everything as it comes until told to stop, and notes what is confirmed.
async fn consume(mut client: Client, app: &'static str, seen: Seen) {
    client.credit(256 * 1024, 512).await;
    let mut taken = Vec::new();
    loop {
        while client.buffered.is_empty() {
            if !client.step().await.unwrap() {
                return;
            }
        }
        let deliveries = std::mem::take(&mut client.buffered);
        let bytes = deliveries
            .iter()
            .map(|d| prost::Message::encoded_len(d) as u64)
            .sum();
        client
            .ack(deliveries[0].delivery, deliveries[deliveries.len() - 1].delivery)
            .await;
        taken.extend(ids(&deliveries));
        client.until_confirmed(taken.len()).await;
        client.credit(bytes, deliveries.len() as u32).await;
        let instance = client.opened.instance.clone();
        seen.lock()
            .extend(ids(&deliveries).into_iter().map(|id| (app, instance.clone(), id)));
    }
}

#[tokio::test]
async fn two_applications_with_two_instances_get_everything_once() {
    let mut world = World::new(vec![app("billing"), app("shipping")]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    for name in ["billing", "shipping"] {
        for instance in ["a", "b"] {
            tokio::spawn(consume(world.open(name, instance).await, name, Arc::clone(&seen)));
        }
    }
    let mut published = BTreeSet::new();
    for _ in 0..20 {
        published.extend(world.publish(100).await);
    }
    eventually("all confirmed", || seen.lock().len() >= 4_000).await;
    world.until_done(1..=20).await;
    assert_eq!(world.topic.unfinished_batches(), 0);
    assert_eq!(world.cache.bytes(), (0, 0), "finished batches leave memory");
    let seen = seen.lock().clone();
    assert_eq!(seen.len(), 4_000, "something came twice");
    for name in ["billing", "shipping"] {
        let of_app: BTreeSet<String> = seen.iter().filter(|s| s.0 == name).map(|s| s.2.clone()).collect();
        assert_eq!(of_app, published);
        for instance in ["a", "b"] {
            assert!(
                seen.iter().any(|s| s.0 == name && s.1 == instance),
                "{name} {instance} got nothing"
            );
        }
    }
    let stats = world.topic.stats().await;
    for stats in stats {
        assert_eq!(
            (stats.acked, stats.deliveries, stats.redeliveries),
            (2_000, 2_000, 0)
        );
        assert_eq!(
            (stats.backlog_messages, stats.backlog_bytes, stats.in_flight),
            (0, 0, 0)
        );
        assert_eq!(stats.instances.len(), 2);
        assert!(
            stats
                .instances
                .iter()
                .all(|instance| instance.peer.pid == std::process::id())
        );
    }
}

#[tokio::test]
async fn a_slow_application_reads_from_disk_and_memory_stays_bounded() {
    let (tail, read) = (256 << 10, 128 << 10);
    let mut world = World::with_memory(vec![app("fast"), app("slow")], tail, read).await;
    let mut fast = world.open("fast", "f").await;
    fast.much_credit().await;
    let mut published = Vec::new();
    for _ in 0..40 {
        published.extend(world.publish_as(&vec![("orders.new", 1_000); 50]).await);
        assert!(world.cache.bytes().0 <= tail && world.cache.bytes().1 <= read);
        let got = fast.take(50).await;
        fast.ack(got[0].delivery, got[49].delivery).await;
    }
    fast.until_confirmed(2_000).await;
    assert!(
        world.cache.bytes().0 > 0,
        "what the slow one has not read is still of use"
    );

    let mut slow = world.open("slow", "s").await;
    slow.much_credit().await;
    let got = slow.take(2_000).await;
    assert_eq!(ids(&got), published, "in topic order");
    assert!(got.iter().all(|d| {
        d.payload
            .starts_with(format!("payload {} ", d.sequence).as_bytes())
    }));
    assert!(world.cache.bytes().0 <= tail && world.cache.bytes().1 <= read);
    slow.ack(1, 2_000).await;
    slow.until_confirmed(2_000).await;
    world.until_done(1..=40).await;
}

#[tokio::test]
async fn a_batch_larger_than_all_memory_is_served_from_disk() {
    let mut world = World::with_memory(vec![app("a")], 0, 0).await;
    let published = world.publish(300).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    assert_eq!(ids(&client.take(300).await), published);
    client.ack(1, 300).await;
    world.until_done([1]).await;
}

#[tokio::test]
async fn messages_that_another_node_won_are_not_delivered() {
    let mut world = World::new(vec![app("a")]).await;
    world.lose_first = true;
    let mut published = world.publish(5).await;
    // The first batch of one message is won by another node as a whole.
    assert!(world.publish(1).await.is_empty());
    published.extend(world.publish(5).await);
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    assert_eq!(ids(&client.take(8).await), published);
    client.ack(1, 2).await;
    client.until_confirmed(2).await;
    // From disk the same messages are chosen.
    let world = world.restart().await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    assert_eq!(ids(&client.take(6).await), published[2..]);
    client.ack(1, 6).await;
    world.until_done([1, 3]).await;
}

#[tokio::test]
async fn filters_and_terms_decide_what_an_application_gets() {
    let mut picky = app("picky");
    picky.filter = SubjectFilter::new(vec!["orders.*.eu".into()]);
    let mut late = app("late");
    late.since = None;
    let mut world = World::new(vec![picky, late]).await;
    let batch = [
        ("orders.1.eu", 10),
        ("orders.2.us", 10),
        ("orders.3.us", 10),
        ("orders.4.eu", 10),
    ];
    let first = world.publish_as(&batch).await;
    let mut picky = world.open("picky", "p").await;
    let mut late = world.open("late", "l").await;
    picky.much_credit().await;
    late.much_credit().await;
    assert_eq!(ids(&picky.take(2).await), [first[0].clone(), first[3].clone()]);
    picky.ack(1, 2).await;
    // The batch is done although one application never got any of it.
    world.until_done([1]).await;

    world.topic.set_since("late", Some(TermsVersion(2)));
    world.publish_as(&batch).await;
    world.terms = TermsVersion(2);
    let third = world.publish_as(&batch).await;
    assert_eq!(ids(&late.take(4).await), third);
    late.ack(1, 4).await;
    picky.take(4).await;
    picky.ack(3, 6).await;
    world.until_done(1..=3).await;
}

#[tokio::test]
async fn a_lost_connection_releases_what_was_not_begun_and_counts_what_was() {
    let mut world = World::new(vec![app("a")]).await;
    let published = world.publish(15).await;
    let mut first = world.open("a", "1").await;
    first.much_credit().await;
    first.take(15).await;
    first
        .verdicts(Verdicts {
            begun_through: 5,
            ..Verdicts::default()
        })
        .await;
    // A round trip through the application's task: the verdict is in.
    first.ack(1, 1).await;
    first.until_confirmed(1).await;
    drop(first);

    let mut second = world.open("a", "2").await;
    second.much_credit().await;
    let mut got = second.take(14).await;
    got.sort_by_key(|delivery| delivery.sequence);
    assert_eq!(ids(&got), published[1..]);
    let attempts: Vec<u32> = got.iter().map(|delivery| delivery.attempt).collect();
    assert_eq!(attempts, [2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_itself_only() {
    let mut world = World::new(vec![app("a")]).await;
    let stuck = world.open("a", "stuck").await;
    stuck.much_credit().await;
    let mut reading = world.open("a", "reading").await;
    reading.much_credit().await;
    // 60 MB: far more than slices, channel, windows and socket buffers of one connection hold.
    let mut total = 0;
    for _ in 0..20 {
        total += world.publish_as(&vec![("orders.new", 60_000); 50]).await.len();
    }
    let mut got = 0;
    while got < total * 2 / 3 {
        let some = reading.take(1).await;
        let more = std::mem::take(&mut reading.buffered);
        got += some.len() + more.len();
        reading
            .ack(some[0].delivery, more.last().unwrap_or(&some[0]).delivery)
            .await;
    }
    let stats = world.topic.stats().await.remove(0);
    let held = stats
        .instances
        .iter()
        .find(|instance| &*instance.name == "stuck")
        .unwrap()
        .in_flight;
    assert!(
        held * 60_000 < 20 << 20,
        "{held} messages wait for a client that does not read"
    );
    drop(stuck);
    while got < total {
        got += reading.take(1).await.len();
        got += std::mem::take(&mut reading.buffered).len();
    }
}

#[tokio::test]
async fn a_message_above_the_credit_goes_alone() {
    let mut world = World::new(vec![app("a")]).await;
    world
        .publish_as(&[("s", 100), ("s", 3_000_000), ("s", 100)])
        .await;
    let mut client = world.open("a", "i").await;
    client.credit(10_000, 100).await;
    let small = client.take(1).await;
    client.ack(1, 1).await;
    client
        .credit(prost::Message::encoded_len(&small[0]) as u64, 1)
        .await;
    let large = client.take(1).await;
    assert_eq!(large[0].payload.len(), 3_000_000);
    client.ack(2, 2).await;
    client.until_confirmed(2).await;
    client
        .credit(prost::Message::encoded_len(&large[0]) as u64, 1)
        .await;
    client.take(1).await;
}

#[tokio::test]
async fn retries_come_back_and_late_verdicts_are_answered() {
    let mut world = World::new(vec![app("a")]).await;
    world.publish(2).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(2).await;
    let retry = Retry {
        delivery: 1,
        after_ms: Some(0),
        reason: "not yet".into(),
    };
    client
        .verdicts(Verdicts {
            begun_through: 2,
            retries: vec![retry],
            ..Verdicts::default()
        })
        .await;
    let again = client.take(1).await;
    assert_eq!(
        (again[0].delivery, again[0].attempt, again[0].sequence),
        (3, 2, 1)
    );
    // The first delivery of it is over: its ack comes too late.
    client
        .verdicts(Verdicts {
            acks: range(1, 3),
            begun_through: 3,
            ..Verdicts::default()
        })
        .await;
    client.until_confirmed(2).await;
    assert_eq!((client.lost, client.confirmed), (vec![1], vec![2, 3]));
    world.until_done([1]).await;
}

#[tokio::test]
async fn a_lease_that_runs_out_moves_the_message_on() {
    let mut spec = app("a");
    spec.policy.lease_ms = 50;
    let mut world = World::new(vec![spec]).await;
    world.publish(1).await;
    let mut client = world.open("a", "i").await;
    client.much_credit().await;
    client.take(1).await;
    client
        .verdicts(Verdicts {
            begun_through: 1,
            ..Verdicts::default()
        })
        .await;
    let again = client.take(1).await;
    assert_eq!((again[0].attempt, client.lost.clone()), (2, vec![1]));
    client.ack(2, 2).await;
    world.until_done([1]).await;
}

#[tokio::test]
async fn pausing_holds_deliveries_back() {
    let mut world = World::new(vec![app("a"), app("b")]).await;
    assert!(world.topic.set_paused("a", true).await && !world.topic.set_paused("nobody", true).await);
    let mut paused = world.open("a", "i").await;
    let mut running = world.open("b", "i").await;
    paused.much_credit().await;
    running.much_credit().await;
    world.publish(10).await;
    running.take(10).await;
    let stats = world.topic.stats().await;
    assert_eq!(
        (stats[0].paused, stats[0].deliveries, stats[0].backlog_messages),
        (true, 0, 10)
    );
    world.topic.set_paused("a", false).await;
    paused.take(10).await;
}

#[tokio::test]
async fn the_gate_sees_instances_come_and_go() {
    let world = World::new(vec![app("a"), app("b")]).await;
    let gate = world.topic.connected_apps();
    let count = |name: &str| gate.borrow()[name].instances;
    assert_eq!((count("a"), count("b")), (0, 0));
    let absent_since = gate.borrow()["a"].since;
    let first = world.open("a", "1").await;
    let second = world.open("a", "2").await;
    eventually("both there", || count("a") == 2).await;
    let present_since = gate.borrow()["a"].since;
    assert!(present_since > absent_since);
    first.close().await;
    eventually("one left", || count("a") == 1).await;
    assert_eq!(gate.borrow()["a"].since, present_since);
    drop(second);
    eventually("none left", || count("a") == 0).await;
    assert!(gate.borrow()["a"].since > present_since);
    assert_eq!(count("b"), 0);
}

/// Not a measurement, but a figure to look at: one application, one instance, acks in frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_pass_quickly() {
    const MESSAGES: usize = 100_000;
    let mut spec = app("a");
    spec.policy = fanin_core::delivery::Policy {
        in_flight_max: 60_000,
        ..policy()
    };
    let mut world = World::with_memory(vec![spec], 1 << 30, 1 << 20).await;
    let mut client = world.open("a", "i").await;
    for _ in 0..MESSAGES / 250 {
        world.publish(250).await;
    }
    let started = std::time::Instant::now();
    client.credit(1 << 30, 20_000).await;
    let mut got = 0;
    while got < MESSAGES {
        let first = client.take(1).await;
        let more = std::mem::take(&mut client.buffered);
        got += 1 + more.len();
        client
            .ack(first[0].delivery, more.last().unwrap_or(&first[0]).delivery)
            .await;
        client.credit(1 << 20, 1 + more.len() as u32).await;
    }
    client.until_confirmed(MESSAGES).await;
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} deliveries/s acknowledged and confirmed");
    world.until_done(1..=(MESSAGES / 250) as u64).await;
}
