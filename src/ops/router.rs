//! The paths of the admin listener.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;

use super::access::{Access, answer_if_allowed};
use super::health::Health;
use crate::metrics::METRICS;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The AsyncAPI 3 document of the interface for producers and listeners.
const ASYNCAPI: &str = include_str!("../../docs/asyncapi.json");

struct Ops {
    health: Health,
    /// The OpenAPI document of the interface for senders.
    openapi: String,
}

/// Return the routes. `/healthz`: the process lives. `/readyz`: its database is reachable and has a schema it
/// knows; broker, leases and Graph, whether submissions arrive and whether the database can be written, are
/// reported and do not make it red. `/metrics`: the counters of this process. `/openapi.json` and
/// `/asyncapi.json`: the documents of the interfaces. `access` decides who is answered.
pub fn router(health: Health, access: Access, document: String) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/asyncapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], ASYNCAPI)))
        .route("/openapi.json", get(openapi))
        .with_state(Arc::new(Ops { health, openapi: document }))
        .layer(from_fn_with_state(Arc::new(access), answer_if_allowed))
}

async fn readyz(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ops.health.readiness().await
}

async fn openapi(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], ops.openapi.clone())
}

async fn metrics(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ops.health.note_broker();
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], METRICS.render())
}
