//! `GET /api/v2/messages` and `GET /api/v2/messages/{cdls_id}`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::documented::{self, ListParameters, RefusedList, RefusedOne};
use super::parameters::{OF_LIST, PageRequest, cursor};
use super::{Api, in_time, permit};
use crate::domain::RowId;
use crate::edge::http::answer;
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::store::{LogRow, Scope};
use crate::text::trimmed;

/// Bytes of the texts of a page. A page with more is cut short, so that clients that ask and do not read hold
/// little.
const PAGE_BYTES: usize = 2 << 20;

#[derive(Serialize, ToSchema)]
#[schema(as = Messages)]
struct MessagePage {
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
    params(Token, ListParameters),
    responses(
        (status = 200, description = "One page of messages", body = MessagePage, examples(
            ("page" = (summary = "The last page", value = json!(documented::page()))),
            ("more" = (summary = "A page with a next page", value = json!(documented::first_page()))),
        )),
        RefusedList,
    ),
)]
pub async fn list(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Response {
    answer(listed(&api, &uri, &headers).await)
}

async fn listed(api: &Api, uri: &Uri, headers: &HeaderMap) -> Result<MessagePage, Refused> {
    let account = api.account(uri, headers, OF_LIST).await?;
    let page = PageRequest::read(uri.query().unwrap_or_default())?;
    // One more than requested shows whether there is a next page.
    let look = api.store.messages(account, &page.filter, page.before, page.limit + 1);
    let _permit = permit(&api.query_permits).await?;
    let mut messages = in_time(look).await?;
    let fits = fitting(&messages).min(page.limit as usize);
    let more = messages.len() > fits;
    messages.truncate(fits);
    let next = messages.last().filter(|_| more).map(|last| cursor(last.cdls_id));
    Ok(MessagePage { messages, next })
}

/// Return the number of these rows that fit a page: as many as [`PAGE_BYTES`] of their texts, at least one.
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
) -> Result<LogRow, Refused> {
    let account = api.account(uri, headers, &[]).await?;
    let id: RowId = id.ok().and_then(|Path(id)| trimmed(&id).parse().ok()).ok_or(Refusal::NotFound)?;
    Ok(in_time(api.store.log_row(Scope::Account(account), id)).await?.ok_or(Refusal::NotFound)?)
}
