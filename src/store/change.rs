//! The outcome of an attempt as one guarded UPDATE: which states it may leave, and what it writes.
//!
//! Both databases bind the same [`RowChange`]; what a change means is decided here, once.

use std::time::Duration;

use crate::message::{ErrorDetail, ErrorKind, MessageId, Status};

/// A change of a row's state. Applies only to the row with this fence.
#[derive(Debug, Clone)]
pub enum Change {
    /// Graph accepted the message. Also wins over UNKNOWN, RETRY and PENDING: the success was late.
    Sent { id: MessageId, fence: i32, http_status: i32, message_id: String },
    /// Ends the claimed row.
    Failed { id: MessageId, fence: i32, kind: ErrorKind, error: ErrorDetail, ambiguous: bool },
    /// Tries the claimed row again after a while. `counted`: an answer about the message itself.
    Retry { id: MessageId, fence: i32, after: Duration, error: ErrorDetail, counted: bool, ambiguous: bool },
    /// Nobody knows whether Graph took the message.
    Unknown { id: MessageId, fence: i32, error: ErrorDetail },
    /// The claimed row's worker died inside the call: what `then` says, and one crash more.
    Crashed { then: Box<Change> },
    /// Back to PENDING: its line may not send for now; the call was answered.
    WaitForLine { id: MessageId, fence: i32, error: ErrorDetail, ambiguous: bool },
    /// Back to PENDING: claimed, and the call was never begun.
    Release { id: MessageId, fence: i32 },
    /// A waiting row whose time has passed.
    Expire { id: MessageId, fence: i32 },
    /// A waiting row that its line can never send, as it is another account's. Applies only if the log says so too.
    Unsendable { id: MessageId, fence: i32 },
}

/// What a change binds. `None` keeps the column as it is, except where said otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    pub id: i64,
    pub fence: i32,
    /// The states the change may leave.
    pub from: &'static [Status],
    pub to: Status,
    pub status_code: Option<i32>,
    pub message_id: Option<String>,
    /// Whether the `error_code` … `fbtrace_id` columns are written, with what follows (NULLs included).
    pub writes_error: bool,
    pub error_code: Option<i32>,
    pub error_subcode: Option<i32>,
    pub error_kind: Option<&'static str>,
    pub error_message: Option<String>,
    pub fbtrace_id: Option<String>,
    pub add_attempts: i32,
    pub add_tries: i32,
    pub add_ambiguous: i32,
    pub add_crashes: i32,
    /// `next_at` becomes now + this many milliseconds; `None` clears it.
    pub next_after_ms: Option<i64>,
    /// Whether `done_at` is set.
    pub done: bool,
}

const CLAIMED: &[Status] = &[Status::Sending];
const WAITING: &[Status] = &[Status::Pending, Status::Retry];
/// A success may be known late: when its row was settled by others, or waits for its next call already.
const LATE: &[Status] = &[Status::Sending, Status::Unknown, Status::Retry, Status::Pending];

impl Change {
    /// The row this change is about.
    pub fn id(&self) -> MessageId {
        match self {
            Change::Sent { id, .. }
            | Change::Failed { id, .. }
            | Change::Retry { id, .. }
            | Change::Unknown { id, .. }
            | Change::WaitForLine { id, .. }
            | Change::Release { id, .. }
            | Change::Expire { id, .. }
            | Change::Unsendable { id, .. } => *id,
            Change::Crashed { then } => then.id(),
        }
    }

    /// Whether Graph may have taken the message in this attempt without saying so: `ambiguous_attempts` grows.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Change::Failed { ambiguous, .. }
            | Change::Retry { ambiguous, .. }
            | Change::WaitForLine { ambiguous, .. } => *ambiguous,
            Change::Unknown { .. } => true,
            Change::Crashed { then } => then.is_ambiguous(),
            Change::Sent { .. }
            | Change::Release { .. }
            | Change::Expire { .. }
            | Change::Unsendable { .. } => false,
        }
    }

    /// The row and the fence of the call this is the result of; nothing for changes without a call.
    pub fn call(&self) -> Option<(MessageId, i32)> {
        match self {
            Change::Release { .. } | Change::Expire { .. } | Change::Unsendable { .. } => None,
            _ => Some((self.id(), self.row().fence)),
        }
    }

    /// The result of a call whose own result the database refuses in every form.
    pub fn lost(id: MessageId, fence: i32) -> Change {
        let message =
            "the database refused the result of this call; whether Graph took the message is not known";
        Change::Unknown {
            id,
            fence,
            error: ErrorDetail { message: message.into(), ..ErrorDetail::default() },
        }
    }

    /// What is written instead when the database refuses a value of this result: the same without texts from outside,
    /// and, if those were not at fault (`bare` is tried already), that the outcome is not known. A success is nothing
    /// without its id. Never a release: the call was made.
    pub fn plain(&self, bare_is_tried: bool) -> Option<Change> {
        let (id, fence) = self.call()?;
        let bare = |error: &ErrorDetail| ErrorDetail {
            message: "the database refused the text of this error".into(),
            fbtrace_id: None,
            ..error.clone()
        };
        Some(match self {
            Change::Failed { kind, error, ambiguous, .. } if !bare_is_tried => {
                Change::Failed { id, fence, kind: *kind, error: bare(error), ambiguous: *ambiguous }
            }
            Change::Retry { after, error, counted, ambiguous, .. } if !bare_is_tried => {
                let (after, counted, ambiguous) = (*after, *counted, *ambiguous);
                Change::Retry { id, fence, after, error: bare(error), counted, ambiguous }
            }
            Change::WaitForLine { error, ambiguous, .. } if !bare_is_tried => {
                Change::WaitForLine { id, fence, error: bare(error), ambiguous: *ambiguous }
            }
            _ => Change::lost(id, fence),
        })
    }

    /// What both databases bind.
    pub fn row(&self) -> RowChange {
        match self {
            Change::Sent { id, fence, http_status, message_id } => RowChange {
                status_code: Some(*http_status),
                message_id: Some(message_id.clone()),
                writes_error: true,
                done: true,
                ..RowChange::of(*id, *fence, LATE, Status::Ok)
            },
            Change::Failed { id, fence, kind, error, ambiguous } => RowChange {
                error_kind: Some(kind.as_str()),
                add_ambiguous: i32::from(*ambiguous),
                done: true,
                ..RowChange::of(*id, *fence, CLAIMED, Status::Error).with_error(error)
            },
            Change::Retry { id, fence, after, error, counted, ambiguous } => RowChange {
                add_tries: i32::from(*counted),
                add_ambiguous: i32::from(*ambiguous),
                next_after_ms: Some(after.as_millis() as i64),
                ..RowChange::of(*id, *fence, CLAIMED, Status::Retry).with_error(error)
            },
            Change::Unknown { id, fence, error } => RowChange {
                add_ambiguous: 1,
                ..RowChange::of(*id, *fence, CLAIMED, Status::Unknown).with_error(error)
            },
            Change::Crashed { then } => RowChange { add_crashes: 1, ..then.row() },
            Change::WaitForLine { id, fence, error, ambiguous } => RowChange {
                add_ambiguous: i32::from(*ambiguous),
                ..RowChange::of(*id, *fence, CLAIMED, Status::Pending).with_error(error)
            },
            Change::Release { id, fence } => {
                RowChange { add_attempts: -1, ..RowChange::of(*id, *fence, CLAIMED, Status::Pending) }
            }
            Change::Expire { id, fence } => RowChange {
                error_kind: Some(ErrorKind::Expired.as_str()),
                done: true,
                ..RowChange::of(*id, *fence, WAITING, Status::Error)
            },
            Change::Unsendable { id, fence } => {
                let message = "its line belongs to another account".to_owned();
                let error = ErrorDetail { message, ..ErrorDetail::default() };
                RowChange {
                    error_kind: Some(ErrorKind::Line.as_str()),
                    done: true,
                    ..RowChange::of(*id, *fence, WAITING, Status::Error).with_error(&error)
                }
            }
        }
    }
}

impl RowChange {
    fn of(id: MessageId, fence: i32, from: &'static [Status], to: Status) -> RowChange {
        RowChange {
            id: id.0,
            fence,
            from,
            to,
            status_code: None,
            message_id: None,
            writes_error: false,
            error_code: None,
            error_subcode: None,
            error_kind: None,
            error_message: None,
            fbtrace_id: None,
            add_attempts: 0,
            add_tries: 0,
            add_ambiguous: 0,
            add_crashes: 0,
            next_after_ms: None,
            done: false,
        }
    }

    fn with_error(self, error: &ErrorDetail) -> RowChange {
        RowChange {
            status_code: error.http_status,
            writes_error: true,
            error_code: error.code,
            error_subcode: error.subcode,
            error_message: Some(error.message.replace('\0', "")),
            fbtrace_id: error.fbtrace_id.as_ref().map(|id| id.replace('\0', "")),
            ..self
        }
    }
}
