//! The end of a claim, or of a wait, as one guarded UPDATE: the rows it matches, and the values it writes.
//!
//! Both databases bind the same [`RowChange`]; the meaning of a change is decided here, once. Never here:
//! SQL.

use std::time::{Duration, Instant};

use crate::domain::{ErrorDetail, ErrorKind, RowId, Status};

/// A change of a row's state.
#[derive(Debug, Clone)]
pub struct Change {
    pub id: RowId,
    /// The fence of the claim that the change ends; without a claim, the row's.
    pub fence: i32,
    /// When the call began; `None` if there was none.
    pub begun: Option<Instant>,
    /// Whether the call's worker died inside it.
    pub crashed: bool,
    pub kind: ChangeKind,
}

/// The outcome for the row.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// Graph accepted the message. Also wins over UNKNOWN, RETRY and PENDING: the success was late.
    Sent { http_status: i32, graph_id: String },
    /// An error for the claimed row.
    Failed { kind: ErrorKind, error: ErrorDetail, ambiguous: bool },
    /// Another try of the claimed row after a while. `counted`: the answer was about the message itself.
    Retry { after: Duration, error: ErrorDetail, counted: bool, ambiguous: bool },
    /// Another try of the claimed row after another message of its line: Graph refused the row, or the
    /// line. Counted.
    Suspected { after: Duration, error: ErrorDetail, ambiguous: bool },
    /// No answer shows whether Graph took the message.
    Unknown { error: ErrorDetail },
    /// Back to waiting, because the line may not send for now; the call was answered.
    WaitForLine { error: ErrorDetail, ambiguous: bool },
    /// Back to waiting: the row was claimed, and the call never begun.
    Release,
    /// Without a claim: the row's time has passed.
    Expire,
    /// Without a claim: Graph refused the row with this error, and took another message of the line since.
    Refuse { error: ErrorDetail },
    /// Without a claim: the row's campaign is cancelled.
    Cancel,
    /// Without a claim: the line can never send the row, as the line is another account's. Applies only if
    /// the log agrees.
    Unsendable,
    /// Without a claim: the recipient's window is closed, or the recipient cannot be reached. Applies only if
    /// the recipient's facts still say so.
    Withheld { kind: ErrorKind },
}

/// The values that a change binds, and the row it matches: one that is PENDING or RETRY with the fence
/// `from_fence`, or, with `late`, also one that is PENDING, RETRY or UNKNOWN with the fence `to_fence`
/// already. `None` keeps a column as it is, except where a field names another meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    pub id: i64,
    pub from_fence: i32,
    pub to_fence: i32,
    pub late: bool,
    pub to: Status,
    pub status_code: Option<i32>,
    pub graph_id: Option<String>,
    /// Whether the `error_code` … `fbtrace_id` columns are written from the fields below (NULLs included).
    pub writes_error: bool,
    pub error_code: Option<i32>,
    pub error_subcode: Option<i32>,
    pub error_kind: Option<&'static str>,
    pub error_message: Option<String>,
    pub fbtrace_id: Option<String>,
    /// 1 for the end of a call; not added to a row that has the fence `to_fence` already.
    pub add_attempts: i32,
    pub add_tries: i32,
    pub add_ambiguous: i32,
    pub add_crashes: i32,
    /// `sent_at` becomes now − this many milliseconds.
    pub begun_ago_ms: Option<i64>,
    /// `next_at` becomes now + this many milliseconds; `None` clears it.
    pub next_after_ms: Option<i64>,
    /// Whether `done_at` is set.
    pub done: bool,
}

impl Change {
    /// Return a change without a call.
    pub fn waiting(id: RowId, fence: i32, kind: ChangeKind) -> Change {
        Change { id, fence, begun: None, crashed: false, kind }
    }

    /// Return the change that gives back a claimed row whose call was never begun.
    pub fn release(id: RowId, fence: i32) -> Change {
        Change::waiting(id, fence, ChangeKind::Release)
    }

    /// Whether Graph may have taken the message in this attempt without confirming: `ambiguous_attempts`
    /// grows.
    pub fn is_ambiguous(&self) -> bool {
        match &self.kind {
            ChangeKind::Failed { ambiguous, .. }
            | ChangeKind::Retry { ambiguous, .. }
            | ChangeKind::Suspected { ambiguous, .. }
            | ChangeKind::WaitForLine { ambiguous, .. } => *ambiguous,
            ChangeKind::Unknown { .. } => true,
            ChangeKind::Sent { .. }
            | ChangeKind::Release
            | ChangeKind::Expire
            | ChangeKind::Refuse { .. }
            | ChangeKind::Cancel
            | ChangeKind::Unsendable
            | ChangeKind::Withheld { .. } => false,
        }
    }

    /// Whether the change ends a claim.
    pub fn ends_claim(&self) -> bool {
        !matches!(
            self.kind,
            ChangeKind::Expire
                | ChangeKind::Refuse { .. }
                | ChangeKind::Cancel
                | ChangeKind::Unsendable
                | ChangeKind::Withheld { .. }
        )
    }

    /// Whether the line is told if the change took place: its row is read again if not.
    pub fn is_withheld(&self) -> bool {
        matches!(self.kind, ChangeKind::Withheld { .. })
    }

    /// Whether the row then waits for a time, in `cdls_open`.
    pub fn waits_for_a_time(&self) -> bool {
        matches!(self.kind, ChangeKind::Retry { .. } | ChangeKind::Suspected { .. })
    }

    /// Whether the row goes on waiting for its turn, in the same `work`.
    pub fn stays_in_work(&self) -> bool {
        matches!(self.kind, ChangeKind::Release | ChangeKind::WaitForLine { .. })
    }

    /// Return the row and the fence of the call that ended with this change; `None` for changes without a
    /// call.
    pub fn call(&self) -> Option<(RowId, i32)> {
        (self.ends_claim() && !matches!(self.kind, ChangeKind::Release)).then_some((self.id, self.fence))
    }

    /// Return the result of a call whose own result the database refuses in every form.
    pub fn lost(id: RowId, fence: i32) -> Change {
        let message =
            "the database refused the result of this call; whether Graph took the message is not known";
        let error = ErrorDetail { message: message.into(), ..ErrorDetail::default() };
        Change { id, fence, begun: None, crashed: false, kind: ChangeKind::Unknown { error } }
    }

    /// Return the change to write when the database refuses a value of this result: the same without texts
    /// from outside, or UNKNOWN if the texts were not at fault (`bare` is tried already). A success without
    /// its id is worthless. Never a release: the call was made.
    pub fn plain(&self, bare_is_tried: bool) -> Option<Change> {
        let (id, fence) = self.call()?;
        let bare = |error: &ErrorDetail| ErrorDetail {
            message: "the database refused the text of this error".into(),
            fbtrace_id: None,
            ..error.clone()
        };
        let kind = match &self.kind {
            ChangeKind::Failed { kind, error, ambiguous } if !bare_is_tried => {
                ChangeKind::Failed { kind: *kind, error: bare(error), ambiguous: *ambiguous }
            }
            ChangeKind::Retry { after, error, counted, ambiguous } if !bare_is_tried => ChangeKind::Retry {
                after: *after,
                error: bare(error),
                counted: *counted,
                ambiguous: *ambiguous,
            },
            ChangeKind::Suspected { after, error, ambiguous } if !bare_is_tried => {
                ChangeKind::Suspected { after: *after, error: bare(error), ambiguous: *ambiguous }
            }
            ChangeKind::WaitForLine { error, ambiguous } if !bare_is_tried => {
                ChangeKind::WaitForLine { error: bare(error), ambiguous: *ambiguous }
            }
            _ => return Some(Change { begun: self.begun, ..Change::lost(id, fence) }),
        };
        Some(Change { kind, ..self.clone() })
    }

    /// Return the values that both databases bind.
    pub fn row(&self) -> RowChange {
        let unchanged = RowChange::keep(self);
        match &self.kind {
            ChangeKind::Sent { http_status, graph_id } => RowChange {
                late: true,
                to: Status::Ok,
                status_code: Some(*http_status),
                graph_id: Some(graph_id.clone()),
                writes_error: true,
                done: true,
                ..unchanged
            },
            ChangeKind::Failed { kind, error, ambiguous } => {
                RowChange { add_ambiguous: i32::from(*ambiguous), ..unchanged.with_error(error).ended(*kind) }
            }
            ChangeKind::Retry { after, error, counted, ambiguous } => RowChange {
                to: Status::Retry,
                add_tries: i32::from(*counted),
                add_ambiguous: i32::from(*ambiguous),
                next_after_ms: Some(after.as_millis() as i64),
                ..unchanged.with_error(error)
            },
            ChangeKind::Suspected { after, error, ambiguous } => RowChange {
                to: Status::Retry,
                add_tries: 1,
                add_ambiguous: i32::from(*ambiguous),
                next_after_ms: Some(after.as_millis() as i64),
                ..unchanged.with_error(error)
            },
            ChangeKind::Unknown { error } => {
                RowChange { to: Status::Unknown, add_ambiguous: 1, ..unchanged.with_error(error) }
            }
            ChangeKind::WaitForLine { error, ambiguous } => {
                RowChange { add_ambiguous: i32::from(*ambiguous), ..unchanged.with_error(error) }
            }
            ChangeKind::Release => RowChange { add_attempts: 0, ..unchanged },
            ChangeKind::Expire => unchanged.ended(ErrorKind::Expired),
            ChangeKind::Refuse { error } => unchanged.with_error(error).ended(ErrorKind::Refused),
            ChangeKind::Cancel => RowChange { to: Status::Cancelled, done: true, ..unchanged },
            ChangeKind::Unsendable => {
                let message = "its line belongs to another account".to_owned();
                let error = ErrorDetail { message, ..ErrorDetail::default() };
                unchanged.with_error(&error).ended(ErrorKind::Line)
            }
            ChangeKind::Withheld { kind } => {
                let message = withheld(*kind).to_owned();
                let error = ErrorDetail { message, ..ErrorDetail::default() };
                unchanged.with_error(&error).ended(*kind)
            }
        }
    }
}

/// Return why a message to a recipient was not sent, and what to do, for the row.
const fn withheld(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Window => {
            "not sent: the recipient's 24-hour window is closed; send again after the recipient has written"
        }
        _ => {
            "not sent: Graph refused an earlier message to this recipient (551); send again after the recipient has written"
        }
    }
}

impl RowChange {
    /// Return a change of only the fence and the columns that every end of a call changes.
    fn keep(change: &Change) -> RowChange {
        let ends_claim = change.ends_claim();
        RowChange {
            id: change.id.0,
            from_fence: change.fence - i32::from(ends_claim),
            to_fence: change.fence,
            late: false,
            to: Status::Pending,
            status_code: None,
            graph_id: None,
            writes_error: false,
            error_code: None,
            error_subcode: None,
            error_kind: None,
            error_message: None,
            fbtrace_id: None,
            add_attempts: i32::from(ends_claim),
            add_tries: 0,
            add_ambiguous: 0,
            add_crashes: i32::from(change.crashed),
            begun_ago_ms: change.begun.map(|begun| begun.elapsed().as_millis() as i64),
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

    /// Return the same change, which ends the row as ERROR of this kind.
    fn ended(self, kind: ErrorKind) -> RowChange {
        RowChange { to: Status::Error, error_kind: Some(kind.as_str()), done: true, ..self }
    }
}
