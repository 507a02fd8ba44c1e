//! Log lines on standard error.
//!
//! Level policy:
//!
//! | level | meaning | who acts |
//! |---|---|---|
//! | ERROR | a promise is in danger or a part has stopped for good: halted, fenced, a failed fsync, a defect | an operator, now |
//! | WARN | something is wrong and is being dealt with, or will need a decision: hub away, quota reached | an operator, some time |
//! | INFO | what an operator wants to find afterwards: started, joined, reconnected, stopping; never per message | nobody |
//! | DEBUG | per batch | a developer |
//! | TRACE | per message | a developer |
//!
//! Every WARN and ERROR has a field `code` that `fanin errors CODE` explains. Payloads, header values, passwords,
//! tokens and seeds are never logged at any level.

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use fanin_config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::codes;

/// Variable whose filter takes the place of `log.level`.
pub const FILTER_VARIABLE: &str = "RUST_LOG";

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is malformed.
    #[error(
        "{filter:?} is no log level or filter; write `info`, or `info,fanin_hub=debug` (log.level or RUST_LOG)"
    )]
    Filter {
        /// As given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logs were set up before.
    #[error("logs are set up already")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Libraries whose events are told by our own code, with a code and at the level they deserve: what is an ERROR to the client
/// library, such as a connection lost while it was made, is the everyday of a bridge that reconnects.
const TALKATIVE: [&str; 1] = ["async_nats"];

/// How log lines look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level, and if need be levels of parts: `info,fanin_hub=debug`.
    pub filter: String,
    /// Colours, for people only.
    pub colour: bool,
}

impl LogOptions {
    /// As configured; `rust_log` (the variable [`FILTER_VARIABLE`]) takes the place of the configured level. Colours
    /// are used on a terminal unless `NO_COLOR` is set.
    #[must_use]
    pub fn of(config: &LogConfig, rust_log: Option<&str>, no_color: bool) -> LogOptions {
        let filter = rust_log
            .filter(|filter| !filter.trim().is_empty())
            .unwrap_or(&config.level);
        LogOptions {
            format: config.format,
            filter: filter.to_owned(),
            colour: !no_color && io::stderr().is_terminal(),
        }
    }
}

/// Logs of this process go to standard error from now on, panics included.
///
/// # Errors
/// [`LogError`].
pub fn install(options: &LogOptions) -> Result<(), LogError> {
    subscriber(options, io::stderr)?.try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// A subscriber that writes to `writer`.
///
/// # Errors
/// [`LogError::Filter`].
pub fn subscriber<W>(
    options: &LogOptions,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(quieted(&options.filter))
        .map_err(|source| LogError::Filter {
            filter: options.filter.clone(),
            source,
        })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(options.colour)
        .with_writer(writer);
    Ok(match options.format {
        LogFormat::Text => Box::new(builder.with_target(false).finish()),
        // Flat, so that `code` and `message` are found without knowing the library.
        LogFormat::Json => Box::new(
            builder
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish(),
        ),
    })
}

/// The filter without talkative libraries, unless it names them.
fn quieted(filter: &str) -> String {
    let mut filter = filter.to_owned();
    for library in TALKATIVE {
        if !filter.contains(library) {
            filter.push_str(&format!(",{library}=off"));
        }
    }
    filter
}

/// A panic becomes a log line like any other, so that a log of JSON lines stays one.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no text");
    // A foreign message's headers can make it; its connection is made anew, and nothing of ours is touched.
    if place.contains("/async-nats-") {
        tracing::warn!(
            code = fanin_hub::codes::CLIENT_ENDED,
            place,
            text,
            "the client library panicked"
        );
        return;
    }
    tracing::error!(code = codes::PANIC, place, text, "panicked");
}

#[cfg(test)]
mod tests {
    //! Goal: JSON lines parse and carry code and message; filters work; a bad filter is refused with its text.
    //! Method: events written to a buffer through a scoped subscriber.
    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, events: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let options = LogOptions {
            format,
            filter: filter.to_owned(),
            colour: false,
        };
        let writer = buffer.clone();
        let subscriber = subscriber(&options, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(std::mem::take(&mut *buffer.0.lock())).unwrap()
    }

    #[test]
    fn json_lines_parse_and_carry_their_code() {
        let text = logged(LogFormat::Json, "info", || {
            tracing::warn!(code = "FAN-2001", lag = 7, "hub \"away\"\nfor now");
            tracing::debug!("not shown");
            let span = tracing::info_span!("joining", mapping = "orders");
            span.in_scope(|| tracing::error!(code = "FAN-4001", "halted"));
        });
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["level"], "WARN");
        assert_eq!(lines[0]["code"], "FAN-2001");
        assert_eq!(lines[0]["lag"], 7);
        assert_eq!(lines[0]["message"], "hub \"away\"\nfor now");
        assert!(lines[0]["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(lines[1]["level"], "ERROR");
        assert_eq!(lines[1]["span"]["mapping"], "orders");
    }

    #[test]
    fn text_has_no_colours_off_a_terminal() {
        let text = logged(LogFormat::Text, "warn", || {
            tracing::info!("not shown");
            tracing::warn!(code = "FAN-2001", "away");
        });
        assert!(
            text.contains("WARN") && text.contains("FAN-2001") && !text.contains('\x1b'),
            "{text}"
        );
        assert!(!text.contains("not shown"));
    }

    #[test]
    fn talkative_libraries_are_quiet_unless_named() {
        assert_eq!(quieted("info"), "info,async_nats=off");
        assert_eq!(quieted("debug,async_nats=info"), "debug,async_nats=info");
        let text = logged(LogFormat::Text, "info", || {
            tracing::info!(target: "async_nats", "each attempt");
            tracing::error!(target: "async_nats", "a connection was lost while it was made");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn rust_log_wins_and_a_bad_filter_is_named() {
        let config = LogConfig::default();
        assert_eq!(LogOptions::of(&config, Some("debug"), true).filter, "debug");
        assert_eq!(LogOptions::of(&config, Some(" "), true).filter, "info");
        assert!(!LogOptions::of(&config, None, true).colour);
        let options = LogOptions {
            filter: "fanin=loud".to_owned(),
            ..LogOptions::of(&config, None, true)
        };
        let error = subscriber(&options, io::sink).err().unwrap();
        assert!(error.to_string().contains("fanin=loud"), "{error}");
    }
}
