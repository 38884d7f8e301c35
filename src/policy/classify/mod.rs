//! What came back from a Graph call, and what it means for the message, its line and the app.
//!
//! Decided on (code, subcode) (`table`), then `type`; on the HTTP status only where no code tells; on the text of
//! an error never, but for one case in `table`. An answer without Graph's envelope is not Graph's: it ends no message
//! for good, and pauses the line. Pure: it sends nothing, pauses nothing, and never panics on what Graph or a gateway
//! may answer.

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

/// Whose call was answered: the ids under which a usage header speaks of it.
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
    /// The time Graph itself names for this line in a usage header; it stands instead of the ladder.
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
    /// Graph itself answered, and nobody in its place.
    pub by_graph: bool,
}

/// Judges what came back from a call of `subject`.
pub fn classify(result: &CallResult, subject: &Subject) -> Judgement {
    match result {
        CallResult::Answer(answer) => judge_answer(answer, subject),
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
    Judgement { verdict, error: ErrorDetail { message, ..ErrorDetail::default() }, pause, by_graph: false }
}

fn judge_answer(answer: &Answer, subject: &Subject) -> Judgement {
    let Envelope { message_id, error } = Envelope::read(&answer.body);
    let success = (200..300).contains(&answer.http_status);
    let taken = message_id.filter(|_| success);
    if let (None, Some(message_id)) = (&error, &taken) {
        let verdict = Verdict::Sent { message_id: message_id.clone() };
        return Judgement { verdict, error: ErrorDetail::default(), pause: None, by_graph: true };
    }
    let meaning = match &error {
        Some(error) => meaning_of(answer.http_status, error),
        None => by_status(answer.http_status, None),
    };
    let verdict = if taken.is_some() { despite_message_id(verdict(meaning)) } else { verdict(meaning) };
    let error = error.filter(|error| error.is_graphs(answer.http_status));
    let by_graph = error.is_some();
    let error = error.unwrap_or_default();
    let pause = ladder(answer.http_status, meaning).map(|ladder| {
        let named = pause::named_by(answer.business_usage.as_deref(), subject);
        ladder.demand(named, &pause_reason(answer, meaning, &error))
    });
    Judgement { verdict, error: detail(answer, meaning, &error), pause, by_graph }
}

/// The code decides; HTTP 429 and answers without a code that Meta documents are judged by their status.
fn meaning_of(http_status: u16, error: &GraphError) -> Meaning {
    let known = table::look_up(error);
    if http_status != 429 {
        return known.unwrap_or_else(|| by_status(http_status, Some(error)));
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

/// The meaning of a status where no code tells.
///
/// - 408 and 5xx: a complete answer that says the server failed; it may have taken the message before.
/// - Other 4xx: refused, if Graph says so. Without its envelope a proxy or a gateway answered, or another server than
///   Graph: the message was not taken, and is not ended over it.
/// - 3xx: never followed, and no answer of Graph's either: `graph.base_url` is wrong or a gateway stands between.
/// - 2xx without `message_id`: not known, unless an error code stands in it.
fn by_status(http_status: u16, error: Option<&GraphError>) -> Meaning {
    match http_status {
        429 => Meaning::RateLine,
        408 | 500.. => Meaning::Server,
        400..=499 if error.is_some_and(|error| error.is_graphs(http_status)) => Meaning::Final,
        300..=499 => Meaning::NotGraphs,
        _ if error.is_some_and(|error| error.code.is_some()) => Meaning::Final,
        _ => Meaning::Unclear,
    }
}

/// A success that carries an error and a `message_id`: judged by the error, except that what Graph seems to have
/// taken is not sent again as if it had not.
fn despite_message_id(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::TryAgain | Verdict::RetryCounted { .. } | Verdict::WaitForLine => Verdict::Ambiguous,
        _ => verdict,
    }
}

fn verdict(meaning: Meaning) -> Verdict {
    match meaning {
        Meaning::Final | Meaning::FinalForLine => Verdict::Refused,
        Meaning::LineRefused | Meaning::NotGraphs => Verdict::WaitForLine,
        Meaning::RateLine | Meaning::RateUseCase | Meaning::RateApp => Verdict::TryAgain,
        Meaning::Again { at_most, not_before } => Verdict::RetryCounted { at_most, not_before },
        Meaning::Server => Verdict::ServerFailed,
        Meaning::InFactSent => Verdict::Hold,
        Meaning::Unclear => Verdict::Ambiguous,
    }
}

fn ladder(http_status: u16, meaning: Meaning) -> Option<Ladder> {
    match meaning {
        Meaning::RateLine => Some(Ladder::RateLine),
        Meaning::RateUseCase => Some(Ladder::RateUseCase),
        Meaning::RateApp => Some(Ladder::RateApp),
        Meaning::LineRefused | Meaning::FinalForLine => Some(Ladder::LineRefused),
        Meaning::NotGraphs | Meaning::Unclear => Some(Ladder::NotGraphs),
        _ if http_status == 429 => Some(Ladder::RateLine),
        _ => None,
    }
}

fn detail(answer: &Answer, meaning: Meaning, error: &GraphError) -> ErrorDetail {
    let http_status = answer.http_status;
    let message = match (error.message.as_str(), meaning) {
        // The body is not quoted: a gateway's page may echo the request.
        ("", Meaning::NotGraphs | Meaning::Unclear) => {
            format!("HTTP {http_status} without a message id or an error of Graph: {STRANGER}")
        }
        ("", _) => format!("HTTP {http_status} without an error text of Graph"),
        (text, _) => redact(text, MAX_ERROR_CHARS),
    };
    ErrorDetail {
        http_status: Some(i32::from(http_status)),
        code: error.code.and_then(|code| i32::try_from(code).ok()),
        subcode: error.subcode.and_then(|subcode| i32::try_from(subcode).ok()),
        message,
        fbtrace_id: error.fbtrace_id.as_deref().map(|id| printable_id(id, 100)).filter(|id| !id.is_empty()),
    }
}

fn pause_reason(answer: &Answer, meaning: Meaning, error: &GraphError) -> String {
    let source = match (error.code, error.subcode) {
        (Some(code), Some(subcode)) => format!("Graph code {code}/{subcode}"),
        (Some(code), None) => format!("Graph code {code}"),
        (None, _) => format!("HTTP {}", answer.http_status),
    };
    match (error.message.as_str(), meaning) {
        ("", Meaning::NotGraphs | Meaning::Unclear) => format!("{source}: {STRANGER}"),
        ("", _) => source,
        (text, _) => format!("{source}: {text}"),
    }
}

/// Where an answer may come from that is not Graph's.
const STRANGER: &str = "a proxy or gateway may have answered, or graph.base_url is wrong";

#[cfg(test)]
mod tests;
