//! `GET /api/v2/messages` and `GET /api/v2/messages/{cdls_id}`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::documented::{self, ListParameters, RefusedList, RefusedOne};
use super::parameters::{OF_LIST, PageRequest, cursor};
use super::service::{Api, in_time, turn};
use crate::domain::{RowId, TokenScope};
use crate::edge::http::answer;
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::store::{LogRow, Scope};
use crate::text::trimmed;

/// Bytes of a page's rows as they are written. A page with more is cut short, so that a thousand clients that
/// ask and do not read hold little. Escapes count: a text of control characters is six times as long in JSON.
const PAGE_BYTES: usize = 256 * 1024;

#[derive(Serialize, ToSchema)]
#[schema(as = Messages)]
struct MessagePage {
    #[schema(value_type = Vec<LogRow>)]
    messages: Vec<Box<RawValue>>,
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
pub async fn list(State(api): State<Arc<Api>>, head: Parts) -> Response {
    answer(listed(&api, &head).await)
}

async fn listed(api: &Api, head: &Parts) -> Result<MessagePage, Refused> {
    let account = api.account(head, TokenScope::Read, OF_LIST).await?;
    let page = PageRequest::read(head.uri.query().unwrap_or_default())?;
    // One more than requested shows whether there is a next page.
    let look = api.store.messages(account, &page.filter, page.before, page.limit + 1);
    let _turn = turn(&api.lists, account).await?;
    let found = in_time(look).await?;
    let messages = written(found.iter().take(page.limit as usize));
    let more = found.len() > messages.len();
    let next = found[..messages.len()].last().filter(|_| more).map(|last| cursor(last.cdls_id));
    Ok(MessagePage { messages, next })
}

/// Return the rows of a page in JSON: as many as fit [`PAGE_BYTES`], at least one.
fn written<T: Serialize>(rows: impl Iterator<Item = T>) -> Vec<Box<RawValue>> {
    let mut bytes = 0;
    let mut written = Vec::new();
    for row in rows {
        let row = to_raw_value(&row).expect("rows are texts and numbers, which are always JSON");
        bytes += row.get().len() + ",".len();
        if bytes > PAGE_BYTES && !written.is_empty() {
            break;
        }
        written.push(row);
    }
    written
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
    head: Parts,
) -> Response {
    answer(shown(&api, id, &head).await)
}

async fn shown(api: &Api, id: Result<Path<String>, PathRejection>, head: &Parts) -> Result<LogRow, Refused> {
    let account = api.account(head, TokenScope::Read, &[]).await?;
    let id: RowId = id.ok().and_then(|Path(id)| trimmed(&id).parse().ok()).ok_or(Refusal::NotFound)?;
    Ok(in_time(api.store.log_row(Scope::Account(account), id)).await?.ok_or(Refusal::NotFound)?)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(0, 0)]
    #[case::few(3, 3)]
    #[case::many(100_000, 20_164)]
    fn page_ends_at_its_bytes(#[case] rows: usize, #[case] expected: usize) {
        let page = written(std::iter::repeat_n("0123456789", rows));
        assert_eq!(page.len(), expected);
        assert!(serde_json::to_vec(&page).expect("JSON").len() <= PAGE_BYTES + "[]".len());
    }

    #[test]
    fn escapes_count_as_they_are_written() {
        let text = "\u{1}".repeat(2_000);
        assert_eq!(written(std::iter::repeat_n(&text, 1_000)).len(), PAGE_BYTES / (6 * 2_000 + 3));
    }

    #[test]
    fn page_has_one_row_however_long() {
        let text = "x".repeat(2 * PAGE_BYTES);
        assert_eq!(written([&text, &text].into_iter()).len(), 1);
    }
}
