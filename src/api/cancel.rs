//! `POST /api/v2/messages/{cdls_id}/cancel`, and the same for all waiting messages that match a filter.
//!
//! Rows are ended in small groups, so that no other statement waits for a long transaction; a call that meets
//! its bound reports the rows it has cancelled, and the caller repeats it. A row that is in a call, or has
//! ended, is left alone.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use url::form_urlencoded;
use utoipa::ToSchema;

use super::documented::{self, CancelParameters, RefusedCancel, RefusedOne};
use super::parameters::{OF_CANCEL, cancelled_filter};
use super::{Api, QUERY_TIMEOUT, in_time, permit};
use crate::domain::{AccountId, RowId};
use crate::edge::http::{answer, charset, essence};
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::store::{CANCELLED_AT_ONCE, MessageFilter, Scope};
use crate::text::{form_pairs, trimmed};

/// Waiting rows looked up at a time.
const PAGE: u32 = 10_000;
/// Longest body: filters are short.
const LONGEST_BODY: usize = 64 * 1024;

/// How many messages were cancelled
#[derive(Serialize, ToSchema)]
#[schema(as = Cancelled)]
struct Cancelled {
    /// Number of messages that this call has cancelled
    touched: u64,
}

/// Cancel a message that waits
///
/// A message that is in a call, or has ended, stays as it is; `touched` is 0 then.
#[utoipa::path(
    post,
    path = "/api/v2/messages/{cdls_id}/cancel",
    operation_id = "cancelMessage",
    params(Token, ("cdls_id" = i64, Path, description = "Id of the row", example = 7)),
    responses(
        (status = 200, description = "Number of cancelled messages: 1 or 0", body = Cancelled, examples(
            ("cancelled" = (summary = "It waited", value = json!(documented::touched(1)))),
            ("ended" = (summary = "It has ended", value = json!(documented::touched(0)))),
        )),
        RefusedOne,
    ),
)]
pub async fn one(
    State(api): State<Arc<Api>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(cancelled_one(&api, id, &uri, &headers).await)
}

async fn cancelled_one(
    api: &Api,
    id: Result<Path<String>, PathRejection>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Cancelled, Refused> {
    let scope = Scope::Account(api.account(uri, headers, &[]).await?);
    let id: RowId = id.ok().and_then(|Path(id)| trimmed(&id).parse().ok()).ok_or(Refusal::NotFound)?;
    in_time(api.store.log_row(scope, id)).await?.ok_or(Refusal::NotFound)?;
    let cancelled = in_time(api.store.cancel(scope, &[id])).await?;
    Ok(Cancelled { touched: cancelled.len() as u64 })
}

/// Cancel the waiting messages that match all filters
///
/// At least one filter is needed; a form or a JSON body may hold them, too. Messages in a call, and those that have ended, stay
/// as they are.
#[utoipa::path(
    post,
    path = "/api/v2/messages/cancel",
    operation_id = "cancelMessages",
    params(Token, CancelParameters),
    responses(
        (status = 200, description = "Number of cancelled messages", body = Cancelled, examples(
            ("cancelled" = (summary = "Cancelled", value = json!(documented::touched(1)))),
            ("none" = (summary = "Nothing waited", value = json!(documented::touched(0)))),
        )),
        RefusedCancel,
    ),
)]
pub async fn many(State(api): State<Arc<Api>>, request: Request) -> Response {
    answer(cancelled_many(&api, request).await)
}

async fn cancelled_many(api: &Api, request: Request) -> Result<Cancelled, Refused> {
    let (head, body) = request.into_parts();
    let query = with_body(head.uri.query().unwrap_or_default(), &head.headers, body).await?;
    let account = api.account_of(&query, &head.headers, OF_CANCEL).await?;
    let filter = cancelled_filter(&query)?;
    let _permit = permit(&api.cancel_permits).await?;
    Ok(Cancelled { touched: cancel(api, account, &filter).await? })
}

/// Cancel page by page; the rows that are sent next come first.
async fn cancel(api: &Api, account: AccountId, filter: &MessageFilter) -> Result<u64, Refused> {
    let (scope, started) = (Scope::Account(account), Instant::now());
    let (mut after, mut touched) = (RowId(0), 0);
    loop {
        let waiting = in_time(api.store.waiting(scope, filter, after, PAGE)).await?;
        let Some(last) = waiting.last() else { return Ok(touched) };
        after = *last;
        for ids in waiting.chunks(CANCELLED_AT_ONCE) {
            if started.elapsed() > QUERY_TIMEOUT {
                return Err(too_many(touched));
            }
            let begun = Instant::now();
            touched += in_time(api.store.cancel(scope, ids)).await?.len() as u64;
            if waiting.len() > CANCELLED_AT_ONCE {
                // Workers wait during a page; the pause lets others send.
                tokio::time::sleep(begun.elapsed() / 2).await;
            }
        }
        if waiting.len() < PAGE as usize {
            return Ok(touched);
        }
    }
}

fn too_many(touched: u64) -> Refused {
    let detail = format!("{touched} messages are cancelled, and more wait: repeat the request to go on");
    Refused::because(Refusal::Unavailable, detail)
}

/// Join the parameters of the query and of the body into one query, in which the query's come last and take
/// precedence.
async fn with_body(query: &str, headers: &HeaderMap, body: Body) -> Result<String, Refused> {
    let body = to_bytes(body, LONGEST_BODY).await.map_err(|_| Refusal::TooLarge)?;
    if body.is_empty() {
        return Ok(query.to_owned());
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    let pairs: Vec<(String, String)> = match essence(content_type).as_str() {
        "" | "application/x-www-form-urlencoded" => {
            form_pairs(&body, charset(content_type)?).map(|(name, value)| (name, value.text)).collect()
        }
        "application/json" => pairs_of_json(&body)?,
        _ => return Err(Refused::malformed("Give the filters in the query, as a form, or as a JSON object")),
    };
    let given = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    Ok(format!("{given}&{query}"))
}

fn pairs_of_json(body: &[u8]) -> Result<Vec<(String, String)>, Refused> {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Err(Refused::malformed("The body is no JSON object"));
    };
    let pair = |(name, value): (String, Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(Ok((name, text))),
        Value::Number(number) if number.is_i64() => Some(Ok((name, number.to_string()))),
        _ => Some(Err(Refused::name(&name, |name| format!("`{name}` is a text or an integer")))),
    };
    object.into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn given(query: &str, content_type: &'static str, body: &'static str) -> Result<String, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().expect("a header value"));
        with_body(query, &headers, Body::from(body)).await
    }

    #[tokio::test]
    async fn filters_come_from_query_and_body() {
        assert_eq!(given("cp_id=a", "", "").await.as_deref(), Ok("cp_id=a"));
        let form = given("cp_id=a", "application/x-www-form-urlencoded", "cp_id=b&dest=1+2").await;
        assert_eq!(form.as_deref(), Ok("cp_id=b&dest=1+2&cp_id=a"));
        let json = given("", "application/json", r#"{"app_id":7,"dest":null,"cp_id":"a b"}"#).await;
        assert_eq!(json.as_deref(), Ok("app_id=7&cp_id=a+b&"));
    }

    #[tokio::test]
    async fn unreadable_body_is_refused() {
        for (content_type, body, code) in [
            ("application/json", "[]", 400),
            ("application/json", r#"{"dest":[1]}"#, 229),
            ("text/plain", "cp_id=a", 400),
        ] {
            let refused = given("", content_type, body).await.expect_err("it cannot be read");
            assert_eq!(refused.code(), code, "{body}");
        }
    }
}
