//! Rows that ended a moment ago. Their results are on the way to the log, and a scan or a job may report an
//! older state.

use std::collections::HashMap;

use crate::domain::RowId;
use crate::store::ReadyRow;

/// Ended rows of the last two turns, each with the fence that the log shows once its end is written.
#[derive(Default)]
pub struct Ended {
    now: HashMap<RowId, i32>,
    before: HashMap<RowId, i32>,
}

impl Ended {
    pub fn note(&mut self, id: RowId, fence: i32) {
        self.now.insert(id, fence);
    }

    /// Whether the row was read before its end was written.
    pub fn is_stale(&self, row: &ReadyRow) -> bool {
        self.fence_of(row.id).is_some_and(|fence| row.fence < fence)
    }

    /// Whether the call of the claim with this fence has ended.
    pub fn has(&self, id: RowId, fence: i32) -> bool {
        self.fence_of(id).is_some_and(|ended| fence <= ended)
    }

    fn fence_of(&self, id: RowId) -> Option<i32> {
        self.now.get(&id).or_else(|| self.before.get(&id)).copied()
    }

    /// Forget the rows that ended before the last turn.
    pub fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}
