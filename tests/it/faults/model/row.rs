//! A row as it must be, and what a change makes of it.

use meta_dispatch::domain::{ErrorKind, RowId, Status};
use meta_dispatch::store::{Change, ChangeKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In work: ready.
    Work,
    /// For a time that has come.
    Due,
    /// For a time that has not.
    Later,
}

/// A claim whose call has not ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) fence: i32,
    pub(super) overdue: bool,
}

/// A row as it must be.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: RowId,
    pub(super) dest: String,
    pub(super) in_campaign: bool,
    /// As in the log, without its claim.
    pub(super) status: Status,
    pub(super) fence: i32,
    pub(super) attempts: i32,
    pub(super) tries: i32,
    pub(super) ambiguous: i32,
    pub(super) crashes: i32,
    pub(super) kind: Option<ErrorKind>,
    pub(super) next_at: bool,
    pub(super) expired: bool,
    pub(super) place: Place,
    pub(super) open: Option<Open>,
    /// Times Graph took it.
    pub(super) deliveries: i32,
}

impl Row {
    pub(super) fn waits(&self) -> bool {
        matches!(self.status, Status::Pending | Status::Retry)
    }

    /// Whether the owner may claim it, or end it without a call.
    pub(super) fn is_ready(&self) -> bool {
        self.waits() && self.open.is_none() && self.place == Place::Work
    }

    pub(super) fn shown(&self) -> Status {
        if self.open.is_some() { Status::Sending } else { self.status }
    }

    /// The model's own account of a change; whether it takes place.
    pub(super) fn apply(&mut self, change: &Change) -> bool {
        let ends_claim = change.ends_claim();
        let is_first = self.waits() && change.fence - i32::from(ends_claim) == self.fence;
        let is_late = matches!(change.kind, ChangeKind::Sent { .. })
            && (self.waits() || self.status == Status::Unknown)
            && change.fence == self.fence;
        // The line is its account's, whatever the owner believed.
        let is_false = matches!(change.kind, ChangeKind::Unsendable);
        if is_false || !(is_first || is_late) {
            return false;
        }
        let counts = !matches!(change.kind, ChangeKind::Release) && ends_claim && !is_late;
        self.attempts += i32::from(counts);
        self.crashes += i32::from(change.crashed);
        self.ambiguous += i32::from(change.is_ambiguous());
        self.fence = change.fence;
        self.next_at = false;
        self.open = None;
        match &change.kind {
            ChangeKind::Sent { .. } => self.status = Status::Ok,
            ChangeKind::Failed { kind, .. } => (self.status, self.kind) = (Status::Error, Some(*kind)),
            ChangeKind::Retry { after, counted, .. } => {
                self.status = Status::Retry;
                self.tries += i32::from(*counted);
                self.next_at = true;
                self.place = if after.is_zero() { Place::Due } else { Place::Later };
            }
            ChangeKind::Suspected { after, .. } => {
                self.status = Status::Retry;
                self.tries += 1;
                self.next_at = true;
                self.place = if after.is_zero() { Place::Due } else { Place::Later };
            }
            ChangeKind::Unknown { .. } => self.status = Status::Unknown,
            ChangeKind::WaitForLine { .. } | ChangeKind::Release => self.status = Status::Pending,
            ChangeKind::Expire => (self.status, self.kind) = (Status::Error, Some(ErrorKind::Expired)),
            ChangeKind::Refuse { .. } => (self.status, self.kind) = (Status::Error, Some(ErrorKind::Refused)),
            ChangeKind::Cancel | ChangeKind::Unsendable | ChangeKind::Withheld { .. } => {
                unreachable!("no step makes it")
            }
        }
        true
    }
}

/// A claim that was made: a worker holds it, whatever became of the row.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) row: usize,
    pub(super) worker: usize,
    pub(super) claim_no: i64,
    pub(super) fence: i32,
    /// Whether Graph took the message; nothing while the call has not begun.
    pub(super) call: Option<bool>,
    /// Settled by others: a worker frozen till then refuses to call.
    pub(super) lost: bool,
}
