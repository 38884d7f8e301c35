//! Judges the answer to the upload of an asset, and the refusal of an uploaded asset's id.
//!
//! An upload creates no message: it may be repeated whatever its outcome was.

use serde_json::Value;

use super::answer::{CallResult, GraphAnswer, Subject};
use super::body::{GraphBody, GraphError};
use super::judge::classify;
use super::judgement::Verdict;
use super::table::{self, UNKNOWN_ATTACHMENT_ID};
use crate::domain::ErrorDetail;
use crate::text::printable_id;

/// Longer than any id of Graph.
const MAX_ID_CHARS: usize = 500;

/// The meaning of an answer for the asset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadVerdict {
    Uploaded {
        attachment_id: String,
    },
    /// Meta cannot fetch or use the asset. `tries`: uploads, the first included, after which that counts.
    Unfetchable {
        tries: u32,
    },
    /// No statement about the asset, and the same call may pass a moment later.
    Passing,
    /// No statement about the asset: the line, the app or this kind of call is refused.
    Refused,
}

/// An answer to an upload, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadJudgement {
    pub verdict: UploadVerdict,
    /// Empty where the asset is uploaded.
    pub error: ErrorDetail,
}

/// Judge the result of an upload in the name of `subject`.
pub fn judge_upload(result: &CallResult, subject: &Subject) -> UploadJudgement {
    if let CallResult::Answer(answer) = result
        && let Some(attachment_id) = id_of(answer)
    {
        return UploadJudgement {
            verdict: UploadVerdict::Uploaded { attachment_id },
            error: ErrorDetail::default(),
        };
    }
    let judgement = classify(result, subject);
    let tries = match result {
        CallResult::Answer(answer) => error_of(answer).as_ref().and_then(table::tries_of_asset),
        _ => None,
    };
    let verdict = match (tries, judgement.verdict) {
        (Some(tries), _) => UploadVerdict::Unfetchable { tries },
        // A rate is waited for by the messages, and not by calls that repeat the upload.
        (None, Verdict::TryAgain) if judgement.error.http_status.is_some() => UploadVerdict::Refused,
        (None, Verdict::TryAgain | Verdict::RetryCounted { .. })
        | (None, Verdict::ServerFailed | Verdict::Ambiguous | Verdict::Hold) => UploadVerdict::Passing,
        _ => UploadVerdict::Refused,
    };
    UploadJudgement { verdict, error: judgement.error }
}

/// Whether Graph refused a message because it does not know the id of the attachment, or not any more.
pub fn is_unknown_attachment(error: &ErrorDetail) -> bool {
    error.code == Some(100) && error.subcode.map(i64::from) == Some(UNKNOWN_ATTACHMENT_ID)
}

/// Return the id of a success.
fn id_of(answer: &GraphAnswer) -> Option<String> {
    if !(200..300).contains(&answer.http_status) {
        return None;
    }
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let id = match body.get("attachment_id")? {
        Value::String(id) => printable_id(id, MAX_ID_CHARS),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    Some(id).filter(|id| !id.is_empty())
}

fn error_of(answer: &GraphAnswer) -> Option<GraphError> {
    let of_header = || answer.challenge.as_deref().and_then(GraphError::of_challenge);
    GraphBody::read(&answer.body).error.or_else(of_header)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn judged(http_status: u16, body: &Value) -> UploadJudgement {
        let answer =
            GraphAnswer { http_status, body: body.to_string().into_bytes(), ..GraphAnswer::default() };
        judge_upload(&CallResult::Answer(answer), &Subject::default())
    }

    fn refused(code: i64, subcode: Option<i64>, message: &str) -> UploadVerdict {
        let error =
            json!({"code": code, "error_subcode": subcode, "type": "OAuthException", "message": message});
        judged(400, &json!({ "error": error })).verdict
    }

    #[rstest]
    #[case::text(json!({"attachment_id": "1857777774821032"}))]
    #[case::number(json!({"attachment_id": 1857777774821032_i64}))]
    fn id_is_read(#[case] body: Value) {
        let expected = UploadVerdict::Uploaded { attachment_id: "1857777774821032".into() };
        assert_eq!(judged(200, &body).verdict, expected);
    }

    #[rstest]
    #[case::empty(json!({"attachment_id": ""}))]
    #[case::another_type(json!({"attachment_id": true}))]
    #[case::missing(json!({"success": true}))]
    fn success_without_an_id_is_tried_again(#[case] body: Value) {
        assert_eq!(judged(200, &body).verdict, UploadVerdict::Passing);
    }

    #[rstest]
    #[case::url(100, Some(2018008), "", 3)]
    #[case::url_without_a_subcode(100, None, "(#100) Failed to fetch the file from the url", 3)]
    #[case::video(389, None, "", 3)]
    #[case::slow_video(100, Some(2018294), "", 2)]
    #[case::upload(100, Some(2018047), "", 1)]
    #[case::size(100, Some(2018109), "", 1)]
    #[case::kind_of_file(546, None, "", 1)]
    fn failure_of_the_asset_is_told_from_others(
        #[case] code: i64,
        #[case] subcode: Option<i64>,
        #[case] message: &str,
        #[case] tries: u32,
    ) {
        assert_eq!(refused(code, subcode, message), UploadVerdict::Unfetchable { tries });
    }

    #[rstest]
    #[case::token(190, None, UploadVerdict::Refused)]
    #[case::parameter(100, None, UploadVerdict::Refused)]
    #[case::rate(613, None, UploadVerdict::Refused)]
    #[case::unknown_code(77777, None, UploadVerdict::Refused)]
    #[case::server(2, None, UploadVerdict::Passing)]
    #[case::later(1200, None, UploadVerdict::Passing)]
    fn other_errors_are_not_about_the_asset(
        #[case] code: i64,
        #[case] subcode: Option<i64>,
        #[case] expected: UploadVerdict,
    ) {
        assert_eq!(refused(code, subcode, "no"), expected);
    }

    #[rstest]
    #[case(CallResult::NotSent { reason: "refused".into() })]
    #[case(CallResult::Cut { reason: "reset".into() })]
    fn silence_passes(#[case] result: CallResult) {
        assert_eq!(judge_upload(&result, &Subject::default()).verdict, UploadVerdict::Passing);
    }

    #[test]
    fn unknown_id_is_told_from_other_refusals() {
        let error = |subcode| ErrorDetail { code: Some(100), subcode, ..ErrorDetail::default() };
        assert!(is_unknown_attachment(&error(Some(2018074))));
        assert!(!is_unknown_attachment(&error(Some(2018008))) && !is_unknown_attachment(&error(None)));
    }
}
