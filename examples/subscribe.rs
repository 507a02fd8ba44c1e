//! A complete application: handles the messages of one topic, sixteen at a time, until Ctrl-C.
//!
//! Run: `cargo run -p fanin-examples --example subscribe -- orders billing`
//! (`FANIN_SOCKET` names the bridge's socket when it is not at the default path).

use std::error::Error;
use std::time::Duration;

use fanin_sdk::{Client, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let app = arguments.next().unwrap_or_else(|| "billing".to_owned());

    let client = Client::builder()
        .wait_for_bridge(Duration::from_secs(10))
        .connect()
        .await?;
    eprintln!("handling {topic} as {app}, Ctrl-C to stop");
    let ctrl_c = async {
        // Without a signal handler the process is ended by the signal itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    // Ok acknowledges, Err retries later, and a shutdown lets running handlers finish.
    client
        .consume(topic, app)
        .concurrency(16)
        .run_until(ctrl_c, handle)
        .await?;
    Ok(())
}

/// A handler may see a message again after a crash; its id is the key that makes the effect happen once.
async fn handle(message: Message) -> Result<(), std::io::Error> {
    use std::io::Write as _;
    let text = String::from_utf8_lossy(message.payload());
    writeln!(
        std::io::stdout().lock(),
        "{} attempt {} on {}: {text}",
        message.id(),
        message.attempt(),
        message.subject()
    )
}
