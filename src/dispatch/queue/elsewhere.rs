//! Rows about which the log or another process decides: claims of other processes, refused claims, and rows
//! that are to end without a call.

use super::recipient::Active;
use super::rows::LineQueue;
use crate::domain::{Lane, RowId, WorkId};
use crate::store::ReadyRow;

impl LineQueue {
    /// Record that the claim of the row, or its end without a call, was refused: its work is to be read again, and its recipient waits.
    pub fn refuse(&mut self, row: &ReadyRow) {
        if self.closing.is_alone(row.id) {
            self.let_go(row);
            return;
        }
        self.hold(row.lane, &row.dest, row.id);
        self.ledger.refuse(row.id, (row.lane, row.dest.clone()));
    }

    /// Return work to read again because a claim of it was refused.
    pub fn refused_work(&self) -> Vec<WorkId> {
        self.ledger.refused_work()
    }

    /// Hold a row that is claimed by a process that is gone, or whose answer was lost: it is not sent before
    /// that is settled. `fence`: the claim's.
    pub fn claimed_elsewhere(&mut self, lane: Lane, dest: &str, id: RowId, fence: i32) {
        if self.calls.contains(&id) {
            return;
        }
        if let Some(known) = self.foreign.get_mut(&id) {
            *known = fence.max(*known);
            return;
        }
        self.foreign.insert(id, fence);
        self.flows.values_mut().for_each(|window| window.missed = true);
        self.remove(id);
        if let Some(work) = self.ledger.drop_row(id) {
            self.ledger.leaves_behind(work);
            self.ledger.close_if_empty(work);
        }
        // A recipient with another row in a call waits for that row.
        let recipient = self.recipients.get(&(lane, dest.into()));
        if !recipient.is_some_and(|recipient| matches!(recipient.active, Some(Active::Call(_)))) {
            self.hold(lane, dest, id);
        }
    }

    /// Whether a claim of another process, with this fence in the log, keeps the row from being sent. No
    /// event reports a claim whose call ended elsewhere: the row that is read shows it.
    pub(super) fn is_foreign(&mut self, id: RowId, fence: i32) -> bool {
        if self.foreign.get(&id).is_some_and(|settled| fence >= *settled) {
            self.foreign.remove(&id);
        }
        self.foreign.contains_key(&id)
    }

    /// Whether the row waits for the end of another process's claim.
    pub fn is_claimed_elsewhere(&self, id: RowId) -> bool {
        self.foreign.contains_key(&id)
    }

    /// Record that another process's claim is settled; the row is read again if it still waits.
    pub fn claim_settled(&mut self, id: RowId) {
        self.foreign.remove(&id);
    }

    /// Take a waiting row out of hand, as it is ended without a call; its recipient's next row may go. Return
    /// whether the row may be ended: not while it is in a call.
    pub fn doom(&mut self, lane: Lane, dest: &str, id: RowId, fence: i32) -> bool {
        if self.calls.contains(&id) || self.is_foreign(id, fence) {
            return false;
        }
        self.ended.note(id, fence + 1);
        self.remove(id);
        self.end_without_call(lane, dest, id);
        true
    }

    /// Take out of hand a row that is to end without a call, if the log agrees. This does not end its work: a
    /// look removes work in which no row waits.
    pub fn end_without_call(&mut self, lane: Lane, dest: &str, id: RowId) {
        if let Some(work) = self.ledger.work_of(id) {
            self.ledger.leaves_behind(work);
        }
        self.end(lane, dest, id);
    }
}
