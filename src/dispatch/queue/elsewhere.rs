//! Rows about which the log or another process decides: claims of others, claims that were refused, and rows that are to end
//! without a call.

use super::{Active, Queue};
use crate::message::{Lane, MessageId, WorkId};
use crate::store::ReadyRow;

impl Queue {
    /// The claim of the row was refused: its work is to be read again. Its recipient waits.
    pub fn refuse(&mut self, row: &ReadyRow) {
        self.hold(row.lane, &row.dest, row.id);
        self.ledger.refuse(row.id, (row.lane, row.dest.clone()));
    }

    /// Work of which a claim was refused, to be read again.
    pub fn refused_work(&self) -> Vec<WorkId> {
        self.ledger.refused_work()
    }

    /// A row is claimed by a process that is gone, or whose answer was lost: it is not sent before that is settled.
    /// `fence`: that of the claim.
    pub fn claimed_elsewhere(&mut self, lane: Lane, dest: &str, id: MessageId, fence: i32) {
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
        // A recipient whose other row is in a call waits for that.
        let recipient = self.recipients.get(&(lane, dest.into()));
        if !recipient.is_some_and(|recipient| matches!(recipient.active, Some(Active::Call(_)))) {
            self.hold(lane, dest, id);
        }
    }

    /// Whether a claim of another process keeps the row from being sent, of which the log has this fence. A claim whose call
    /// ended elsewhere is told by none: the row that is read shows it.
    pub(super) fn is_foreign(&mut self, id: MessageId, fence: i32) -> bool {
        if self.foreign.get(&id).is_some_and(|settled| fence >= *settled) {
            self.foreign.remove(&id);
        }
        self.foreign.contains_key(&id)
    }

    /// Whether a claim of another process is waited for.
    pub fn is_claimed_elsewhere(&self, id: MessageId) -> bool {
        self.foreign.contains_key(&id)
    }

    /// The claim of another is settled; the row is read again if it still waits.
    pub fn claim_settled(&mut self, id: MessageId) {
        self.foreign.remove(&id);
    }

    /// Takes a row that waits out of hand, as it is ended without a call. Its recipient's next row may go. Says whether it may be
    /// ended: not while it is in a call.
    pub fn doom(&mut self, lane: Lane, dest: &str, id: MessageId, fence: i32) -> bool {
        if self.calls.contains(&id) || self.is_foreign(id, fence) {
            return false;
        }
        self.ended.note(id, fence + 1);
        self.remove(id);
        self.end_without_call(lane, dest, id);
        true
    }

    /// The row is to be ended without a call, if the log agrees. That does not end its work: a look removes work in which no row
    /// waits.
    pub fn end_without_call(&mut self, lane: Lane, dest: &str, id: MessageId) {
        if let Some(work) = self.ledger.work_of(id) {
            self.ledger.leaves_behind(work);
        }
        self.end(lane, dest, id);
    }
}
