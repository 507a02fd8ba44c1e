#![allow(clippy::unwrap_used, clippy::expect_used)]
use fanin_hub::*;
use fanin_localhub::*;
use std::time::{Duration, Instant};
#[tokio::test(flavor = "multi_thread")]
async fn probe() {
    let mut o = LocalHubOptions::new(ServerBinary::find_or_fetch(None).unwrap());
    o.sync_always = false;
    let hub = LocalHub::start(o).await.unwrap();
    let c = Connection::connect(HubOptions::new([hub.url()])).await.unwrap();
    c.request(
        "$JS.API.STREAM.CREATE.S",
        None,
        r#"{"name":"S","subjects":["s.>"]}"#.into(),
        Duration::from_secs(5),
    )
    .await
    .unwrap();
    let p = Publisher::new(&c, 256);
    let t = Instant::now();
    for _ in 0..10 {
        p.publish_all(
            (0..10000)
                .map(|_| Outgoing {
                    subject: "s.b".into(),
                    payload: vec![1u8; 1024].into(),
                    ..Outgoing::default()
                })
                .collect(),
        )
        .await;
    }
    eprintln!("publish {:?}", t.elapsed());
    let spec = ConsumerSpec {
        stream: "S".into(),
        prefix: "f".into(),
        mapping: "m".into(),
        incarnation: fanin_core::ids::Incarnation(1),
        generation: 0,
        filter_subjects: vec![],
        ack_wait: Duration::from_secs(30),
        nodes: 1,
        in_flight_per_node: 4000,
    };
    let shared = spec.ensure(&c, CreatePolicy::FromStart).await.unwrap();
    let (mut puller, s) = (Puller::new(&c, &shared), Settler::new(&c));
    let (mut n, mut b) = (0, 0);
    let cpu = cpu_time(hub.pid()).unwrap();
    let mine = cpu_time(std::process::id()).unwrap();
    let t = Instant::now();
    while n < 100_000 {
        let batch = puller.fetch(256, 1 << 20, Duration::from_secs(5)).await.unwrap();
        n += batch.len();
        b += 1;
        s.settle(&batch.into_iter().map(|p| p.ack).collect::<Vec<_>>())
            .await
            .unwrap();
    }
    eprintln!(
        "pull+settle {n} in {b} batches {:?}; hub cpu {:?} mine {:?}",
        t.elapsed(),
        cpu_time(hub.pid()).unwrap() - cpu,
        cpu_time(std::process::id()).unwrap() - mine
    );
    eprintln!("{:?}", shared.info(&c).await.unwrap());
}
