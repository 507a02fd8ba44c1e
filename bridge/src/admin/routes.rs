//! The pages. All of them only read.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use serde_json::json;

use super::health::{Check, CheckState, Health};
use super::limits::{STALL_MAX, STATUS_WAIT_MAX};
use super::page;
use super::status_json;
use super::timeline::Timeline;
use crate::telemetry::metrics::Metrics;

/// As Prometheus names its text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "\
fanin: the bridge of this node

/livez            200 while the bridge's loops move
/readyz           200 while applications can be served; ?verbose lists every check
/metrics          Prometheus
/status           hub, store, mappings, applications and their backlogs, as JSON
/timeline         the last minutes of mappings and applications, as JSON
/                 the same as a page, for browsers
";

#[derive(Clone)]
struct Page {
    health: Arc<dyn Health>,
    metrics: Metrics,
    timeline: Arc<Timeline>,
}

pub(super) fn router(health: Arc<dyn Health>, metrics: Metrics, timeline: Arc<Timeline>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/timeline", get(timeline_json))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/status", get(status))
        .with_state(Page {
            health,
            metrics,
            timeline,
        })
        .layer(from_fn(same_site))
}

/// Other sites' pages get nothing: what a browser on the operator's machine can reach is not theirs to read.
async fn same_site(request: Request, next: Next) -> Response {
    let site = request.headers().get("sec-fetch-site");
    if site.is_some_and(|site| site == "cross-site") {
        return (StatusCode::FORBIDDEN, "asked for by another site\n").into_response();
    }
    next.run(request).await
}

/// A page for browsers, a list of the pages for everybody else.
async fn index(headers: HeaderMap) -> Response {
    let wants_html = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if wants_html {
        page::html()
    } else {
        INDEX.into_response()
    }
}

async fn timeline_json(State(page): State<Page>) -> Response {
    Json(page.timeline.to_json()).into_response()
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
