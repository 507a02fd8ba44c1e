//! The pages. All of them only read.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use serde_json::json;

use super::health::{Check, CheckState, Health};
use super::limits::{STALL_MAX, STATUS_WAIT_MAX};
use super::status_json;
use crate::telemetry::metrics::Metrics;

/// As Prometheus names its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "\
fanin: the bridge of this node

/livez            200 while the bridge's loops move
/readyz           200 while applications can be served; ?verbose lists every check
/metrics          Prometheus
/status           hub, store, mappings, applications and their backlogs, as JSON
";

#[derive(Clone)]
struct Page {
    health: Arc<dyn Health>,
    metrics: Metrics,
}

pub(super) fn router(health: Arc<dyn Health>, metrics: Metrics) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/status", get(status))
        .with_state(Page { health, metrics })
}

async fn livez(State(page): State<Page>) -> Response {
    let stalled = page.health.stalled_for();
    if stalled < STALL_MAX {
        return (StatusCode::OK, "ok\n").into_response();
    }
    let text = format!("a mapping's loop has not moved for {} s\n", stalled.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(State(page): State<Page>, RawQuery(query): RawQuery) -> Response {
    let checks = page.health.checks();
    let is_ready = checks.iter().all(|check| check.state != CheckState::Fail);
    let code = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|part| part.split('=').next() == Some("verbose"))
    });
    // A failure always says why: whoever looks has no second chance to ask.
    let text = if verbose || !is_ready {
        list(&checks, is_ready)
    } else {
        "ok\n".to_owned()
    };
    (code, text).into_response()
}

fn list(checks: &[Check], is_ready: bool) -> String {
    let mut text = String::new();
    for check in checks {
        let (mark, word) = match check.state {
            CheckState::Pass => ("[+]", "ok"),
            CheckState::Fail => ("[-]", "failed"),
            CheckState::Condition => ("[!]", "condition"),
        };
        let colon = if check.detail.is_empty() { "" } else { ": " };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark}{} {word}{colon}{}", check.name, check.detail);
    }
    text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
    text
}

async fn metrics_page(State(page): State<Page>) -> Response {
    page.health.observe();
    ([(header::CONTENT_TYPE, METRICS_TYPE)], page.metrics.render()).into_response()
}

async fn status(State(page): State<Page>) -> Response {
    match tokio::time::timeout(STATUS_WAIT_MAX, page.health.status()).await {
        Ok(status) => Json(status_json::to_json(&status)).into_response(),
        Err(_) => {
            let text = format!("no status within {} s", STATUS_WAIT_MAX.as_secs());
            (StatusCode::GATEWAY_TIMEOUT, Json(json!({ "error": text }))).into_response()
        }
    }
}
