//! From a result to its judgement: the meaning of the error, then the verdict and the pause of that meaning.

use std::time::Duration;

use super::answer::{CallResult, GraphAnswer, Subject};
use super::body::{GraphBody, GraphError};
use super::detail::{detail, pause_reason};
use super::judgement::{Judgement, PauseDemand, Verdict};
use super::overrides::CodeOverrides;
use super::pause::{self, LONGEST_UNAVAILABLE, PauseKind};
use super::table::{self, Meaning};
use crate::domain::ErrorDetail;
use crate::text::{MAX_ERROR_CHARS, redact};

/// Calls in all of a message that Graph refuses for a passing reason under a code that is not in the table.
const PASSING_CALLS: u32 = 3;

/// Judge the result of a call of `subject` by the table alone.
pub fn classify(result: &CallResult, subject: &Subject) -> Judgement {
    classify_with(result, subject, &CodeOverrides::default())
}

/// Judge the result of a call of `subject`, with the codes to which the settings give a meaning of their own.
pub fn classify_with(result: &CallResult, subject: &Subject, overrides: &CodeOverrides) -> Judgement {
    match result {
        CallResult::Answer(answer) => judge_answer(answer, subject, overrides),
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

fn judge_answer(answer: &GraphAnswer, subject: &Subject, overrides: &CodeOverrides) -> Judgement {
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
        Some(error) => meaning_of(answer.http_status, error, overrides),
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
fn meaning_of(http_status: u16, error: &GraphError, overrides: &CodeOverrides) -> Meaning {
    let known = table::look_up(error, overrides);
    if http_status != 429 {
        return known.unwrap_or_else(|| by_status(http_status, Some(error)));
    }
    match known {
        // The contract's rules for these codes hold under every HTTP status: 10 and 551 end the message, a
        // call that Graph may have taken is counted as such.
        Some(kept @ (Meaning::Server | Meaning::InFactSent | Meaning::MaybeSent)) => kept,
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
        Meaning::MaybeSent | Meaning::Unclear => Verdict::Ambiguous,
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
