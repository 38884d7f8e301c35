//! What a line has in hand, and which row is next.
//!
//! Ready rows are kept per flow (lane, medium, campaign) in windows, in order of id. A recipient has at most one row
//! in a call, or waiting for its next try, per lane; the rows behind it stay in the window and are not sendable.
//! The `high` lane goes first, `bulk` keeps one send in ten; the flows of a lane take turns.
//!
//! Pure data: no clock, no I/O, no rate.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use crate::message::{Lane, LineId, Medium, MessageId};
use crate::store::{Flow, FlowRead, ReadyRow};

/// After this many sends from `high` in a row, `bulk` has one, if it has something to send.
const HIGH_STREAK: u8 = 9;

/// Rows a flow may hold that cannot be sent because their recipient is busy. Beyond it the flow is not read further
/// until some of them are gone.
const MAX_BLOCKED: usize = 2_000;

/// Announced rows a flow holds at most; those beyond are read when their turn comes.
const MAX_OFFERED: usize = 512;

type FlowKey = (Lane, Medium, Arc<str>);
type RecipientKey = (Lane, Arc<str>);

/// The rows of one line, as far as they have been read.
#[derive(Default)]
pub struct Queue {
    flows: BTreeMap<FlowKey, Window>,
    recipients: HashMap<RecipientKey, Recipient>,
    /// Rows taken with [`Queue::next`] and not settled yet.
    calls: HashSet<MessageId>,
    /// Sends from `high` since the last from `bulk`, text and media.
    streak: [u8; 2],
    /// Whose turn was last, per lane and medium.
    turns: HashMap<(Lane, Medium), Arc<str>>,
}

/// The part of a flow that is in memory.
#[derive(Default)]
struct Window {
    rows: BTreeMap<MessageId, ReadyRow>,
    /// Those whose recipient is free and who are its oldest.
    sendable: BTreeSet<MessageId>,
    /// Rows up to here have been read.
    read_to: Option<MessageId>,
    /// There may be ready rows above `read_to`.
    more: bool,
    reading: bool,
}

/// The rows of one recipient in one lane.
#[derive(Default)]
struct Recipient {
    active: Option<Active>,
    waiting: BTreeMap<MessageId, FlowKey>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Active {
    /// Claimed, or about to be.
    Call(MessageId),
    /// Waits for its next try, or is claimed by a worker that is gone.
    Held(MessageId),
}

impl Queue {
    /// Adds a row that was announced, promoted or asked for. Rows already in hand are ignored, and so are rows that their
    /// flow reaches later, in order; but not one behind which its recipient waits, or a later one would go first.
    pub fn offer(&mut self, row: ReadyRow) {
        let key = flow_key(&row);
        if self.is_held_by(row.lane, &row.dest, row.id) {
            self.insert(row);
            return;
        }
        let window = self.flows.entry(key).or_default();
        window.more |= window.rows.len() >= MAX_OFFERED;
        if window.more && window.read_to < Some(row.id) {
            return;
        }
        window.read_to = window.read_to.max(Some(row.id));
        self.insert(row);
    }

    /// Adds what a [`FlowRead`] brought.
    pub fn read(&mut self, read: &FlowRead, rows: Vec<ReadyRow>) {
        let key = key_of(&read.flow);
        let window = self.flows.entry(key).or_default();
        window.reading = false;
        window.more = rows.len() >= read.limit as usize;
        window.read_to = window.read_to.max(rows.last().map(|row| row.id)).max(Some(read.after));
        for row in rows {
            self.insert(row);
        }
    }

    /// A read failed: it is asked for again.
    pub fn read_failed(&mut self, flow: &Flow) {
        if let Some(window) = self.flows.get_mut(&key_of(flow)) {
            window.reading = false;
        }
    }

    /// A scan found ready rows, `lowest` first. If that one is not in hand, or nothing in hand can be sent, the flow
    /// is read again from there.
    pub fn found(&mut self, flow: &Flow, lowest: MessageId) {
        let window = self.flows.entry(key_of(flow)).or_default();
        let in_hand = window.rows.contains_key(&lowest) || self.calls.contains(&lowest);
        if !in_hand || window.sendable.is_empty() {
            window.more = true;
            window.read_to = Some(MessageId(lowest.0 - 1));
        }
    }

    /// Rows from `first` on were announced that are too many to be fetched at once: the lane's flows are read from
    /// there, in order. Flows of campaigns not met yet are found by the next scan.
    pub fn expect(&mut self, lane: Lane, first: MessageId) {
        let plain = [Medium::Text, Medium::Media].map(|medium| (lane, medium, Arc::from("")));
        for key in plain {
            self.flows.entry(key).or_default();
        }
        let before = Some(MessageId(first.0 - 1));
        for window in self.flows.iter_mut().filter(|(key, _)| key.0 == lane).map(|(_, window)| window) {
            window.read_to = if window.more { window.read_to.min(before) } else { before };
            window.more = true;
        }
    }

    fn insert(&mut self, row: ReadyRow) {
        let key = flow_key(&row);
        let recipient_key: RecipientKey = (row.lane, row.dest.as_str().into());
        let window = self.flows.entry(key.clone()).or_default();
        if self.calls.contains(&row.id) || window.rows.contains_key(&row.id) {
            return;
        }
        let id = row.id;
        window.rows.insert(id, row);
        let recipient = self.recipients.entry(recipient_key).or_default();
        if recipient.active == Some(Active::Held(id)) {
            recipient.active = None;
        }
        let head = recipient.waiting.first_key_value().map(|(id, key)| (*id, key.clone()));
        recipient.waiting.insert(id, key.clone());
        if recipient.active.is_some() {
            return;
        }
        match head {
            // Sendable already, unless the row that came back had blocked it.
            Some((head, head_flow)) if head < id => self.sendable(&head_flow, head),
            Some((head, head_flow)) => {
                if let Some(window) = self.flows.get_mut(&head_flow) {
                    window.sendable.remove(&head);
                }
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

    /// Takes the next row to send; its recipient is busy until [`Queue::settle`] or, after [`Queue::hold`], until
    /// the row comes back.
    pub fn next(&mut self, medium: Medium) -> Option<ReadyRow> {
        let streak = &mut self.streak[medium as usize];
        let order = if *streak >= HIGH_STREAK { [Lane::Bulk, Lane::High] } else { [Lane::High, Lane::Bulk] };
        let key = order.into_iter().find_map(|lane| self.turn(lane, medium))?;
        match key.0 {
            Lane::High => self.streak[medium as usize] = self.streak[medium as usize].saturating_add(1),
            Lane::Bulk => self.streak[medium as usize] = 0,
        }
        self.turns.insert((key.0, medium), key.2.clone());
        let window = self.flows.get_mut(&key)?;
        let id = window.sendable.pop_first()?;
        let row = window.rows.remove(&id)?;
        if let Some(recipient) = self.recipients.get_mut(&(row.lane, Arc::from(row.dest.as_str()))) {
            recipient.waiting.remove(&id);
            recipient.active = Some(Active::Call(id));
        }
        self.calls.insert(id);
        Some(row)
    }

    /// The flow of this lane and medium whose turn it is.
    fn turn(&self, lane: Lane, medium: Medium) -> Option<FlowKey> {
        let of_lane = |(key, window): (&FlowKey, &Window)| {
            (key.0 == lane && key.1 == medium && !window.sendable.is_empty()).then(|| key.clone())
        };
        let first = (lane, medium, Arc::from(""));
        let last = self.turns.get(&(lane, medium)).map(|last| (lane, medium, last.clone()));
        let after = last.and_then(|last| {
            self.flows
                .range((Excluded(last), Unbounded))
                .take_while(|(key, _)| key.0 == lane && key.1 == medium)
                .find_map(of_lane)
        });
        after.or_else(|| {
            self.flows
                .range(first..)
                .take_while(|(key, _)| key.0 == lane && key.1 == medium)
                .find_map(of_lane)
        })
    }

    /// Whether [`Queue::next`] would find a row.
    pub fn has_next(&self, medium: Medium) -> bool {
        self.flows.iter().any(|(key, window)| key.1 == medium && !window.sendable.is_empty())
    }

    /// The row is done with, whatever became of it; its recipient's next row may go.
    pub fn settle(&mut self, lane: Lane, dest: &str, id: MessageId) {
        self.calls.remove(&id);
        let key: RecipientKey = (lane, dest.into());
        let Some(recipient) = self.recipients.get_mut(&key) else { return };
        if !matches!(recipient.active, Some(Active::Call(by) | Active::Held(by)) if by == id) {
            return;
        }
        recipient.active = None;
        match recipient.waiting.first_key_value().map(|(id, flow)| (*id, flow.clone())) {
            Some((next, flow)) => self.sendable(&flow, next),
            None => drop(self.recipients.remove(&key)),
        }
    }

    /// The row waits for its next try (or is claimed by another worker): its recipient's later rows wait behind it.
    pub fn hold(&mut self, lane: Lane, dest: &str, id: MessageId) {
        self.calls.remove(&id);
        let recipient = self.recipients.entry((lane, dest.into())).or_default();
        recipient.active = Some(Active::Held(id));
        if let Some((head, flow)) = recipient.waiting.first_key_value().map(|(id, flow)| (*id, flow.clone()))
            && let Some(window) = self.flows.get_mut(&flow)
        {
            window.sendable.remove(&head);
        }
    }

    /// Whether this row was taken and not settled.
    pub fn in_call(&self, id: MessageId) -> bool {
        self.calls.contains(&id)
    }

    /// Whether this recipient's later rows wait behind this row, which is not in hand.
    pub fn is_held_by(&self, lane: Lane, dest: &str, id: MessageId) -> bool {
        let recipient = self.recipients.get(&(lane, Arc::from(dest)));
        recipient.is_some_and(|recipient| recipient.active == Some(Active::Held(id)))
    }

    /// Whether every ready row of the lane has been read, as far as is known.
    pub fn caught_up(&self, lane: Lane) -> bool {
        !self.flows.iter().any(|(key, window)| key.0 == lane && window.more)
    }

    /// Reads that would fill windows that run low; each is asked for once until it is answered.
    pub fn reads(&mut self, line: LineId, window_size: impl Fn(Medium) -> usize) -> Vec<FlowRead> {
        let mut reads = Vec::new();
        for ((lane, medium, campaign), window) in &mut self.flows {
            let size = window_size(*medium);
            let low = window.sendable.len() * 2 <= size && window.rows.len() < MAX_BLOCKED;
            if window.more && !window.reading && low {
                window.reading = true;
                reads.push(FlowRead {
                    flow: Flow { line, lane: *lane, medium: *medium, campaign: campaign.to_string() },
                    after: window.read_to.unwrap_or(MessageId(0)),
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
            && self.flows.values().all(|window| window.rows.is_empty() && !window.more && !window.reading)
    }

    /// Forgets flows that are empty and read to their end, such as those of finished campaigns.
    pub fn forget_empty_flows(&mut self) {
        self.flows.retain(|_, window| !window.rows.is_empty() || window.more || window.reading);
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
