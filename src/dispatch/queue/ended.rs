//! Rows that ended a moment ago. Their results are on the way to the log, and what a scan or a job tells of them is older.

use std::collections::HashMap;

use crate::message::MessageId;
use crate::store::ReadyRow;

/// Ended rows of the last two turns, each with the fence that the log shows once its end is written.
#[derive(Default)]
pub struct Ended {
    now: HashMap<MessageId, i32>,
    before: HashMap<MessageId, i32>,
}

impl Ended {
    pub fn note(&mut self, id: MessageId, fence: i32) {
        self.now.insert(id, fence);
    }

    /// Whether the row was read before its end was written.
    pub fn is_stale(&self, row: &ReadyRow) -> bool {
        self.fence_of(row.id).is_some_and(|fence| row.fence < fence)
    }

    /// Whether the call of the claim with this fence has ended.
    pub fn has(&self, id: MessageId, fence: i32) -> bool {
        self.fence_of(id).is_some_and(|ended| fence <= ended)
    }

    fn fence_of(&self, id: MessageId) -> Option<i32> {
        self.now.get(&id).or_else(|| self.before.get(&id)).copied()
    }

    /// Forgets those that ended before the last turn.
    pub fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}
