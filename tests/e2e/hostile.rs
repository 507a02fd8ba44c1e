//! Hostile local clients: they take no memory without bound, stall nobody else, and what they get wrong stays theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::topic_service_client::TopicServiceClient;
use fanin_proto::v1::{
    Credit, DeliveryRange, Open, Reject, Retry, SubscribeRequest, SubscribeResponse, Verdicts,
};
use fanin_tests::apps::{AppInstance, AppOptions, Decision};
use fanin_tests::process::Bridge;
use fanin_tests::wait::{eventually, patience};
use futures_util::{StreamExt, future::join_all, stream};
use rustix::process::Resource;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::cluster::{Cluster, LONG, TOPIC};

/// What every HTTP/2 client begins with: the preface, and settings that change nothing.
pub(crate) const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Connections of the flood; far above what the bridge takes.
const FLOOD: usize = 3_000;
/// Files that the bridge may have open at most: its connections, and what it needs itself.
const FILES_MAX: usize = 1_024 + 256;
/// Memory that the bridge may have, its heap and the stacks of its threads: the system gives it no more, which ends it.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
/// For so long no application may go without a message while the watch could see it.
const GAP_MAX: Duration = Duration::from_secs(2);
/// How often the watch looks.
const BEAT: Duration = Duration::from_millis(20);

/// One HTTP/2 frame.
pub(crate) fn frame(kind: u8, flags: u8, call: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(call.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The HEADERS frame that begins a call of this path.
pub(crate) fn begin(call: u32, path: &str) -> Vec<u8> {
    // `:method POST` and `:scheme http` from HPACK's static table; the rest literally, without an index.
    let mut block = vec![0x83, 0x86];
    for (indexed, name, value) in [
        (4_u8, "", path),
        (1, "", "x"),
        (0, "content-type", "application/grpc"),
        (0, "te", "trailers"),
    ] {
        block.push(indexed);
        if indexed == 0 {
            block.push(name.len() as u8);
            block.extend(name.bytes());
        }
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    frame(1, 0x4, call, &block)
}

pub(crate) const SUBSCRIBE: &str = "/fanin.v1.TopicService/Subscribe";

/// Connects and writes; `None` when the bridge closes meanwhile. Never reads: the answers fill the bridge's buffers.
pub(crate) async fn connected(bridge: &Bridge, bytes: &[u8]) -> Option<UnixStream> {
    let mut socket = UnixStream::connect(bridge.socket_path()).await.ok()?;
    let written = tokio::time::timeout(patience(Duration::from_secs(5)), socket.write_all(bytes)).await;
    // A connection on which nothing moves any more is kept as it is.
    match written {
        Ok(Ok(())) | Err(_) => Some(socket),
        Ok(Err(_)) => None,
    }
}

/// Waits until the bridge has closed the connection, whatever it says before.
async fn until_closed(mut socket: UnixStream) {
    let ended = tokio::time::timeout(patience(LONG), async {
        let mut answer = vec![0; 64 * 1024];
        while socket.read(&mut answer).await.is_ok_and(|read| read > 0) {}
    });
    assert!(
        ended.await.is_ok(),
        "the bridge keeps a connection that breaks the rules"
    );
}

pub(crate) async fn channel(bridge: &Bridge) -> Channel {
    Endpoint::from_shared(bridge.socket())
        .unwrap()
        .connect()
        .await
        .unwrap()
}

pub(crate) fn open(topic: &str, app: &str) -> Request {
    Request::Open(Open {
        topic: topic.to_owned(),
        app: app.to_owned(),
        ..Open::default()
    })
}

/// A call that is open until this is dropped. What it is sent is read by nobody but who asks for it.
pub(crate) struct Call {
    responses: Streaming<SubscribeResponse>,
    // Ends the requests: a client library holds a call of which only the answers are dropped.
    _end: DropGuard,
}

/// A call with these requests whose requests' side stays open.
pub(crate) async fn call(channel: &Channel, requests: Vec<Request>) -> Result<Call, Status> {
    let requests = requests.into_iter().map(|request| SubscribeRequest {
        request: Some(request),
    });
    let end = CancellationToken::new();
    let requests = stream::iter(requests)
        .chain(stream::pending())
        .take_until(end.clone().cancelled_owned());
    let end = end.drop_guard();
    let answered = TopicServiceClient::new(channel.clone())
        .subscribe(requests)
        .await?;
    Ok(Call {
        responses: answered.into_inner(),
        _end: end,
    })
}

/// The status that ends a call which the bridge must end.
pub(crate) async fn refused(channel: &Channel, requests: Vec<Request>) -> Status {
    let ended = tokio::time::timeout(patience(LONG), async {
        let mut call = match call(channel, requests).await {
            Ok(call) => call,
            Err(status) => return status,
        };
        loop {
            match call.responses.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("the call ended without an error"),
                Err(status) => return status,
            }
        }
    });
    ended.await.expect("the bridge to end the call")
}

/// The longest times for which an application got nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gap {
    /// By the clock.
    by_clock: Duration,
    /// Without the time for which the watch itself did not run, as the machine had others to run, or the test.
    seen: Duration,
}

impl Gap {
    fn longer(self, other: Gap) -> Gap {
        Gap {
            by_clock: self.by_clock.max(other.by_clock),
            seen: self.seen.max(other.seen),
        }
    }
}

/// Watches that each application goes on getting messages.
pub(crate) struct Watch {
    counts: Vec<Arc<AtomicU64>>,
    stop: CancellationToken,
    task: JoinHandle<Gap>,
}

impl Watch {
    fn new(counts: Vec<Arc<AtomicU64>>) -> Self {
        let stop = CancellationToken::new();
        let (watched, stopped) = (counts.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last: Vec<(u64, Gap)> = watched.iter().map(|_| (0, Gap::default())).collect();
            let mut longest = Gap::default();
            let mut before = Instant::now();
            while stopped.run_until_cancelled(beat.tick()).await.is_some() {
                let passed = before.elapsed();
                before += passed;
                for (count, (known, gap)) in watched.iter().zip(&mut last) {
                    let now = count.load(Ordering::Relaxed);
                    gap.by_clock += passed;
                    gap.seen += passed.min(2 * BEAT);
                    // Nobody waits before the first message.
                    if *known > 0 {
                        longest = longest.longer(*gap);
                    }
                    if now != *known {
                        (*known, *gap) = (now, Gap::default());
                    }
                }
            }
            longest
        });
        Self { counts, stop, task }
    }

    /// Each application gets so many more.
    pub(crate) async fn more(&self, messages: u64) {
        for count in &self.counts {
            let wanted = count.load(Ordering::Relaxed) + messages;
            eventually(LONG, "an application to go on", || async {
                count.load(Ordering::Relaxed) >= wanted
            })
            .await;
        }
    }

    async fn longest_gap(self) -> Gap {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// One node with two applications and an instance of each that behaves. The system gives the bridge [`MEMORY_BYTES_MAX`] and no more:
/// growth without bound kills it, and with it the test.
pub(crate) async fn peaceful() -> (Cluster, Watch) {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let options = cluster.options("n1");
    let options = options.with_config(&json!({ "memory": { "tail": "8MiB", "staged": "16MiB" } }));
    cluster.add(options, 0).await;
    let mut counts = Vec::new();
    for app in ["billing", "shipping"] {
        let count = Arc::new(AtomicU64::new(0));
        counts.push(Arc::clone(&count));
        let counted = move |options: AppOptions| {
            options.decide(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Decision::Ack
            })
        };
        cluster.instance(0, app, &format!("{app}-good"), counted).await;
    }
    cluster.nodes[0]
        .limit(Resource::Data, Some(MEMORY_BYTES_MAX))
        .unwrap();
    (cluster, Watch::new(counts))
}

pub(crate) async fn judge(cluster: Cluster, watch: Watch) {
    let gap = watch.longest_gap().await;
    let peak = cluster.nodes[0].peak_resident_bytes().unwrap();
    eprintln!(
        "{}: longest gap {:?} ({:?} by the clock), peak of resident memory {} MiB",
        std::thread::current().name().unwrap_or_default(),
        gap.seen,
        gap.by_clock,
        peak >> 20
    );
    assert!(
        gap.seen < patience(GAP_MAX),
        "an application got nothing for {gap:?}"
    );
    // Alive under the limit that it had all the time.
    cluster.nodes[0].status().await.unwrap();
    cluster.finish().await;
}

/// Goal: connections without end, silent ones, half-open calls and broken HTTP/2 take no more than their bound. Method: thousands of
/// raw sockets of each kind while messages flow; the well-behaved go on all the time, and a new one gets in afterwards.
#[tokio::test]
async fn connections_without_end_are_bounded() {
    let (mut cluster, watch) = peaceful().await;
    let trickle = cluster.stream(Duration::from_millis(40));
    watch.more(100).await;
    let bridge = &cluster.nodes[0];

    // Thousands that say nothing and stay.
    let mut flood = Vec::new();
    for _ in 0..FLOOD / 100 {
        flood.extend(join_all((0..100).map(|_| UnixStream::connect(bridge.socket_path()))).await);
    }
    bridge.wait_log(LONG, "FAN-4060").await.unwrap();
    watch.more(200).await;
    let files = bridge.open_files().unwrap();
    assert!(files < FILES_MAX, "{files} files are open");
    let told = bridge
        .log()
        .iter()
        .filter(|line| line.text.contains("FAN-4060"))
        .count();
    assert!(told <= 3, "told {told} times");
    drop(flood);
    eventually(LONG, "the flood to be forgotten", || async {
        bridge.open_files().unwrap() < FILES_MAX / 4
    })
    .await;

    // Half-open: a greeting and nothing; calls that never say Open; calls whose first message never ends.
    let half = join_all((0..200).map(|_| connected(bridge, GREETING))).await;
    let mut calls = GREETING.to_vec();
    let mut endless = GREETING.to_vec();
    for call in (1..400).step_by(2) {
        calls.extend(begin(call, SUBSCRIBE));
        endless.extend(begin(call, SUBSCRIBE));
        let announced = [&[0][..], &1_000_000_u32.to_be_bytes(), &[0; 30_000]].concat();
        if call < 200 {
            endless.extend(frame(0, 0, call, &announced));
        }
    }
    let calls = join_all((0..20).map(|_| connected(bridge, &calls))).await;
    let endless = join_all((0..10).map(|_| connected(bridge, &endless))).await;
    watch.more(200).await;

    // Frames above every limit, and floods of frames that cost the sender nothing.
    let giant_message = [&[0][..], &u32::MAX.to_be_bytes(), &[0; 10_000]].concat();
    for broken in [
        [&[0xff, 0xff, 0xff, 0, 0][..], &1_u32.to_be_bytes(), &[0; 100_000]].concat(),
        frame(0, 0, 0, b"on the connection itself"),
        frame(4, 0, 0, &[0; 5]),
        frame(8, 0, 0, &0_u32.to_be_bytes()),
        [
            begin(1, SUBSCRIBE),
            frame(8, 0, 1, &0x7fff_ffff_u32.to_be_bytes()).repeat(2),
            begin(1, SUBSCRIBE),
        ]
        .concat(),
        [frame(1, 0, 1, &[0x83]), frame(9, 0, 1, &[0; 16_000]).repeat(400)].concat(),
        frame(1, 4, 1, &[0xff; 200]),
        (0..20_000)
            .flat_map(|n| {
                [
                    begin(2 * n + 1, SUBSCRIBE),
                    frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()),
                ]
                .concat()
            })
            .collect(),
    ] {
        if let Some(socket) = connected(bridge, &[GREETING, &broken].concat()).await {
            until_closed(socket).await;
        }
    }
    let mut floods = Vec::new();
    for flood in [
        frame(6, 0, 0, &[7; 8]).repeat(100_000),
        frame(4, 0, 0, &[]).repeat(100_000),
        [begin(1, SUBSCRIBE), frame(0, 0, 1, &[]).repeat(100_000)].concat(),
        [begin(1, SUBSCRIBE), frame(0, 0, 1, &giant_message)].concat(),
        [
            begin(1, "/fanin.v1.NodeService/Status"),
            frame(0, 0, 1, &giant_message),
        ]
        .concat(),
        [
            begin(1, "/grpc.health.v1.Health/Check"),
            frame(0, 0, 1, &giant_message),
        ]
        .concat(),
    ] {
        floods.push(connected(bridge, &[GREETING, &flood].concat()).await);
        watch.more(20).await;
    }

    // Whoever comes now is served.
    let late = AppOptions::new(&bridge.socket(), TOPIC, "billing", "late");
    let late = AppInstance::start(late, cluster.recorder.clone()).await.unwrap();
    watch.more(100).await;
    late.stop().await.unwrap();
    drop((half, calls, endless, floods));
    cluster.stop_stream(trickle).await;
    judge(cluster, watch).await;
}

/// Goal: clients that speak the contract and mean harm: they grant credit without end and never read, ask for what is not theirs, come
/// and go without pause. Method: many of each on one application and on both; the others go on, and in the end each application has
/// everything once.
#[tokio::test]
async fn abuse_of_the_contract_stays_with_the_abuser() {
    let (mut cluster, watch) = peaceful().await;
    cluster
        .feed_as(500, |mut feed| {
            feed.payload_bytes = 32 * 1024;
            feed
        })
        .await;
    let trickle = cluster.stream(Duration::from_millis(40));
    watch.more(100).await;
    let bridge = &cluster.nodes[0];
    let way = channel(bridge).await;

    // All the credit there is, a thousand times, and nothing is ever read: many on one application, and some on the other, which
    // goes on beside both.
    let endless = |app| {
        let grant = Request::Credit(Credit {
            bytes: u64::MAX,
            messages: u32::MAX,
        });
        let mut requests = vec![open(TOPIC, app)];
        requests.resize(1_000, grant);
        requests
    };
    let mut slow = Vec::new();
    for (app, calls) in [("billing", 12), ("shipping", 4)] {
        // A connection of their own, because what is not read there blocks the whole of it.
        let blocked = channel(bridge).await;
        for _ in 0..calls {
            slow.push(call(&blocked, endless(app)).await.unwrap());
        }
        watch.more(200).await;
    }
    let told = refused(&way, vec![open(TOPIC, "billing"); 2]).await;
    assert!(told.message().contains("second"), "{told:?}");
    watch.more(500).await;

    // Answers for deliveries that were never given, or given to others; more answers than a request may hold.
    let range = |first, last| vec![DeliveryRange { first, last }];
    let wrong = [
        Verdicts {
            acks: range(1, 1_000_000),
            ..Verdicts::default()
        },
        Verdicts {
            acks: range(u64::MAX, u64::MAX),
            ..Verdicts::default()
        },
        Verdicts {
            releases: range(1, u64::MAX),
            ..Verdicts::default()
        },
        Verdicts {
            extends: range(7, 3),
            ..Verdicts::default()
        },
        Verdicts {
            begun_through: u64::MAX,
            ..Verdicts::default()
        },
        Verdicts {
            rejects: vec![Reject {
                delivery: 1,
                reason: "x".repeat(100_000),
            }],
            ..Verdicts::default()
        },
        Verdicts {
            retries: vec![Retry {
                delivery: 9,
                after_ms: Some(u64::MAX),
                reason: String::new(),
            }],
            ..Verdicts::default()
        },
        Verdicts {
            acks: vec![DeliveryRange::default(); 200_000],
            ..Verdicts::default()
        },
        Verdicts {
            retries: vec![Retry::default(); 200_000],
            ..Verdicts::default()
        },
    ];
    for round in 0..6 {
        let app = if round % 2 == 0 { "billing" } else { "shipping" };
        let answers = wrong
            .iter()
            .map(|verdicts| refused(&way, vec![open(TOPIC, app), Request::Verdicts(verdicts.clone())]));
        for status in join_all(answers).await {
            let told = status.details().windows(8).any(|bytes| bytes == b"FAN-3007");
            assert!(told, "not FAN-3007 but {status:?}");
        }
    }
    watch.more(200).await;

    // Other people's applications and topics, by names that are nearly theirs.
    for (topic, app) in [
        (TOPIC, "billing "),
        (TOPIC, "Billing"),
        (TOPIC, ""),
        (TOPIC, "billing\0"),
        ("", "billing"),
        ("orders/../x", "billing"),
    ] {
        let status = refused(&way, vec![open(topic, app)]).await;
        assert_eq!(
            status.code(),
            tonic::Code::NotFound,
            "{topic:?} {app:?}: {status:?}"
        );
    }

    // Coming and going: with credit, so that what was handed out has to be taken back each time.
    let storm = stream::iter(0..600).for_each_concurrent(32, |n| {
        let way = way.clone();
        async move {
            let app = if n % 2 == 0 { "billing" } else { "shipping" };
            let grant = Request::Credit(Credit {
                bytes: 1 << 20,
                messages: 50,
            });
            // An application that has all the instances it may have refuses, which is as good.
            if let Ok(mut call) = call(&way, vec![open(TOPIC, app), grant]).await {
                let _ = call.responses.message().await;
            }
        }
    });
    tokio::time::timeout(patience(LONG), storm)
        .await
        .expect("the storm to pass");
    watch.more(200).await;

    // As many instances as there may be, and more.
    let crowd = join_all((0..300).map(|n| {
        let requests = vec![open(TOPIC, "shipping")];
        let own = n % 100 == 0;
        let way = &way;
        async move {
            let way = if own { channel(bridge).await } else { way.clone() };
            tokio::time::timeout(patience(Duration::from_secs(5)), call(&way, requests)).await
        }
    }))
    .await;
    watch.more(100).await;
    drop(crowd);
    drop(slow);
    drop(way);
    cluster.stop_stream(trickle).await;
    judge(cluster, watch).await;
}

/// Goal: a bridge that has no file left for a connection goes on serving those it has, and takes new ones when it has files again.
/// Method: its limit of files is lowered to what it has open while messages flow, clients come, the limit is raised again.
#[tokio::test]
async fn a_want_of_files_passes() {
    let (mut cluster, watch) = peaceful().await;
    let trickle = cluster.stream(Duration::from_millis(40));
    watch.more(100).await;
    let bridge = &cluster.nodes[0];
    let open = bridge.open_files().unwrap() as u64;
    bridge.limit(Resource::Nofile, Some(open)).unwrap();
    let waiting = join_all((0..50).map(|_| UnixStream::connect(bridge.socket_path()))).await;
    bridge.wait_log(LONG, "was not accepted").await.unwrap();
    watch.more(200).await;
    bridge.limit(Resource::Nofile, None).unwrap();
    bridge.wait_serving().await.unwrap();
    drop(waiting);
    watch.more(100).await;
    cluster.stop_stream(trickle).await;
    judge(cluster, watch).await;
}
