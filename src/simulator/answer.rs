//! Graph's answers: envelopes, HTTP statuses and headers as they are documented or were seen in public.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::outcome::Outcome;

pub type Reply = Response<Full<Bytes>>;

pub fn reply(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(content_type));
    reply
}

pub fn json(status: u16, body: &serde_json::Value) -> Reply {
    reply(status, "application/json; charset=UTF-8", body.to_string())
}

/// `{"recipient_id":…,"message_id":…}`
pub fn sent(dest: &str) -> Reply {
    let id = format!("m_{}", uuid::Uuid::now_v7().simple());
    json(200, &json!({ "recipient_id": dest, "message_id": id }))
}

/// Graph's error envelope (Graph API, "Handle Errors").
pub fn error(status: u16, kind: &str, code: i32, subcode: i32, message: &str) -> Reply {
    let mut error = json!({ "message": message, "type": kind, "code": code });
    if subcode != 0 {
        error["error_subcode"] = subcode.into();
    }
    let trace = uuid::Uuid::now_v7().simple().to_string();
    error["fbtrace_id"] = format!("A{}", &trace[trace.len() - 10..]).into();
    json(status, &json!({ "error": error }))
}

/// The answer of an outcome that has one.
pub fn of(outcome: Outcome, dest: &str) -> Reply {
    match outcome {
        Outcome::Code { code, subcode } => {
            let status = if matches!(code, 1 | 2) { 500 } else { 400 };
            error(status, "OAuthException", code, subcode, &text(code))
        }
        Outcome::InstagramWindow => {
            let text = "This message is sent outside of allowed window.";
            error(403, "IGApiException", 10, 2534022, text)
        }
        Outcome::Http500 => reply(500, "text/html", "<html><body>Sorry, something went wrong.</body></html>"),
        Outcome::Taken500 => error(500, "OAuthException", 1, 0, &text(1)),
        Outcome::Html => reply(200, "text/html", "<html><body>Please log in</body></html>"),
        Outcome::Empty => reply(200, "application/json", ""),
        Outcome::Truncated => reply(200, "application/json", r#"{"recipient_id":"1","message_"#),
        Outcome::NoId => json(200, &json!({ "recipient_id": dest })),
        Outcome::Sent | Outcome::Slow | Outcome::Timeout | Outcome::Cut | Outcome::TakenCut => sent(dest),
    }
}

fn text(code: i32) -> String {
    let text = match code {
        1 => "An unknown error has occurred.",
        2 => "Service temporarily unavailable",
        4 => "Application request limit reached",
        10 => {
            "This message is sent outside of allowed window. Learn more about the new policy here: https://developers.facebook.com/docs/messenger-platform/policy-overview"
        }
        100 => "No matching user found",
        190 => "Error validating access token: Session has expired.",
        551 => "This person isn't available right now.",
        613 => "Calls to this api have exceeded the rate limit.",
        1200 => "Temporary send message failure. Please try again later.",
        _ => "The call was refused.",
    };
    format!("(#{code}) {text}")
}
