//! An entry of the record: a result, a claim, the end of work, or a request for an answer.

use tokio::sync::oneshot;

use crate::domain::{Lane, LineId, RowId, WorkId};
use crate::store::{Change, Claim};

/// An entry of the record, in order.
pub enum Entry {
    Change {
        change: Change,
        lane: Lane,
        waiter: Option<String>,
    },
    Claim {
        line: LineId,
        lane: Lane,
        claim: Claim,
    },
    /// The work's last row has ended with an earlier change.
    WorkEnded(WorkId),
    Barrier(Barrier),
}

/// A request for an answer when all entries before it are written.
pub struct Barrier {
    pub done: oneshot::Sender<bool>,
    /// The answer for `done`: whether there was an entry to write.
    pub answer: bool,
}

impl Entry {
    /// Return the row that the entry is about.
    pub(super) fn id(&self) -> Option<RowId> {
        match self {
            Entry::Change { change, .. } => Some(change.id),
            Entry::Claim { claim, .. } => Some(claim.id),
            Entry::WorkEnded(_) | Entry::Barrier(..) => None,
        }
    }

    /// Whether the entry is written without a wait for others.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Entry::Change { lane, .. } | Entry::Claim { lane, .. } => *lane == Lane::High,
            Entry::WorkEnded(_) => false,
            Entry::Barrier(..) => true,
        }
    }
}
