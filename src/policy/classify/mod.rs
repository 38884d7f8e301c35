//! What came back from a Graph call, and what it means for the message, its line and the app.
//!
//! Decided on (code, subcode) (`table`), then `type`; on the HTTP status only where no code tells; on the text of
//! an error never, but for one case in `table`. Pure: it sends nothing, pauses nothing, and never panics on what
//! Graph or a gateway may answer.

mod envelope;
mod pause;
mod table;

use std::time::Duration;

use crate::message::{ErrorDetail, MAX_ERROR_CHARS, printable_id, redact};
use envelope::{Envelope, GraphError};
use pause::Ladder;
use table::Meaning;

/// What came back from one call.
#[derive(Debug, Clone)]
pub enum CallResult {
    /// A complete HTTP answer.
    Answer(Answer),
    /// Nothing of the request was written: refused, no route, DNS, TLS, connect timeout.
    NotSent { reason: String },
    /// Nothing was written, and nothing can be until the line is changed: its page token fits no HTTP header.
    Unsendable { reason: String },
    /// The request was written, at least in part, and no complete answer arrived.
    Cut { reason: String },
}

/// A complete HTTP answer of Graph. Bodies are read up to 64 KiB; a longer one is a `Cut`.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub http_status: u16,
    pub body: Vec<u8>,
    /// `X-Business-Use-Case-Usage`, as received.
    pub business_usage: Option<String>,
    /// `X-App-Usage`, as received.
    pub app_usage: Option<String>,
}

/// What an answer means for the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Graph took it.
    Sent { message_id: String },
    /// Final: ERROR `refused`.
    Refused,
    /// Not taken; try again, for ever (until it expires). Not counted against `dispatch.max_attempts`: the call
    /// was not written, or the limit is the line's.
    TryAgain,
    /// Not taken; try again, counted. `at_most` bounds the calls so answered, the first included, below
    /// `dispatch.max_attempts`; `not_before` is the least delay, also above `retry.cap`.
    RetryCounted { at_most: Option<u32>, not_before: Option<Duration> },
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
    /// For the row's `error_*` columns; default (empty) when `verdict` is `Sent`.
    pub error: ErrorDetail,
    pub pause: Option<PauseDemand>,
}

/// Judges what came back from a call.
pub fn classify(result: &CallResult) -> Judgement {
    match result {
        CallResult::Answer(answer) => judge_answer(answer),
        CallResult::NotSent { reason } => judge_silence(Verdict::TryAgain, None, reason),
        CallResult::Cut { reason } => judge_silence(Verdict::Ambiguous, None, reason),
        CallResult::Unsendable { reason } => {
            judge_silence(Verdict::WaitForLine, Some(Ladder::LineRefused.demand(None, reason)), reason)
        }
    }
}

/// Without an answer there is only the transport's reason.
fn judge_silence(verdict: Verdict, pause: Option<PauseDemand>, reason: &str) -> Judgement {
    let message = redact(reason, MAX_ERROR_CHARS);
    Judgement { verdict, error: ErrorDetail { message, ..ErrorDetail::default() }, pause }
}

fn judge_answer(answer: &Answer) -> Judgement {
    let Envelope { message_id, error } = Envelope::read(&answer.body);
    let success = (200..300).contains(&answer.http_status);
    let meaning = match (&error, message_id) {
        (None, Some(message_id)) if success => {
            let verdict = Verdict::Sent { message_id };
            return Judgement { verdict, error: ErrorDetail::default(), pause: None };
        }
        (Some(error), Some(_)) if success => despite_message_id(meaning_of(answer.http_status, error)),
        (Some(error), _) => meaning_of(answer.http_status, error),
        (None, _) => by_status(answer.http_status, false),
    };
    let error = error.unwrap_or_default();
    let pause = ladder(answer.http_status, meaning).map(|ladder| {
        ladder.demand(pause::named_by(answer.business_usage.as_deref()), &pause_reason(answer, &error))
    });
    Judgement { verdict: verdict(meaning), error: detail(answer, &error), pause }
}

/// The code decides; HTTP 429 and answers without a code that Meta documents are judged by their status.
fn meaning_of(http_status: u16, error: &GraphError) -> Meaning {
    let known = table::look_up(error);
    if http_status != 429 {
        return known.unwrap_or_else(|| by_status(http_status, error.code.is_some()));
    }
    match known {
        // What is promised of these codes holds under every HTTP status: 10 and 551 end the message, a call that
        // Graph may have taken is counted as such.
        Some(kept @ (Meaning::Server | Meaning::InFactSent)) => kept,
        Some(kept @ (Meaning::Final | Meaning::FinalForLine)) if matches!(error.code, Some(10 | 551)) => kept,
        // A rate code may stop more than this line, or for longer.
        Some(kept @ (Meaning::RateApp | Meaning::RateUseCase)) => kept,
        _ => Meaning::RateLine,
    }
}

/// What a status means by itself.
///
/// - 3xx: never followed, so nobody took the message, and a redirect is no answer of Graph's: `graph.base_url` is
///   wrong or a gateway stands between. Counted, so that one message which a gateway dislikes does not hold its line
///   for a day; with a short pause of the line, so that a wrong address does not use up a backlog's tries.
/// - 408 and 5xx: a complete answer that says the server failed; it may have taken the message before.
/// - Other 4xx: refused, JSON or not. Whoever answers so, Graph or a gateway before it, says that it did not take
///   the request, so it is not ambiguous; gateways that lost the answer of a server behind them say 502 or 504.
/// - 2xx without `message_id`: not known, unless an error code stands in it.
fn by_status(http_status: u16, has_code: bool) -> Meaning {
    match http_status {
        300..=399 => Meaning::Redirected,
        429 => Meaning::RateLine,
        408 | 500.. => Meaning::Server,
        400..=499 => Meaning::Final,
        _ if has_code => Meaning::Final,
        _ => Meaning::Unclear,
    }
}

/// A success that carries an error and a `message_id`: judged by the error, except that what Graph seems to have
/// taken is not sent again as if it had not.
fn despite_message_id(meaning: Meaning) -> Meaning {
    match verdict(meaning) {
        Verdict::TryAgain | Verdict::RetryCounted { .. } | Verdict::WaitForLine => Meaning::Unclear,
        _ => meaning,
    }
}

fn verdict(meaning: Meaning) -> Verdict {
    match meaning {
        Meaning::Final | Meaning::FinalForLine => Verdict::Refused,
        Meaning::LineRefused => Verdict::WaitForLine,
        Meaning::RateLine | Meaning::RateUseCase | Meaning::RateApp => Verdict::TryAgain,
        Meaning::Again { at_most, not_before } => Verdict::RetryCounted { at_most, not_before },
        Meaning::Redirected => Verdict::RetryCounted { at_most: None, not_before: None },
        Meaning::Server => Verdict::ServerFailed,
        Meaning::InFactSent => Verdict::Hold,
        Meaning::Unclear => Verdict::Ambiguous,
    }
}

fn ladder(http_status: u16, meaning: Meaning) -> Option<Ladder> {
    match meaning {
        Meaning::RateLine | Meaning::Redirected => Some(Ladder::RateLine),
        Meaning::RateUseCase => Some(Ladder::RateUseCase),
        Meaning::RateApp => Some(Ladder::RateApp),
        Meaning::LineRefused | Meaning::FinalForLine => Some(Ladder::LineRefused),
        _ if http_status == 429 => Some(Ladder::RateLine),
        _ => None,
    }
}

fn detail(answer: &Answer, error: &GraphError) -> ErrorDetail {
    let message = match error.message.as_str() {
        // The body is not quoted: a gateway's page may echo the request.
        "" => format!("HTTP {} without an error text of Graph", answer.http_status),
        text => redact(text, MAX_ERROR_CHARS),
    };
    ErrorDetail {
        http_status: Some(i32::from(answer.http_status)),
        code: error.code.and_then(|code| i32::try_from(code).ok()),
        subcode: error.subcode.and_then(|subcode| i32::try_from(subcode).ok()),
        message,
        fbtrace_id: error.fbtrace_id.as_deref().map(|id| printable_id(id, 100)).filter(|id| !id.is_empty()),
    }
}

fn pause_reason(answer: &Answer, error: &GraphError) -> String {
    let source = match (error.code, error.subcode) {
        (Some(code), Some(subcode)) => format!("Graph code {code}/{subcode}"),
        (Some(code), None) => format!("Graph code {code}"),
        (None, _) => format!("HTTP {}", answer.http_status),
    };
    if error.message.is_empty() { source } else { format!("{source}: {}", error.message) }
}

#[cfg(test)]
mod tests;
