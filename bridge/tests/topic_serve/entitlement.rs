//! Goal: what an application is owed follows the terms, whatever the configuration names meanwhile. Method: applications come
//! and go between two starts on one log, and the owner frees what is told as done.

use fanin_bridge::topic::AppSpec;
use fanin_core::ids::{Offset, TermsVersion};

use crate::harness::{World, app, ids};

/// An application that is configured and not in the terms.
fn outside(name: &str) -> AppSpec {
    AppSpec {
        since: None,
        ..app(name)
    }
}

/// An application of the app set that is not configured for a while keeps its backlog, however often the node starts without
/// it and whatever the others finish; then it gets the rest, once and in order.
#[tokio::test]
async fn an_absent_application_keeps_what_it_has_not_finished() {
    let mut world = World::new(vec![app("a"), app("b")]).await;
    let first = world.publish(10).await;
    let second = world.publish(10).await;
    let third = world.publish(10).await;
    let mut b = world.open("b", "i").await;
    b.much_credit().await;
    b.take(15).await;
    b.ack(1, 15).await;
    b.until_confirmed(15).await;
    drop(b);

    world.apps = vec![app("a")];
    world.absent = vec!["b".to_owned()];
    let mut world = world.restart().await;
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    assert_eq!(
        ids(&a.take(30).await),
        [first, second.clone(), third.clone()].concat()
    );
    a.ack(1, 30).await;
    a.until_confirmed(30).await;
    let fourth = world.publish(10).await;
    a.take(10).await;
    a.ack(31, 40).await;
    a.until_confirmed(10 + 30).await;
    world.until_done([1]).await;
    world.release([1]).await;
    let mut world = world.restart().await;
    assert_eq!(world.topic.head(), Offset(40));
    assert_eq!(world.topic.unfinished_batches(), 3);

    world.apps = vec![app("a"), app("b")];
    world.absent = Vec::new();
    let world = world.restart().await;
    let mut b = world.open("b", "i").await;
    b.much_credit().await;
    let rest = [&second[5..], &third, &fourth].concat();
    assert_eq!(ids(&b.take(25).await), rest);
    b.ack(1, 25).await;
    b.until_confirmed(25).await;
    world.until_done(2..=4).await;
}

/// An application that the terms do not name is owed nothing: it may go and come back behind batches that were freed without
/// it, and receives from the terms on that name it.
#[tokio::test]
async fn an_application_outside_the_terms_starts_at_the_head() {
    let mut world = World::new(vec![app("a"), outside("c")]).await;
    world.publish(10).await;
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    a.take(10).await;
    a.ack(1, 10).await;
    // Done for both: the application outside the terms has a cursor of its own now.
    world.until_done([1]).await;
    world.release([1]).await;

    world.apps = vec![app("a")];
    let mut world = world.restart().await;
    world.publish(10).await;
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    a.take(10).await;
    a.ack(1, 10).await;
    world.until_done([2]).await;
    world.release([2]).await;

    world.apps = vec![app("a"), outside("c")];
    let mut world = world.restart().await;
    let mut c = world.open("c", "i").await;
    c.much_credit().await;
    let before = world.publish(10).await;
    world.topic.set_since("c", Some(TermsVersion(2)));
    world.terms = TermsVersion(2);
    let entitled = world.publish(10).await;
    assert_eq!(ids(&c.take(10).await), entitled);
    let mut a = world.open("a", "i").await;
    a.much_credit().await;
    assert_eq!(ids(&a.take(20).await), [before, entitled].concat());
}

/// How far a node is ahead is counted by the applications of the terms: one that is owed nothing has always finished
/// everything and would keep the node pulling.
#[tokio::test]
async fn an_application_outside_the_terms_does_not_count_as_the_fastest() {
    let mut world = World::new(vec![app("a"), app("b")]).await;
    world.publish(100).await;
    let mut b = world.open("b", "i").await;
    b.much_credit().await;
    b.take(30).await;
    b.ack(1, 30).await;
    b.until_confirmed(30).await;
    world.apps.push(outside("c"));
    let world = world.restart().await;
    assert_eq!(world.topic.least_backlog(), 70, "b is the fastest that counts");
    world.topic.set_since("b", None);
    assert_eq!(world.topic.least_backlog(), 100);
    world.topic.set_since("a", None);
    assert_eq!(world.topic.least_backlog(), 0, "nobody is served");
    // In the terms it counts, and has nothing waiting.
    for served in ["a", "b", "c"] {
        world.topic.set_since(served, Some(TermsVersion(1)));
    }
    assert_eq!(world.topic.least_backlog(), 0);
}
