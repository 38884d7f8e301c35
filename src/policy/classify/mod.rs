//! What came back from a Graph call, and what it means.
//!
//! Judged on (code, subcode) before anything else: HTTP statuses and message texts do not classify (the same code
//! comes with 400 and 403, and texts are localised). `table` holds the codes, `envelope` reads bodies leniently.
//! An answer is never trusted further than it can be read.

mod envelope;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::message::ErrorDetail;
use envelope::{Body, GraphError};
use table::Rule;

/// What came back from one call.
#[derive(Debug, Clone)]
pub enum CallResult {
    /// A complete HTTP answer.
    Answer(Answer),
    /// Nothing of the request was written: refused, no route, DNS, TLS, connect timeout.
    NotSent { reason: String },
    /// The request was written, at least in part, and no complete answer arrived.
    Cut { reason: String },
}

/// A complete HTTP answer of Graph. Bodies are read up to 64 KiB; a longer one is a [`CallResult::Cut`].
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub http_status: u16,
    pub body: Vec<u8>,
    /// `X-Business-Use-Case-Usage`, as received.
    pub business_usage: Option<String>,
}

/// What an answer means for the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Graph took it.
    Sent { message_id: String },
    /// Final: ERROR `refused`.
    Refused,
    /// Not taken; try again until it expires. Not counted against `dispatch.max_attempts`: the call was not written,
    /// or the limit it met is the line's.
    TryAgain,
    /// Not taken; try again, counted. `at_most` such answers end the message before `dispatch.max_attempts` does.
    RetryCounted { at_most: Option<u32>, not_before: Duration },
    /// A complete answer that says the server failed (5xx, code 1 or 2): Graph may have taken it. `dispatch.on_5xx`.
    ServerFailed,
    /// Not known. `dispatch.on_ambiguous`.
    Ambiguous,
    /// Not known, and never to be repeated: UNKNOWN whatever the settings say (1/1357046).
    Hold,
    /// The line may not send: the message waits with it, as PENDING.
    WaitForLine,
}

/// Whose sending has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseTarget {
    Line,
    App,
}

/// A pause that an answer demands: `first`, doubling on each further demand of the same kind up to `cap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseDemand {
    pub target: PauseTarget,
    pub first: Duration,
    pub cap: Duration,
    /// The time Graph itself names in a usage header; it stands instead of the ladder.
    pub named: Option<Duration>,
    /// For `v8l_pause_reason`: short, with code and subcode.
    pub reason: String,
}

/// An answer, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// For the row's `error_*` columns; empty when `verdict` is `Sent`.
    pub error: ErrorDetail,
    pub pause: Option<PauseDemand>,
}

/// Judges what came back from a call.
pub fn classify(result: &CallResult) -> Judgement {
    match result {
        CallResult::Answer(answer) => judge(answer),
        CallResult::NotSent { reason } => Judgement {
            verdict: Verdict::TryAgain,
            error: ErrorDetail { message: envelope::clean(reason), ..ErrorDetail::default() },
            pause: None,
        },
        CallResult::Cut { reason } => Judgement {
            verdict: Verdict::Ambiguous,
            error: ErrorDetail { message: envelope::clean(reason), ..ErrorDetail::default() },
            pause: None,
        },
    }
}

fn judge(answer: &Answer) -> Judgement {
    let status = answer.http_status;
    let (rule, error) = match envelope::read(&answer.body) {
        Body::Sent { message_id } if (200..300).contains(&status) => {
            let verdict = Verdict::Sent { message_id };
            return Judgement { verdict, error: ErrorDetail::default(), pause: None };
        }
        Body::Error(error) => (with_status(table::rule(&error), &error, status), detail(status, error)),
        Body::Sent { .. } | Body::Other => {
            (without_code(status), unreadable(status, "an answer of another shape"))
        }
        Body::NotJson => (without_code(status), unreadable(status, "an answer that is not JSON")),
    };
    let named = answer.business_usage.as_deref().and_then(envelope::time_to_regain_access);
    let pause = rule.pause.map(|pause| PauseDemand {
        target: pause.target,
        first: pause.first,
        cap: pause.cap,
        named: named.filter(|_| pause.obeys_header),
        reason: reason(&error),
    });
    Judgement { verdict: rule.verdict, error, pause }
}

/// HTTP statuses speak only where the code does not.
fn with_status(rule: Option<Rule>, error: &GraphError, status: u16) -> Rule {
    match rule {
        Some(rule) => rule,
        None if status == 429 => table::RATE,
        None if status == 408 || status >= 500 => table::SERVER_FAILED,
        // No code at all: the type says whether it is about the token.
        None if error.code.is_none() && error.kind.as_deref() == Some("OAuthException") => table::LINE,
        None => table::REFUSED,
    }
}

/// An answer that names no error and is no success.
///
/// A 4xx without a readable body comes from something between us and Graph. It does not say that Graph refused the
/// message, so it is not ended; and it is not among the answers after which a call may be repeated, so it is held.
/// A redirect is never followed and would meet every message of the line: the line waits.
fn without_code(status: u16) -> Rule {
    match status {
        429 => table::RATE,
        300..=399 => table::LINE,
        408 | 500.. => table::SERVER_FAILED,
        _ => table::AMBIGUOUS,
    }
}

fn detail(status: u16, error: GraphError) -> ErrorDetail {
    ErrorDetail {
        http_status: Some(i32::from(status)),
        code: error.code,
        subcode: error.subcode,
        message: error.message,
        fbtrace_id: error.fbtrace_id,
    }
}

fn unreadable(status: u16, what: &str) -> ErrorDetail {
    ErrorDetail {
        http_status: Some(i32::from(status)),
        message: format!("HTTP {status} with {what}"),
        ..ErrorDetail::default()
    }
}

fn reason(error: &ErrorDetail) -> String {
    let status = error.http_status.unwrap_or_default();
    match (error.code, error.subcode) {
        (Some(code), Some(subcode)) => format!("Graph code {code}/{subcode}: {}", error.message),
        (Some(code), None) => format!("Graph code {code}: {}", error.message),
        (None, _) => format!("Graph answered HTTP {status}: {}", error.message),
    }
}
