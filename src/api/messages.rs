//! `GET /api/v2/messages` and `GET /api/v2/messages/{cdls_id}`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::documented::{self, Filters, RefusedList, RefusedOne};
use super::parameters::{Page, cursor};
use super::{Api, answer, in_time, turn};
use crate::ingest::Refusal;
use crate::ingest::http::documented::Token;
use crate::message::MessageId;
use crate::store::{LogRow, Scope};

/// Texts of a page. Beyond it the page is shorter than asked for, so that clients that ask and do not read hold little.
const PAGE_BYTES: usize = 2 << 20;

#[derive(Serialize, ToSchema)]
struct Messages {
    messages: Vec<LogRow>,
    /// Value of `after` for the next page; null on the last page
    #[schema(required)]
    next: Option<String>,
}

/// List messages, newest first
#[utoipa::path(
    get,
    path = "/api/v2/messages",
    operation_id = "listMessages",
    params(Token, Filters),
    responses(
        (status = 200, description = "One page of messages", body = Messages, examples(
            ("page" = (summary = "The last page", value = json!(documented::page()))),
            ("more" = (summary = "A page with a next page", value = json!(documented::first_page()))),
        )),
        RefusedList,
    ),
)]
pub async fn list(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    answer(listed(&api, &uri, &headers).await)
}

async fn listed(api: &Api, uri: &Uri, headers: &HeaderMap) -> Result<Messages, Refusal> {
    let account = api.account(uri, headers).await?;
    let page = Page::read(uri.query().unwrap_or_default())?;
    // One more than asked for says whether there is a next page.
    let look = api.store.messages(account, &page.filter, page.before, page.limit + 1);
    let _turn = turn(&api.turns).await?;
    let mut messages = in_time(look).await?;
    let fits = fitting(&messages).min(page.limit as usize);
    let more = messages.len() > fits;
    messages.truncate(fits);
    let next = messages.last().filter(|_| more).map(|last| cursor(last.cdls_id));
    Ok(Messages { messages, next })
}

/// How many of these rows a page holds: as many as [`PAGE_BYTES`] of their texts, at least one.
fn fitting(messages: &[LogRow]) -> usize {
    let mut bytes = 0;
    let fits = messages.iter().take_while(|row| {
        bytes += row.mdata.len() + row.mcaption.as_ref().map_or(0, String::len);
        bytes <= PAGE_BYTES
    });
    fits.count().max(1)
}

/// Get a message
#[utoipa::path(
    get,
    path = "/api/v2/messages/{cdls_id}",
    operation_id = "showMessage",
    params(Token, ("cdls_id" = i64, Path, description = "Id of the row", example = 7)),
    responses(
        (status = 200, description = "The log row", body = LogRow, examples(
            ("sent" = (summary = "Sent", value = json!(documented::sent()))),
            ("refused" = (summary = "Refused by Graph", value = json!(documented::refused_by_graph()))),
        )),
        RefusedOne,
    ),
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(shown(&api, id, &uri, &headers).await)
}

async fn shown(
    api: &Api,
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<LogRow, Refusal> {
    let account = api.account(uri, headers).await?;
    let id: MessageId = id.ok().and_then(|Path(id)| id.parse().ok()).ok_or(Refusal::NotFound)?;
    in_time(api.store.log_row(Scope::Account(account), id)).await?.ok_or(Refusal::NotFound)
}
