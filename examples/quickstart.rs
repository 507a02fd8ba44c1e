//! The application that README.md shows, to the letter; a rule of `cargo xtask tidy` compares them.
//!
//! Run: `cargo run -p fanin-examples --example quickstart`
//! (`FANIN_SOCKET` names the bridge's socket when it is not at the default path).
#![allow(clippy::print_stdout, reason = "it shows what it got")]

use fanin_sdk::{Client, Message};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::from_env().await?; // FANIN_SOCKET, or the default path
    client
        .consume("orders", "billing")
        .concurrency(16)
        .run(|message: Message| async move {
            bill(message.id(), message.payload()).await // Ok acknowledges, Err retries with back-off
        })
        .await?;
    Ok(())
}

async fn bill(id: &str, order: &[u8]) -> Result<(), std::io::Error> {
    println!("{id}: {} bytes", order.len());
    Ok(())
}
