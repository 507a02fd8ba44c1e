//! Goal: a local hub can be started, killed, frozen and restarted at will, and never outlives its holder.
//! Method: the real nats-server; what a client would see is read from its greeting.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use fanin_localhub::{LocalHub, LocalHubOptions, ServerBinary, StartError, cpu_time, rss};

const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
async fn hub() -> LocalHub {
    LocalHub::start(LocalHubOptions::new(ServerBinary::find_or_fetch(None).unwrap()))
        .await
        .unwrap()
}

fn greeting(port: u16) -> std::io::Result<String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

#[tokio::test]
async fn a_hub_serves_jetstream_and_is_gone_when_dropped() {
    let hub = hub().await;
    let (port, dir) = (hub.port(), hub.dir().to_path_buf());
    assert!(greeting(port).unwrap().contains("\"jetstream\":true"));
    assert!(TcpStream::connect(hub.monitor_url().trim_start_matches("http://")).is_ok());
    if cfg!(target_os = "linux") {
        assert!(rss(hub.pid()).unwrap() > 1_000_000);
        assert!(cpu_time(hub.pid()).is_ok());
    }
    drop(hub);
    assert!(greeting(port).is_err());
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_killed_hub_comes_back_on_its_port_with_its_store() {
    let mut hub = hub().await;
    let (url, pid) = (hub.url(), hub.pid());
    hub.kill().unwrap();
    assert!(!hub.is_running() && greeting(hub.port()).is_err());
    hub.restart().await.unwrap();
    assert_eq!(hub.url(), url);
    assert_ne!(hub.pid(), pid);
    assert!(hub.store_dir().is_dir());
    assert!(greeting(hub.port()).is_ok());
    hub.stop().await.unwrap();
    assert!(hub.log_tail().contains("Server Exiting"), "{}", hub.log_tail());
    hub.restart().await.unwrap();
}

#[tokio::test]
async fn a_paused_hub_is_silent_until_it_goes_on() {
    let hub = hub().await;
    hub.pause().unwrap();
    // SIGSTOP takes effect on every thread within moments; the kernel still accepts connections for a frozen server.
    let deadline = Instant::now() + PATIENCE;
    while greeting(hub.port()).is_ok() {
        assert!(Instant::now() < deadline, "the server still answers");
    }
    hub.resume().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while greeting(hub.port()).is_err() {
        assert!(Instant::now() < deadline, "the server does not go on");
    }
}

#[tokio::test]
async fn a_taken_port_and_a_wrong_configuration_are_told() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut options = LocalHubOptions::new(ServerBinary::find_or_fetch(None).unwrap());
    options.port = Some(taken.local_addr().unwrap().port());
    let error = LocalHub::start(options.clone()).await.unwrap_err();
    assert!(
        matches!(&error, StartError::Exited { log, .. } if log.contains("in use")),
        "{error}"
    );
    options.port = None;
    options.extra_config = "no_such_option: {".into();
    let error = LocalHub::start(options).await.unwrap_err();
    assert!(matches!(&error, StartError::Exited { .. }), "{error}");
}
