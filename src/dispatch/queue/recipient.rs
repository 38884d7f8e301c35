//! The recipients of a line: each has at most one row in a call, or held, per lane, and further rows wait
//! behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::flow::FlowKey;
use super::rows::LineQueue;
use crate::domain::{Lane, RowId};

/// Rows of one recipient that may wait behind its row in a call. Further rows are read past.
pub(super) const MAX_BEHIND: usize = 48;

pub(super) type RecipientKey = (Lane, Arc<str>);

/// The rows of one recipient in one lane.
#[derive(Default)]
pub(super) struct RecipientRows {
    pub(super) active: Option<Active>,
    pub(super) waiting: BTreeMap<RowId, FlowKey>,
    /// Flows in which rows of this recipient were read past.
    pub(super) read_past: BTreeSet<FlowKey>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Active {
    /// The row is claimed, or about to be.
    Call(RowId),
    /// The row waits for its next try, is being given back, or is claimed by a worker that is gone.
    Held(RowId),
}

impl LineQueue {
    /// Record that the row is not in a call any more and comes back: its recipient's later rows wait behind
    /// it.
    pub fn hold(&mut self, lane: Lane, dest: &str, id: RowId) {
        self.calls.remove(&id);
        let recipient = self.recipients.entry((lane, dest.into())).or_default();
        recipient.active = Some(Active::Held(id));
        if let Some((head, flow)) = recipient.waiting.first_key_value().map(|(id, key)| (*id, key.clone())) {
            self.blocked(&flow, head);
        }
    }

    /// Free a recipient that this row held up, unless another row does by now.
    pub fn free(&mut self, lane: Lane, dest: &str, id: RowId) {
        let key: RecipientKey = (lane, dest.into());
        let Some(recipient) = self.recipients.get_mut(&key) else { return };
        if !matches!(recipient.active, Some(Active::Call(by) | Active::Held(by)) if by == id) {
            return;
        }
        recipient.active = None;
        if let Some((next, flow)) = recipient.waiting.first_key_value().map(|(id, flow)| (*id, flow.clone()))
        {
            self.sendable(&flow, next);
            return;
        }
        for flow in self.recipients.remove(&key).map(|recipient| recipient.read_past).unwrap_or_default() {
            self.flows.entry(flow).or_default().rewind();
        }
    }

    /// Whether this recipient's later rows wait behind this row, which is in no call.
    pub fn is_held_by(&self, lane: Lane, dest: &str, id: RowId) -> bool {
        let recipient = self.recipients.get(&(lane, Arc::from(dest)));
        recipient.is_some_and(|recipient| recipient.active == Some(Active::Held(id)))
    }

    /// Whether rows of this recipient wait for their turn.
    pub fn has_waiting(&self, lane: Lane, dest: &str) -> bool {
        let recipient = self.recipients.get(&(lane, Arc::from(dest)));
        recipient.is_some_and(|recipient| !recipient.waiting.is_empty() || !recipient.read_past.is_empty())
    }

    pub(super) fn sendable(&mut self, key: &FlowKey, id: RowId) {
        if let Some(window) = self.flows.get_mut(key) {
            window.sendable.insert(id);
        }
    }

    pub(super) fn blocked(&mut self, key: &FlowKey, id: RowId) {
        if let Some(window) = self.flows.get_mut(key) {
            window.sendable.remove(&id);
        }
    }
}
