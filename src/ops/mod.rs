//! The admin listener: health, for supervisors and load balancers. No authentication, and nothing secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::broker::{BrokerState, SharedBroker};
use crate::store::{SchemaState, SharedStore};

/// Probes ask the database this often at most.
const REMEMBERED: Duration = Duration::from_secs(1);
/// A database that takes longer does not count as reachable.
const PATIENCE: Duration = Duration::from_secs(2);

struct Ops {
    store: SharedStore,
    broker: SharedBroker,
    /// Partitions this process holds.
    leases: watch::Receiver<usize>,
    last: Mutex<Option<(Instant, Database)>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Database {
    reachable: bool,
    /// `current`, `newer` or `older`; null when it is not known.
    schema: Option<&'static str>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    database: Database,
    broker: BrokerState,
    leases: usize,
}

/// `/healthz`: the process lives. `/readyz`: its database is reachable and has a schema it knows; broker and leases
/// are reported and do not make it red.
pub fn router(store: SharedStore, broker: SharedBroker, leases: watch::Receiver<usize>) -> Router {
    let ops = Ops { store, broker, leases, last: Mutex::new(None) };
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(openapi))
        .with_state(Arc::new(ops))
}

/// The HTTP interface as OpenAPI 3.1; tests hold it against the running program.
async fn openapi() -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../docs/openapi.json"))
}

async fn readyz(State(ops): State<Arc<Ops>>) -> (StatusCode, Json<Readiness>) {
    let database = ops.database().await;
    let ready = database.reachable && matches!(database.schema, Some("current" | "newer"));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let leases = *ops.leases.borrow();
    (status, Json(Readiness { ready, database, broker: ops.broker.state(), leases }))
}

impl Ops {
    async fn database(&self) -> Database {
        let mut last = self.last.lock().await;
        if let Some((at, database)) = *last
            && at.elapsed() < REMEMBERED
        {
            return database;
        }
        let database = match tokio::time::timeout(PATIENCE, self.store.schema()).await {
            Ok(Ok(schema)) => Database { reachable: true, schema: Some(word(schema)) },
            Ok(Err(_)) | Err(_) => Database { reachable: false, schema: None },
        };
        *last = Some((Instant::now(), database));
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
