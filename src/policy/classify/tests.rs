//! The meaning of each answer: the fixtures are bodies, and the pauses that they demand.

mod codes;
mod details;
mod envelopes;
mod overrides;
mod success;
mod without_code;

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{CallResult, GraphAnswer, Subject};
use super::judge::classify;
use super::judgement::{Judgement, PauseTarget, Verdict};

fn answer(http_status: u16, body: impl Into<Vec<u8>>) -> Judgement {
    let answer = GraphAnswer { http_status, body: body.into(), ..GraphAnswer::default() };
    classify(&CallResult::Answer(answer), &Subject::default())
}

fn answer_json(http_status: u16, body: Value) -> Judgement {
    answer(http_status, body.to_string())
}

/// Judge an error body with a code and, unless it is 0, a subcode.
fn error(http_status: u16, code: i64, subcode: i64) -> Judgement {
    let mut error =
        json!({"message": "(#1) no", "type": "OAuthException", "code": code, "fbtrace_id": "Atrace"});
    if subcode != 0 {
        error["error_subcode"] = json!(subcode);
    }
    answer_json(http_status, json!({ "error": error }))
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Return the target, the first and the longest pause.
fn pause(judgement: &Judgement) -> Option<(PauseTarget, Duration, Duration)> {
    judgement.pause.as_ref().map(|pause| (pause.target, pause.first, pause.cap))
}

fn slowed_down() -> Option<(PauseTarget, Duration, Duration)> {
    Some((PauseTarget::Line, Duration::from_secs(1), Duration::from_secs(60)))
}

fn not_graphs() -> Option<(PauseTarget, Duration, Duration)> {
    Some((PauseTarget::Line, Duration::from_secs(30), minutes(30)))
}

fn line_refused() -> Option<(PauseTarget, Duration, Duration)> {
    Some((PauseTarget::Line, minutes(30), minutes(240)))
}
