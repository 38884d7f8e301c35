//! Answers on the wire: Graph's bodies, headers and statuses, and a body that breaks off.
//!
//! Shapes: Meta's "Handling Errors" (envelope, trace headers) and "Rate Limits" (usage headers) pages.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::identities::number_of;
use super::limits::UsagePercent;
use super::refusal::{OAUTH, PlayedError};

/// The version in the path of [`Simulator::base_url`](super::Simulator::base_url) and in
/// `facebook-api-version`.
pub(super) const GRAPH_VERSION: &str = "v25.0";

/// The usage from which answers name it; Meta documents only "once enough calls have been made".
const HIGH_USAGE: UsagePercent = 75;
/// The usage that a limit asked for by its recipient names: a value seen with a real 613.
const ASKED_USAGE: UsagePercent = 107;

pub(super) const APP_USAGE: HeaderName = HeaderName::from_static("x-app-usage");
pub(super) const PAGE_USAGE: HeaderName = HeaderName::from_static("x-page-usage");
pub(super) const BUSINESS_USAGE: HeaderName = HeaderName::from_static("x-business-use-case-usage");
const API_VERSION: HeaderName = HeaderName::from_static("facebook-api-version");
const TRACE_ID: HeaderName = HeaderName::from_static("x-fb-trace-id");

const GATEWAY_PAGE: &str =
    "<!DOCTYPE html><html><head><title>Error</title></head><body>Sorry, something went wrong.</body></html>";

/// The connection is closed here, on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the simulator closed the connection")]
pub(super) struct HangUp;

/// A body that is sent whole, or breaks off.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Whole(Option<Bytes>),
    /// Announced whole by `Content-Length`; only this part is sent, then the connection is closed.
    Part {
        rest: Option<Bytes>,
        written: bool,
    },
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = HangUp;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HangUp>>> {
        match self.get_mut() {
            AnswerBody::Whole(whole) => Poll::Ready(whole.take().map(|bytes| Ok(Frame::data(bytes)))),
            AnswerBody::Part { rest, written } => match rest.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                // The connection writes the bytes it holds when a body is not ready; failing at once would
                // drop them.
                None if !*written => {
                    *written = true;
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(Some(Err(HangUp))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, Bytes::len) as u64),
            AnswerBody::Part { .. } => SizeHint::default(),
        }
    }
}

/// Return an answer without headers of Graph: gateways, web pages, the evidence endpoints.
pub(super) fn plain(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Whole(Some(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Return a web page in place of JSON.
pub(super) fn gateway_page(status: StatusCode) -> Response<AnswerBody> {
    plain(status, "text/html; charset=utf-8", GATEWAY_PAGE)
}

/// Return HTTP 200 with an empty body.
pub(super) fn empty() -> Response<AnswerBody> {
    Response::new(AnswerBody::Whole(None))
}

/// Return the id of a message; `run` distinguishes this simulator's ids from another's.
pub(super) fn message_id(run: u64, seq: u64) -> String {
    format!("m_{}", unique_text(run, seq))
}

/// Return the number of the message with this id, if the simulator gave it in this run.
pub(super) fn read_message_id(run: u64, id: &str) -> Option<u64> {
    let bytes = URL_SAFE_NO_PAD.decode(id.strip_prefix("m_")?).ok()?;
    let number = u128::from_be_bytes(bytes.try_into().ok()?);
    ((number >> 64) as u64 == run).then_some(number as u64)
}

/// Return 22 characters that no other call has.
fn unique_text(run: u64, seq: u64) -> String {
    URL_SAFE_NO_PAD.encode((u128::from(run) << 64 | u128::from(seq)).to_be_bytes())
}

/// A writer of the answers to one call.
pub(super) struct AnswerWriter<'a> {
    /// Distinguishes this simulator's message ids from another's.
    pub run: u64,
    pub seq: u64,
    /// The tag of the token; empty without one.
    pub tag: &'a str,
    pub usage: Option<UsagePercent>,
    pub regain_minutes: u32,
    /// Whether the token is one of Instagram Login, whose errors have another type.
    pub is_login: bool,
    /// The usage headers of a call that budgets judged; they take the place of all others.
    pub budget_headers: Option<&'a [(HeaderName, HeaderValue)]>,
}

impl AnswerWriter<'_> {
    pub fn sent(&self, dest: &str) -> Response<AnswerBody> {
        let mut response = self.graph(StatusCode::OK, self.success_body(dest));
        if let Some(usage) = self.usage.filter(|usage| *usage >= HIGH_USAGE && self.budget_headers.is_none())
        {
            self.name_usage(&mut response, usage, 0);
        }
        response
    }

    /// Return the answer to a call that is no message.
    pub fn told(&self, value: &Value) -> Response<AnswerBody> {
        self.graph(StatusCode::OK, value.to_string())
    }

    pub fn without_id(&self, dest: &str) -> Response<AnswerBody> {
        self.graph(StatusCode::OK, json!({ "recipient_id": dest }).to_string())
    }

    pub fn truncated(&self, dest: &str) -> Response<AnswerBody> {
        let body = Bytes::from(self.success_body(dest));
        let mut response = self.graph(StatusCode::OK, Bytes::new());
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = AnswerBody::Part { rest: Some(body.slice(..body.len() / 2)), written: false };
        response
    }

    pub fn error(&self, error: &PlayedError) -> Response<AnswerBody> {
        let mut envelope = json!({
            "message": error.message,
            "type": self.kind_of(error),
            "code": error.code,
            "fbtrace_id": self.trace_id(),
        });
        if let Some(subcode) = error.subcode {
            envelope["error_subcode"] = json!(subcode);
        }
        if matches!(error.code, 2 | 4) {
            envelope["is_transient"] = json!(true);
        }
        let status = StatusCode::from_u16(error.http_status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = self.graph(status, json!({ "error": envelope }).to_string());
        let challenge = format!(
            r#"OAuth "Facebook Platform" "{}" "{}""#,
            if error.code == 190 { "invalid_token" } else { "invalid_request" },
            error.message.replace('"', "'"),
        );
        if let Ok(challenge) = HeaderValue::try_from(challenge) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if self.budget_headers.is_some() {
            return response;
        }
        let usage = self.usage.filter(|usage| *usage > 100).unwrap_or(ASKED_USAGE);
        match error.code {
            4 => set(&mut response, APP_USAGE, app_usage(usage)),
            613 | 80001 | 80002 | 80006 => self.name_usage(&mut response, usage, self.regain_minutes),
            _ => {}
        }
        response
    }

    fn success_body(&self, dest: &str) -> String {
        json!({ "recipient_id": dest, "message_id": message_id(self.run, self.seq) }).to_string()
    }

    /// Return the `type` of an error: Instagram Login has its own, except for tokens.
    fn kind_of(&self, error: &PlayedError) -> &'static str {
        if self.is_login && error.code != 190 && error.kind == OAUTH { "IGApiException" } else { error.kind }
    }

    /// Return a text shaped like `fbtrace_id`.
    fn trace_id(&self) -> String {
        format!("A{}", unique_text(self.run, self.seq))
    }

    fn graph(&self, status: StatusCode, body: impl Into<Bytes>) -> Response<AnswerBody> {
        let mut response = plain(status, "application/json; charset=UTF-8", body);
        response.headers_mut().insert(API_VERSION, HeaderValue::from_static(GRAPH_VERSION));
        set(&mut response, TRACE_ID, self.trace_id());
        for (name, value) in self.budget_headers.into_iter().flatten() {
            response.headers_mut().append(name.clone(), value.clone());
        }
        response
    }

    /// Add both usage headers, as Meta sends them for a Page token.
    fn name_usage(&self, response: &mut Response<AnswerBody>, usage: UsagePercent, regain_minutes: u32) {
        set(response, APP_USAGE, app_usage(usage));
        let use_case = json!([{
            "type": "messenger",
            "call_count": usage,
            "total_cputime": 1,
            "total_time": usage,
            "estimated_time_to_regain_access": regain_minutes,
        }]);
        set(response, BUSINESS_USAGE, json!({ number_of(self.tag): use_case }).to_string());
    }
}

fn app_usage(usage: UsagePercent) -> String {
    json!({ "call_count": usage, "total_time": usage, "total_cputime": usage }).to_string()
}

fn set(response: &mut Response<AnswerBody>, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}
