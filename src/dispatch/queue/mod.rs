//! The work that a line has in hand, and the choice of the next row.
//!
//! Work is read whole and its rows are kept per flow (lane, medium, campaign), in order of id. A recipient
//! has at most one row in a call, or waiting for its next try, per lane; a few dozen rows behind it stay in
//! hand and are not sendable, and further ones are read past and fetched when the recipient is free. The
//! `high` lane goes first, `bulk` keeps one send in ten; the flows of a lane take turns. Work ends when the
//! last of its rows has ended or waits for a time elsewhere.
//!
//! Never here: a clock, I/O, rates.

mod elsewhere;
mod ended;
mod ledger;
mod reading;
mod rotation;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::memory::RowMemory;
use crate::channel::Medium;
use crate::domain::{Lane, RowId, WorkId};
use crate::store::{Flow, ReadyRow};
use ended::Ended;
use ledger::Ledger;
use rotation::FlowRotation;
use window::Window;

/// Rows of one recipient that may wait behind its row in a call. Further rows are read past.
const MAX_BEHIND: usize = 48;

type FlowKey = (Lane, Medium, Arc<str>);
type RecipientKey = (Lane, Arc<str>);

/// The rows of one line that have been read.
pub struct LineQueue {
    memory: RowMemory,
    flows: BTreeMap<FlowKey, Window>,
    recipients: HashMap<RecipientKey, RecipientRows>,
    /// Rows taken with [`LineQueue::next`] and not ended, postponed or given back yet.
    calls: HashSet<RowId>,
    /// Rows that another process claimed before it lost the line, with the fence that the log shows once each
    /// claim is settled: they are not sent before.
    foreign: HashMap<RowId, i32>,
    /// Announced work that is being read.
    asked: HashSet<WorkId>,
    ended: Ended,
    ledger: Ledger,
    rotation: FlowRotation,
    /// A row that met its line's refusal: another row goes before it once.
    avoided: Option<RowId>,
}

/// The rows of one recipient in one lane.
#[derive(Default)]
struct RecipientRows {
    active: Option<Active>,
    waiting: BTreeMap<RowId, FlowKey>,
    /// Flows in which rows of this recipient were read past.
    read_past: BTreeSet<FlowKey>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Active {
    /// The row is claimed, or about to be.
    Call(RowId),
    /// The row waits for its next try, is being given back, or is claimed by a worker that is gone.
    Held(RowId),
}

impl LineQueue {
    pub fn new(memory: RowMemory) -> LineQueue {
        LineQueue {
            memory,
            flows: BTreeMap::new(),
            recipients: HashMap::new(),
            calls: HashSet::new(),
            foreign: HashMap::new(),
            asked: HashSet::new(),
            ended: Ended::default(),
            ledger: Ledger::default(),
            rotation: FlowRotation::default(),
            avoided: None,
        }
    }

    /// Record that the row met its line's refusal. When it comes back, another row of its flow goes before
    /// it, if there is one.
    pub fn avoid(&mut self, id: RowId) {
        self.avoided = Some(id);
    }

    /// Record that the row's call has ended, or the row without a call, with this fence: a reading with a
    /// lower fence is older than that.
    pub fn ended_with(&mut self, id: RowId, fence: i32) {
        self.ended.note(id, fence);
    }

    /// Whether a call of the row with this fence ended a moment ago, so that its claim looks open only until
    /// that is written.
    pub fn has_ended(&self, id: RowId, fence: i32) -> bool {
        self.ended.has(id, fence)
    }

    fn has(&self, id: RowId) -> bool {
        self.ledger.holds(id) || self.calls.contains(&id)
    }

    fn insert(&mut self, row: ReadyRow) {
        let (key, id) = (flow_key(&row), row.id);
        let recipient_key: RecipientKey = (row.lane, row.dest.as_str().into());
        let recipient = self.recipients.entry(recipient_key).or_default();
        let comes_back = recipient.active == Some(Active::Held(id));
        if !comes_back && (recipient.waiting.len() >= MAX_BEHIND || !recipient.read_past.is_empty()) {
            recipient.read_past.insert(key);
            self.ledger.leaves_behind(row.work);
            return;
        }
        self.ledger.hold(id, row.work);
        if comes_back {
            recipient.active = None;
        }
        let head = recipient.waiting.first_key_value().map(|(id, key)| (*id, key.clone()));
        recipient.waiting.insert(id, key.clone());
        let is_busy = recipient.active.is_some();
        self.memory.take(&row);
        if let Some(before) = self.flows.entry(key.clone()).or_default().rows.insert(id, row) {
            self.memory.give_back(&before);
        }
        if is_busy {
            return;
        }
        match head {
            // The head is sendable already, unless the row that came back had blocked it.
            Some((head, head_flow)) if head < id => self.sendable(&head_flow, head),
            Some((head, head_flow)) => {
                self.blocked(&head_flow, head);
                self.sendable(&key, id);
            }
            None => self.sendable(&key, id),
        }
    }

    fn sendable(&mut self, key: &FlowKey, id: RowId) {
        if let Some(window) = self.flows.get_mut(key) {
            window.sendable.insert(id);
        }
    }

    fn blocked(&mut self, key: &FlowKey, id: RowId) {
        if let Some(window) = self.flows.get_mut(key) {
            window.sendable.remove(&id);
        }
    }

    /// Take the next row to send; its recipient is busy until the row ends or comes back.
    pub fn next(&mut self, medium: Medium) -> Option<ReadyRow> {
        let key = self.rotation.next(medium, &self.flows)?;
        let window = self.flows.get_mut(&key)?;
        let another = window.sendable.iter().copied().find(|id| Some(*id) != self.avoided);
        let id = another.or_else(|| window.sendable.first().copied())?;
        window.sendable.remove(&id);
        if self.avoided.is_some_and(|avoided| window.rows.contains_key(&avoided) || avoided == id) {
            self.avoided = None;
        }
        let row = window.rows.remove(&id)?;
        self.memory.give_back(&row);
        if let Some(recipient) = self.recipients.get_mut(&(row.lane, Arc::from(row.dest.as_str()))) {
            recipient.waiting.remove(&id);
            recipient.active = Some(Active::Call(id));
        }
        self.calls.insert(id);
        Some(row)
    }

    /// Whether [`LineQueue::next`] would find a row.
    pub fn has_next(&self, medium: Medium) -> bool {
        self.flows.iter().any(|(key, window)| key.1 == medium && !window.sendable.is_empty())
    }

    /// Record that the row has ended; its recipient's next row may go. Return its work if that has ended with
    /// it.
    pub fn end(&mut self, lane: Lane, dest: &str, id: RowId) -> Option<WorkId> {
        let work = self.leave(id);
        self.free(lane, dest, id);
        work
    }

    /// Record that the row waits for its next try: its recipient's later rows wait behind it. Return its work
    /// if that has ended with it: the row comes back in another.
    pub fn postpone(&mut self, lane: Lane, dest: &str, id: RowId) -> Option<WorkId> {
        let work = self.leave(id);
        self.hold(lane, dest, id);
        work
    }

    fn leave(&mut self, id: RowId) -> Option<WorkId> {
        self.calls.remove(&id);
        self.foreign.remove(&id);
        let work = self.ledger.drop_row(id)?;
        self.ledger.close_if_empty(work)
    }

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

    /// Make a row ready again that was given back, or waited with its line.
    pub fn give_back(&mut self, row: ReadyRow) {
        if self.is_held_by(row.lane, &row.dest, row.id) {
            if !self.ledger.holds(row.id) {
                // The call outlived the loss of its line; the line is owned again, and the row was left out
                // when it was read.
                self.foreign.remove(&row.id);
                self.ledger.leaves_behind(row.work);
            }
            self.insert(row);
        } else {
            self.free(row.lane, &row.dest, row.id);
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

    /// Take a row out of its flow and from behind its recipient.
    fn remove(&mut self, id: RowId) {
        if !self.ledger.holds(id) {
            return;
        }
        let Some(key) =
            self.flows.iter().find(|(_, window)| window.rows.contains_key(&id)).map(|(key, _)| key.clone())
        else {
            return;
        };
        let Some(row) = self.flows.get_mut(&key).and_then(|window| {
            window.sendable.remove(&id);
            window.rows.remove(&id)
        }) else {
            return;
        };
        self.memory.give_back(&row);
        let recipient_key: RecipientKey = (row.lane, row.dest.as_str().into());
        let Some(recipient) = self.recipients.get_mut(&recipient_key) else { return };
        recipient.waiting.remove(&id);
        if recipient.active.is_none() {
            recipient.active = Some(Active::Held(id));
            self.free(row.lane, &row.dest, id);
        }
    }

    /// Whether this row was taken and has not ended.
    pub fn in_call(&self, id: RowId) -> bool {
        self.calls.contains(&id)
    }

    /// Whether this recipient's later rows wait behind this row, which is in no call.
    pub fn is_held_by(&self, lane: Lane, dest: &str, id: RowId) -> bool {
        let recipient = self.recipients.get(&(lane, Arc::from(dest)));
        recipient.is_some_and(|recipient| recipient.active == Some(Active::Held(id)))
    }

    /// Whether no row is in hand and no more are known to wait.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.recipients.is_empty()
            && self.foreign.is_empty()
            && self.asked.is_empty()
            && self.flows.values().all(Window::is_idle)
    }

    /// Forget flows that are empty and read to their end, such as those of finished campaigns, and rows that
    /// ended before the last turn.
    pub fn forget(&mut self) {
        self.ended.turn();
        self.flows.retain(|_, window| !window.is_idle() || window.missed);
    }
}

impl Drop for LineQueue {
    fn drop(&mut self) {
        for row in self.flows.values().flat_map(|window| window.rows.values()) {
            self.memory.give_back(row);
        }
    }
}

fn flow_key(row: &ReadyRow) -> FlowKey {
    (row.lane, row.kind.medium(), row.cp_id.as_deref().unwrap_or("").into())
}

fn key_of(flow: &Flow) -> FlowKey {
    (flow.lane, flow.medium, flow.campaign.as_str().into())
}

#[cfg(test)]
mod tests;
