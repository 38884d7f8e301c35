//! The outcome of a message, as its waiters receive it.

use serde::{Deserialize, Serialize};

use super::{ErrorKind, RowId, Status};

/// The error of a failed attempt, from Graph or the transport. Goes into the `error_*` columns.
///
/// Holds no secret: texts from outside pass [`crate::text::redact`] first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    /// Graph's HTTP status, if an answer arrived.
    pub http_status: Option<i32>,
    pub code: Option<i32>,
    pub subcode: Option<i32>,
    pub message: String,
    pub fbtrace_id: Option<String>,
}

/// The state that a waiter receives: final, `UNKNOWN`, or waiting with a line that cannot send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub cdls_id: RowId,
    pub status: Status,
    /// Graph's HTTP code; 0 when the row ended without an answer from Graph.
    pub status_code: i32,
    /// Graph's id; empty unless `status` is OK.
    pub message_id: String,
    /// The row's `error_*`; none for a row that Graph took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_subcode: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// A sentence for the caller, where [`Outcome::reason`] has none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Outcome {
    /// Return the outcome of a row that is logged, and has no result yet.
    pub fn queued(cdls_id: RowId) -> Outcome {
        Outcome {
            cdls_id,
            status: Status::Pending,
            status_code: 0,
            message_id: String::new(),
            error_code: None,
            error_subcode: None,
            error_kind: None,
            error_message: None,
            detail: None,
        }
    }

    /// Return the outcome of a row that an operator has settled.
    pub fn settled(cdls_id: RowId, status: Status, status_code: i32, message_id: String) -> Outcome {
        let error_kind = (status == Status::Error).then_some(ErrorKind::Resolved);
        Outcome { status, status_code, message_id, error_kind, ..Outcome::queued(cdls_id) }
    }

    /// Cause and remedy, in one sentence; none for a row that is sent or simply waits.
    pub fn reason(&self) -> Option<&str> {
        if let Some(detail) = &self.detail {
            return Some(detail);
        }
        match (self.status, self.error_kind) {
            (Status::Error, Some(kind)) => Some(kind.sentence()),
            (Status::Cancelled, _) => Some("The message was cancelled before it was sent."),
            (Status::Unknown, _) => {
                Some("It is not known whether Graph took the message; an operator settles the row.")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_replies_are_read() {
        let json = r#"{"cdls_id":7,"status":"OK","status_code":200,"message_id":"m_1"}"#;
        let read: Outcome = serde_json::from_str(json).expect("an older version wrote it");
        let sent = Outcome {
            status: Status::Ok,
            status_code: 200,
            message_id: "m_1".into(),
            ..Outcome::queued(RowId(7))
        };
        assert_eq!(read, sent);
        assert_eq!(serde_json::to_string(&sent).expect("plain data"), json);
    }

    #[test]
    fn every_end_but_a_success_has_a_reason() {
        for kind in ErrorKind::ALL {
            let ended =
                Outcome { status: Status::Error, error_kind: Some(*kind), ..Outcome::queued(RowId(7)) };
            assert!(ended.reason().is_some_and(|reason| reason.ends_with('.')), "{kind}");
        }
        assert_eq!(Outcome::queued(RowId(7)).reason(), None);
        let told = Outcome { detail: Some("The line is paused.".into()), ..Outcome::queued(RowId(7)) };
        assert_eq!(told.reason(), Some("The line is paused."));
    }
}
