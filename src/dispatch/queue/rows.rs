//! The rows of a line that are in hand: brought in, taken for a call, given back, ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::aside::Aside;
use super::closing::{Closing, LatelyUnreachable};
use super::ended::Ended;
use super::flow::{FlowKey, flow_key};
use super::ledger::Ledger;
use super::recipient::{Active, MAX_BEHIND, RecipientKey, RecipientRows};
use super::rotation::FlowRotation;
use super::window::Window;
use crate::channel::Medium;
use crate::dispatch::memory::RowMemory;
use crate::domain::{Lane, RowId, WorkId};
use crate::store::ReadyRow;

/// The rows of one line that have been read.
pub struct LineQueue {
    pub(super) memory: RowMemory,
    pub(super) flows: BTreeMap<FlowKey, Window>,
    pub(super) recipients: HashMap<RecipientKey, RecipientRows>,
    /// Rows taken with [`LineQueue::next`] and not ended, postponed or given back yet.
    pub(super) calls: HashSet<RowId>,
    /// Rows that another process claimed before it lost the line, with the fence that the log shows once each
    /// claim is settled: they are not sent before.
    pub(super) foreign: HashMap<RowId, i32>,
    /// Announced work that is being read.
    pub(super) asked: HashSet<WorkId>,
    pub(super) ended: Ended,
    pub(super) closing: Closing,
    pub(super) aside: Aside,
    pub(super) unreachable: LatelyUnreachable,
    pub(super) ledger: Ledger,
    rotation: FlowRotation,
    /// A row that met its line's refusal: another row goes before it once.
    avoided: Option<RowId>,
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
            closing: Closing::default(),
            aside: Aside::default(),
            unreachable: LatelyUnreachable::default(),
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

    pub(super) fn has(&self, id: RowId) -> bool {
        self.ledger.holds(id) || self.calls.contains(&id)
    }

    pub(super) fn insert(&mut self, mut row: ReadyRow) {
        let (key, id) = (flow_key(&row), row.id);
        row.contact.is_unreachable |= self.unreachable.has(&row.dest);
        let recipient_key: RecipientKey = (row.lane, row.dest.as_str().into());
        let recipient = self.recipients.entry(recipient_key).or_default();
        let comes_back = recipient.active == Some(Active::Held(id));
        if !comes_back && (recipient.waiting.len() >= MAX_BEHIND || !recipient.read_past.is_empty()) {
            recipient.read_past.insert(key);
            self.ledger.leaves_behind(row.work);
            return;
        }
        self.ledger.hold(id, row.work);
        self.closing.returned(id);
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

    /// Take the next row to send; its recipient is busy until the row ends or comes back.
    pub fn next(&mut self, medium: Medium) -> Option<ReadyRow> {
        let key = self.rotation.next(medium, &self.flows)?;
        self.take_of(key, medium)
    }

    /// Take the next row of the `high` lane.
    pub fn next_high(&mut self, medium: Medium) -> Option<ReadyRow> {
        let key = self.rotation.next_high(medium, &self.flows)?;
        self.take_of(key, medium)
    }

    fn take_of(&mut self, key: FlowKey, medium: Medium) -> Option<ReadyRow> {
        let first = match key.0 {
            Lane::Bulk => self.first_to_close(medium, self.avoided),
            Lane::High => None,
        };
        let (key, first) = first.map_or((key, None), |(key, id)| (key, Some(id)));
        let window = self.flows.get_mut(&key)?;
        let another = || window.sendable.iter().copied().find(|id| Some(*id) != self.avoided);
        let id = first.or_else(another).or_else(|| window.sendable.first().copied())?;
        window.sendable.remove(&id);
        self.closing.taken(id);
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

    /// Whether [`LineQueue::next_high`] would find a row.
    pub fn has_next_high(&self, medium: Medium) -> bool {
        let is_high = |key: &FlowKey| key.0 == Lane::High && key.1 == medium;
        self.flows.iter().any(|(key, window)| is_high(key) && !window.sendable.is_empty())
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
        self.closing.left(id);
        let work = self.ledger.drop_row(id)?;
        self.ledger.close_if_empty(work)
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

    /// Take a row out of its flow and from behind its recipient.
    pub(super) fn remove(&mut self, id: RowId) {
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
        self.closing.left(id);
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
        self.unreachable.turn();
        let ledger = &self.ledger;
        self.closing.keep(|id| ledger.holds(id));
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
