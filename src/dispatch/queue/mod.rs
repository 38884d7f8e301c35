//! The work a line has in hand, and which row is next.
//!
//! Work is read whole and its rows are kept per flow (lane, medium, campaign), in order of id. A recipient has at most one
//! row in a call, or waiting for its next try, per lane; a few dozen rows behind it stay in hand and are not sendable, and
//! further ones are read past and fetched when the recipient is free. The `high` lane goes first, `bulk` keeps one send in
//! ten; the flows of a lane take turns. Work ends when the last of its rows has ended or waits for a time elsewhere.
//!
//! Pure data: no clock, no I/O, no rate.

mod ended;
mod ledger;
mod turns;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::memory::Memory;
use crate::message::{Lane, LineId, Medium, MessageId, WorkId};
use crate::store::{Flow, FlowPage, FlowRead, Position, ReadyRow, WorkHead, WorkRead};
use ended::Ended;
use ledger::Ledger;
use turns::Turns;
use window::Window;

/// Rows a flow may hold that cannot be sent because their recipients are busy. Beyond it the flow is not read further
/// until some of them are gone.
const MAX_BLOCKED: usize = 2_000;
/// Rows one recipient may hold behind the one that is in a call. Rows beyond are read past.
const MAX_BEHIND: usize = 48;
/// Announced rows a flow holds at most; those beyond are read when their turn comes.
const MAX_OFFERED: usize = 512;

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

    /// Whether announced work is to be read at once. Work that its flow reaches later, in order, is not; neither is work that
    /// is in hand, nor any while the line cannot send (`may_read` is false) or memory is full: its flow reaches it later.
    pub fn announced(&mut self, head: &WorkHead, may_read: bool) -> bool {
        if self.ledger.knows(head.position.work) {
            return false;
        }
        let has_memory = self.memory.has_room();
        let window = self.flows.entry(key_of(&head.flow)).or_default();
        let is_ahead = window.read_to < Some(head.position);
        // Rows that come back let others go: without them memory may never be given back.
        let frees_others = !is_ahead && window.sendable.is_empty();
        let has_room = may_read && (has_memory || frees_others);
        if window.more && is_ahead {
            return false;
        }
        if !has_room && !is_ahead {
            window.rewind();
            return false;
        }
        if !has_room || (window.rows.len() >= MAX_OFFERED && is_ahead) {
            window.more = true;
            return false;
        }
        true
    }

    /// Announced work is being read.
    pub fn asked(&mut self, work: WorkId) {
        self.asked.insert(work);
    }

    /// Work that was asked for could not be read.
    pub fn unread(&mut self, work: WorkId) {
        self.asked.remove(&work);
    }

    /// A call of the row has ended, or the row without a call, with this fence: what is read of it with a lower one was read
    /// before that was written.
    pub fn ended_with(&mut self, id: MessageId, fence: i32) {
        self.ended.note(id, fence);
    }

    /// Whether announced work is being read: what was announced later waits its turn.
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Adds work that was read by its number: `None` if it has ended, or its campaign does not run. Returns the work that has
    /// ended by what was read.
    pub fn read_work(&mut self, work: WorkId, read: Option<WorkRead>) -> Option<WorkId> {
        self.asked.remove(&work);
        match read {
            Some(read) => {
                let window = self.flows.entry(key_of(&read.flow)).or_default();
                if !window.more {
                    window.reached(Some(read.position));
                }
                self.take_in(read)
            }
            None => {
                // Which flow it is of is not told.
                self.flows.values_mut().for_each(|window| window.missed = true);
                self.forget_work(work);
                None
            }
        }
    }

    /// Adds what a [`FlowRead`] brought. Returns the work that has ended by what was read.
    pub fn read_flow(&mut self, read: &FlowRead, page: FlowPage) -> Vec<WorkId> {
        let window = self.flows.entry(key_of(&read.flow)).or_default();
        window.reading = false;
        // Rewound meanwhile: the next read begins at the beginning.
        if window.read_to == read.after {
            window.more = page.more;
            window.reached(page.work.last().map(|work| work.position));
        }
        page.work.into_iter().filter_map(|work| self.take_in(work)).collect()
    }

    /// A read failed: it is asked for again.
    pub fn read_failed(&mut self, flow: &Flow) {
        if let Some(window) = self.flows.get_mut(&key_of(flow)) {
            window.reading = false;
        }
    }

    /// A scan found work, the flow's first. If it is not in hand, the flow is read again from its beginning.
    pub fn found(&mut self, flow: &Flow, first: Position) {
        let is_known = self.ledger.knows(first.work);
        let window = self.flows.entry(key_of(flow)).or_default();
        if std::mem::take(&mut window.missed) || !is_known {
            window.rewind();
        }
    }

    /// Rows of the work come into hand, those that were refused or given back again; returns the work if none is left.
    fn take_in(&mut self, read: WorkRead) -> Option<WorkId> {
        let work = read.position.work;
        let mut missing = self.ledger.refused_of(work);
        self.ledger.open(work);
        for row in read.rows {
            missing.remove(&row.id);
            let is_elsewhere = self.has(row.id) && !self.ledger.holds_of(work, row.id);
            if self.is_foreign(row.id, row.fence) || self.ended.is_stale(&row) {
                self.ledger.leaves_behind(work);
                self.flows.entry(flow_key(&row)).or_default().missed = true;
            } else if is_elsewhere && !self.ledger.is_refused(row.id) {
                // In a call, or about to be, as other work brought it.
                self.ledger.leaves_behind(work);
            } else if self.ledger.is_refused(row.id) || !self.has(row.id) {
                self.insert(row);
            }
        }
        // Refused before, and not ready now: another has ended it.
        for (id, (lane, dest)) in missing {
            self.ledger.drop_row(id);
            self.free(lane, &dest, id);
        }
        self.ledger.close_if_empty(work)
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

    /// The claim of the row was refused: its work is to be read again. Its recipient waits.
    pub fn refuse(&mut self, row: &ReadyRow) {
        self.hold(row.lane, &row.dest, row.id);
        self.ledger.refuse(row.id, (row.lane, row.dest.clone()));
    }

    /// Work of which a claim was refused, to be read again.
    pub fn refused_work(&self) -> Vec<WorkId> {
        self.ledger.refused_work()
    }

    /// A row that was given back, or waited with its line, is ready again.
    pub fn give_back(&mut self, row: ReadyRow) {
        if self.ledger.holds(row.id) && self.is_held_by(row.lane, &row.dest, row.id) {
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

    /// A row is claimed by a process that is gone, or whose answer was lost: it is not sent before that is settled.
    /// `fence`: that of the claim.
    pub fn claimed_elsewhere(&mut self, lane: Lane, dest: &str, id: MessageId, fence: i32) {
        if self.calls.contains(&id) {
            return;
        }
        if let Some(known) = self.foreign.get_mut(&id) {
            *known = fence.max(*known);
            return;
        }
        self.foreign.insert(id, fence);
        self.flows.values_mut().for_each(|window| window.missed = true);
        self.remove(id);
        if let Some(work) = self.ledger.drop_row(id) {
            self.ledger.leaves_behind(work);
            self.ledger.close_if_empty(work);
        }
        self.hold(lane, dest, id);
    }

    /// Whether a claim of another process keeps the row from being sent, of which the log has this fence. A claim whose call
    /// ended elsewhere is told by none: the row that is read shows it.
    fn is_foreign(&mut self, id: MessageId, fence: i32) -> bool {
        if self.foreign.get(&id).is_some_and(|settled| fence >= *settled) {
            self.foreign.remove(&id);
        }
        self.foreign.contains_key(&id)
    }

    /// Whether a claim of another process is waited for.
    pub fn is_claimed_elsewhere(&self, id: MessageId) -> bool {
        self.foreign.contains_key(&id)
    }

    /// The claim of another is settled; the row is read again if it still waits.
    pub fn claim_settled(&mut self, id: MessageId) {
        self.foreign.remove(&id);
    }

    /// Takes a row that waits out of hand, as it is ended without a call. Its recipient's next row may go. Says whether it may be
    /// ended: not while it is in a call.
    pub fn doom(&mut self, lane: Lane, dest: &str, id: MessageId, fence: i32) -> bool {
        if self.calls.contains(&id) || self.is_foreign(id, fence) {
            return false;
        }
        self.ended.note(id, fence + 1);
        self.remove(id);
        self.end_without_call(lane, dest, id);
        true
    }

    /// The row is to be ended without a call, if the log agrees. That does not end its work: a look removes work in which no row
    /// waits.
    pub fn end_without_call(&mut self, lane: Lane, dest: &str, id: MessageId) {
        if let Some(work) = self.ledger.work_of(id) {
            self.ledger.leaves_behind(work);
        }
        self.end(lane, dest, id);
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

    /// Rows of work that has ended elsewhere, or may not be sent for now, go out of hand but for those in a call. The rest
    /// is found by a scan.
    fn forget_work(&mut self, work: WorkId) {
        for id in self.ledger.rows_of(work) {
            if self.calls.contains(&id) {
                self.ledger.leaves_behind(work);
                continue;
            }
            self.remove(id);
            if let Some((lane, dest)) = self.ledger.unrefuse(id) {
                self.free(lane, &dest, id);
            }
            self.ledger.drop_row(id);
        }
        self.ledger.close_if_empty(work);
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

    /// Reads that would fill windows that run low; each is asked for once until it is answered.
    ///
    /// While memory is full only flows with nothing in hand are read, and little of them.
    pub fn reads(&mut self, line: LineId, window_size: impl Fn(Medium) -> usize) -> Vec<FlowRead> {
        let mut reads = Vec::new();
        let has_room = self.memory.has_room();
        for ((lane, medium, campaign), window) in &mut self.flows {
            let size = window_size(*medium);
            let size = if has_room { size } else { 1 };
            // A second read costs little, and lets others go.
            let again = window.read_to < window.seen_to && window.sendable.is_empty();
            let low = match has_room {
                true => window.sendable.len() * 2 <= size && window.rows.len() < MAX_BLOCKED,
                false => window.rows.is_empty(),
            };
            let low = low || again;
            if window.more && !window.reading && low {
                window.reading = true;
                reads.push(FlowRead {
                    flow: Flow { line, lane: *lane, medium: *medium, campaign: campaign.to_string() },
                    after: window.read_to,
                    limit: size as u32,
                });
            }
        }
        reads
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
