//! Reads Graph's answer leniently: its body, and the header that repeats the error where the body is empty.
//!
//! Meta documents `{"message_id":…}` and `{"error":{"code":…,"error_subcode":…,…}}`; in the wild codes come
//! as strings, errors as words, behind a guard, in a list or under the names of older interfaces, and
//! gateways answer HTML. A value that does not fit is left out; no input causes a panic.

use serde_json::{Map, Value};

use crate::text::printable_id;

/// Longer than any id of Graph; keeps a text that is not an id out of the log.
const MAX_ID_CHARS: usize = 500;

/// Meta writes one before JSON that no other page may run as a script.
const GUARDS: [&str; 2] = ["for (;;);", "for(;;);"];

/// Words of RFC 6750 about the token. Its other words are also those of proxies, and may be about the
/// message.
const TOKEN_WORDS: [&str; 2] = ["invalid_token", "insufficient_scope"];

/// The beginning of Graph's `WWW-Authenticate`.
const CHALLENGE: &str = "OAuth \"Facebook Platform\"";

/// The content of an answer's body.
#[derive(Debug, Default)]
pub(super) struct GraphBody {
    /// Not empty.
    pub graph_id: Option<String>,
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
    pub is_transient: bool,
    /// `error_user_title` and `error_user_msg`, Meta's words for people; as received.
    pub for_people: Option<String>,
    pub fbtrace_id: Option<String>,
}

impl GraphBody {
    /// Read a body. A body that is neither a JSON object nor a list of one object is empty.
    pub fn read(body: &[u8]) -> GraphBody {
        let text = String::from_utf8_lossy(body);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let text = GUARDS.iter().find_map(|guard| text.strip_prefix(guard)).unwrap_or(text);
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => GraphBody::of(object),
            Ok(Value::Array(list)) => GraphBody::of_list(list),
            _ => GraphBody::default(),
        }
    }

    fn of(mut object: Map<String, Value>) -> GraphBody {
        let graph_id = text_of(object.get("message_id"))
            .map(|id| printable_id(&id, MAX_ID_CHARS))
            .filter(|id| !id.is_empty());
        let error = match object.remove("error") {
            None | Some(Value::Null) => GraphError::of_older_names(&object),
            Some(Value::String(word)) => Some(GraphError::of_word(word, &object)),
            Some(error) => Some(GraphError::read(&error)),
        };
        GraphBody { graph_id, error }
    }

    /// Read the error of a list. An id is left out: the list does not name its message.
    fn of_list(list: Vec<Value>) -> GraphBody {
        match <[Value; 1]>::try_from(list) {
            Ok([Value::Object(object)]) => GraphBody { graph_id: None, ..GraphBody::of(object) },
            _ => GraphBody::default(),
        }
    }
}

impl GraphError {
    /// Whether Graph seems to have written the error: Graph's errors have a type, or at least a code of their
    /// own. Proxies and gateways answer with an `error` too, a text or an object that repeats the HTTP
    /// status.
    pub fn is_graphs(&self, http_status: u16) -> bool {
        !self.kind.is_empty() || self.code.is_some_and(|code| code != i64::from(http_status))
    }

    /// Whether a word without a code states that the token is refused.
    pub fn is_about_the_token(&self) -> bool {
        self.code.is_none() && TOKEN_WORDS.contains(&self.kind.as_str())
    }

    /// Read the error that Graph's `WWW-Authenticate` repeats: `OAuth "Facebook Platform" "invalid_token"
    /// "(#190) …"`.
    pub fn of_challenge(header: &str) -> Option<GraphError> {
        let (_, rest) = header.split_once(CHALLENGE)?;
        let mut quoted = rest.split('"').skip(1).step_by(2);
        let (kind, message) = (quoted.next()?, quoted.next().unwrap_or_default());
        let number = message.strip_prefix("(#").and_then(|rest| rest.split(')').next());
        let error = GraphError {
            code: number.and_then(|number| number.trim().parse().ok()),
            kind: kind.to_owned(),
            message: message.to_owned(),
            ..GraphError::default()
        };
        (error.code.is_some() || error.is_about_the_token()).then_some(error)
    }

    fn read(error: &Value) -> GraphError {
        let Value::Object(fields) = error else { return GraphError::default() };
        GraphError {
            code: fields.get("code").and_then(integer),
            subcode: subcode_of(fields),
            kind: text_of(fields.get("type")).unwrap_or_default(),
            message: text_of(fields.get("message")).unwrap_or_default(),
            is_transient: fields.get("is_transient").is_some_and(is_true),
            for_people: words_for_people(fields),
            fbtrace_id: text_of(fields.get("fbtrace_id")),
        }
    }

    /// Read the error of an interface of Meta that is older than the envelope:
    /// `{"error_code":190,"error_msg":…}` and `{"error_type":…,"code":400,"error_message":…}`.
    fn of_older_names(object: &Map<String, Value>) -> Option<GraphError> {
        let code = object.get("error_code").and_then(integer);
        let kind = text_of(object.get("error_type"));
        if code.is_none() && kind.is_none() {
            return None;
        }
        let message = ["error_msg", "error_message"].iter().find_map(|name| text_of(object.get(*name)));
        Some(GraphError {
            code: code.or_else(|| object.get("code").and_then(integer)),
            subcode: subcode_of(object),
            kind: kind.unwrap_or_default(),
            message: message.unwrap_or_default(),
            fbtrace_id: text_of(object.get("fbtrace_id")),
            ..GraphError::default()
        })
    }

    /// Read `{"error":"invalid_token","error_description":…}`. Any other word may be a proxy's, and has no
    /// type here.
    fn of_word(word: String, object: &Map<String, Value>) -> GraphError {
        if !TOKEN_WORDS.contains(&word.as_str()) {
            return GraphError { message: word, ..GraphError::default() };
        }
        let message = text_of(object.get("error_description")).unwrap_or_default();
        GraphError { kind: word, message, ..GraphError::default() }
    }
}

fn subcode_of(fields: &Map<String, Value>) -> Option<i64> {
    fields.get("error_subcode").and_then(integer).filter(|&subcode| subcode != 0)
}

fn words_for_people(fields: &Map<String, Value>) -> Option<String> {
    let words = |name: &str| text_of(fields.get(name)).filter(|words| !words.trim().is_empty());
    match (words("error_user_title"), words("error_user_msg")) {
        (Some(title), Some(text)) => Some(format!("{title}: {text}")),
        (title, text) => title.or(text),
    }
}

fn text_of(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

fn is_true(value: &Value) -> bool {
    matches!(value, Value::Bool(true)) || value.as_str() == Some("true") || value.as_i64() == Some(1)
}

/// Read an integer written as a number or as a string; `10.0` counts, a value that no `i64` holds does not.
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
