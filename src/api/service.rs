//! The routes with the state that their handlers share: the caller's account, turns, and queries in time.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::campaigns::CountCache;
use super::{campaigns, cancel, export, lines, messages, recipients};
use crate::domain::{AccountId, TokenScope};
use crate::edge::http::{bearer, refused};
use crate::edge::{Caller, Directory, Refusal, Refused, Turn, Turns, known_only};
use crate::ingest;
use crate::settings::{LimitSettings, Settings};
use crate::store::{SharedStore, StoreError};
use crate::webhooks;

/// A query of the log that takes longer is given up.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// Lists, counts, and commands that count, at the same time: a query of a million rows keeps a core of the
/// database busy. Fewer than the store has connections for reads, so that a query of one row finds one. One
/// account has half of the turns at most, so that its lists delay no other account's.
const MAX_LISTS: usize = 2;
const MAX_COMMANDS: usize = 1;
/// Calls at the same time that cancel messages by a filter.
const MAX_CANCELS: usize = 2;
/// Exports under way at the same time, of one account a quarter; each of their pages also takes the turn of a list.
const MAX_EXPORTS: usize = 32;

/// The state that the handlers share.
pub(super) struct Api {
    directory: Arc<Directory>,
    pub(super) store: SharedStore,
    pub(super) limits: LimitSettings,
    pub(super) count_cache: CountCache,
    pub(super) lists: Turns,
    pub(super) commands: Turns,
    pub(super) cancels: Turns,
    pub(super) exports: Turns,
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
        .routes(routes!(recipients::show))
        .routes(routes!(recipients::check))
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
        lists: Turns::new(MAX_LISTS),
        commands: Turns::new(MAX_COMMANDS),
        cancels: Turns::new(MAX_CANCELS),
        exports: Turns::long(MAX_EXPORTS),
    };
    routes().with_state(Arc::new(api)).into()
}

/// Return the whole HTTP interface as OpenAPI 3.1, written from the routes that serve it.
pub fn document() -> String {
    let document = ingest::http::routes().into_openapi().merge_from(routes().into_openapi());
    let document = document.merge_from(webhooks::http::routes().into_openapi());
    let mut text = document.to_pretty_json().expect("what is documented is always JSON");
    text.push('\n');
    text
}

impl Api {
    /// Return the caller's account, if its token has the scope. A query parameter that the call does not know is
    /// refused (229).
    pub(super) async fn account(
        &self,
        head: &Parts,
        scope: TokenScope,
        known: &[&str],
    ) -> Result<AccountId, Refused> {
        self.account_of(head, head.uri.query().unwrap_or_default(), scope, known).await
    }

    pub(super) async fn account_of(
        &self,
        head: &Parts,
        query: &str,
        scope: TokenScope,
        known: &[&str],
    ) -> Result<AccountId, Refused> {
        let (caller, bearer) = (Caller::of(&head.extensions, &head.headers), bearer(&head.headers));
        let account = self.directory.account_of_request(&caller, query, bearer.as_deref(), scope).await?;
        known_only(query, known)?;
        Ok(account)
    }
}

/// Wait for a turn of the account.
pub(super) async fn turn(turns: &Turns, account: AccountId) -> Result<Turn, Refusal> {
    tokio::time::timeout(QUERY_TIMEOUT, turns.take(account)).await.map_err(|_| Refusal::Crowded)
}

/// Return the answer of a query of the log, if it comes in time.
pub(super) async fn in_time<T>(look: impl Future<Output = Result<T, StoreError>>) -> Result<T, Refusal> {
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
