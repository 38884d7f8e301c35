//! Graph's JSON, read leniently: fields may be missing, codes may be strings, anything may be of another type.

use std::time::Duration;

use serde_json::Value;

use crate::message::redact;

/// Longest error text kept, in characters.
const LONGEST_TEXT: usize = 500;

/// What a body says.
pub enum Body {
    Sent {
        message_id: String,
    },
    Error(GraphError),
    /// JSON that is neither.
    Other,
    NotJson,
}

/// Graph's error envelope (Graph API, "Handle Errors").
#[derive(Debug, Default)]
pub struct GraphError {
    pub code: Option<i32>,
    pub subcode: Option<i32>,
    /// `type`: OAuthException, GraphMethodException, IGApiException …
    pub kind: Option<String>,
    /// Cleaned and without secrets.
    pub message: String,
    pub fbtrace_id: Option<String>,
}

/// Reads a body. An error beats a message id: a body with both is not trusted to be a success.
pub fn read(body: &[u8]) -> Body {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Body::NotJson };
    let Value::Object(fields) = value else { return Body::Other };
    match fields.get("error") {
        Some(Value::Object(error)) => {
            let text = |name: &str| error.get(name).and_then(Value::as_str);
            return Body::Error(GraphError {
                code: error.get("code").and_then(integer),
                subcode: error.get("error_subcode").and_then(integer).filter(|subcode| *subcode != 0),
                kind: text("type").map(str::to_owned),
                message: clean(text("message").unwrap_or("no text")),
                fbtrace_id: text("fbtrace_id").map(clean),
            });
        }
        Some(Value::String(text)) => {
            return Body::Error(GraphError { message: clean(text), ..GraphError::default() });
        }
        None | Some(Value::Null) => {}
        Some(_) => return Body::Other,
    }
    match fields.get("message_id").and_then(Value::as_str).map(|id| id.replace('\0', "")) {
        Some(message_id) if !message_id.is_empty() => Body::Sent { message_id },
        _ => Body::Other,
    }
}

fn integer(value: &Value) -> Option<i32> {
    match value {
        Value::Number(number) => number.as_i64().and_then(|number| i32::try_from(number).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A text from outside, fit for the log: no control characters, no secrets, not too long.
pub fn clean(text: &str) -> String {
    let printable: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_TEXT).collect();
    redact(&printable).into_owned()
}

/// The longest `estimated_time_to_regain_access` of `X-Business-Use-Case-Usage`, which is in minutes (Graph API,
/// "Rate Limits"). `None` where there is none above zero.
pub fn time_to_regain_access(header: &str) -> Option<Duration> {
    let value: Value = serde_json::from_str(header).ok()?;
    let minutes = value
        .as_object()?
        .values()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|usage| usage.get("estimated_time_to_regain_access")?.as_u64())
        .max()?;
    // A day at most: what a header says is not trusted to stop a line for years.
    (minutes > 0).then(|| Duration::from_secs(minutes.min(24 * 60) * 60))
}
