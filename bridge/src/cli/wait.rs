//! `--wait`: how long a command waits for a hub or a bridge that is just starting.

use std::time::Duration;

use clap::Args as ClapArgs;
use fanin_config::HumanDuration;
use fanin_hub::{ConnectError, Connection, HubOptions};
use tokio::time::{Instant, sleep_until};

use super::limits::{HUB_WAIT_PAUSE, WAIT_MAX};

/// How long to wait for a hub.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct HubWait {
    /// How long to wait for a hub that does not answer yet; 0: not at all.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    wait: Duration,
}

impl HubWait {
    /// Connects, again and again while no server answers and the time lasts.
    ///
    /// # Errors
    /// The last attempt's.
    pub(crate) async fn connect(&self, options: HubOptions) -> Result<Connection, ConnectError> {
        let deadline = Instant::now() + self.wait;
        loop {
            let error = match Connection::connect(options.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let now = Instant::now();
            if !matches!(error, ConnectError::Unreachable { .. }) || now >= deadline {
                return Err(error);
            }
            sleep_until((now + HUB_WAIT_PAUSE).min(deadline)).await;
        }
    }
}

/// A duration as the configuration writes it; `0` needs no unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let HumanDuration(wait) = text.parse().map_err(|error| format!("{error}"))?;
    if wait > WAIT_MAX {
        return Err(format!("at most {}", HumanDuration(WAIT_MAX)));
    }
    Ok(wait)
}

#[cfg(test)]
mod tests {
    //! Goal: `0` and every duration within the bound are understood. Method: a table.
    use super::*;

    #[test]
    fn durations() {
        for (text, wait) in [
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("1m30s", Some(Duration::from_secs(90))),
            ("1d", Some(WAIT_MAX)),
            ("5", None),
            ("soon", None),
            ("2d", None),
        ] {
            assert_eq!(duration(text).ok(), wait, "{text}");
        }
    }
}
