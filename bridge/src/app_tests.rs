//! Goal: the process ends when a mapping's loop does, with the code and the exit code for why, and not otherwise. Method: loops
//! that end as told.

use fanin_core::ids::LedgerSeq;
use fanin_hub::SourceError;
use fanin_store::OpenError;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;
use crate::mapping::view::{Shared, State};

/// A supervisor that notices nothing is found by this.
const PATIENCE: Duration = Duration::from_secs(20);

type Loops = JoinSet<(String, Result<(), DriverError>)>;

/// A mapping's loop that runs for ever.
fn healthy(loops: &mut Loops) {
    loops.spawn(std::future::pending());
}

#[tokio::test]
async fn a_panic_in_a_mappings_loop_ends_the_process() {
    let mut loops = Loops::new();
    healthy(&mut loops);
    loops.spawn(async { panic!("a defect, on purpose") });
    let never = CancellationToken::new();
    let ended = tokio::time::timeout(PATIENCE, supervise(&mut loops, &never, &never)).await;
    let Ok(Err(error @ AppError::Crashed(_))) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!((error.code(), error.exit_code()), ("FAN-5014", 1));
    assert!(error.to_string().starts_with("FAN-5014: "), "{error}");
}

#[tokio::test]
async fn a_mappings_failure_ends_the_process() {
    let mut loops = Loops::new();
    healthy(&mut loops);
    // One that came to its regular end is no reason.
    loops.spawn(async { ("idle".to_owned(), Ok(())) });
    loops.spawn(async { ("orders".to_owned(), Err(DriverError::Store(CommitError::Closed))) });
    let never = CancellationToken::new();
    let ended = tokio::time::timeout(PATIENCE, supervise(&mut loops, &never, &never)).await;
    assert!(
        matches!(&ended, Ok(Err(error @ AppError::Driver { mapping, .. })) if mapping == "orders" && error.exit_code() == 74),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_server_that_ends_by_itself_ends_the_process() {
    let mut loops = Loops::new();
    healthy(&mut loops);
    let (deaf, never) = (CancellationToken::new(), CancellationToken::new());
    deaf.cancel();
    let ended = tokio::time::timeout(PATIENCE, supervise(&mut loops, &deaf, &never)).await;
    let Ok(Err(error @ AppError::Deaf)) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!((error.code(), error.exit_code()), ("FAN-5029", 1));
    assert!(crate::cli::errors::lookup(error.code()).is_some());
}

#[tokio::test]
async fn only_a_shutdown_ends_it_in_peace() {
    let mut loops = Loops::new();
    healthy(&mut loops);
    loops.spawn(async { ("idle".to_owned(), Ok(())) });
    let (never, shutdown) = (CancellationToken::new(), CancellationToken::new());
    let mut supervised = Box::pin(supervise(&mut loops, &never, &shutdown));
    for _ in 0..3 {
        let early = futures_util::poll!(&mut supervised);
        assert!(early.is_pending(), "{early:?}");
        // The other loop comes to its end meanwhile.
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    assert!(supervised.await.is_ok());
}

/// A ledger that has lost this node's epoch is for the operator: not retried by whoever starts the process.
#[test]
fn a_lost_epoch_has_its_code_exit_code_and_cure() {
    let source = JoinError::LedgerShrank {
        stream: "FANIN-orders".to_owned(),
        epoch: LedgerSeq(7),
    };
    assert!(!source.retryable());
    let error = AppError::Join {
        mapping: "orders".to_owned(),
        source,
    };
    assert_eq!((error.code(), error.exit_code()), ("FAN-4019", 78));
    let text = error.to_string();
    assert!(
        text.contains("FANIN-orders") && text.contains("epoch 7") && text.contains("restore the hub"),
        "{text}"
    );
}

/// A source that is gone ends the start of a node that never had it, and of no other; everything else does as before.
#[test]
fn a_missing_source_ends_a_first_start_only() {
    let missing = || {
        JoinError::Source(SourceError::Missing {
            stream: "ORDERS".to_owned(),
        })
    };
    assert!(!missing().retryable());
    assert!(matches!(
        missing().verdict(false),
        Err(JoinError::Source(SourceError::Missing { .. }))
    ));
    assert!(missing().verdict(true).is_ok());
    let unknown = || JoinError::UnknownEpoch {
        node: "n1".to_owned(),
    };
    assert!(unknown().verdict(false).is_err() && unknown().verdict(true).is_err());
}

/// What failed inside a mapping has its own code, cure and place in `fanin errors`, not those of the mapping. Method: the code
/// is the one that the text names, for every kind.
#[test]
fn a_mappings_errors_have_their_own_codes() {
    use fanin_core::ids::{BatchNo, Offset};

    use crate::stage::StageDecodeError;
    use crate::topic::{StartError, TopicFailure};

    let missing = StartError::Missing {
        from: Offset(1),
        to: Offset(2),
    };
    let disk = [
        DiskError::Value {
            name: "m/1/epochs".to_owned(),
            what: "nonsense".to_owned(),
        },
        DiskError::Record {
            source: StageDecodeError::Truncated,
        },
        DiskError::Orphan { batch: BatchNo(7) },
        DiskError::Damaged {
            segment: 1,
            position: 2,
            what: "a cursor".to_owned(),
        },
    ];
    let starts = disk
        .map(MappingError::Disk)
        .into_iter()
        .chain([MappingError::Topic(missing)]);
    let starts = starts.map(|source| AppError::Mapping {
        mapping: "orders".to_owned(),
        source,
    });
    let ends = [
        DriverError::Store(CommitError::Closed),
        DriverError::Unknown(BatchNo(7)),
        DriverError::Topic(TopicFailure::Missing(Offset(3))),
    ];
    let ends = ends.map(|source| AppError::Driver {
        mapping: "orders".to_owned(),
        source,
    });
    let mut codes = Vec::new();
    for error in starts.chain(ends) {
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("mapping orders: {}: ", error.code())),
            "{}: {text}",
            error.code()
        );
        assert!(crate::cli::errors::lookup(error.code()).is_some());
        codes.push(error.code());
    }
    assert_eq!(
        codes,
        [
            "FAN-4003", "FAN-4003", "FAN-4004", "FAN-4044", "FAN-4005", "FAN-4002", "FAN-4005", "FAN-4005"
        ]
    );
}

/// Goal: what the log refuses of a configuration is told as such. Method: both refusals.
#[test]
fn a_quota_that_the_log_refuses_is_a_mistake_of_the_configuration() {
    for refused in [
        OpenError::QuotaTooSmall { quota: 1, least: 2 },
        OpenError::ReserveTooLarge { reserve: 2, quota: 3 },
    ] {
        let error = AppError::Open(refused);
        assert_eq!((error.code(), error.exit_code()), ("FAN-1008", 78), "{error}");
    }
}

/// Goal: the gRPC health of a topic is whether its mapping delivers. Method: a mapping's view goes through states, asked of the
/// health service after each.
#[tokio::test]
async fn the_health_of_a_topic_follows_its_mapping() {
    let (reporter, service) = tonic_health::server::health_reporter();
    let mut client = HealthClient::new(service);
    let view = Shared::default();
    tokio::spawn(follow(
        TopicHealth(reporter),
        "orders".to_owned(),
        view.delivers(),
    ));
    for (state, delivery, expected) in [
        (State::Starting, "", ServingStatus::NotServing),
        (State::Joining, "exactly_once", ServingStatus::NotServing),
        (State::Active, "exactly_once", ServingStatus::Serving),
        // Held before it joined.
        (State::Halted, "", ServingStatus::NotServing),
        (State::Gated, "exactly_once", ServingStatus::Serving),
        (State::Fenced, "exactly_once", ServingStatus::NotServing),
        (State::Halted, "exactly_once", ServingStatus::Serving),
        (State::Damaged, "exactly_once", ServingStatus::NotServing),
    ] {
        view.update(|view| {
            view.state = state;
            view.delivery = delivery.to_owned();
        });
        let told = async {
            loop {
                let service = format!("{}/orders", crate::serve::SERVICE);
                let answer = client.check(HealthCheckRequest { service }).await;
                // Before the first word of a topic it is not known.
                if answer.is_ok_and(|answer| answer.into_inner().status() == expected) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, told).await.is_ok(),
            "{state:?} is not told"
        );
    }
}
