//! The texts of a judgement: the error of the row, and the reason of a pause. Without secrets, and bounded.

use super::answer::GraphAnswer;
use super::body::GraphError;
use super::table::Meaning;
use crate::domain::ErrorDetail;
use crate::text::{MAX_ERROR_CHARS, printable_id, redact};

/// The likely origin of an answer that is not Graph's.
const NOT_GRAPH_HINT: &str = "a proxy or gateway may have answered, or graph.base_url is wrong";

pub(super) fn detail(answer: &GraphAnswer, meaning: Meaning, error: &GraphError) -> ErrorDetail {
    ErrorDetail {
        http_status: Some(i32::from(answer.http_status)),
        code: error.code.and_then(|code| i32::try_from(code).ok()),
        subcode: error.subcode.and_then(|subcode| i32::try_from(subcode).ok()),
        message: error_text(answer, meaning, error),
        fbtrace_id: error.fbtrace_id.as_deref().map(|id| printable_id(id, 100)).filter(|id| !id.is_empty()),
    }
}

/// Return Graph's text, followed in brackets by its text for people.
fn error_text(answer: &GraphAnswer, meaning: Meaning, error: &GraphError) -> String {
    let http_status = answer.http_status;
    match (error.message.as_str(), error.for_people.as_deref(), meaning) {
        ("", None, _) if answer.is_unreadable => {
            format!("HTTP {http_status} in a content encoding that is not read: {NOT_GRAPH_HINT}")
        }
        // The body is not quoted: a gateway's page may echo the request.
        ("", None, Meaning::NotGraphs | Meaning::Unclear) => {
            format!("HTTP {http_status} without a message id or an error of Graph: {NOT_GRAPH_HINT}")
        }
        ("", None, _) => format!("HTTP {http_status} without an error text of Graph"),
        ("", Some(people), _) => redact(people, MAX_ERROR_CHARS),
        (text, Some(people), _) if !text.contains(people) => {
            redact(&format!("{text} ({people})"), MAX_ERROR_CHARS)
        }
        (text, _, _) => redact(text, MAX_ERROR_CHARS),
    }
}

pub(super) fn pause_reason(answer: &GraphAnswer, meaning: Meaning, error: &GraphError) -> String {
    let source = match (error.code, error.subcode) {
        (Some(code), Some(subcode)) => format!("Graph code {code}/{subcode}"),
        (Some(code), None) => format!("Graph code {code}"),
        (None, _) => format!("HTTP {}", answer.http_status),
    };
    match (error.message.as_str(), meaning) {
        ("", Meaning::NotGraphs | Meaning::Unclear) => format!("{source}: {NOT_GRAPH_HINT}"),
        ("", _) => source,
        (text, _) => format!("{source}: {text}"),
    }
}
