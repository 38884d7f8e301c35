//! Graph's answer body, read leniently.
//!
//! Meta documents `{"message_id":…}` and `{"error":{"code":…,"error_subcode":…,…}}`; in the wild codes come as
//! strings, errors as strings or arrays, and gateways answer HTML. Whatever does not fit is left out, nothing panics.

use serde_json::{Map, Value};

use crate::message::printable_id;

/// Longer than any id Graph hands out; keeps one that is not an id out of the log.
const MAX_ID_CHARS: usize = 500;

/// What an answer's body says.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// Not empty.
    pub message_id: Option<String>,
    /// Present also when `error` is no object, then without a code.
    pub error: Option<GraphError>,
}

/// Graph's error object (Meta, Graph API, "Handling Errors").
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GraphError {
    pub code: Option<i64>,
    /// `None` also for 0.
    pub subcode: Option<i64>,
    /// `type`, such as `OAuthException`.
    pub kind: String,
    /// As received: may hold secrets.
    pub message: String,
    pub fbtrace_id: Option<String>,
}

impl Envelope {
    /// Reads a body. One that is no JSON object says nothing.
    pub fn read(body: &[u8]) -> Envelope {
        let text = String::from_utf8_lossy(body);
        let object: Result<Map<String, Value>, _> = serde_json::from_str(text.trim_start_matches('\u{feff}'));
        let Ok(mut object) = object else {
            return Envelope::default();
        };
        let message_id = text_of(object.remove("message_id"))
            .map(|id| printable_id(&id, MAX_ID_CHARS))
            .filter(|id| !id.is_empty());
        let error = match object.remove("error") {
            None | Some(Value::Null) => None,
            Some(error) => Some(GraphError::read(error)),
        };
        Envelope { message_id, error }
    }
}

impl GraphError {
    /// Whether Graph wrote it, as far as can be seen: Graph's errors have a type, or at least a code of their own. Proxies
    /// and gateways answer with an `error` too, a text or an object that repeats the HTTP status.
    pub fn is_graphs(&self, http_status: u16) -> bool {
        !self.kind.is_empty() || self.code.is_some_and(|code| code != i64::from(http_status))
    }

    fn read(error: Value) -> GraphError {
        match error {
            Value::Object(mut fields) => GraphError {
                code: fields.get("code").and_then(integer),
                subcode: fields.get("error_subcode").and_then(integer).filter(|&subcode| subcode != 0),
                kind: text_of(fields.remove("type")).unwrap_or_default(),
                message: text_of(fields.remove("message")).unwrap_or_default(),
                fbtrace_id: text_of(fields.remove("fbtrace_id")),
            },
            Value::String(message) => GraphError { message, ..GraphError::default() },
            _ => GraphError::default(),
        }
    }
}

fn text_of(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// An integer written as a number or as a string; `10.0` counts, what no `i64` holds does not.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0 && float.abs() < 9e15).then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
