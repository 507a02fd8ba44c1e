//! Hostile local clients under a limit of memory that the system keeps, and what they may do to others' deliveries.

use std::time::Duration;

use fanin_proto::v1::subscribe_request::Request;
use fanin_proto::v1::subscribe_response::Response;
use fanin_proto::v1::topic_service_client::TopicServiceClient;
use fanin_proto::v1::{Credit, DeliveryRange, SubscribeRequest, Verdicts};
use fanin_tests::apps::{AppInstance, AppOptions};
use fanin_tests::wait::patience;
use futures_util::future::join_all;
use rustix::process::Resource;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::cluster::{Cluster, LONG, TOPIC};
use crate::hostile::{
    GREETING, SUBSCRIBE, begin, call, channel, connected, frame, judge, open, peaceful, refused,
};
use crate::regrown::page;

/// What a request may hold at most: what a lie may promise.
const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Goal: the limit of the other tests is one. Method: a bridge that may have no more memory than it has gets hundreds of calls; it ends.
#[tokio::test]
async fn the_limit_of_memory_is_one() {
    let mut cluster = Cluster::new(&["billing"]).await;
    // What a process says that gets no memory is no log line.
    let options = cluster.options("n1").allow_error("");
    cluster.add(options, 0).await;
    let bridge = &cluster.nodes[0];
    bridge.limit(Resource::Data, Some(1 << 20)).unwrap();
    let mut calls = GREETING.to_vec();
    for call in (1..400).step_by(2) {
        calls.extend(begin(call, SUBSCRIBE));
    }
    let calls = join_all((0..100).map(|_| connected(bridge, &calls))).await;
    let status = bridge.wait_exit(LONG).await.unwrap();
    assert!(!status.success(), "{status}");
    drop(calls);
}

/// Goal: a length that a request's prefix promises costs nothing before its bytes come, and bytes that never end it cost no more than
/// their bound. Method: thousands of calls that each promise the most there is and send a little now and then, together far above the
/// limit of memory; then calls that send all but the end, more than all unfinished requests may hold.
#[tokio::test]
async fn promised_lengths_cost_nothing() {
    let (mut cluster, watch) = peaceful().await;
    let trickle = cluster.stream(Duration::from_millis(40));
    watch.more(100).await;
    let bridge = &cluster.nodes[0];
    let promise = [&[0][..], &REQUEST_BYTES_MAX.to_be_bytes()].concat();
    let (mut liars, mut drip) = (GREETING.to_vec(), Vec::new());
    for call in (1..400).step_by(2) {
        liars.extend(begin(call, SUBSCRIBE));
        liars.extend(frame(0, 0, call, &promise));
        drip.extend(frame(0, 0, call, &[0]));
    }
    let mut sockets: Vec<UnixStream> = join_all((0..20).map(|_| connected(bridge, &liars)))
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(sockets.len(), 20);
    for _ in 0..10 {
        for socket in &mut sockets {
            // The bridge may have ended the connection by now.
            let _ = tokio::time::timeout(patience(LONG), socket.write_all(&drip)).await;
        }
        watch.more(20).await;
    }
    drop(sockets);

    let almost = vec![0; 200_000];
    let all_but_the_end: Vec<u8> = (1..100)
        .step_by(2)
        .flat_map(|call| {
            [
                begin(call, SUBSCRIBE),
                frame(0, 0, call, &promise),
                [frame(0, 0, call, &almost[..16_000])].concat().repeat(12),
            ]
            .concat()
        })
        .collect();
    let bytes = [GREETING, &all_but_the_end].concat();
    let large = join_all((0..40).map(|_| connected(bridge, &bytes))).await;
    watch.more(100).await;
    drop(large);

    let late = AppOptions::new(&bridge.socket(), TOPIC, "billing", "late");
    let late = AppInstance::start(late, cluster.recorder.clone()).await.unwrap();
    watch.more(100).await;
    late.stop().await.unwrap();
    cluster.stop_stream(trickle).await;
    judge(cluster, watch).await;
}

/// Sockets of each kind that hold the admin port.
const ADMIN_FLOOD: usize = 64;
/// How long a health check may take then.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// Goal: any local user may connect to the admin port, and keeps neither a health check out nor memory of the bridge. Method: twice as many
/// silent sockets as it serves at once, as many with a large head that never ends, and as many that ask without end and read nothing, all
/// opened again as the bridge closes them; each health check between them is answered in time, and deliveries go on.
#[tokio::test]
async fn the_admin_port_is_never_full() {
    let (mut cluster, watch) = peaceful().await;
    let trickle = cluster.stream(Duration::from_millis(40));
    watch.more(100).await;
    let bridge = &cluster.nodes[0];
    let admin = bridge.status().await.unwrap().admin;
    let large = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(15_000));
    let greedy = "GET /page.js HTTP/1.1\r\nHost: fanin\r\n\r\n".repeat(200);
    let kinds = [String::new(), large, greedy];
    let (files, mut flood) = (bridge.open_files().unwrap(), Vec::new());
    for round in 0..10 {
        let opened = kinds
            .iter()
            .flat_map(|bytes| (0..ADMIN_FLOOD).map(move |_| bytes));
        let opened = opened.map(|bytes| async {
            let mut socket = TcpStream::connect(&admin).await.ok()?;
            // It may have made room already, or nothing moves any more.
            let written = socket.write_all(bytes.as_bytes());
            let _ = tokio::time::timeout(Duration::from_millis(200), written).await;
            Some(socket)
        });
        flood.extend(join_all(opened).await);
        for socket in flood.iter_mut().flatten() {
            // One more byte of a head that never ends.
            let _ = socket.try_write(b"x");
        }
        let asked = tokio::time::timeout(patience(CHECK_MAX), page(bridge, "/livez")).await;
        let answer = asked.expect("the health check in time");
        assert!(answer.starts_with("HTTP/1.0 200"), "round {round}: {answer}");
        let more = bridge.open_files().unwrap().saturating_sub(files);
        assert!(more <= ADMIN_FLOOD, "{more} connections are open in the bridge");
        watch.more(10).await;
    }
    drop(flood);
    cluster.stop_stream(trickle).await;
    judge(cluster, watch).await;
}

/// Goal: nobody finishes what another instance holds, of the same application or of another one. Method: an instance holds messages;
/// others answer for the numbers it has; they are refused, and its own answer is confirmed.
#[tokio::test]
async fn leases_of_others_are_theirs() {
    let mut cluster = Cluster::new(&["billing", "shipping"]).await;
    let options = cluster.options("n1");
    cluster.add(options, 0).await;
    let bridge = &cluster.nodes[0];
    let (way, other_way) = (channel(bridge).await, channel(bridge).await);
    let grant = Request::Credit(Credit {
        bytes: 1 << 20,
        messages: 8,
    });
    let (says, said) = tokio::sync::mpsc::channel(8);
    for request in [open(TOPIC, "billing"), grant] {
        let request = Some(request);
        says.send(SubscribeRequest { request }).await.unwrap();
    }
    let answered = TopicServiceClient::new(way.clone())
        .subscribe(tokio_stream::wrappers::ReceiverStream::new(said))
        .await;
    let mut holder = answered.unwrap().into_inner();
    // Somebody of the other application, so that messages are pulled at all; it takes none.
    let other = call(&other_way, vec![open(TOPIC, "shipping")]).await.unwrap();
    cluster.feed(8).await;
    let mut held = 0;
    while held < 8 {
        let response = holder.message().await.unwrap().unwrap().response;
        if let Some(Response::Deliveries(given)) = response {
            held += given.deliveries.len() as u64;
        }
    }
    let all = vec![DeliveryRange { first: 1, last: held }];
    for (app, verdicts) in [
        (
            "billing",
            Verdicts {
                begun_through: held,
                acks: all.clone(),
                ..Verdicts::default()
            },
        ),
        (
            "billing",
            Verdicts {
                releases: all.clone(),
                ..Verdicts::default()
            },
        ),
        (
            "shipping",
            Verdicts {
                acks: all.clone(),
                ..Verdicts::default()
            },
        ),
    ] {
        let requests = vec![open(TOPIC, app), Request::Verdicts(verdicts)];
        let status = refused(&other_way, requests).await;
        let told = status.details().windows(8).any(|bytes| bytes == b"FAN-3007");
        assert!(told, "not FAN-3007 but {status:?}");
    }
    let own = Request::Verdicts(Verdicts {
        begun_through: held,
        acks: all,
        ..Verdicts::default()
    });
    let request = Some(own);
    says.send(SubscribeRequest { request }).await.unwrap();
    let mut confirmed = 0;
    while confirmed < held {
        match holder.message().await.unwrap().unwrap().response {
            Some(Response::Confirmed(sure)) => {
                confirmed += sure
                    .deliveries
                    .iter()
                    .map(|range| range.last - range.first + 1)
                    .sum::<u64>();
            }
            Some(Response::LeasesLost(lost)) => panic!("another one ended them: {lost:?}"),
            Some(Response::Opened(_) | Response::Deliveries(_) | Response::Closing(_)) | None => {}
        }
    }
    drop((holder, other, says));
}
