//! Parameters, answers and examples of messages and campaigns for the OpenAPI document.
//!
//! Never here: answering. `tests/it/openapi` checks that every example is a real answer.

mod query;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

use super::campaigns::stays_cancelled;
use super::export::invalid_format;
use super::lines::{PAUSED, SENDING};
use super::parameters::{invalid_limit, no_filter};
use super::progress::FINISHED;
use super::recipients::unreadable;
use crate::domain::{CampaignState, WindowState};
use crate::edge::openapi::{answers, enveloped, refusals};
use crate::edge::{Refusal, Refused};
use crate::store::LogRow;
pub use query::{
    CampaignPath, CampaignsParameters, CancelParameters, ExportParameters, LinePath, ListParameters,
    RecipientPath,
};

pub const CSV: &str = "text/csv";
pub const NDJSON: &str = "application/x-ndjson";

const UNKNOWN_PARAMETER: &str =
    "A query parameter is unknown; if the request is not valid HTTP, the answer has no body";

/// The refusals of a list.
pub struct RefusedList;

/// The refusals of a call about one message or campaign.
pub struct RefusedOne;

/// The refusals of a cancelling call with filters.
pub struct RefusedCancel;

/// The refusals of a check of recipients.
pub struct RefusedCheck;

/// The refusals of an export.
pub struct RefusedExport;

/// The refusals of a list without parameters.
pub struct RefusedLines;

/// The refusals of the resumption of a campaign.
pub struct RefusedResume;

fn not_found() -> Response {
    enveloped("The account has no such message, campaign or line", refusals([Refusal::NotFound], 404))
}

impl IntoResponses for RefusedList {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let about = "A parameter is out of its range, or unknown";
        let refused = enveloped(about, refusals([invalid_limit()], 400));
        answers([("400", refused.into())])
    }
}

impl IntoResponses for RefusedLines {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let unknown = Refused::unknown_parameter("colour", &[]);
        answers([("400", enveloped(UNKNOWN_PARAMETER, refusals([unknown], 400)).into())])
    }
}

impl IntoResponses for RefusedResume {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let refused = [Refused::unknown_parameter("colour", &[]), stays_cancelled()];
        let bad =
            enveloped("A query parameter is unknown, or the campaign is cancelled", refusals(refused, 400));
        answers([("400", bad.into()), ("404", not_found().into())])
    }
}

impl IntoResponses for RefusedExport {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let about = "A parameter is out of its range, or unknown";
        let refused = enveloped(about, refusals([invalid_format()], 400));
        answers([("400", refused.into())])
    }
}

impl IntoResponses for RefusedCancel {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let refused = [no_filter(), Refused::malformed("The body is no JSON object")];
        let bad = enveloped(
            "No filter, one that is out of its range or unknown, or an unreadable body",
            refusals(refused, 400),
        );
        let too_large = enveloped("The body is over 64 KiB", refusals([Refusal::TooLarge], 413));
        answers([("400", bad.into()), ("413", too_large.into())])
    }
}

impl IntoResponses for RefusedCheck {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let refused = [Refused::unknown_parameter("colour", &[]), unreadable()];
        let bad = enveloped(
            "A query parameter is unknown, or the body is no list of recipients",
            refusals(refused, 400),
        );
        let too_large = enveloped("The body is over 64 KiB", refusals([Refusal::TooLarge], 413));
        answers([("400", bad.into()), ("413", too_large.into())])
    }
}

impl IntoResponses for RefusedOne {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let unknown = Refused::unknown_parameter("colour", &[]);
        let unreadable = enveloped(UNKNOWN_PARAMETER, refusals([unknown], 400));
        answers([("400", unreadable.into()), ("404", not_found().into())])
    }
}

pub fn sent() -> Value {
    json!({
        "cdls_id": 7, "cdcs_id": 1, "v8l_id": 1, "class": "messenger",
        "dest": "2531927391", "mtype": "text", "mdata": "Olá, tudo bem?", "mcaption": null,
        "msg_id": "pedido-7", "cp_id": "spring", "priority": "bulk",
        "status": "OK", "status_code": 200, "message_id": "m_AG5Hz2Uq7tuwNEhXfYYKj8mJEM",
        "error_code": null, "error_subcode": null, "error_kind": null, "error_message": null, "fbtrace_id": null,
        "attempts": 1, "ambiguous_attempts": 0, "next_at": null,
        "expires_at": "2026-11-26T12:00:00.000Z", "created_at": "2026-11-25T12:00:00.000Z",
        "sent_at": "2026-11-25T12:00:00.050Z", "done_at": "2026-11-25T12:00:00.130Z",
        "delivered_at": null, "read_at": null,
    })
}

/// Graph's text with 10/2018278.
const OUTSIDE_WINDOW: &str = "(#10) This message is sent outside of allowed window. Learn more about the new policy here: \
                              https://developers.facebook.com/docs/messenger-platform/policy-overview";

pub fn refused_by_graph() -> Value {
    let mut row = sent();
    row["status"] = json!("ERROR");
    row["status_code"] = json!(400);
    row["message_id"] = Value::Null;
    row["error_code"] = json!(10);
    row["error_subcode"] = json!(2_018_278);
    row["error_kind"] = json!("refused");
    row["error_message"] = json!(OUTSIDE_WINDOW);
    row["fbtrace_id"] = json!("AbCdEfGhIjKlMnOpQrStUvW");
    row
}

/// Return an export of one row as CSV.
pub fn csv() -> String {
    let row = sent();
    let cells = row.as_object().into_iter().flatten().map(|(_, value)| match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains(',') => format!("\"{text}\""),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    format!("{}\r\n{}\r\n", LogRow::COLUMNS.join(","), cells.collect::<Vec<_>>().join(","))
}

/// Return the same as NDJSON.
pub fn ndjson() -> String {
    format!("{}\n", sent())
}

/// Return the answer to a cancelling call.
pub fn touched(rows: u64) -> Value {
    json!({"touched": rows})
}

pub fn page() -> Value {
    json!({"messages": [sent()], "next": null})
}

pub fn first_page() -> Value {
    json!({"messages": [sent()], "next": "AQAAAAAAAAAH"})
}

pub fn line() -> Value {
    json!({
        "app_id": 1, "name": "Acme", "class": "messenger", "state": SENDING, "reason": null, "until": null,
        "action": null, "rate_text": 40, "rate_media": 10, "waiting": 0, "oldest_waiting_at": null,
        "graph": null, "token_expires_at": null, "budget_use": null, "limited_to": null, "day_budget": null,
    })
}

pub fn recipient() -> Value {
    json!({
        "app_id": 1, "dest": "2531927391", "last_inbound_at": "2026-11-25T12:00:00.000Z",
        "window_until": "2026-11-26T12:00:00.000Z", "window": WindowState::Open, "unreachable_since": null,
    })
}

pub fn unknown_recipient() -> Value {
    json!({
        "app_id": 1, "dest": "2531927391", "last_inbound_at": null, "window_until": null,
        "window": WindowState::Unknown, "unreachable_since": null,
    })
}

/// Return the body of a check.
pub fn checked_recipients() -> Value {
    json!({"recipients": [{"app_id": 1, "dest": "2531927391"}]})
}

pub fn recipient_counts() -> Value {
    let line = json!({"app_id": 1, "open": 0, "closed": 0, "unknown": 1, "unreachable": 0});
    json!({"lines": [line], "not_found": 0})
}

pub fn paused_line() -> Value {
    let mut line = line();
    line["state"] = json!(PAUSED);
    line["reason"] = json!("new page");
    line["action"] = json!("The operator ends the pause: `line resume`");
    line["waiting"] = json!(20);
    line["oldest_waiting_at"] = json!("2026-11-25T12:00:00.000Z");
    line
}

pub fn lines() -> Value {
    json!({"lines": [line()]})
}

fn progress(state: &str, waiting: i64, eta: Option<&str>) -> Value {
    let mut line = line();
    line["waiting"] = json!(waiting);
    json!({
        "cp_id": "spring", "state": state,
        "counts": {
            "PENDING": waiting, "SENDING": 0, "RETRY": 0, "OK": 40, "ERROR": 0, "UNKNOWN": 0, "CANCELLED": 0,
        },
        "total": 40 + waiting, "delivered": 0, "read": 0, "rate": 20.0, "eta": eta, "errors": [], "lines": [line],
    })
}

/// Return a list of campaigns, each without its errors.
pub fn campaigns() -> Value {
    let mut campaign = finished();
    if let Some(fields) = campaign.as_object_mut() {
        fields.shift_remove("errors");
    }
    json!({"campaigns": [campaign], "next": null})
}

fn commanded(state: &str, eta: Option<&str>) -> Value {
    let mut progress = progress(state, 20, eta);
    progress["touched"] = json!(20);
    progress
}

const SOON: Option<&str> = Some("2026-11-25T12:00:01.000Z");

pub fn running() -> Value {
    progress(CampaignState::Running.as_str(), 20, SOON)
}

pub fn finished() -> Value {
    progress(FINISHED, 0, None)
}

pub fn paused() -> Value {
    commanded(CampaignState::Paused.as_str(), None)
}

pub fn resumed() -> Value {
    commanded(CampaignState::Running.as_str(), SOON)
}

pub fn cancelled() -> Value {
    commanded(CampaignState::Cancelled.as_str(), None)
}
