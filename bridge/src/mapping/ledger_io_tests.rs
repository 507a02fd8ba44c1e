//! Goal: what a tail finds wrong reaches the driver as it should, and a doubt reaches the tail. Method: a tail by script.

use fanin_hub::LedgerError;
use futures_util::future::BoxFuture;

use super::*;

/// Says what it is given, and then nothing more; told to verify, it says so with an event.
struct Scripted {
    says: Vec<Result<Vec<TailEvent>, TailError>>,
    verified: u64,
}

impl Scripted {
    fn saying(says: Vec<Result<Vec<TailEvent>, TailError>>) -> Box<dyn LedgerTail> {
        Box::new(Scripted { says, verified: 0 })
    }
}

impl LedgerTail for Scripted {
    fn next_ready(&mut self) -> BoxFuture<'_, Result<Vec<TailEvent>, TailError>> {
        Box::pin(async {
            if self.says.is_empty() {
                return std::future::pending().await;
            }
            self.says.remove(0)
        })
    }

    fn lag(&self) -> u64 {
        self.verified
    }

    fn verify(&mut self) {
        self.verified += 1;
        self.says.push(Ok(opened()));
    }
}

fn opened() -> Vec<TailEvent> {
    let (next, last) = (LedgerSeq(8), LedgerSeq(7));
    vec![TailEvent::Opened { next, last }]
}

fn regrown() -> TailError {
    TailError::Regrown {
        stream: "FANIN-m".to_owned(),
        seq: LedgerSeq(7),
        read_ns: 10,
        found_ns: 20,
    }
}

fn shrunk() -> TailError {
    TailError::Shrunk {
        stream: "FANIN-m".to_owned(),
        last: LedgerSeq(5),
        read: LedgerSeq(7),
    }
}

#[tokio::test]
async fn another_record_in_the_place_of_one_that_was_read_is_believed_at_once() {
    let (sender, mut events) = mpsc::channel(8);
    let says = vec![Ok(opened()), Err(regrown())];
    let _tail = TailTask::start(Scripted::saying(says), (3, TailUse::Fold), sender);
    let first = events.recv().await;
    assert!(
        matches!(&first, Some(Event::Tail { number: 3, events, .. }) if *events == opened()),
        "{first:?}"
    );
    let halt = Halt::LedgerRegrown {
        position: LedgerSeq(7),
        read_ns: 10,
        found_ns: 20,
    };
    let told = events.recv().await;
    assert!(
        matches!(&told, Some(Event::LedgerBroken { number: 3, halt: found }) if *found == halt),
        "{told:?}"
    );
    assert!(events.recv().await.is_none(), "it has ended");
}

#[tokio::test]
async fn a_shorter_ledger_is_only_doubted_at_first_sight() {
    let (sender, mut events) = mpsc::channel(8);
    let _tail = TailTask::start(Scripted::saying(vec![Err(shrunk())]), (1, TailUse::Fold), sender);
    let told = events.recv().await;
    assert!(
        matches!(told, Some(Event::LedgerDoubted { number: 1 })),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_doubt_has_the_tail_verify() {
    let (sender, mut events) = mpsc::channel(8);
    let unreadable = || TailError::Ledger {
        source: LedgerError::Missing {
            stream: "FANIN-m".to_owned(),
        },
    };
    let says = vec![Err(unreadable()), Ok(opened())];
    let tail = TailTask::start(Scripted::saying(says), (1, TailUse::Fold), sender);
    let lag = async |events: &mut mpsc::Receiver<Event>| match events.recv().await {
        Some(Event::Tail { lag, .. }) => lag,
        other => panic!("{other:?}"),
    };
    assert_eq!(lag(&mut events).await, 0);
    tail.verify();
    assert_eq!(lag(&mut events).await, 1);
}
