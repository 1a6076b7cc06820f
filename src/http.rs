//! `/metrics`, `/livez`, `/readyz`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::pipeline::Health;

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    health: Arc<Health>,
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Arc<Health>,
    shutdown: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics, health });
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
    {
        tracing::error!(%error, "metrics and health are no longer served");
    }
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match shared.metrics.render() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// 200 while every task turns over; else 503 with the ones that do not.
async fn live(State(shared): State<Shared>) -> Response {
    let stalled = shared.health.pulse().stalled();
    if stalled.is_empty() {
        return "ok\n".into_response();
    }
    let lines: Vec<String> = stalled.iter().map(|stalled| format!("{stalled}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.concat()).into_response()
}

/// 200 when streaming, the ledger reachable, delivery not halted and no commit waiting to become visible; else 503 with
/// what is not so.
async fn ready(State(shared): State<Shared>) -> Response {
    let faults: Vec<String> = shared.health.faults().iter().map(ToString::to_string).collect();
    let status = if faults.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": faults.is_empty(), "not_ready": faults }))).into_response()
}
