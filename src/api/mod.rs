//! What senders ask afterwards, over HTTP: their messages, and their campaigns (contract 3); and the document of all that
//! senders can call.
//!
//! Authenticates as the send endpoints do, and refuses in the same envelope. Every look at the log carries the account.
//! Never logs a query or a header: tokens stand there.

mod campaigns;
mod documented;
mod messages;
mod parameters;
mod progress;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ingest::{Ingest, Refusal, http};
use crate::message::AccountId;
use crate::settings::{LimitSettings, Settings};
use crate::store::{SharedStore, StoreError};
use campaigns::Standings;

/// A look at the log that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lists and counts at the same time, and commands that count: a look at a million rows keeps a core of the database
/// busy. Fewer than the store has connections for questions, so that a look at one row finds one.
const TURNS: usize = 2;
const COMMANDS: usize = 1;

/// What the handlers share.
struct Api {
    ingest: Arc<Ingest>,
    store: SharedStore,
    limits: LimitSettings,
    standings: Standings,
    turns: Semaphore,
    commands: Semaphore,
}

/// The routes beside the send endpoints, each with what the document says of it.
fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(messages::list))
        .routes(routes!(messages::show))
        .routes(routes!(campaigns::show))
        .routes(routes!(campaigns::pause))
        .routes(routes!(campaigns::resume))
        .routes(routes!(campaigns::cancel))
        .layer(CatchPanicLayer::custom(|_| http::refused(Refusal::Unavailable)))
}

/// The same, served.
pub fn router(ingest: Arc<Ingest>, store: SharedStore, settings: &Settings) -> Router {
    let api = Api {
        ingest,
        store,
        limits: settings.limits.clone(),
        standings: Standings::default(),
        turns: Semaphore::new(TURNS),
        commands: Semaphore::new(COMMANDS),
    };
    routes().with_state(Arc::new(api)).into()
}

/// The whole HTTP interface as OpenAPI 3.1, written from the routes that serve it.
pub fn document() -> String {
    let document = http::routes().into_openapi().merge_from(routes().into_openapi());
    let mut text = document.to_pretty_json().expect("what is documented is always JSON");
    text.push('\n');
    text
}

impl Api {
    /// Who asks.
    async fn account(&self, uri: &Uri, headers: &HeaderMap) -> Result<AccountId, Refusal> {
        self.ingest.account(uri.query().unwrap_or_default(), http::bearer(headers).as_deref()).await
    }
}

/// Waits for its turn to look at many rows.
async fn turn(turns: &Semaphore) -> Result<SemaphorePermit<'_>, Refusal> {
    let turn = tokio::time::timeout(PATIENCE, turns.acquire()).await;
    // Not closed as long as the handlers' state exists.
    turn.ok().and_then(Result::ok).ok_or(Refusal::Unavailable)
}

/// The answer of a look at the log, if it comes in time.
async fn in_time<T>(look: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(%error, "log query failed: caller receives 503");
            Err(Refusal::Unavailable)
        }
        Err(_) => {
            tracing::warn!("log query timed out: caller receives 503");
            Err(Refusal::Unavailable)
        }
    }
}

fn answer<T: Serialize>(found: Result<T, Refusal>) -> Response {
    let found = match found {
        Ok(found) => found,
        Err(refusal) => return http::refused(refusal),
    };
    let Ok(json) = serde_json::to_vec(&found) else { return http::refused(Refusal::Unavailable) };
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
