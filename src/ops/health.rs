//! Health for supervisors and load balancers: whether the process is ready, and what it reports beside that.
//!
//! Never here: a decision about a row or a line.

use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::broker::{BrokerState, IntakeState, SharedBroker};
use crate::domain::{BreakerState, Serving};
use crate::metrics::METRICS;
use crate::store::{SchemaState, SharedStore, StoreError};

/// Probes ask the database this often at most.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// A database that takes longer does not count as reachable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The parts whose health a process reports.
pub struct Health {
    store: SharedStore,
    broker: SharedBroker,
    /// The partitions of this process.
    serving: watch::Receiver<Serving>,
    /// Whether this process sends to Graph.
    graph: watch::Receiver<BreakerState>,
    last: Mutex<Option<(Instant, Database)>>,
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
pub struct Readiness {
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

impl Health {
    pub fn new(
        store: SharedStore,
        broker: SharedBroker,
        serving: watch::Receiver<Serving>,
        graph: watch::Receiver<BreakerState>,
    ) -> Health {
        Health { store, broker, serving, graph, last: Mutex::new(None) }
    }

    /// Return the answer of `/readyz`.
    pub async fn readiness(&self) -> (StatusCode, Json<Readiness>) {
        let database = self.database().await;
        let ready = database.reachable && matches!(database.schema, Some("current" | "newer"));
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let Serving { leases, unserved } = *self.serving.borrow();
        let graph = *self.graph.borrow();
        let (submissions, submissions_reason) = match self.broker.intake() {
            IntakeState::Off => (None, None),
            IntakeState::Open => (Some(true), None),
            IntakeState::Shut(reason) => (Some(false), Some(reason)),
        };
        let broker = self.broker.state();
        let readiness =
            Readiness { ready, database, broker, submissions, submissions_reason, leases, unserved, graph };
        (status, Json(readiness))
    }

    /// Note the state of the broker in the metrics.
    pub fn note_broker(&self) {
        let state = self.broker.state();
        METRICS.broker.state(state != BrokerState::Down, state == BrokerState::Blocked);
        METRICS.broker.submissions(!matches!(self.broker.intake(), IntakeState::Shut(_)));
    }

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
