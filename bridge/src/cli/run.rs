//! `fanin run`: the bridge itself.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use fanin_config::{Config, LogConfig, LogFormat};
use tokio_util::sync::CancellationToken;

use super::errors;
use super::exit::Exit;
use super::failure::Failure;
use super::limits::RUN_STOP_MARGIN;
use super::load::{self, Overrides};
use super::signals;
use crate::admin::{AdminServer, Health, NodeHealth};
use crate::app::{self, AppError, RunOptions};
use crate::running::Running;
use crate::telemetry::codes;
use crate::telemetry::logs::{self, FILTER_VARIABLE, LogOptions};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notify;
use crate::users;

/// `fanin run`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The configuration file; conf.d/*.yaml beside it is read too.
    #[arg(short = 'c', long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// Put this configuration's sources in the place of those in the ledger's terms, on this start.
    #[arg(long)]
    accept_terms: bool,
    /// Create a missing shared consumer again behind the watermark, on this start.
    #[arg(long)]
    recreate_consumer: bool,
    /// The data directory was moved here, and no copy of it is in use.
    #[arg(long)]
    accept_moved_data: bool,
    /// Make dead letters of messages that a damaged local log lost and whose source stream is gone, on this start.
    #[arg(long)]
    accept_loss: bool,
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    let loaded = load::load(&args.config, &args.overrides)
        .and_then(users::resolve)
        .map_err(|error| load::failure(&error))?;
    install_logs(&loaded.config.log)?;
    for problem in &loaded.warnings {
        let code = problem.code.info().code;
        tracing::warn!(code, origin = %problem.origin, key = %problem.key, cure = problem.cure, "{}", problem.why);
    }
    let metrics =
        Metrics::install().map_err(|error| Failure::of(Exit::Failed, codes::TELEMETRY_FAILED, error))?;
    let stop = signals::stop_token(2 * loaded.config.shutdown_grace.0 + RUN_STOP_MARGIN)?;
    signals::explain_reload()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = loaded.config.node,
        config = %args.config.display(),
        "starting"
    );

    let options = RunOptions {
        accept_terms: args.accept_terms,
        recreate_consumer: args.recreate_consumer,
        accept_moved_data: args.accept_moved_data,
        accept_loss: args.accept_loss,
    };
    let format = loaded.config.log.format;
    let config = loaded.config.clone();
    let told = stop.clone();
    tokio::spawn(async move {
        told.cancelled().await;
        notify::stopping("finishing deliveries in progress");
    });
    let ready =
        async move |node: Arc<Running>, end: CancellationToken| announce(&config, node, metrics, end).await;
    match app::run(loaded, options, stop, ready).await {
        Ok(()) => {
            tracing::info!("stopped");
            Ok(Exit::Done)
        }
        Err(error) => ended(error, format),
    }
}

/// Why the node ended: a line of the log where that is read by machines, a report for people otherwise.
fn ended(error: AppError, format: LogFormat) -> Result<Exit, Failure> {
    let exit = Exit::of(error.exit_code());
    let code = error.code();
    match format {
        LogFormat::Text => Err(Failure::of(exit, code, error)),
        LogFormat::Json => {
            let cure = errors::lookup(code).map_or("", |entry| entry.cure);
            tracing::error!(code, exit_code = exit.code(), cure, %error, "ended");
            Ok(exit)
        }
    }
}

/// The node serves: metrics, the admin endpoint, and a word to the service manager.
async fn announce(
    config: &Config,
    node: Arc<Running>,
    metrics: Metrics,
    end: CancellationToken,
) -> Result<(), AppError> {
    tokio::spawn(metrics.clone().keep(end.clone()));
    tokio::spawn(watch_hub(Arc::clone(&node), end.clone()));
    let health: Arc<dyn Health> = Arc::new(NodeHealth::new(Arc::clone(&node)));
    tokio::spawn(notify::feed_watchdog(Arc::clone(&health)));
    if let Some(address) = config.admin {
        let server = AdminServer::bind(address)
            .await
            .map_err(|error| AppError::Admin {
                address: error.address,
                source: error.source,
            })?;
        node.set_admin(server.address());
        tracing::info!(address = %server.address(), "admin endpoint");
        tokio::spawn(server.serve(health, metrics, end));
    }
    tracing::info!(node = config.node, listen = %config.listen, "serving");
    notify::ready(&format!(
        "serving {} mapping(s) on {}",
        config.mappings.len(),
        config.listen
    ));
    Ok(())
}

/// Says once when the hub goes, and again when it stays away for another reason, whatever the number of attempts to
/// reconnect. The adapter says when it is back.
async fn watch_hub(node: Arc<Running>, end: CancellationToken) {
    let mut state = node.hub().watch();
    let watching = async {
        // Of a hub that never came the start has told.
        let now = state.borrow_and_update().clone();
        let mut told = now
            .why_away()
            .map(|(code, _)| code)
            .filter(|_| now.generation == 0);
        loop {
            let why = state.borrow_and_update().why_away();
            if let Some((code, reason)) = &why
                && told != Some(*code)
            {
                tracing::warn!(
                    code,
                    reason,
                    "the hub is away; applications go on from the backlog, and the bridge reconnects by itself"
                );
            }
            told = why.map(|(code, _)| code);
            if state.changed().await.is_err() {
                return;
            }
        }
    };
    end.run_until_cancelled(watching).await;
}

fn install_logs(config: &LogConfig) -> Result<(), Failure> {
    let filter = std::env::var(FILTER_VARIABLE).ok();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    logs::install(&LogOptions::of(config, filter.as_deref(), no_color))
        .map_err(|error| Failure::of(Exit::Config, codes::TELEMETRY_FAILED, error))
}

/// Logs of the other commands: none, unless asked for by `RUST_LOG`.
pub(super) fn install_tool_logs() -> Result<(), Failure> {
    if std::env::var_os(FILTER_VARIABLE).is_none_or(|filter| filter.is_empty()) {
        return Ok(());
    }
    install_logs(&LogConfig {
        format: LogFormat::Text,
        level: "warn".to_owned(),
    })
}
