//! The documented answer to a submission, whichever way it came.

use serde::Serialize;
use utoipa::ToSchema;

use super::{MessageId, Outcome, Status};

/// `{"return":{"status":…,"status_code":…,"messageId":…,"cdls_id":…}}`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<'a> {
    #[schema(inline)]
    r#return: Return<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Return<'a> {
    /// `OK`, or what is wrong
    status: &'a str,
    /// 0 where Graph was not waited for, Graph's HTTP code where it was, the code of a refusal
    status_code: i32,
    /// Graph's id of the message, where it was waited for; else empty
    #[serde(rename = "messageId")]
    message_id: &'a str,
    /// The row of the log; 0 where nothing was logged
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
