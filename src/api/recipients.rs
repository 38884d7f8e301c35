//! `GET /api/v2/recipients/{app_id}/{dest}` and `POST /api/v2/recipients/check`: what inbound events have told of
//! recipients, one by one, or counted before a campaign is sent.
//!
//! Nothing is logged here, and a line of another account is none.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::documented::{self, RecipientPath, RefusedCheck, RefusedOne};
use super::service::{Api, in_time, turn};
use crate::domain::{LineId, MAX_DEST_CHARS, TokenScope};
use crate::edge::http::answer;
use crate::edge::openapi::Token;
use crate::edge::{Refusal, Refused};
use crate::store::{LineRecipient, RecipientCounts, RecipientFacts, Scope};
use crate::text::{is_blank, trimmed};

/// Recipients of one check.
pub const MAX_CHECKED: usize = 1_000;
const LONGEST_BODY: usize = 64 * 1024;
/// As for a cancelling call.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

/// Get what is known of a recipient
///
/// Of a recipient who has not written, and could be reached so far, nothing is known: the answer is the same for recipients that
/// do not exist.
#[utoipa::path(
    get,
    path = "/api/v2/recipients/{app_id}/{dest}",
    operation_id = "showRecipient",
    params(Token, RecipientPath),
    responses(
        (status = 200, description = "What is known of the recipient", body = RecipientFacts, examples(
            ("open" = (summary = "The window is open", value = json!(documented::recipient()))),
            ("unknown" = (summary = "Nothing is known", value = json!(documented::unknown_recipient()))),
        )),
        RefusedOne,
    ),
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    names: Result<Path<(String, String)>, PathRejection>,
    head: Parts,
) -> Response {
    answer(shown(&api, names, &head).await)
}

async fn shown(
    api: &Api,
    names: Result<Path<(String, String)>, PathRejection>,
    head: &Parts,
) -> Result<RecipientFacts, Refused> {
    let account = api.account(head, TokenScope::Read, &[]).await?;
    let Path((line, dest)) = names.map_err(|_| Refusal::NotFound)?;
    let line: LineId = trimmed(&line).parse().map_err(|_| Refusal::NotFound)?;
    let dest = recipient_id(&dest).ok_or(Refusal::NotFound)?;
    let found = in_time(api.store.recipient(Scope::Account(account), line, dest)).await?;
    Ok(found.ok_or(Refusal::NotFound)?)
}

/// Recipients to be counted
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = RecipientList)]
struct RecipientList {
    #[schema(max_items = 1000)]
    recipients: Vec<NamedRecipient>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct NamedRecipient {
    /// Id of the line
    #[serde(deserialize_with = "digits")]
    #[schema(value_type = i64)]
    app_id: String,
    /// Recipient's PSID or IGSID
    #[serde(deserialize_with = "digits")]
    dest: String,
}

/// The recipients of a check, counted
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecipientCheck)]
struct Checked {
    /// The account's lines among those named, by id
    lines: Vec<RecipientCounts>,
    /// Number of recipients whose line the account does not have
    not_found: usize,
}

/// Count recipients by what is known of them
///
/// At most 1,000 recipients; a recipient that is named twice counts once. Nothing is logged or sent.
#[utoipa::path(
    post,
    path = "/api/v2/recipients/check",
    operation_id = "checkRecipients",
    params(Token),
    request_body(content(
        (RecipientList = "application/json", examples(
            ("recipients" = (summary = "One recipient", value = json!(documented::checked_recipients()))),
        )),
    )),
    responses(
        (status = 200, description = "The counts of each line", body = Checked, examples(
            ("counts" = (summary = "Nothing is known of the recipient", value = json!(documented::recipient_counts()))),
        )),
        RefusedCheck,
    ),
)]
pub(super) async fn check(State(api): State<Arc<Api>>, request: Request) -> Response {
    answer(checked(&api, request).await)
}

async fn checked(api: &Api, request: Request) -> Result<Checked, Refused> {
    let (head, body) = request.into_parts();
    let account = api.account(&head, TokenScope::Send, &[]).await?;
    let recipients = recipients_of(read(body).await?)?;
    let _turn = turn(&api.lists, account).await?;
    let lines = in_time(api.store.recipient_counts(account, &recipients)).await?;
    let counted: i64 =
        lines.iter().map(|line| line.open + line.closed + line.unknown + line.unreachable).sum();
    let not_found = recipients.len().saturating_sub(usize::try_from(counted).unwrap_or_default());
    Ok(Checked { lines, not_found })
}

async fn read(body: Body) -> Result<RecipientList, Refused> {
    let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, LONGEST_BODY)).await;
    let late = |_| Refused::malformed("The body was not complete after 15 seconds: send it faster");
    let body = body.map_err(late)?.map_err(|_| Refusal::TooLarge)?;
    serde_json::from_slice(&body).map_err(|_| unreadable())
}

/// Return the recipients that a body names, each once.
fn recipients_of(list: RecipientList) -> Result<Vec<LineRecipient>, Refused> {
    if list.recipients.len() > MAX_CHECKED {
        return Err(unreadable());
    }
    let recipient = |NamedRecipient { app_id, dest }: NamedRecipient| {
        let line: LineId = trimmed(&app_id).parse().ok()?;
        Some(LineRecipient { line, dest: recipient_id(&dest)?.to_owned() })
    };
    let recipients: Option<HashSet<LineRecipient>> = list.recipients.into_iter().map(recipient).collect();
    Ok(recipients.ok_or_else(unreadable)?.into_iter().collect())
}

/// Read a text, or an integer as its digits.
fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(text) => Ok(text),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        _ => Err(D::Error::custom("neither a text nor an integer")),
    }
}

/// Return a recipient's id as the log has it; `None` if no message can have it.
fn recipient_id(text: &str) -> Option<&str> {
    let dest = trimmed(text);
    let fits = !is_blank(dest) && dest.chars().count() <= MAX_DEST_CHARS && !dest.contains('\0');
    fits.then_some(dest)
}

pub(super) fn unreadable() -> Refused {
    Refused::malformed(
        "The body is a JSON object whose `recipients` are at most 1000 objects with `app_id` and `dest`",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn recipients(body: &Value) -> Result<Vec<LineRecipient>, Refused> {
        recipients_of(serde_json::from_value(body.clone()).map_err(|_| unreadable())?)
    }

    #[test]
    fn recipient_counts_once() {
        let body = json!({"recipients": [
            {"app_id": 1, "dest": "253"}, {"app_id": "1", "dest": " 253 "}, {"app_id": 1, "dest": 253},
            {"app_id": 2, "dest": "253"},
        ]});
        let mut found = recipients(&body).expect("it can be read");
        found.sort();
        let of = |line, dest: &str| LineRecipient { line: LineId(line), dest: dest.into() };
        assert_eq!(found, [of(1, "253"), of(2, "253")]);
    }

    #[rstest]
    #[case::no_object(json!([]))]
    #[case::no_list(json!({"recipients": {}}))]
    #[case::no_dest(json!({"recipients": [{"app_id": 1}]}))]
    #[case::blank_dest(json!({"recipients": [{"app_id": 1, "dest": " "}]}))]
    #[case::nul(json!({"recipients": [{"app_id": 1, "dest": "a\u{0}b"}]}))]
    #[case::long_dest(json!({"recipients": [{"app_id": 1, "dest": "x".repeat(MAX_DEST_CHARS + 1)}]}))]
    #[case::no_line(json!({"recipients": [{"app_id": "x", "dest": "a"}]}))]
    #[case::too_many(json!({"recipients": vec![json!({"app_id": 1, "dest": "a"}); MAX_CHECKED + 1]}))]
    fn unreadable_body_is_refused(#[case] body: Value) {
        assert_eq!(recipients(&body).expect_err("it is refused").code(), 400);
    }
}
