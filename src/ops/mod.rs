//! The admin listener: health for supervisors and load balancers, metrics for Prometheus, and the documents
//! that describe the interfaces. Never here: authentication, and secrets.

mod rows;

pub use rows::watch_rows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::broker::{BrokerState, IntakeState, SharedBroker};
use crate::domain::{BreakerState, Serving};
use crate::metrics::METRICS;
use crate::store::{SchemaState, SharedStore, StoreError};

/// Probes ask the database this often at most.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A database that takes longer does not count as reachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

struct Ops {
    store: SharedStore,
    broker: SharedBroker,
    /// The partitions of this process.
    serving: watch::Receiver<Serving>,
    /// Whether this process sends to Graph.
    graph: watch::Receiver<BreakerState>,
    last: Mutex<Option<(Instant, Database)>>,
    /// The OpenAPI document of the interface for senders.
    openapi: String,
}

#[derive(Debug, Clone, Serialize)]
struct Database {
    reachable: bool,
    /// `current`, `newer` or `older`; null when it is not known.
    schema: Option<&'static str>,
    /// Whether messages can be logged; null when it is not known.
    writable: Option<bool>,
    /// The reason why they cannot.
    reason: Option<String>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: Database,
    broker: BrokerState,
    /// Whether producers' submissions can reach this process; null where it takes none in.
    submissions: Option<bool>,
    /// The reason why they cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    submissions_reason: Option<String>,
    /// Partitions this process holds, of 64.
    leases: usize,
    /// Partitions that this process holds and cannot scan for work.
    unserved: usize,
    /// The breaker of Graph's host: `closed`, `stalled`, `open` or `half-open`.
    graph: BreakerState,
}

/// The AsyncAPI 3 document of the interface for producers and listeners.
const ASYNCAPI: &str = include_str!("../../docs/asyncapi.json");

/// Return the routes. `/healthz`: the process lives. `/readyz`: its database is reachable and has a schema it
/// knows; broker, leases and Graph, whether submissions arrive and whether the database can be written, are
/// reported and do not make it red. `/metrics`: the counters of this process. `/openapi.json` and
/// `/asyncapi.json`: the documents of the interfaces.
pub fn router(
    store: SharedStore,
    broker: SharedBroker,
    serving: watch::Receiver<Serving>,
    graph: watch::Receiver<BreakerState>,
    document: String,
) -> Router {
    let ops = Ops { store, broker, serving, graph, last: Mutex::new(None), openapi: document };
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/asyncapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], ASYNCAPI)))
        .route("/openapi.json", get(openapi))
        .with_state(Arc::new(ops))
}

async fn openapi(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], ops.openapi.clone())
}

async fn readyz(State(ops): State<Arc<Ops>>) -> (StatusCode, Json<Readiness>) {
    let database = ops.database().await;
    let ready = database.reachable && matches!(database.schema, Some("current" | "newer"));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let Serving { leases, unserved } = *ops.serving.borrow();
    let graph = *ops.graph.borrow();
    let (submissions, submissions_reason) = match ops.broker.intake() {
        IntakeState::Off => (None, None),
        IntakeState::Open => (Some(true), None),
        IntakeState::Shut(reason) => (Some(false), Some(reason)),
    };
    let broker = ops.broker.state();
    let readiness =
        Readiness { ready, database, broker, submissions, submissions_reason, leases, unserved, graph };
    (status, Json(readiness))
}

async fn metrics(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    let state = ops.broker.state();
    METRICS.broker.state(state != BrokerState::Down, state == BrokerState::Blocked);
    METRICS.broker.submissions(!matches!(ops.broker.intake(), IntakeState::Shut(_)));
    ([(header::CONTENT_TYPE, TEXT_FORMAT)], METRICS.render())
}

impl Ops {
    async fn database(&self) -> Database {
        let mut last = self.last.lock().await;
        if let Some((at, database)) = &*last
            && at.elapsed() < CACHE_TTL
        {
            return database.clone();
        }
        let answer = tokio::time::timeout(PROBE_TIMEOUT, async {
            Ok::<_, StoreError>((self.store.schema().await?, self.store.not_writable().await?))
        });
        let database = match answer.await {
            Ok(Ok((schema, reason))) => Database {
                reachable: true,
                schema: Some(word(schema)),
                writable: (schema != SchemaState::Older).then_some(reason.is_none()),
                reason: reason.filter(|_| schema != SchemaState::Older),
            },
            Ok(Err(_)) | Err(_) => Database { reachable: false, schema: None, writable: None, reason: None },
        };
        *last = Some((Instant::now(), database.clone()));
        database
    }
}

fn word(schema: SchemaState) -> &'static str {
    match schema {
        SchemaState::Current => "current",
        SchemaState::Newer => "newer",
        SchemaState::Older => "older",
    }
}
