//! The part of a flow that is in memory, and the position up to which the flow has been read.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::RowId;
use crate::store::{Position, ReadyRow};

#[derive(Default)]
pub struct Window {
    pub rows: BTreeMap<RowId, ReadyRow>,
    /// Rows whose recipient is free and has no older row.
    pub sendable: BTreeSet<RowId>,
    /// The position up to which work has been read.
    pub read_to: Option<Position>,
    /// The position up to which work had been read before the flow was rewound to its beginning.
    pub seen_to: Option<Position>,
    /// Whether there may be work behind `read_to`.
    pub more: bool,
    pub reading: bool,
    /// Whether announced work was not taken, because a read or a scan under way may have begun before the
    /// work was written.
    pub has_news: bool,
    /// Whether work before `read_to` went out of hand and has not ended: the flow is read again when a scan
    /// finds work of it.
    pub missed: bool,
}

impl Window {
    /// Read the flow from its beginning again.
    pub fn rewind(&mut self) {
        self.read_to = None;
        self.more = true;
    }

    /// Record the position up to which work has been read.
    pub fn reached(&mut self, position: Option<Position>) {
        self.read_to = self.read_to.max(position);
        self.seen_to = self.seen_to.max(self.read_to);
    }

    /// Return the id behind which all rows are that wait in hand or are unread.
    pub fn before_first(&self) -> RowId {
        let in_hand = self.rows.first_key_value().map(|(id, _)| RowId(id.0 - 1));
        let read_to = self.read_to.map(|position| position.first);
        match (in_hand, read_to) {
            (Some(in_hand), Some(read_to)) => in_hand.min(read_to),
            (None, Some(read_to)) => read_to,
            (_, None) => RowId(-1),
        }
    }

    /// Whether no row is in hand, and no more are known to wait.
    pub fn is_idle(&self) -> bool {
        self.rows.is_empty() && !self.more && !self.reading && !self.has_news
    }
}
