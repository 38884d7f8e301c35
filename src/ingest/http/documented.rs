//! The OpenAPI document of submissions: parameters, bodies, answers, and an example of each.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterIn, PathItemBuilder, Paths, PathsBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{
    ContentBuilder, Object, ObjectBuilder, OpenApi, Ref, RefOr, Response, Responses, ResponsesBuilder, Type,
};
use utoipa::{IntoParams, IntoResponses, PartialSchema};

use super::super::batch::{logged_line, refused_line};
use super::super::body::{BodyType, FORM, MULTIPART};
use super::super::parameters::Parameters;
use super::super::validate::{
    LONGEST_SECONDS, MAX_MCAPTION_CHARS, MAX_WAIT, invalid_mtype, invalid_wait, text_too_long,
};
use super::batch::{unread_type, wrong_flag};
use crate::channel::{Class, Example, FILE_ALIAS, MessageKind};
use crate::domain::{
    ErrorKind, Lane, MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, Outcome, RowId,
    Status,
};
use crate::edge::openapi::{
    self, JSON, SID, TSID, answers, enveloped, example, in_query, optional, refusals,
};
use crate::edge::{Envelope, Refusal, Refused};
use crate::store::LONGEST_HTTPDUP;
use crate::text::Charset;

pub const NDJSON: &str = "application/x-ndjson";
pub const CSV: &str = "text/csv";

pub const NDJSON_LINES: &str = r#"{"class":"messenger","app_id":1,"dest":"2531927391","mdata":"Olá, Ana!","cp_id":"spring"}
{"class":"instagram","app_id":2,"dest":"17841400000000001","mtype":"image","mdata":"https://example.com/a.jpg"}
{"app_id":1,"dest":"","mdata":"Olá, Bia!"}
"#;
pub const CSV_LINES: &str =
    "app_id,dest,mdata\n1,2531927391,\"Olá, Ana!\"\n999999,2531927392,\"Olá, Bia!\"\n";

/// Return the answers to [`NDJSON_LINES`].
pub fn ndjson_answers() -> String {
    let refused = refused_line(3, &Refusal::NoDest.into());
    [logged_line(1, RowId(7), None), logged_line(2, RowId(8), None), refused].concat()
}

/// Return the answers to [`CSV_LINES`].
pub fn csv_answers() -> String {
    let refused = refused_line(3, &Refusal::LineNotFound(Class::MESSENGER).into());
    [logged_line(2, RowId(9), None), refused].concat()
}

/// Return the document's part for the send endpoint of a class: `POST` with a body, `GET` with all parameters
/// in the query.
pub fn endpoint(class: Class) -> Paths {
    let article = if class.title.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    let summary = format!("Send {article} {} message", class.title);
    let operation = |name: String, summary: String, example: &Value| {
        OperationBuilder::new()
            .operation_id(Some(name))
            .summary(Some(summary))
            .parameters(Some(parameters(class, example)))
            .responses(responses(class))
    };
    let posted = operation(format!("send{}", class.title), summary.clone(), &Value::Null)
        .request_body(Some(request_body(class)));
    let queried = operation(
        format!("send{}ByQuery", class.title),
        format!("{summary} with all parameters in the query"),
        &text(class),
    );
    let item = PathItemBuilder::new()
        .operation(HttpMethod::Get, queried.build())
        .operation(HttpMethod::Post, posted.build())
        .build();
    PathsBuilder::new().path(format!("/api/v2/{}", class.endpoint), item).build()
}

/// Return the shared parts of the document, and the body of a message of each class.
pub fn components() -> OpenApi {
    let mut document = openapi::common();
    let components = document.components.get_or_insert_default();
    let bodies =
        Class::ALL.iter().map(|class| (format!("{}Message", class.title), body(*class).build().into()));
    components.schemas.extend(bodies);
    document
}

fn request_body(class: Class) -> RequestBody {
    let content = |examples: Vec<(&str, &str, Value)>| {
        let examples =
            examples.into_iter().map(|(name, about, value)| (name.to_owned(), example(about, value)));
        ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(format!("{}Message", class.title))))
            .examples_from_iter(examples)
            .build()
    };
    let mut in_json = vec![("text", "A text", text(class))];
    if class.supports(MessageKind::Image) {
        in_json.push(("image", "An image", image(class)));
    }
    in_json.push(("campaign", "A scheduled message of a campaign", later(class)));
    RequestBodyBuilder::new()
        .content(JSON, content(in_json))
        .content(FORM, content(vec![("text", "A text", text(class))]))
        // Without an example: its type would have to name a boundary.
        .content(MULTIPART, content(Vec::new()))
        .build()
}

fn text(class: Class) -> Value {
    let Example { line, dest } = class.example;
    json!({"app_id": line, "dest": dest, "mdata": "Olá, tudo bem?", "msg_id": "pedido-7"})
}

fn image(class: Class) -> Value {
    let Example { line, dest } = class.example;
    json!({"app_id": line, "dest": dest, "mtype": "image", "mdata": "https://example.com/a.jpg"})
}

fn later(class: Class) -> Value {
    let Example { line, dest } = class.example;
    json!({
        "app_id": line, "dest": dest, "mdata": "Promoção!", "cp_id": "spring", "priority": "bulk",
        "send_at": "2026-11-25T09:00:00-03:00", "valid_for": 86_400, "httpdup": 60,
    })
}

/// The values of a parameter.
pub enum ParameterKind {
    Text { longest: Option<usize> },
    Integer { least: i64, most: Option<i64> },
    Word(Vec<&'static str>),
}

impl ParameterKind {
    /// Return the schema of a value in a query.
    pub fn in_query(&self) -> Object {
        self.typed(match self {
            ParameterKind::Integer { .. } => Type::Integer.into(),
            ParameterKind::Text { .. } | ParameterKind::Word(_) => Type::String.into(),
        })
    }

    /// Return the schema of a value in a body: JSON may write an integer in place of a text, and the other
    /// way round.
    fn in_body(&self) -> ObjectBuilder {
        let object = self.typed(match self {
            ParameterKind::Word(_) => Type::String.into(),
            ParameterKind::Integer { .. } | ParameterKind::Text { .. } => {
                SchemaType::from_iter([Type::String, Type::Integer])
            }
        });
        object.into()
    }

    fn typed(&self, schema_type: SchemaType) -> Object {
        let object = ObjectBuilder::new().schema_type(schema_type);
        match self {
            ParameterKind::Text { longest } => object.max_length(*longest),
            ParameterKind::Integer { least, most } => object.minimum(Some(*least)).maximum(*most),
            ParameterKind::Word(words) => object.enum_values(Some(words.clone())),
        }
        .build()
    }
}

/// Return the name, meaning and values of each parameter of a message; for any class where none is given.
pub fn of_message(class: Option<Class>) -> Vec<(&'static str, &'static str, ParameterKind)> {
    let text = |longest| ParameterKind::Text { longest };
    let integer = |least, most| ParameterKind::Integer { least, most };
    let kinds = MessageKind::ALL.iter().filter(|kind| class.is_none_or(|class| class.supports(**kind)));
    let mut mtypes: Vec<&'static str> = kinds.map(|kind| kind.as_str()).collect();
    if mtypes.contains(&MessageKind::File.as_str()) {
        mtypes.push(FILE_ALIAS);
    }
    let lanes = Lane::ALL.iter().map(|lane| lane.as_str()).collect();
    vec![
        ("tsid", TSID, text(None)),
        ("sid", SID, text(None)),
        ("app_id", "Line id; alias `v8l_id`", integer(1, None)),
        ("v8l_id", "Alias of `app_id`", integer(1, None)),
        ("dest", "Recipient's PSID or IGSID", text(Some(MAX_DEST_CHARS))),
        (
            "mtype",
            "Type of the message (default: `text`); only Messenger has `file` and its alias `document`",
            ParameterKind::Word(mtypes),
        ),
        (
            "mdata",
            "Text (Messenger: 2,000 characters; Instagram: 1,000 bytes of UTF-8), or http(s) URL of the asset",
            text(None),
        ),
        ("mcaption", "Caption; kept in the log, not sent", text(Some(MAX_MCAPTION_CHARS))),
        ("msg_id", "Reference of the caller; kept in the log", text(Some(MAX_MSG_ID_CHARS))),
        ("cp_id", "Campaign label", text(Some(MAX_CP_ID_CHARS))),
        (
            "priority",
            "Lane (default: `bulk` for batches and for messages with `cp_id`, else `high`)",
            ParameterKind::Word(lanes),
        ),
        ("wait", "Seconds to wait for the outcome", integer(0, Some(seconds(MAX_WAIT)))),
        (
            "httpdup",
            "Seconds in which a second message to the same line and dest, both with `httpdup`, is refused; 0 = off",
            integer(0, Some(seconds(LONGEST_HTTPDUP))),
        ),
        ("send_at", "Earliest time to send: RFC 3339 or Unix seconds", text(None)),
        (
            "valid_for",
            "Seconds after creation, or after `send_at`, in which the message may be sent",
            integer(1, Some(LONGEST_SECONDS)),
        ),
    ]
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().cast_signed()
}

/// Return the parameters of a message in a query, and the headers that belong to it.
fn parameters(class: Class, example: &Value) -> Vec<Parameter> {
    let header = |name, about| {
        optional(ParameterIn::Header, name, about)
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
    };
    let in_query = of_message(Some(class)).into_iter().map(|(name, about, kind)| {
        optional(ParameterIn::Query, name, about)
            .schema(Some(kind.in_query()))
            .example(example.get(name).cloned())
            .build()
    });
    let key = "Kept 24 h; a repeated call with the same parameters gets the current state of the first row, and logs no second one";
    in_query
        .chain([
            header("Idempotency-Key", key).build(),
            header("Prefer", "`wait=N` (RFC 7240): the same as the parameter `wait`").build(),
        ])
        .collect()
}

/// Return the answers of a send endpoint.
fn responses(class: Class) -> Responses {
    let sent = enveloped(
        "Logged and queued; with `wait`, sent",
        [
            ("queued".to_owned(), outcome("Logged and queued", "OK", 0, "", 7)),
            ("sent".to_owned(), outcome("`wait`: sent", "OK", 200, "m_AG5Hz2Uq7tuwNEhXfYYKj8mJEM", 7)),
        ],
    );
    let of_graph = Outcome {
        status: Status::Error,
        status_code: 400,
        error_code: Some(10),
        error_subcode: Some(2_018_278),
        error_kind: Some(ErrorKind::Refused),
        error_message: Some(
            "(#10) This message is sent outside of allowed window. Learn more about the new policy here: \
             https://developers.facebook.com/docs/messenger-platform/policy-overview"
                .to_owned(),
        ),
        ..Outcome::queued(RowId(7))
    };
    let expired = Outcome {
        status: Status::Error,
        error_code: Some(1200),
        error_kind: Some(ErrorKind::Expired),
        error_message: Some("(#1200) Temporary send message failure. Please try again later.".to_owned()),
        ..Outcome::queued(RowId(7))
    };
    let cancelled = Outcome { status: Status::Cancelled, ..Outcome::queued(RowId(7)) };
    let ended = [
        ("refused_by_graph".to_owned(), example("`wait`: refused by Graph", json!(Envelope::of(&of_graph)))),
        (
            "expired".to_owned(),
            example("`wait`: ended without an answer from Graph", json!(Envelope::of(&expired))),
        ),
        (
            "cancelled".to_owned(),
            example("`wait`: the campaign was cancelled", json!(Envelope::of(&cancelled))),
        ),
    ];
    let refused = enveloped(
        "Refused, or with `wait` ended as ERROR or CANCELLED",
        ended.into_iter().chain(refusals(of_submissions(class), 400)),
    );
    let too_large = enveloped("Body over 64 KiB", refusals([Refusal::TooLarge], 413));
    let all = answers([("200", sent.into()), ("400", refused.into()), ("413", too_large.into())]);
    ResponsesBuilder::new().responses_from_iter(all).build()
}

/// Parameters of a batch: its own, and defaults for every line.
pub struct BatchParameters;

impl IntoParams for BatchParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let of_lines = of_message(None);
        let flag = || ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["0", "1"]));
        let name = ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_BATCH_ID_CHARS));
        let own = [
            in_query(
                "class",
                "Channel of all messages (default: the channel of each message's line)",
                Class::schema(),
            ),
            in_query(
                "batch_id",
                "Name of the batch; a line that is logged already is answered, and not logged twice",
                name,
            ),
            in_query("stream", "1: begin the answers while the body is read", flag()),
            in_query(
                "separator",
                "Separator of a CSV: comma, semicolon or tab (default: as its header shows)",
                String::schema(),
            ),
            in_query(
                "ignore_columns",
                "1: pass over columns of a CSV that are no parameters; or the names of such columns, separated by commas",
                String::schema(),
            ),
            in_query("once_per_dest", "1: refuse lines whose recipient stands in an earlier line", flag()),
        ];
        of_lines.iter().map(|(name, about, kind)| in_query(name, about, kind.in_query())).chain(own).collect()
    }
}

/// The answers to a batch that is refused as a whole.
pub struct RefusedBatch;

impl IntoResponses for RefusedBatch {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let whole = [unread_type(JSON), wrong_flag("stream")];
        let refused = enveloped("The whole batch is refused", refusals(whole, 400));
        answers([("400", refused.into())])
    }
}

/// Return the body of a submission.
pub fn body(class: Class) -> ObjectBuilder {
    of_message(Some(class)).into_iter().fold(
        ObjectBuilder::new()
            .description(Some("Each parameter may be in the query instead; the query wins over the body")),
        |object, (name, about, kind)| object.property(name, kind.in_body().description(Some(about))),
    )
}

/// Return every refusal of a submission except the ones that all calls share; 229 names one parameter as an
/// example.
fn of_submissions(class: Class) -> Vec<Refused> {
    use Refusal::{
        CampaignCancelled, Duplicate, InvalidMdata, KeyReused, LineNotFound, NoAppId, NoDest, NoMdata,
        NoPageId, NoPageToken,
    };
    let malformed = Parameters::read("", &BodyType::Json(Charset::default()), b"{").err();
    let mut refusals: Vec<Refused> = malformed.into_iter().collect();
    refusals.extend([KeyReused, NoAppId, NoDest, NoMdata].map(Refused::from));
    refusals.extend([invalid_mtype(class), InvalidMdata.into(), text_too_long(class), invalid_wait()]);
    refusals.extend([LineNotFound(class), NoPageToken].map(Refused::from));
    refusals.extend(class.needs_page_id.then_some(NoPageId).map(Refused::from));
    refusals.extend([Duplicate, CampaignCancelled].map(Refused::from));
    refusals
}

fn outcome(
    about: &str,
    status: &str,
    status_code: i32,
    message_id: &str,
    cdls_id: i64,
) -> utoipa::openapi::example::Example {
    example(about, json!(Envelope::new(status, status_code, message_id, RowId(cdls_id))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::parameters::LISTED;

    #[test]
    fn documented_parameters_are_the_ones_read() {
        let documented: Vec<&str> = of_message(None).iter().map(|(name, ..)| *name).collect();
        let read: Vec<&str> = LISTED.iter().copied().filter(|name| *name != "class").collect();
        assert_eq!(documented, read);
    }
}
