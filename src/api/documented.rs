//! What the OpenAPI document says of messages and campaigns: parameters, answers, and an example of each.
//!
//! Nothing here takes part in answering; that every example is what is answered is held by `tests/it/openapi`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Required, Response, ResponseBuilder, Type};
use utoipa::{IntoParams, IntoResponses, PartialSchema};

use super::parameters::{DEFAULT_LIMIT, LARGEST_LIMIT};
use super::progress::FINISHED;
use crate::ingest::Refusal;
use crate::ingest::http::documented::{answers, enveloped, in_query, refusals};
use crate::message::{CampaignState, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, Status};

/// Which messages are listed.
pub struct Filters;

/// The campaign that is meant.
pub struct Label;

/// How a list is refused.
pub struct RefusedList;

/// How a call about one message or campaign is refused.
pub struct RefusedOne;

fn text(longest: usize) -> Object {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(longest)).build()
}

impl IntoParams for Filters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let line = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(LARGEST_LIMIT))
            .default(Some(json!(DEFAULT_LIMIT)));
        let parameters: [(Parameter, Option<Value>); 7] = [
            (in_query("status", "Status of the rows", Status::schema()), Some(json!("OK"))),
            (in_query("app_id", "Line of the rows", line), Some(json!(1))),
            (in_query("cp_id", "Campaign of the rows", text(MAX_CP_ID_CHARS)), Some(json!("spring"))),
            (
                in_query("msg_id", "Caller's reference of the rows", text(MAX_MSG_ID_CHARS)),
                Some(json!("pedido-7")),
            ),
            (in_query("dest", "Recipient of the rows", text(MAX_DEST_CHARS)), Some(json!("2531927391"))),
            (in_query("after", "Cursor: `next` of the page before", String::schema()), None),
            (in_query("limit", "Number of rows in a page", limit), Some(json!(1))),
        ];
        parameters.into_iter().map(|(parameter, example)| with_example(parameter, example)).collect()
    }
}

fn with_example(parameter: Parameter, example: Option<Value>) -> Parameter {
    ParameterBuilder::from(parameter).example(example).build()
}

impl IntoParams for Label {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let label = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let parameter = ParameterBuilder::new()
            .name("cp_id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("Campaign label"))
            .schema(Some(label))
            .example(Some(json!("spring")));
        vec![parameter.build()]
    }
}

impl IntoResponses for RefusedList {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let limit = [Refusal::InvalidParameter("limit")];
        let refused = enveloped("A parameter is out of its range", refusals(&limit, 400));
        answers([("400", refused.into())])
    }
}

impl IntoResponses for RefusedOne {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let unreadable =
            ResponseBuilder::new().description("The request is not valid HTTP; the answer has no body");
        let not_found =
            enveloped("The account has no such message or campaign", refusals(&[Refusal::NotFound], 404));
        answers([("400", unreadable.build().into()), ("404", not_found.into())])
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

/// What Graph says with 10/2018278.
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

pub fn page() -> Value {
    json!({"messages": [sent()], "next": null})
}

pub fn first_page() -> Value {
    json!({"messages": [sent()], "next": "AQAAAAAAAAAH"})
}

fn progress(state: &str, waiting: i64, eta: Option<&str>) -> Value {
    json!({
        "cp_id": "spring", "state": state, "total": 40 + waiting, "rate": 20.0, "eta": eta,
        "counts": {
            "PENDING": waiting, "SENDING": 0, "RETRY": 0, "OK": 40, "ERROR": 0, "UNKNOWN": 0, "CANCELLED": 0,
        },
    })
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
