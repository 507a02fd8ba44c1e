//! A complete application that works on batches: it adds up the payload sizes of up to 500 messages at a time, as a
//! loader would write them to a database in one transaction.
//!
//! Run: `cargo run -p fanin-examples --example pull_batch -- orders warehouse`
//! (`FANIN_SOCKET` names the bridge's socket when it is not at the default path).

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use fanin_sdk::Client;

const BATCH_MESSAGES_MAX: usize = 500;
const BATCH_WAIT: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".to_owned());
    let app = arguments.next().unwrap_or_else(|| "warehouse".to_owned());

    let client = Client::builder()
        .wait_for_bridge(Duration::from_secs(10))
        .connect()
        .await?;
    let mut messages = client.subscribe(topic, app).open().await?;
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let batch = tokio::select! {
            // A pull that is given up releases what it had collected.
            stopped = &mut stop => { stopped?; break }
            batch = messages.pull(BATCH_MESSAGES_MAX, BATCH_WAIT) => batch?,
        };
        if batch.is_empty() {
            continue;
        }
        let bytes: usize = batch.iter().map(|message| message.payload().len()).sum();
        let count = batch.len();
        // Only what is not confirmed comes again, so a failure here is news, not an end.
        match batch.ack_all().await {
            Ok(()) => writeln!(std::io::stdout().lock(), "{count} messages, {bytes} bytes")?,
            Err(error) => eprintln!("{error}"),
        }
    }
    messages.close().await?;
    Ok(())
}
