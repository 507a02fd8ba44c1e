//! Goal: every page says what the node says, with the right code, and nothing but GET is answered.
//! Method: a real server on a free port, a health made up for the case, and HTTP by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fanin_proto::v1::{AppStatus, MappingStatus, StatusResponse};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::serve::StatusSource;

#[derive(Default)]
struct FakeNode {
    stalled: Mutex<Duration>,
    checks: Mutex<Vec<Check>>,
    observed: AtomicBool,
}

impl StatusSource for FakeNode {
    fn status(&self) -> Pin<Box<dyn Future<Output = StatusResponse> + Send + '_>> {
        let app = AppStatus {
            name: "billing".to_owned(),
            backlog_messages: 42,
            ..AppStatus::default()
        };
        let mapping = MappingStatus {
            name: "orders".to_owned(),
            apps: vec![app],
            ..MappingStatus::default()
        };
        let status = StatusResponse {
            node: "n1".to_owned(),
            mappings: vec![mapping],
            ..StatusResponse::default()
        };
        Box::pin(std::future::ready(status))
    }

    fn holdings<'a>(
        &'a self,
        mapping: &'a str,
        _with_state: bool,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<fanin_proto::v1::HoldingsPart>, tonic::Status>> + Send + 'a>>
    {
        Box::pin(async move { Err(tonic::Status::not_found(mapping)) })
    }
}

impl Health for FakeNode {
    fn stalled_for(&self) -> Duration {
        *self.stalled.lock()
    }

    fn checks(&self) -> Vec<Check> {
        self.checks.lock().clone()
    }

    fn is_poisoned(&self) -> bool {
        false
    }

    fn observe(&self) {
        self.observed.store(true, Ordering::Relaxed);
    }
}

struct Endpoint {
    node: Arc<FakeNode>,
    address: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    async fn start() -> Endpoint {
        let server = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let node = Arc::new(FakeNode::default());
        let stop = CancellationToken::new();
        let health: Arc<dyn Health> = Arc::clone(&node) as Arc<dyn Health>;
        let task = tokio::spawn(server.serve(health, Metrics::detached().unwrap(), stop.clone()));
        Endpoint {
            node,
            address,
            stop,
            task,
        }
    }

    /// Code, head and body of one request.
    async fn ask(&self, request: &str) -> (u16, String, String) {
        self.ask_with(request, "").await
    }

    /// The same with a header.
    async fn ask_with(&self, request: &str, header: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let line = if header.is_empty() { "" } else { "\r\n" };
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}{line}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
    }
}

#[tokio::test]
async fn liveness_follows_the_loop() {
    let endpoint = Endpoint::start().await;
    assert_eq!(endpoint.ask("GET /livez").await.0, 200);
    *endpoint.node.stalled.lock() = limits::STALL_MAX;
    let (code, _, body) = endpoint.ask("GET /livez").await;
    assert_eq!(code, 503);
    assert!(body.contains("30 s"), "{body}");
}

#[tokio::test]
async fn readiness_needs_every_check_but_no_hub() {
    let endpoint = Endpoint::start().await;
    *endpoint.node.checks.lock() = vec![
        Check::pass("store"),
        Check::condition("hub", "FAN-2001: not connected"),
        Check::pass("socket"),
    ];
    let (code, _, body) = endpoint.ask("GET /readyz").await;
    assert_eq!((code, body.as_str()), (200, "ok\n"));
    let (code, _, body) = endpoint.ask("GET /readyz?verbose").await;
    assert_eq!(code, 200);
    assert_eq!(
        body,
        "[+]store ok\n[!]hub condition: FAN-2001: not connected\n[+]socket ok\nready\n"
    );

    endpoint
        .node
        .checks
        .lock()
        .push(Check::fail("ledger/orders", "joining"));
    let (code, _, body) = endpoint.ask("GET /readyz").await;
    assert_eq!(code, 503);
    assert!(
        body.contains("[-]ledger/orders failed: joining\n") && body.ends_with("not ready\n"),
        "{body}"
    );
}

#[tokio::test]
async fn metrics_status_and_index() {
    let endpoint = Endpoint::start().await;
    let (code, head, body) = endpoint.ask("GET /metrics").await;
    assert_eq!(code, 200);
    assert!(head.contains("version=0.0.4"), "{head}");
    assert!(body.contains("process_start_time_seconds"), "{body}");
    assert!(endpoint.node.observed.load(Ordering::Relaxed));

    let (code, head, body) = endpoint.ask("GET /status").await;
    assert_eq!(code, 200);
    assert!(head.contains("application/json"), "{head}");
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["node"], "n1");
    assert_eq!(status["hub"], Value::Null);
    assert_eq!(status["mappings"][0]["apps"][0]["backlog_messages"], 42);

    assert!(endpoint.ask("GET /").await.2.contains("/readyz"));
    assert_eq!(endpoint.ask("GET /nothing").await.0, 404);
    assert_eq!(endpoint.ask("POST /livez").await.0, 405);
}

/// Goal: a browser gets the page with all it needs, from this node only, and other sites get nothing. Method: the
/// headers a browser sends; every name that page and script ask for is asked for.
#[tokio::test]
async fn a_browser_gets_the_page_and_other_sites_nothing() {
    let endpoint = Endpoint::start().await;
    let (code, head, html) = endpoint
        .ask_with("GET /", "Accept: text/html,application/xhtml+xml")
        .await;
    assert_eq!(code, 200);
    assert!(
        head.contains("text/html") && head.contains("default-src 'none'"),
        "{head}"
    );
    let (code, head, _) = endpoint.ask("GET /page.css").await;
    assert!(code == 200 && head.contains("text/css") && html.contains("page.css"));
    let (code, head, script) = endpoint.ask("GET /page.js").await;
    assert!(code == 200 && head.contains("text/javascript") && html.contains("page.js"));
    for path in ["status", "timeline", "readyz?verbose&page"] {
        assert!(script.contains(&format!("fetch(\"{path}\"")), "{path}");
        assert_eq!(endpoint.ask(&format!("GET /{path}")).await.0, 200, "{path}");
    }
    assert!(!html.contains("http:") && !html.contains("https:") && !script.contains("https:"));

    let (code, _, body) = endpoint
        .ask_with("GET /status", "Sec-Fetch-Site: cross-site")
        .await;
    assert_eq!(code, 403, "{body}");
    assert_eq!(
        endpoint
            .ask_with("GET /status", "Sec-Fetch-Site: same-origin")
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn an_oversized_head_is_refused_and_stop_ends_idle_connections() {
    let endpoint = Endpoint::start().await;
    let mut greedy = TcpStream::connect(endpoint.address).await.unwrap();
    let head = format!(
        "GET /livez HTTP/1.1\r\nX: {}",
        "x".repeat(2 * limits::HEADER_BYTES_MAX)
    );
    // The server may answer and close before all of it is written.
    let _ = greedy.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = greedy.read_to_end(&mut answer).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    let mut idle = TcpStream::connect(endpoint.address).await.unwrap();
    assert_eq!(endpoint.ask("GET /livez").await.0, 200);
    endpoint.stop.cancel();
    timeout(Duration::from_secs(10), endpoint.task)
        .await
        .expect("stops")
        .expect("does not panic");
    // Closed by the server: either an end or a reset.
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(10), idle.read_to_end(&mut rest))
        .await
        .expect("closed");
}

/// Goal: connections that ask nothing, or never end asking, keep no health check out, and are few. Method: twice as many of each as there
/// are places; the check asks between their bytes and is answered each time; the first of them are closed meanwhile.
#[tokio::test]
async fn quiet_connections_make_room() {
    let endpoint = Endpoint::start().await;
    let (mut idle, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..2 * limits::CONNECTIONS_MAX {
        idle.push(TcpStream::connect(endpoint.address).await.unwrap());
        slow.push(TcpStream::connect(endpoint.address).await.unwrap());
    }
    // Far less than it takes until the time for their heads is over, for all in turn.
    let asked = timeout(4 * limits::HEADER_WAIT_MAX, async {
        for byte in b"GET /livez HTTP/1.1\r\nX: and so on" {
            for stream in &mut slow {
                // It may be closed by now.
                let _ = stream.write_all(&[*byte]).await;
            }
            assert_eq!(endpoint.ask("GET /livez").await.0, 200);
        }
    });
    asked.await.expect("an answer to each check");
    for stream in idle.iter_mut().take(limits::CONNECTIONS_MAX) {
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
            .await
            .expect("closed");
        assert!(rest.is_empty());
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = AdminServer::bind(first.address()).await.err().expect("taken");
    assert!(
        error.to_string().contains(&first.address().to_string()),
        "{error}"
    );
    assert_eq!(error.code(), "FAN-4008");
}
