//! The documented answer to a submission, whichever way it came.

use serde::Serialize;
use utoipa::ToSchema;

use super::Refused;
use crate::domain::{Outcome, RowId, Status};

/// The answer to a submission, and every refusal
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<'a> {
    #[schema(inline)]
    r#return: Return<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Return<'a> {
    /// `OK`, the final status, or the reason of a refusal
    status: &'a str,
    /// 0 for a queued message, Graph's HTTP code for an outcome, or the code of a refusal
    status_code: i32,
    /// Graph's id of a message whose outcome is known; else empty
    #[serde(rename = "messageId")]
    message_id: &'a str,
    /// Id of the row; 0 if nothing was logged
    cdls_id: i64,
    /// Cause and remedy, in a sentence; only where there is a reason
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    /// Graph's error code; only for a message that Graph refused or that ended as `ERROR`, as are the next three
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error_code: Option<i32>,
    /// Graph's error subcode
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error_subcode: Option<i32>,
    /// Reason of an `ERROR`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error_kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error_message: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    pub fn new(status: &'a str, status_code: i32, message_id: &'a str, id: RowId) -> Envelope<'a> {
        Envelope {
            r#return: Return {
                status,
                status_code,
                message_id,
                cdls_id: id.0,
                detail: None,
                error_code: None,
                error_subcode: None,
                error_kind: None,
                error_message: None,
            },
        }
    }

    /// Create the envelope of a refusal: nothing was logged. `status` is that of the refusal.
    pub fn refused(refused: &'a Refused, status: &'a str) -> Envelope<'a> {
        Envelope::new(status, refused.code(), "", RowId(0)).with_detail(Some(refused.detail()))
    }

    /// Add a reason in words.
    pub fn with_detail(mut self, detail: Option<&'a str>) -> Envelope<'a> {
        self.r#return.detail = detail.or(self.r#return.detail);
        self
    }

    /// Create the envelope for the state of a row. A row that has not ended, or whose outcome is not known,
    /// is answered as queued.
    pub fn of(outcome: &'a Outcome) -> Envelope<'a> {
        let Outcome { cdls_id, status, status_code, message_id, .. } = outcome;
        let envelope = match status {
            Status::Ok => Envelope::new("OK", *status_code, message_id, *cdls_id),
            Status::Error => Envelope::new("ERROR", *status_code, "", *cdls_id),
            Status::Cancelled => Envelope::new("CANCELLED", 0, "", *cdls_id),
            Status::Pending | Status::Sending | Status::Retry | Status::Unknown => {
                Envelope::new("OK", 0, "", *cdls_id)
            }
        };
        let is_refused = *status == Status::Error || outcome.detail.is_some();
        let envelope = if is_refused { envelope.with_error(outcome) } else { envelope };
        envelope.with_detail(outcome.reason())
    }

    /// Add the row's `error_*`.
    fn with_error(mut self, outcome: &'a Outcome) -> Envelope<'a> {
        self.r#return.error_code = outcome.error_code;
        self.r#return.error_subcode = outcome.error_subcode;
        self.r#return.error_kind = outcome.error_kind.map(|kind| kind.as_str());
        self.r#return.error_message = outcome.error_message.as_deref();
        self
    }

    /// Return the envelope as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and integers are always JSON")
    }
}
