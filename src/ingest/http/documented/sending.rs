//! What the OpenAPI document says of submissions: parameters, bodies, answers, and an example of each.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use serde_json::{Value, json};
use utoipa::openapi::example::Example;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Response, Type};
use utoipa::{IntoParams, IntoResponses, PartialSchema};

use super::super::super::refusal::Refusal;
use super::super::super::validate::{LONGEST_SECONDS, MAX_WAIT};
use super::{answers, enveloped, example, in_query, optional, refusals};
use crate::message::{
    Class, Envelope, Lane, MAX_BATCH_ID_CHARS, MAX_CP_ID_CHARS, MAX_DEST_CHARS, MAX_MSG_ID_CHARS, MessageId,
    MessageKind,
};
use crate::store::LONGEST_HTTPDUP;

pub const FORM: &str = "application/x-www-form-urlencoded";
pub const NDJSON: &str = "application/x-ndjson";
pub const CSV: &str = "text/csv";

pub const MESSENGER_BODY: &str = "#/components/schemas/MessengerMessage";
pub const INSTAGRAM_BODY: &str = "#/components/schemas/InstagramMessage";

pub const NDJSON_LINES: &str = r#"{"class":"messenger","app_id":1,"dest":"2531927391","mdata":"Olá, Ana!","cp_id":"spring"}
{"class":"instagram","app_id":2,"dest":"17841400000000001","mtype":"image","mdata":"https://example.com/a.jpg"}
{"app_id":1,"dest":"","mdata":"Olá, Bia!"}
"#;
pub const NDJSON_ANSWERS: &str = r#"{"line":1,"cdls_id":7}
{"line":2,"cdls_id":8}
{"line":3,"status":"No dest","status_code":220}
"#;
pub const CSV_LINES: &str =
    "app_id,dest,mdata\n1,2531927391,\"Olá, Ana!\"\n999999,2531927392,\"Olá, Bia!\"\n";
pub const CSV_ANSWERS: &str = r#"{"line":2,"cdls_id":9}
{"line":3,"status":"Messenger line not found","status_code":230}
"#;

/// A class as a type: the two send endpoints are documented by the same code.
pub trait Channel {
    const CLASS: Class;
    /// The line and the recipient of examples.
    const LINE: i64;
    const DEST: &'static str;
}

pub struct Messenger;
pub struct Instagram;

impl Channel for Messenger {
    const CLASS: Class = Class::Messenger;
    const LINE: i64 = 1;
    const DEST: &'static str = "2531927391";
}

impl Channel for Instagram {
    const CLASS: Class = Class::Instagram;
    const LINE: i64 = 2;
    const DEST: &'static str = "17841400000000001";
}

pub fn text<C: Channel>() -> Value {
    json!({"app_id": C::LINE, "dest": C::DEST, "mdata": "Olá, tudo bem?", "msg_id": "pedido-7"})
}

pub fn image<C: Channel>() -> Value {
    json!({"app_id": C::LINE, "dest": C::DEST, "mtype": "image", "mdata": "https://example.com/a.jpg"})
}

pub fn later<C: Channel>() -> Value {
    json!({
        "app_id": C::LINE, "dest": C::DEST, "mdata": "Promoção!", "cp_id": "spring", "priority": "bulk",
        "send_at": "2026-11-25T09:00:00-03:00", "valid_for": 86_400, "httpdup": 60,
    })
}

/// What a parameter may be.
pub enum Kind {
    Text { longest: Option<usize> },
    Integer { least: i64, most: Option<i64> },
    Word(Vec<&'static str>),
}

impl Kind {
    /// As it stands in a query.
    pub fn in_query(&self) -> Object {
        self.typed(match self {
            Kind::Integer { .. } => Type::Integer.into(),
            Kind::Text { .. } | Kind::Word(_) => Type::String.into(),
        })
    }

    /// As it stands in a body: JSON may write an integer where a text is due, and the other way round.
    fn in_body(&self) -> ObjectBuilder {
        let object = self.typed(match self {
            Kind::Word(_) => Type::String.into(),
            Kind::Integer { .. } | Kind::Text { .. } => SchemaType::from_iter([Type::String, Type::Integer]),
        });
        object.into()
    }

    fn typed(&self, schema_type: SchemaType) -> Object {
        let object = ObjectBuilder::new().schema_type(schema_type);
        match self {
            Kind::Text { longest } => object.max_length(*longest),
            Kind::Integer { least, most } => object.minimum(Some(*least)).maximum(*most),
            Kind::Word(words) => object.enum_values(Some(words.clone())),
        }
        .build()
    }
}

/// Name, meaning and values of each parameter of a message; for any class where none is given.
pub fn of_message(class: Option<Class>) -> Vec<(&'static str, &'static str, Kind)> {
    let text = |longest| Kind::Text { longest };
    let integer = |least, most| Kind::Integer { least, most };
    let kinds = MessageKind::ALL.iter().filter(|kind| class.is_none_or(|class| class.supports(**kind)));
    let mut mtypes: Vec<&'static str> = kinds.map(|kind| kind.as_str()).collect();
    if mtypes.contains(&"file") {
        mtypes.push("document");
    }
    let lanes = Lane::ALL.iter().map(|lane| lane.as_str()).collect();
    vec![
        (
            "tsid",
            "Account token; `sid` and `Authorization: Bearer` also work; `tsid` wins over `sid`, `sid` over the header",
            text(None),
        ),
        ("sid", "Alias of `tsid`", text(None)),
        ("app_id", "Line id; alias `v8l_id`", integer(1, None)),
        ("v8l_id", "Alias of `app_id`", integer(1, None)),
        ("dest", "Recipient's PSID or IGSID", text(Some(MAX_DEST_CHARS))),
        (
            "mtype",
            "Type of the message (default: `text`); only Messenger has `file` and its alias `document`",
            Kind::Word(mtypes),
        ),
        (
            "mdata",
            "Text (Messenger: 2,000 characters; Instagram: 1,000 bytes of UTF-8), or http(s) URL of the asset",
            text(None),
        ),
        ("mcaption", "Caption; kept in the log, not sent", text(None)),
        ("msg_id", "Reference of the caller; kept in the log", text(Some(MAX_MSG_ID_CHARS))),
        ("cp_id", "Campaign label", text(Some(MAX_CP_ID_CHARS))),
        (
            "priority",
            "Lane (default: `bulk` for batches and for messages with `cp_id`, else `high`)",
            Kind::Word(lanes),
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

/// The parameters of a message in a query, and the headers that belong to it.
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

/// Parameters of a call that has a body: each may stand in the query as well, and then wins.
pub struct BesideBody<C>(PhantomData<C>);

/// Parameters of a call without a body, with an example.
pub struct InQuery<C>(PhantomData<C>);

/// Parameters of a batch: its own, and defaults for every line.
pub struct OfBatch;

impl<C: Channel> IntoParams for BesideBody<C> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        parameters(C::CLASS, &Value::Null)
    }
}

impl<C: Channel> IntoParams for InQuery<C> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        parameters(C::CLASS, &text::<C>())
    }
}

impl IntoParams for OfBatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let of_lines = of_message(None);
        let flag = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["0", "1"]));
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
            in_query("stream", "1: begin the answers while the body is read", flag),
        ];
        of_lines.iter().map(|(name, about, kind)| in_query(name, about, kind.in_query())).chain(own).collect()
    }
}

/// What a send endpoint answers.
pub struct Answers<C>(PhantomData<C>);

/// What a batch is answered that is refused as a whole.
pub struct RefusedBatch;

impl<C: Channel> IntoResponses for Answers<C> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let sent = enveloped(
            "Logged and queued; with `wait`, sent",
            [
                ("queued".to_owned(), outcome("Logged and queued", "OK", 0, "", 7)),
                ("sent".to_owned(), outcome("`wait`: sent", "OK", 200, "m_AG5Hz2Uq7tuwNEhXfYYKj8mJEM", 7)),
            ],
        );
        let ended = [
            ("refused_by_graph".to_owned(), outcome("`wait`: refused by Graph", "ERROR", 400, "", 7)),
            ("expired".to_owned(), outcome("`wait`: ended without an answer from Graph", "ERROR", 0, "", 7)),
            ("cancelled".to_owned(), outcome("`wait`: the campaign was cancelled", "CANCELLED", 0, "", 7)),
        ];
        let refused = enveloped(
            "Refused, or with `wait` ended as ERROR or CANCELLED",
            ended.into_iter().chain(refusals(&of_submissions(C::CLASS), 400)),
        );
        let too_large = enveloped("Body over 64 KiB", refusals(&[Refusal::TooLarge], 413));
        answers([("200", sent.into()), ("400", refused.into()), ("413", too_large.into())])
    }
}

impl IntoResponses for RefusedBatch {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let whole = [Refusal::Malformed, Refusal::InvalidParameter("stream")];
        let refused = enveloped("The whole batch is refused", refusals(&whole, 400));
        answers([("400", refused.into())])
    }
}

/// The body of a submission.
pub fn body(class: Class) -> ObjectBuilder {
    of_message(Some(class)).into_iter().fold(
        ObjectBuilder::new()
            .description(Some("Each parameter may be in the query instead; the query wins over the body")),
        |object, (name, about, kind)| object.property(name, kind.in_body().description(Some(about))),
    )
}

/// Every refusal of a submission but those that all calls share; 229 names one parameter as an example.
fn of_submissions(class: Class) -> Vec<Refusal> {
    use Refusal::{
        CampaignCancelled, Duplicate, InvalidMdata, InvalidMtype, InvalidParameter, KeyReused, LineNotFound,
        Malformed, NoAppId, NoDest, NoMdata, NoPageId, NoPageToken, TextTooLong,
    };
    let mut refusals = vec![Malformed, KeyReused, NoAppId, NoDest, NoMdata, InvalidMtype, InvalidMdata];
    refusals.extend([TextTooLong, InvalidParameter("wait"), LineNotFound(class), NoPageToken]);
    refusals.extend((class == Class::Messenger).then_some(NoPageId));
    refusals.extend([Duplicate, CampaignCancelled]);
    refusals
}

fn outcome(about: &str, status: &str, status_code: i32, message_id: &str, cdls_id: i64) -> Example {
    example(about, json!(Envelope::new(status, status_code, message_id, MessageId(cdls_id))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::parameters::LISTED;

    #[test]
    fn what_is_documented_of_a_message_is_what_is_read() {
        let documented: Vec<&str> = of_message(None).iter().map(|(name, ..)| *name).collect();
        let read: Vec<&str> = LISTED.iter().copied().filter(|name| *name != "class").collect();
        assert_eq!(documented, read);
    }
}
