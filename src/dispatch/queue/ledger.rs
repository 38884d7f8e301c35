//! The rows in hand of each work, so that the end of the work is noticed.
//!
//! Work may be partly in hand: some of its rows were read past, or are claimed by a process that is gone.
//! Such work does not end here; it is forgotten when its rows in hand have ended, and a scan finds it again.

use std::collections::{HashMap, HashSet};

use crate::domain::{Lane, RowId, WorkId};

/// The lane and recipient that a row waits for.
type LaneRecipient = (Lane, String);

#[derive(Default)]
pub struct Ledger {
    work: HashMap<WorkId, HeldWork>,
    rows: HashMap<RowId, WorkId>,
    /// Rows whose claim was refused.
    refused: HashMap<RowId, LaneRecipient>,
}

/// The rows in hand of one work.
#[derive(Default)]
struct HeldWork {
    /// Rows in hand, inside a call or not.
    left: HashSet<RowId>,
    /// Whether rows of the work are not in hand.
    is_partial: bool,
}

impl Ledger {
    pub fn knows(&self, work: WorkId) -> bool {
        self.work.contains_key(&work)
    }

    pub fn open(&mut self, work: WorkId) {
        self.work.entry(work).or_default();
    }

    pub fn hold(&mut self, id: RowId, work: WorkId) {
        self.refused.remove(&id);
        if let Some(before) = self.rows.insert(id, work)
            && before != work
        {
            if let Some(state) = self.work.get_mut(&before) {
                state.left.remove(&id);
                state.is_partial = true;
            }
            self.close_if_empty(before);
        }
        self.work.entry(work).or_default().left.insert(id);
    }

    pub fn holds(&self, id: RowId) -> bool {
        self.rows.contains_key(&id)
    }

    /// Whether the row is in hand with this work.
    pub fn holds_of(&self, work: WorkId, id: RowId) -> bool {
        self.rows.get(&id) == Some(&work)
    }

    pub fn work_of(&self, id: RowId) -> Option<WorkId> {
        self.rows.get(&id).copied()
    }

    pub fn rows_of(&self, work: WorkId) -> Vec<RowId> {
        self.work.get(&work).map(|state| state.left.iter().copied().collect()).unwrap_or_default()
    }

    /// Record that a row of the work is not taken into hand.
    pub fn leaves_behind(&mut self, work: WorkId) {
        self.work.entry(work).or_default().is_partial = true;
    }

    /// Remove a row; return its work, if the row was in hand.
    pub fn drop_row(&mut self, id: RowId) -> Option<WorkId> {
        self.refused.remove(&id);
        let work = self.rows.remove(&id)?;
        if let Some(state) = self.work.get_mut(&work) {
            state.left.remove(&id);
        }
        Some(work)
    }

    /// Return the work, if it has ended with its last row. Work that is partly in hand is forgotten then.
    pub fn close_if_empty(&mut self, work: WorkId) -> Option<WorkId> {
        let state = self.work.get(&work)?;
        if !state.left.is_empty() {
            return None;
        }
        let is_partial = state.is_partial;
        self.work.remove(&work);
        (!is_partial).then_some(work)
    }

    pub fn refuse(&mut self, id: RowId, waiting: LaneRecipient) {
        if self.rows.contains_key(&id) {
            self.refused.insert(id, waiting);
        }
    }

    /// Remove the row from the refused ones; return its lane and recipient, if it was refused.
    pub fn unrefuse(&mut self, id: RowId) -> Option<LaneRecipient> {
        self.refused.remove(&id)
    }

    pub fn is_refused(&self, id: RowId) -> bool {
        self.refused.contains_key(&id)
    }

    pub fn refused_of(&self, work: WorkId) -> HashMap<RowId, LaneRecipient> {
        let of_work = self.refused.iter().filter(|(id, _)| self.rows.get(id) == Some(&work));
        of_work.map(|(id, waiting)| (*id, waiting.clone())).collect()
    }

    pub fn refused_work(&self) -> Vec<WorkId> {
        let work: HashSet<WorkId> = self.refused.keys().filter_map(|id| self.rows.get(id)).copied().collect();
        work.into_iter().collect()
    }
}
