//! `POST /api/v2/messages/{cdls_id}/cancel`, and the same for all waiting messages that match a filter.
//!
//! Rows are ended in small groups, so that no other statement waits for a long transaction; a call that meets
//! its bound reports the rows it has cancelled, and that there are more: the caller repeats it. A row that is in
//! a call, or has ended, is left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use url::form_urlencoded;
use utoipa::ToSchema;

use super::documented::{self, CancelParameters, RefusedCancel, RefusedOne};
use super::parameters::{OF_CANCEL, cancelled_filter};
use super::service::{Api, QUERY_TIMEOUT, in_time, turn};
use crate::domain::{RowId, TokenScope};
use crate::edge::http::{answer, charset, essence};
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::store::{CANCELLED_AT_ONCE, CancelStore, MessageFilter, Scope};
use crate::text::{form_pairs, trimmed};

/// Waiting rows looked up at a time.
const PAGE: u32 = 10_000;
/// Longest body: filters are short.
const LONGEST_BODY: usize = 64 * 1024;
/// A body that is incomplete after this time is given up, as at the send endpoints: its sender is not known yet.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// How many messages were cancelled
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Cancelled)]
struct Cancelled {
    /// Number of messages that this call has cancelled
    touched: u64,
    /// True if the call ended before it had looked at all matching messages: repeat it; else left out
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    more: bool,
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
    head: Parts,
) -> Response {
    answer(cancelled_one(&api, id, &head).await)
}

async fn cancelled_one(
    api: &Api,
    id: Result<Path<String>, PathRejection>,
    head: &Parts,
) -> Result<Cancelled, Refused> {
    let scope = Scope::Account(api.account(head, TokenScope::Campaigns, &[]).await?);
    let id: RowId = id.ok().and_then(|Path(id)| trimmed(&id).parse().ok()).ok_or(Refusal::NotFound)?;
    in_time(api.store.log_row(scope, id)).await?.ok_or(Refusal::NotFound)?;
    let cancelled = in_time(api.store.cancel(scope, &[id])).await?;
    Ok(Cancelled { touched: cancelled.len() as u64, more: false })
}

/// Cancel the waiting messages that match all filters
///
/// At least one filter is needed; a form or a JSON body may hold them, too. Messages in a call, and those that have ended, stay
/// as they are. A call goes on for 15 seconds at most; while more messages match, the answer says `"more": true`, and the
/// same call goes on.
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
    let account = api.account_of(&head, &query, TokenScope::Campaigns, OF_CANCEL).await?;
    let filter = cancelled_filter(&query)?;
    let _turn = turn(&api.cancels, account).await?;
    cancel(&*api.store, Scope::Account(account), &filter, QUERY_TIMEOUT).await
}

/// Cancel page by page until `limit` has passed; the rows that are sent next come first. A failure behind the first
/// group ends the call as the limit does: what is cancelled is counted.
async fn cancel(
    store: &dyn CancelStore,
    scope: Scope,
    filter: &MessageFilter,
    limit: Duration,
) -> Result<Cancelled, Refused> {
    let started = Instant::now();
    let (mut after, mut touched) = (RowId(0), 0);
    let mut is_begun = false;
    loop {
        let waiting = match in_time(store.waiting(scope, filter, after, PAGE)).await {
            Ok(waiting) => waiting,
            Err(refusal) => return so_far(touched, refusal),
        };
        for ids in waiting.chunks(CANCELLED_AT_ONCE) {
            if is_begun && started.elapsed() >= limit {
                return Ok(Cancelled { touched, more: true });
            }
            let begun = Instant::now();
            match in_time(store.cancel(scope, ids)).await {
                Ok(cancelled) => touched += cancelled.len() as u64,
                Err(refusal) => return so_far(touched, refusal),
            }
            is_begun = true;
            if waiting.len() > CANCELLED_AT_ONCE {
                // Workers wait during a page; the pause lets others send.
                tokio::time::sleep(begun.elapsed() / 2).await;
            }
        }
        after = match waiting.last() {
            Some(last) if waiting.len() >= PAGE as usize => *last,
            _ => return Ok(Cancelled { touched, more: false }),
        };
    }
}

/// Answer a call that could not go on: with the rows it has cancelled, or with the refusal.
fn so_far(touched: u64, refusal: Refusal) -> Result<Cancelled, Refused> {
    if touched > 0 { Ok(Cancelled { touched, more: true }) } else { Err(refusal.into()) }
}

/// Join the parameters of the query and of the body into one query, in which the query's come last and take
/// precedence.
async fn with_body(query: &str, headers: &HeaderMap, body: Body) -> Result<String, Refused> {
    let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, LONGEST_BODY)).await;
    let late = |_| Refused::malformed("The body was not complete after 15 seconds: send it faster");
    let body = body.map_err(late)?.map_err(|_| Refusal::TooLarge)?;
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
    use std::collections::BTreeSet;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::AccountId;
    use crate::store::StoreError;

    const ALL: Scope = Scope::Operator;

    /// A store in which these rows wait. Its calls fail after `answers` cancelled groups.
    struct Waiting {
        rows: Mutex<BTreeSet<RowId>>,
        answers: Mutex<u32>,
    }

    impl Waiting {
        fn new(rows: i64, answers: u32) -> Waiting {
            Waiting { rows: Mutex::new((1..=rows).map(RowId).collect()), answers: Mutex::new(answers) }
        }

        async fn cancel(&self, limit: Duration) -> Result<Cancelled, Refused> {
            cancel(self, ALL, &MessageFilter::default(), limit).await
        }
    }

    #[async_trait]
    impl CancelStore for Waiting {
        async fn waiting(
            &self,
            _scope: Scope,
            _filter: &MessageFilter,
            after: RowId,
            limit: u32,
        ) -> Result<Vec<RowId>, StoreError> {
            let rows = self.rows.lock();
            Ok(rows.iter().copied().filter(|id| *id > after).take(limit as usize).collect())
        }

        async fn cancel(&self, _scope: Scope, ids: &[RowId]) -> Result<Vec<RowId>, StoreError> {
            let mut answers = self.answers.lock();
            let Some(left) = answers.checked_sub(1) else {
                return Err(StoreError::Unavailable("it is started again".into()));
            };
            *answers = left;
            self.rows.lock().retain(|id| ids.binary_search(id).is_err());
            Ok(ids.to_vec())
        }

        async fn batch_of(&self, _account: AccountId, _id: RowId) -> Result<Option<String>, StoreError> {
            Ok(None)
        }
    }

    fn cancelled(touched: u64, more: bool) -> Result<Cancelled, Refused> {
        Ok(Cancelled { touched, more })
    }

    #[tokio::test(start_paused = true)]
    async fn call_at_its_limit_says_that_there_are_more() {
        let store = Waiting::new(450, u32::MAX);
        assert_eq!(store.cancel(Duration::ZERO).await, cancelled(200, true));
        assert_eq!(store.cancel(Duration::ZERO).await, cancelled(200, true));
        assert_eq!(store.cancel(Duration::ZERO).await, cancelled(50, false));
        let store = Waiting::new(20_450, u32::MAX);
        assert_eq!(store.cancel(QUERY_TIMEOUT).await, cancelled(20_450, false), "all pages");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_call_counts_its_rows() {
        let store = Waiting::new(450, 2);
        assert_eq!(store.cancel(QUERY_TIMEOUT).await, cancelled(400, true));
        assert_eq!(store.cancel(QUERY_TIMEOUT).await, Err(Refusal::Unavailable.into()));
    }

    #[test]
    fn answer_names_more_only_where_there_is() {
        let json = |answer: Cancelled| serde_json::to_string(&answer).expect("JSON");
        assert_eq!(json(Cancelled { touched: 3, more: false }), r#"{"touched":3}"#);
        assert_eq!(json(Cancelled { touched: 3, more: true }), r#"{"touched":3,"more":true}"#);
    }

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

    #[tokio::test(start_paused = true)]
    async fn body_that_never_ends_is_given_up() {
        let endless = futures::stream::pending::<Result<&'static str, std::io::Error>>();
        let headers = HeaderMap::new();
        let read = with_body("cp_id=a", &headers, Body::from_stream(endless));
        assert_eq!(read.await.expect_err("it is given up").code(), 400);
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
