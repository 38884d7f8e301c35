//! The documented answer to a submission, whichever way it came.

use serde::Serialize;
use utoipa::ToSchema;

use super::{MessageId, Outcome, Status};

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
}

impl<'a> Envelope<'a> {
    pub fn new(status: &'a str, status_code: i32, message_id: &'a str, id: MessageId) -> Envelope<'a> {
        Envelope { r#return: Return { status, status_code, message_id, cdls_id: id.0 } }
    }

    /// A refusal: nothing was logged.
    pub fn refusal(status: &'a str, status_code: i32) -> Envelope<'a> {
        Envelope::new(status, status_code, "", MessageId(0))
    }

    /// A final outcome; `None` for one that still has to be settled.
    pub fn of(outcome: &'a Outcome) -> Option<Envelope<'a>> {
        let Outcome { cdls_id, status, status_code, message_id } = outcome;
        match status {
            Status::Ok => Some(Envelope::new("OK", *status_code, message_id, *cdls_id)),
            Status::Error => Some(Envelope::new("ERROR", *status_code, "", *cdls_id)),
            Status::Cancelled => Some(Envelope::new("CANCELLED", 0, "", *cdls_id)),
            Status::Pending | Status::Sending | Status::Retry | Status::Unknown => None,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and integers are always JSON")
    }
}
