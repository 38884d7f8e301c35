//! The events by which the tasks around the dispatcher inform it. The dispatcher has no locks and no other
//! input.

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::dispatch::line::AssetAnswer;
use crate::domain::{LineId, Partition, RowId, WorkId};
use crate::store::{
    AttachmentKey, BudgetRow, BudgetScope, ChangeKind, ClaimedRow, ClosingRows, DoomedRow, Flow, FlowPage,
    FlowRead, HeldRecipient, LineRecord, Position, WorkHead, WorkRead,
};

/// The answer to a requested claim.
pub struct ClaimAnswer {
    pub line: LineId,
    pub id: RowId,
    pub is_made: bool,
}

/// A row that was given back.
pub struct ReturnedRow {
    pub id: RowId,
    /// The fence of the claim that ended in this way.
    pub fence: i32,
    /// Whether the log has the change.
    pub is_written: bool,
}

/// A row that was to end because of its recipient.
pub struct WithheldRow {
    pub id: RowId,
    /// Whether the log has the change; if not, the facts of the recipient have changed.
    pub is_written: bool,
}

/// An event for the dispatcher.
pub enum Event {
    /// This worker has owned partitions since this time.
    Gained {
        at: Instant,
        partitions: Vec<Partition>,
        held: Vec<HeldRecipient>,
        claims: Vec<ClaimedRow>,
    },
    /// Partitions are to be let go; `stopped` is answered when none of their rows will be sent any more.
    Lost {
        partitions: Vec<Partition>,
        stopped: oneshot::Sender<()>,
    },
    /// Work that a scan found, or that consists of rows whose time has come.
    Work(Vec<WorkHead>),
    /// Requested work; work that has ended, or whose campaign does not run, was not read.
    WorkRead {
        asked: Vec<(LineId, WorkId)>,
        read: Vec<WorkRead>,
    },
    WorkUnread(Vec<(LineId, WorkId)>),
    /// The next work of flows.
    Flows(Vec<(FlowRead, FlowPage)>),
    FlowsUnread(Vec<Flow>),
    /// A full look, and the time of its beginning: flows of these partitions that have work, and their first.
    Ready {
        began: Instant,
        scanned: Vec<Partition>,
        flows: Vec<(Flow, Position)>,
    },
    /// Records of the requested lines; missing lines do not exist.
    Lines {
        asked: Vec<LineId>,
        records: Vec<LineRecord>,
        pause_written: bool,
    },
    /// Lines that are paused because their page token could not be opened.
    Unopened(Vec<LineId>),
    ClaimsAnswered(Vec<ClaimAnswer>),
    /// Rows that were given back.
    Returned(Vec<ReturnedRow>),
    /// Rows that were to end because of their recipients.
    Withheld(Vec<WithheldRow>),
    /// Messages of a line whose recipients' windows close soon.
    Closing {
        line: LineId,
        found: ClosingRows,
    },
    /// Claimed rows of owned partitions, as the database has them.
    Claimed(Vec<ClaimedRow>),
    /// The rows that have not ended, of the rows in question.
    StillHeld {
        asked: Vec<RowId>,
        held: Vec<RowId>,
    },
    /// Waiting rows to end without a call. `written` is answered when the log has the change: true if there
    /// was any.
    Doomed {
        rows: Vec<DoomedRow>,
        kind: ChangeKind,
        written: oneshot::Sender<bool>,
    },
    /// The state of an asset that a line asked about.
    Asset {
        key: AttachmentKey,
        answer: AssetAnswer,
    },
    /// The knowledge of Meta's budgets that other workers have.
    Budgets {
        read: Vec<BudgetScope>,
        rows: Vec<BudgetRow>,
    },
    /// Results that waited for the log are written.
    LogIsBack,
}
