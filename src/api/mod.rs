//! The HTTP calls by which callers read and change their messages, lines and campaigns (contract: "HTTP:
//! everything else"), and the document of all calls.
//!
//! Authenticates as the send endpoints do, and refuses in the same envelope. Every query of the log carries
//! the account. Never here: a query or a header in the process log, as both may hold tokens.

mod campaigns;
mod cancel;
mod documented;
pub mod export;
mod lines;
mod messages;
mod parameters;
mod progress;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Uri};
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::AccountId;
use crate::edge::http::{bearer, refused};
use crate::edge::{Directory, Refusal, Refused, known_only};
use crate::ingest;
use crate::settings::{LimitSettings, Settings};
use crate::store::{SharedStore, StoreError};
use campaigns::CountCache;

/// A query of the log that takes longer is given up.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// Lists, counts, and commands that count, at the same time: a query of a million rows keeps a core of the
/// database busy. Fewer than the store has connections for reads, so that a query of one row finds one.
const MAX_QUERIES: usize = 2;
const MAX_COMMANDS: usize = 1;
/// Calls at the same time that cancel messages by a filter.
const MAX_CANCELS: usize = 2;

/// The state that the handlers share.
struct Api {
    directory: Arc<Directory>,
    store: SharedStore,
    limits: LimitSettings,
    count_cache: CountCache,
    query_permits: Semaphore,
    command_permits: Semaphore,
    cancel_permits: Semaphore,
}

/// Return the routes beside the send endpoints, each with its part of the document.
fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(messages::list))
        .routes(routes!(export::export))
        .routes(routes!(messages::show))
        .routes(routes!(cancel::one))
        .routes(routes!(cancel::many))
        .routes(routes!(lines::list))
        .routes(routes!(lines::show))
        .routes(routes!(campaigns::list))
        .routes(routes!(campaigns::show))
        .routes(routes!(campaigns::pause))
        .routes(routes!(campaigns::resume))
        .routes(routes!(campaigns::cancel))
        .layer(CatchPanicLayer::custom(|_| refused(Refusal::Unavailable)))
}

/// Return the routes with their state.
pub fn router(directory: Arc<Directory>, store: SharedStore, settings: &Settings) -> Router {
    let api = Api {
        directory,
        store,
        limits: settings.limits.clone(),
        count_cache: CountCache::default(),
        query_permits: Semaphore::new(MAX_QUERIES),
        command_permits: Semaphore::new(MAX_COMMANDS),
        cancel_permits: Semaphore::new(MAX_CANCELS),
    };
    routes().with_state(Arc::new(api)).into()
}

/// Return the whole HTTP interface as OpenAPI 3.1, written from the routes that serve it.
pub fn document() -> String {
    let document = ingest::http::routes().into_openapi().merge_from(routes().into_openapi());
    let mut text = document.to_pretty_json().expect("what is documented is always JSON");
    text.push('\n');
    text
}

impl Api {
    /// Return the caller's account. A query parameter that the call does not know is refused (229).
    async fn account(&self, uri: &Uri, headers: &HeaderMap, known: &[&str]) -> Result<AccountId, Refused> {
        self.account_of(uri.query().unwrap_or_default(), headers, known).await
    }

    async fn account_of(
        &self,
        query: &str,
        headers: &HeaderMap,
        known: &[&str],
    ) -> Result<AccountId, Refused> {
        let account = self.directory.account_of_request(query, bearer(headers).as_deref()).await?;
        known_only(query, known)?;
        Ok(account)
    }
}

/// Wait for a permit to read many rows.
async fn permit(permits: &Semaphore) -> Result<SemaphorePermit<'_>, Refusal> {
    let permit = tokio::time::timeout(QUERY_TIMEOUT, permits.acquire()).await;
    // The semaphore is open as long as the handlers' state exists.
    permit.ok().and_then(Result::ok).ok_or(Refusal::Unavailable)
}

/// Return the answer of a query of the log, if it comes in time.
async fn in_time<T>(look: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
    match tokio::time::timeout(QUERY_TIMEOUT, look).await {
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
