//! Judges the result of a call to Graph: its meaning for the message, its line and the app.
//!
//! The pair (code, subcode) decides (`table`), then `type`; the HTTP status only where no code decides; the
//! text of an error never, except for one case in `table`. An answer without Graph's envelope is not Graph's:
//! it ends no message for good, and pauses the line. Pure: this module sends nothing, pauses nothing, and
//! never panics on an answer of Graph or of a gateway.

mod body;
mod pause;
mod table;

use std::time::Duration;

use crate::domain::ErrorDetail;
use crate::text::{MAX_ERROR_CHARS, printable_id, redact};
use body::{GraphBody, GraphError};
pub use pause::CANNOT_SEND;
use pause::{LONGEST_UNAVAILABLE, PauseKind};
use table::Meaning;
pub use table::known_codes;

/// Calls in all of a message that Graph refuses for a passing reason under a code that is not in the table.
const PASSING_CALLS: u32 = 3;

/// The result of one call.
#[derive(Debug, Clone)]
pub enum CallResult {
    /// A complete HTTP answer.
    Answer(GraphAnswer),
    /// No byte of the request was written: refused, no route, DNS, TLS, connect timeout.
    NotSent { reason: String },
    /// No byte was written, as this process may open no further file. No evidence about the host.
    NoFile { reason: String },
    /// No byte was written, and none can be until the line is changed: its page token fits no HTTP header.
    Unsendable { reason: String },
    /// The request was written, at least in part, and no complete answer arrived.
    Cut { reason: String },
}

/// A complete HTTP answer of Graph. Bodies are read up to 64 KiB; a longer one is a `Cut`.
#[derive(Debug, Clone, Default)]
pub struct GraphAnswer {
    pub http_status: u16,
    /// The inflated body.
    pub body: Vec<u8>,
    /// The body has an encoding that is not read; `body` is empty.
    pub is_unreadable: bool,
    /// `X-Business-Use-Case-Usage`, as received; several lines joined by commas.
    pub business_usage: Option<String>,
    /// `Retry-After` and `Date`, as received.
    pub retry_after: Option<String>,
    pub date: Option<String>,
    /// `WWW-Authenticate`, as received.
    pub challenge: Option<String>,
}

/// The ids under which a usage header names the sender of the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
}

impl Subject {
    fn is(&self, id: &str) -> bool {
        !id.is_empty()
            && [&self.page_id, &self.instagram_account_id].into_iter().flatten().any(|own| own.trim() == id)
    }
}

/// The meaning of an answer for the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Graph took it.
    Sent { graph_id: String },
    /// Final: ERROR `refused`.
    Refused,
    /// Not taken; try again until the message expires. Not counted against `dispatch.max_attempts`: the call
    /// was not written, or the limit is the line's.
    TryAgain,
    /// Not taken; try again, counted. `at_most` bounds the calls so answered, the first included, below
    /// `dispatch.max_attempts`; `not_before` is the least delay, also above `retry.cap`.
    RetryCounted { at_most: Option<u32>, not_before: Option<Duration> },
    /// A complete answer that reports a failure of the server (5xx, code 1 or 2): Graph may have taken the
    /// message. `dispatch.on_5xx`.
    ServerFailed,
    /// Not known. `dispatch.on_ambiguous`.
    Ambiguous,
    /// Not known, and never to be repeated: UNKNOWN whatever the settings say (1/1357046).
    Hold,
    /// The line may not send: the message waits with it, as PENDING.
    WaitForLine,
    /// Refused; only the line's next message shows whether the refusal is about this message or the line. The
    /// message is not tried again before another. `dispatch.line_trials`.
    Suspect,
    /// Refused under a code that is not in the table: as `Refused`, but after `dispatch.unknown_refusals` in
    /// a row as `Suspect`.
    Unlisted,
}

/// The lines that have to stop sending.
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
    /// The time that Graph names for this line in a header; it replaces the doubling.
    pub named: Option<Duration>,
    /// Whether the line cannot send, or Graph was not reached; a demand that only slows the line down is
    /// neither. After such a pause a single call is tried, and one recipient alone does not lengthen it.
    pub ends_with_trial: bool,
    /// For `v8l_pause_reason`: short, with code and subcode.
    pub reason: String,
}

/// An answer, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The row's `error_*` columns; empty when `verdict` is `Sent`.
    pub error: ErrorDetail,
    /// A pause that the answer demands; for an `Unlisted` refusal, only after too many in a row.
    pub pause: Option<PauseDemand>,
    /// Whether Graph answered, and no other server in its place.
    pub by_graph: bool,
}

/// Judge the result of a call of `subject`.
pub fn classify(result: &CallResult, subject: &Subject) -> Judgement {
    match result {
        CallResult::Answer(answer) => judge_answer(answer, subject),
        CallResult::NotSent { reason } | CallResult::NoFile { reason } => {
            judge_silence(Verdict::TryAgain, None, reason)
        }
        CallResult::Cut { reason } => judge_silence(Verdict::Ambiguous, None, reason),
        CallResult::Unsendable { reason } => {
            judge_silence(Verdict::WaitForLine, Some(PauseKind::LineRefused.demand(None, reason)), reason)
        }
    }
}

/// Judge a call without an answer, which has only the transport's reason.
fn judge_silence(verdict: Verdict, pause: Option<PauseDemand>, reason: &str) -> Judgement {
    let message = redact(reason, MAX_ERROR_CHARS);
    Judgement { verdict, error: ErrorDetail { message, ..ErrorDetail::default() }, pause, by_graph: false }
}

fn judge_answer(answer: &GraphAnswer, subject: &Subject) -> Judgement {
    let GraphBody { graph_id, error } = GraphBody::read(&answer.body);
    let success = (200..300).contains(&answer.http_status);
    let taken = graph_id.filter(|_| success);
    if let (None, Some(graph_id)) = (&error, &taken) {
        let verdict = Verdict::Sent { graph_id: graph_id.clone() };
        return Judgement { verdict, error: ErrorDetail::default(), pause: None, by_graph: true };
    }
    let of_header = || answer.challenge.as_deref().filter(|_| !success).and_then(GraphError::of_challenge);
    let error = error.or_else(of_header);
    let meaning = match &error {
        Some(error) => meaning_of(answer.http_status, error),
        None => by_status(answer.http_status, None),
    };
    let verdict = if taken.is_some() { despite_message_id(verdict(meaning)) } else { verdict(meaning) };
    let error = error.filter(|error| error.is_graphs(answer.http_status));
    let by_graph = error.is_some();
    let error = error.unwrap_or_default();
    let asked = pause::asked_by(answer.retry_after.as_deref(), answer.date.as_deref());
    let pause = pause_kind(answer.http_status, meaning, asked).map(|pause_kind| {
        let named = named_time(answer, pause_kind, asked, subject);
        pause_kind.demand(named, &pause_reason(answer, meaning, &error))
    });
    Judgement { verdict, error: detail(answer, meaning, &error), pause, by_graph }
}

/// Return the time that the answer's headers name for the pause: that of the usage header, and of
/// `Retry-After` if the pause is about a rate of the line.
fn named_time(
    answer: &GraphAnswer,
    pause_kind: PauseKind,
    asked: Option<Duration>,
    subject: &Subject,
) -> Option<Duration> {
    let by_usage = pause::named_by(answer.business_usage.as_deref(), subject);
    match pause_kind {
        PauseKind::RateLine if answer.http_status == 503 => {
            by_usage.max(asked.map(|asked| asked.min(LONGEST_UNAVAILABLE)))
        }
        PauseKind::RateLine => by_usage.max(asked),
        _ => by_usage,
    }
}

/// Return the meaning of an error. The code decides; HTTP 429 and answers without a code that Meta documents
/// are judged by their status.
fn meaning_of(http_status: u16, error: &GraphError) -> Meaning {
    let known = table::look_up(error);
    if http_status != 429 {
        return known.unwrap_or_else(|| by_status(http_status, Some(error)));
    }
    match known {
        // The contract's rules for these codes hold under every HTTP status: 10 and 551 end the message, a
        // call that Graph may have taken is counted as such.
        Some(kept @ (Meaning::Server | Meaning::InFactSent)) => kept,
        Some(kept @ (Meaning::Final | Meaning::FinalForLine)) if matches!(error.code, Some(10 | 551)) => kept,
        // A rate code may stop more than this line, or for longer.
        Some(kept @ (Meaning::RateApp | Meaning::RateUseCase)) => kept,
        _ => Meaning::RateLine,
    }
}

/// Return the meaning of a status where no code decides.
///
/// - 408 and 5xx: a complete answer that reports a failure of the server, which may have taken the message
///   before.
/// - Other 4xx and 3xx: refused, if the envelope is Graph's. Without it a proxy, a gateway or another server
///   answered: the message was not taken, and does not end because of it. A redirect is never followed.
/// - 2xx without `message_id`, and a number that is no status: not known, unless there is an error code.
fn by_status(http_status: u16, error: Option<&GraphError>) -> Meaning {
    match http_status {
        429 => Meaning::RateLine,
        408 | 500.. => Meaning::Server,
        300..=499 => match error.filter(|error| error.is_graphs(http_status)) {
            Some(error) => unlisted(http_status, error),
            None => Meaning::NotGraphs,
        },
        _ => match error.filter(|error| error.code.is_some()) {
            Some(error) => unlisted(http_status, error),
            None => Meaning::Unclear,
        },
    }
}

/// Return the meaning of an error of Graph whose code is not in the table.
fn unlisted(http_status: u16, error: &GraphError) -> Meaning {
    // Codes below zero are internal errors of Meta's interfaces.
    let is_passing = error.is_transient || error.code.is_some_and(|code| code < 0);
    // Older interfaces write the HTTP status in the place of a code, and only the type shows that the token
    // is meant.
    let is_of_status = error.code == Some(i64::from(http_status)) && error.kind.starts_with("OAuth");
    match (is_passing, is_of_status) {
        (true, _) => Meaning::Again { at_most: Some(PASSING_CALLS), not_before: None },
        (false, true) => Meaning::Suspect,
        (false, false) => Meaning::Unlisted,
    }
}

/// Return the verdict on a success that carries an error and a `message_id`: the error's, except that a
/// message which Graph seems to have taken is not sent again as if it had not.
fn despite_message_id(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::TryAgain | Verdict::RetryCounted { .. } | Verdict::WaitForLine | Verdict::Suspect => {
            Verdict::Ambiguous
        }
        _ => verdict,
    }
}

fn verdict(meaning: Meaning) -> Verdict {
    match meaning {
        Meaning::Final | Meaning::FinalForLine => Verdict::Refused,
        Meaning::LineRefused | Meaning::NotGraphs => Verdict::WaitForLine,
        Meaning::Suspect => Verdict::Suspect,
        Meaning::Unlisted => Verdict::Unlisted,
        Meaning::RateLine | Meaning::RateUseCase | Meaning::RateApp => Verdict::TryAgain,
        Meaning::Again { at_most, not_before } => Verdict::RetryCounted { at_most, not_before },
        Meaning::Server => Verdict::ServerFailed,
        Meaning::InFactSent => Verdict::Hold,
        Meaning::Unclear => Verdict::Ambiguous,
    }
}

fn pause_kind(http_status: u16, meaning: Meaning, asked: Option<Duration>) -> Option<PauseKind> {
    match meaning {
        Meaning::RateLine => Some(PauseKind::RateLine),
        Meaning::RateUseCase => Some(PauseKind::RateUseCase),
        Meaning::RateApp => Some(PauseKind::RateApp),
        Meaning::LineRefused | Meaning::FinalForLine | Meaning::Suspect | Meaning::Unlisted => {
            Some(PauseKind::LineRefused)
        }
        Meaning::NotGraphs | Meaning::Unclear => Some(PauseKind::NotGraphs),
        _ if http_status == 429 || (http_status == 503 && asked.is_some()) => Some(PauseKind::RateLine),
        _ => None,
    }
}

fn detail(answer: &GraphAnswer, meaning: Meaning, error: &GraphError) -> ErrorDetail {
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

fn pause_reason(answer: &GraphAnswer, meaning: Meaning, error: &GraphError) -> String {
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

/// The likely origin of an answer that is not Graph's.
const NOT_GRAPH_HINT: &str = "a proxy or gateway may have answered, or graph.base_url is wrong";

#[cfg(test)]
mod tests;
