//! The query parameters of lists, exports and cancelling calls, as the OpenAPI document shows them.

use serde_json::{Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat};
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Required, Schema, Type};
use utoipa::{IntoParams, PartialSchema};

use super::super::parameters::{DEFAULT_LIMIT, LARGEST_LIMIT};
use super::super::progress::STATES;
use crate::domain::{
    ErrorKind, MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, Status,
};
use crate::edge::openapi::in_query;

/// The parameters of a list of messages.
pub struct ListParameters;

/// The parameters of an export.
pub struct ExportParameters;

/// The parameters of a cancelling call.
pub struct CancelParameters;

/// The parameters of a list of campaigns.
pub struct CampaignsParameters;

/// The path of a call about one campaign.
pub struct CampaignPath;

/// The path of a call about one line.
pub struct LinePath;

/// The path of a call about one recipient.
pub struct RecipientPath;

/// A parameter with its example.
type Exemplified = (Parameter, Option<Value>);

fn text(longest: usize) -> Object {
    ObjectBuilder::new().schema_type(Type::String).max_length(Some(longest)).build()
}

fn line() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build()
}

fn statuses() -> Object {
    let words = Status::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join("|");
    let pattern = format!("^({words})(,({words}))*$");
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

fn time(name: &str, about: &str, example: &str) -> Exemplified {
    let time = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    (in_query(name, about, time), Some(json!(example)))
}

fn page() -> [Exemplified; 2] {
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(LARGEST_LIMIT))
        .default(Some(json!(DEFAULT_LIMIT)));
    [
        (in_query("after", "Cursor: `next` of the page before", String::schema()), None),
        (in_query("limit", "Number of entries in a page", limit), Some(json!(1))),
    ]
}

/// Return the filters of lists and exports.
fn filters() -> Vec<Exemplified> {
    let code =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(i32::MIN)).maximum(Some(i32::MAX));
    vec![
        (in_query("status", "Statuses of the rows, between commas", statuses()), Some(json!("OK,ERROR"))),
        (in_query("app_id", "Line of the rows", line()), Some(json!(1))),
        (in_query("cp_id", "Campaign of the rows", text(MAX_CP_ID_CHARS)), Some(json!("spring"))),
        (
            in_query("msg_id", "Caller's references of the rows, between commas", text(MAX_MSG_ID_CHARS)),
            Some(json!("pedido-7")),
        ),
        (in_query("dest", "Recipient of the rows", text(MAX_DEST_CHARS)), Some(json!("2531927391"))),
        (in_query("error_code", "Graph's error code of the rows", code), None),
        (in_query("error_kind", "Reason of an `ERROR` of the rows", ErrorKind::schema()), None),
        time("since", "Earliest time of creation: RFC 3339 or Unix seconds", "2025-11-25T12:00:00Z"),
        time(
            "until",
            "Time before which the rows were created: RFC 3339 or Unix seconds",
            "2099-11-25T12:00:00Z",
        ),
    ]
}

fn parameters(parameters: impl IntoIterator<Item = Exemplified>) -> Vec<Parameter> {
    let with_example = |(parameter, example)| ParameterBuilder::from(parameter).example(example).build();
    parameters.into_iter().map(with_example).collect()
}

fn in_path(name: &str, about: &str, schema: impl Into<RefOr<Schema>>, example: Value) -> Vec<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(about))
        .schema(Some(schema))
        .example(Some(example));
    vec![parameter.build()]
}

impl IntoParams for ListParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        parameters(filters().into_iter().chain(page()))
    }
}

impl IntoParams for ExportParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let format = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["csv", "ndjson"]))
            .default(Some(json!("csv")));
        parameters(
            filters()
                .into_iter()
                .chain([(in_query("format", "Form of the answer", format), Some(json!("csv")))]),
        )
    }
}

impl IntoParams for CancelParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let wanted = ["app_id", "cp_id", "msg_id", "dest"];
        let filters =
            filters().into_iter().filter(|(parameter, _)| wanted.contains(&parameter.name.as_str()));
        let batch = in_query("batch_id", "Header `Batch-Id` of the rows' batch", text(MAX_BATCH_ID_CHARS));
        parameters(filters.chain([(batch, None)]))
    }
}

impl IntoParams for CampaignsParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let states = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(STATES));
        let state = (in_query("state", "State of the campaigns", states), Some(json!("finished")));
        parameters([state].into_iter().chain(page()))
    }
}

impl IntoParams for CampaignPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let label = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        in_path("cp_id", "Campaign label", label, json!("spring"))
    }
}

impl IntoParams for LinePath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        in_path("app_id", "Id of the line", line(), json!(1))
    }
}

impl IntoParams for RecipientPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut path = in_path("app_id", "Id of the line", line(), json!(1));
        path.extend(in_path("dest", "Recipient's PSID or IGSID", text(MAX_DEST_CHARS), json!("2531927391")));
        path
    }
}
