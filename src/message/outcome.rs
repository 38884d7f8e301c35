//! What became of a message, as told to those who wait for it.

use serde::{Deserialize, Serialize};

use super::{MessageId, Status};

/// What Graph (or the transport) said about a failed attempt. Goes into the `error_*` columns.
///
/// Holds no secret: texts from outside pass [`super::redact`] before they get here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDetail {
    /// Graph's HTTP status, if an answer arrived.
    pub http_status: Option<i32>,
    pub code: Option<i32>,
    pub subcode: Option<i32>,
    pub message: String,
    pub fbtrace_id: Option<String>,
}

/// The state a waiter is told: final, or `UNKNOWN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub cdls_id: MessageId,
    pub status: Status,
    /// Graph's HTTP code; 0 when the row ended without an answer from Graph.
    pub status_code: i32,
    /// Graph's id; empty unless `status` is OK.
    pub message_id: String,
}
