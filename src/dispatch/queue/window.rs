//! The part of a flow that is in memory, and how far the flow has been read.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::MessageId;
use crate::store::{Position, ReadyRow};

#[derive(Default)]
pub struct Window {
    pub rows: BTreeMap<MessageId, ReadyRow>,
    /// Rows whose recipient is free and who are its oldest.
    pub sendable: BTreeSet<MessageId>,
    /// Work up to here has been read.
    pub read_to: Option<Position>,
    /// Work up to here had been read before the flow was read again from its beginning.
    pub seen_to: Option<Position>,
    /// There may be work behind `read_to`.
    pub more: bool,
    pub reading: bool,
    /// Work was announced and not taken, since a read or a scan was under way that may have begun before the work was written.
    pub told: bool,
    /// Work before `read_to` went out of hand and has not ended: the flow is read again when a scan finds work of it.
    pub missed: bool,
}

impl Window {
    /// Reads the flow from its beginning again.
    pub fn rewind(&mut self) {
        self.read_to = None;
        self.more = true;
    }

    /// Work up to here has been read.
    pub fn reached(&mut self, position: Option<Position>) {
        self.read_to = self.read_to.max(position);
        self.seen_to = self.seen_to.max(self.read_to);
    }

    /// Whether nothing is in hand, and nothing more is known to wait.
    pub fn is_idle(&self) -> bool {
        self.rows.is_empty() && !self.more && !self.reading && !self.told
    }
}
