//! The work a line has in hand, and which row is next.
//!
//! Work is read whole and its rows are kept per flow (lane, medium, campaign), in order of id. A recipient has at most one
//! row in a call, or waiting for its next try, per lane; a few dozen rows behind it stay in hand and are not sendable, and
//! further ones are read past and fetched when the recipient is free. The `high` lane goes first, `bulk` keeps one send in
//! ten; the flows of a lane take turns. Work ends when the last of its rows has ended or waits for a time elsewhere.
//!
//! Pure data: no clock, no I/O, no rate.

mod elsewhere;
mod ended;
mod ledger;
mod reading;
mod turns;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::memory::Memory;
use crate::message::{Lane, Medium, MessageId, WorkId};
use crate::store::{Flow, ReadyRow};
use ended::Ended;
use ledger::Ledger;
use turns::Turns;
use window::Window;

/// Rows one recipient may hold behind the one that is in a call. Rows beyond are read past.
const MAX_BEHIND: usize = 48;

type FlowKey = (Lane, Medium, Arc<str>);
type RecipientKey = (Lane, Arc<str>);

/// The rows of one line, as far as they have been read.
pub struct Queue {
    memory: Memory,
    flows: BTreeMap<FlowKey, Window>,
    recipients: HashMap<RecipientKey, Recipient>,
    /// Rows taken with [`Queue::next`] and not ended, postponed or given back yet.
    calls: HashSet<MessageId>,
    /// Rows that another process claimed before it lost the line: they are not sent until their claims are settled.
    /// With the fence that the log shows once each is settled.
    foreign: HashMap<MessageId, i32>,
    /// Announced work that is being read.
    asked: HashSet<WorkId>,
    ended: Ended,
    ledger: Ledger,
    turns: Turns,
}

/// The rows of one recipient in one lane.
#[derive(Default)]
struct Recipient {
    active: Option<Active>,
    waiting: BTreeMap<MessageId, FlowKey>,
    /// Flows in which rows of this recipient were read past.
    read_past: BTreeSet<FlowKey>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Active {
    /// Claimed, or about to be.
    Call(MessageId),
    /// Waits for its next try, is being given back, or is claimed by a worker that is gone.
    Held(MessageId),
}

impl Queue {
    pub fn new(memory: Memory) -> Queue {
        Queue {
            memory,
            flows: BTreeMap::new(),
            recipients: HashMap::new(),
            calls: HashSet::new(),
            foreign: HashMap::new(),
            asked: HashSet::new(),
            ended: Ended::default(),
            ledger: Ledger::default(),
            turns: Turns::default(),
        }
    }

    /// A call of the row has ended, or the row without a call, with this fence: what is read of it with a lower one was read
    /// before that was written.
    pub fn ended_with(&mut self, id: MessageId, fence: i32) {
        self.ended.note(id, fence);
    }

    /// Whether a call of the row with this fence ended a moment ago, so that its claim looks open only until that is written.
    pub fn has_ended(&self, id: MessageId, fence: i32) -> bool {
        self.ended.has(id, fence)
    }

    fn has(&self, id: MessageId) -> bool {
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
            // Sendable already, unless the row that came back had blocked it.
            Some((head, head_flow)) if head < id => self.sendable(&head_flow, head),
            Some((head, head_flow)) => {
                self.blocked(&head_flow, head);
                self.sendable(&key, id);
            }
            None => self.sendable(&key, id),
        }
    }

    fn sendable(&mut self, key: &FlowKey, id: MessageId) {
        if let Some(window) = self.flows.get_mut(key) {
            window.sendable.insert(id);
        }
    }

    fn blocked(&mut self, key: &FlowKey, id: MessageId) {
        if let Some(window) = self.flows.get_mut(key) {
            window.sendable.remove(&id);
        }
    }

    /// Takes the next row to send; its recipient is busy until the row ends or comes back.
    pub fn next(&mut self, medium: Medium) -> Option<ReadyRow> {
        let key = self.turns.next(medium, &self.flows)?;
        let window = self.flows.get_mut(&key)?;
        let id = window.sendable.pop_first()?;
        let row = window.rows.remove(&id)?;
        self.memory.give_back(&row);
        if let Some(recipient) = self.recipients.get_mut(&(row.lane, Arc::from(row.dest.as_str()))) {
            recipient.waiting.remove(&id);
            recipient.active = Some(Active::Call(id));
        }
        self.calls.insert(id);
        Some(row)
    }

    /// Whether [`Queue::next`] would find a row.
    pub fn has_next(&self, medium: Medium) -> bool {
        self.flows.iter().any(|(key, window)| key.1 == medium && !window.sendable.is_empty())
    }

    /// The row has ended; its recipient's next row may go. Returns its work if that has ended with it.
    pub fn end(&mut self, lane: Lane, dest: &str, id: MessageId) -> Option<WorkId> {
        let work = self.leave(id);
        self.free(lane, dest, id);
        work
    }

    /// The row waits for its next try: its recipient's later rows wait behind it. Returns its work if that has ended with it:
    /// the row comes back in another.
    pub fn postpone(&mut self, lane: Lane, dest: &str, id: MessageId) -> Option<WorkId> {
        let work = self.leave(id);
        self.hold(lane, dest, id);
        work
    }

    fn leave(&mut self, id: MessageId) -> Option<WorkId> {
        self.calls.remove(&id);
        self.foreign.remove(&id);
        let work = self.ledger.drop_row(id)?;
        self.ledger.close_if_empty(work)
    }

    /// The row is not in a call any more and comes back: its recipient's later rows wait behind it.
    pub fn hold(&mut self, lane: Lane, dest: &str, id: MessageId) {
        self.calls.remove(&id);
        let recipient = self.recipients.entry((lane, dest.into())).or_default();
        recipient.active = Some(Active::Held(id));
        if let Some((head, flow)) = recipient.waiting.first_key_value().map(|(id, key)| (*id, key.clone())) {
            self.blocked(&flow, head);
        }
    }

    /// A row that was given back, or waited with its line, is ready again.
    pub fn give_back(&mut self, row: ReadyRow) {
        if self.is_held_by(row.lane, &row.dest, row.id) {
            if !self.ledger.holds(row.id) {
                // Its call outlived the loss of its line: the line is ours again, and the row was left out when it was read.
                self.foreign.remove(&row.id);
                self.ledger.leaves_behind(row.work);
            }
            self.insert(row);
        } else {
            self.free(row.lane, &row.dest, row.id);
        }
    }

    /// Lets go of a recipient that this row held up, unless another does by now.
    pub fn free(&mut self, lane: Lane, dest: &str, id: MessageId) {
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

    /// Takes a row out of its flow and from behind its recipient.
    fn remove(&mut self, id: MessageId) {
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
    pub fn in_call(&self, id: MessageId) -> bool {
        self.calls.contains(&id)
    }

    /// Whether this recipient's later rows wait behind this row, which is in no call.
    pub fn is_held_by(&self, lane: Lane, dest: &str, id: MessageId) -> bool {
        let recipient = self.recipients.get(&(lane, Arc::from(dest)));
        recipient.is_some_and(|recipient| recipient.active == Some(Active::Held(id)))
    }

    /// Whether nothing is in hand and nothing more is known to wait.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.recipients.is_empty()
            && self.foreign.is_empty()
            && self.asked.is_empty()
            && self.flows.values().all(Window::is_idle)
    }

    /// Forgets flows that are empty and read to their end, such as those of finished campaigns; and rows that ended before
    /// the last time.
    pub fn forget(&mut self) {
        self.ended.turn();
        self.flows.retain(|_, window| !window.is_idle() || window.missed);
    }
}

impl Drop for Queue {
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
