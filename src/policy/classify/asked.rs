//! Reads the answer to a question that is no message: its object, or the refusal.

use serde_json::{Map, Value};

use super::answer::CallResult;
use super::body::{GraphBody, GraphError, integer};
use crate::text::{MAX_ERROR_CHARS, redact};

/// A question that was not answered as asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    pub code: Option<i64>,
    pub subcode: Option<i64>,
    /// Without secrets, and bounded.
    pub text: String,
    /// Whether Graph itself refused; else the way to Graph failed, or a server between.
    pub by_graph: bool,
}

/// Codes under which Graph itself failed, or was too busy: the same question may be answered later.
const PASSING: [i64; 8] = [1, 2, 4, 17, 32, 341, 368, 613];

impl Refusal {
    /// Whether Graph refused the token itself.
    pub fn is_about_the_token(&self) -> bool {
        matches!(self.code, Some(102 | 190 | 450..=467 | 492))
    }

    /// Whether the same question may be answered later, without a change.
    pub fn is_passing(&self) -> bool {
        !self.by_graph
            || self.code.is_some_and(|code| PASSING.contains(&code) || (80_000..=80_009).contains(&code))
    }
}

/// Return the object of a good answer.
pub fn asked(result: &CallResult) -> Result<Map<String, Value>, Refusal> {
    let answer = match result {
        CallResult::Answer(answer) => answer,
        CallResult::NotSent { reason }
        | CallResult::NoFile { reason }
        | CallResult::Cut { reason }
        | CallResult::Unsendable { reason } => {
            return Err(Refusal { text: redact(reason, MAX_ERROR_CHARS), ..Refusal::default() });
        }
    };
    let success = (200..300).contains(&answer.http_status);
    let error = GraphBody::read(&answer.body).error;
    if let (true, None, Ok(Value::Object(object))) = (success, &error, serde_json::from_slice(&answer.body)) {
        return Ok(object);
    }
    let of_header = || answer.challenge.as_deref().filter(|_| !success).and_then(GraphError::of_challenge);
    let error = error.or_else(of_header).filter(|error| error.is_graphs(answer.http_status));
    let Some(error) = error else {
        let text = format!("HTTP {} without an answer of Graph", answer.http_status);
        return Err(Refusal { text, ..Refusal::default() });
    };
    Err(Refusal {
        code: error.code,
        subcode: error.subcode,
        text: redact(&error.message, MAX_ERROR_CHARS),
        by_graph: true,
    })
}

/// Return an integer of an answer, written as a number or as a text.
pub fn number(value: &Value) -> Option<i64> {
    integer(value)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::answer::GraphAnswer;
    use super::*;

    fn answer(http_status: u16, body: &str) -> CallResult {
        CallResult::Answer(GraphAnswer { http_status, body: body.into(), ..GraphAnswer::default() })
    }

    #[test]
    fn good_answer_is_its_object() {
        let object = asked(&answer(200, r#"{"id":"17","name":"Shop"}"#)).expect("it is an answer");
        assert_eq!(object["id"], "17");
    }

    #[rstest]
    #[case::an_error(
        400,
        r#"{"error":{"code":190,"error_subcode":463,"type":"OAuthException","message":"ended"}}"#,
        true,
        false
    )]
    #[case::of_instagram(
        400,
        r#"{"error":{"code":100,"type":"IGApiException","message":"no"}}"#,
        false,
        false
    )]
    #[case::a_busy_graph(
        403,
        r#"{"error":{"code":4,"type":"OAuthException","message":"busy"}}"#,
        false,
        true
    )]
    #[case::an_error_in_a_success(
        200,
        r#"{"error":{"code":190,"type":"OAuthException","message":"ended"}}"#,
        true,
        false
    )]
    #[case::a_page(502, "<html>", false, true)]
    #[case::a_list(200, "[]", false, true)]
    fn refusal_is_told_apart(
        #[case] status: u16,
        #[case] body: &str,
        #[case] is_about_the_token: bool,
        #[case] is_passing: bool,
    ) {
        let refusal = asked(&answer(status, body)).expect_err("it is none");
        assert_eq!((refusal.is_about_the_token(), refusal.is_passing()), (is_about_the_token, is_passing));
        assert!(!refusal.text.is_empty());
    }

    #[test]
    fn failed_call_is_passing_and_shows_no_token() {
        let result = CallResult::Cut { reason: "no answer; access_token=IGAAsecret123".into() };
        let refusal = asked(&result).expect_err("it is none");
        assert!(refusal.is_passing() && !refusal.text.contains("IGAA"), "{refusal:?}");
    }
}
