//! Which rows of which work are in hand, so that it is known when work has ended.
//!
//! Work may be partly in hand: rows of it were read past, or are claimed by a process that is gone. Such work is not ended
//! from here; it is forgotten when its rows in hand have ended, and a scan finds it again.

use std::collections::{HashMap, HashSet};

use crate::message::{Lane, MessageId, WorkId};

type Waiting = (Lane, String);

#[derive(Default)]
pub struct Ledger {
    work: HashMap<WorkId, State>,
    rows: HashMap<MessageId, WorkId>,
    /// Rows whose claim was refused.
    refused: HashMap<MessageId, Waiting>,
}

#[derive(Default)]
struct State {
    /// Rows in hand, in a call or not.
    left: HashSet<MessageId>,
    /// There are rows of it that are not in hand.
    is_partial: bool,
}

impl Ledger {
    pub fn knows(&self, work: WorkId) -> bool {
        self.work.contains_key(&work)
    }

    pub fn open(&mut self, work: WorkId) {
        self.work.entry(work).or_default();
    }

    pub fn hold(&mut self, id: MessageId, work: WorkId) {
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

    pub fn holds(&self, id: MessageId) -> bool {
        self.rows.contains_key(&id)
    }

    /// Whether the row is in hand with this work.
    pub fn holds_of(&self, work: WorkId, id: MessageId) -> bool {
        self.rows.get(&id) == Some(&work)
    }

    pub fn work_of(&self, id: MessageId) -> Option<WorkId> {
        self.rows.get(&id).copied()
    }

    pub fn rows_of(&self, work: WorkId) -> Vec<MessageId> {
        self.work.get(&work).map(|state| state.left.iter().copied().collect()).unwrap_or_default()
    }

    /// A row of the work is not taken into hand.
    pub fn leaves_behind(&mut self, work: WorkId) {
        self.work.entry(work).or_default().is_partial = true;
    }

    /// Takes a row out of the books; its work, if it was in them.
    pub fn drop_row(&mut self, id: MessageId) -> Option<WorkId> {
        self.refused.remove(&id);
        let work = self.rows.remove(&id)?;
        if let Some(state) = self.work.get_mut(&work) {
            state.left.remove(&id);
        }
        Some(work)
    }

    /// The work, if it has ended with its last row. Work that is partly in hand is forgotten then.
    pub fn close_if_empty(&mut self, work: WorkId) -> Option<WorkId> {
        let state = self.work.get(&work)?;
        if !state.left.is_empty() {
            return None;
        }
        let is_partial = state.is_partial;
        self.work.remove(&work);
        (!is_partial).then_some(work)
    }

    pub fn refuse(&mut self, id: MessageId, waiting: Waiting) {
        if self.rows.contains_key(&id) {
            self.refused.insert(id, waiting);
        }
    }

    /// The row is not refused any more; where it waited, if it was.
    pub fn unrefuse(&mut self, id: MessageId) -> Option<Waiting> {
        self.refused.remove(&id)
    }

    pub fn is_refused(&self, id: MessageId) -> bool {
        self.refused.contains_key(&id)
    }

    pub fn refused_of(&self, work: WorkId) -> HashMap<MessageId, Waiting> {
        let of_work = self.refused.iter().filter(|(id, _)| self.rows.get(id) == Some(&work));
        of_work.map(|(id, waiting)| (*id, waiting.clone())).collect()
    }

    pub fn refused_work(&self) -> Vec<WorkId> {
        let work: HashSet<WorkId> = self.refused.keys().filter_map(|id| self.rows.get(id)).copied().collect();
        work.into_iter().collect()
    }
}
