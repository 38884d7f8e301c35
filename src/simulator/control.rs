//! The evidence endpoints, `/simulator/…`.

use std::time::Duration;

use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::answer::{AnswerBody, plain};
use super::shared::Shared;

/// The part of the path that separates these endpoints from Graph's.
pub(super) const PREFIX: &str = "/simulator/";

/// Answer a request under [`PREFIX`].
pub(super) fn answer(shared: &Shared, head: &Parts) -> Response<AnswerBody> {
    let result = match (&head.method, &head.uri.path()[PREFIX.len()..]) {
        (&Method::GET, "calls") => calls(shared, head),
        (&Method::GET, "count") => Ok(as_json(StatusCode::OK, &shared.counts())),
        (&Method::POST, "reset") => reset(shared, head),
        _ => {
            let known = "GET /simulator/calls, GET /simulator/count, POST /simulator/reset";
            return as_json(StatusCode::NOT_FOUND, &json!({ "error": format!("known here: {known}") }));
        }
    };
    result.unwrap_or_else(|wrong| as_json(StatusCode::BAD_REQUEST, &json!({ "error": wrong })))
}

fn calls(shared: &Shared, head: &Parts) -> Result<Response<AnswerBody>, String> {
    let after = match parameter(head, "after") {
        Some(text) => text.parse().map_err(|_| "after: must be the seq of a call".to_owned())?,
        None => 0,
    };
    let calls = shared.calls(after, parameter(head, "dest").as_deref());
    Ok(as_json(StatusCode::OK, &calls))
}

fn reset(shared: &Shared, head: &Parts) -> Result<Response<AnswerBody>, String> {
    let (latency, jitter) = shared.latency();
    let latency = duration(head, "latency")?.unwrap_or(latency);
    let jitter = duration(head, "jitter")?.unwrap_or(jitter);
    shared.set_latency(latency, jitter);
    shared.reset();
    Ok(as_json(StatusCode::OK, &shared.counts()))
}

fn duration(head: &Parts, name: &str) -> Result<Option<Duration>, String> {
    parameter(head, name)
        .map(|text| {
            humantime::parse_duration(&text).map_err(|_| format!("{name}: must be a time such as 80ms or 2s"))
        })
        .transpose()
}

fn parameter(head: &Parts, name: &str) -> Option<String> {
    url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
        .find_map(|(given, value)| (given == name).then(|| value.into_owned()))
}

fn as_json(status: StatusCode, value: &impl Serialize) -> Response<AnswerBody> {
    match serde_json::to_vec(value) {
        Ok(body) => plain(status, "application/json", body),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}
