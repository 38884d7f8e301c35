//! Brings work into hand: announced by a job, read by its number, or read along its flow; and decides when to
//! read more.

use super::flow::{flow_key, key_of};
use super::rows::LineQueue;
use super::window::Window;
use crate::channel::Medium;
use crate::domain::{LineId, WorkId};
use crate::store::{Flow, FlowPage, FlowRead, Position, WorkHead, WorkRead};

/// Rows of a flow in hand that may wait for busy recipients. A flow with more is not read further until some
/// of them are gone.
const MAX_BLOCKED: usize = 2_000;
/// Announced rows that a flow holds at most; further ones are read when their turn comes.
pub(super) const MAX_OFFERED: usize = 512;

impl LineQueue {
    /// Whether announced work is to be read at once. The answer is no for work that its flow reaches later,
    /// in order, for work that is in hand, and while the line cannot send (`may_read` is false) or memory is
    /// full: its flow reaches it later.
    pub fn announced(&mut self, head: &WorkHead, may_read: bool) -> bool {
        if self.ledger.knows(head.position.work) {
            return false;
        }
        let has_memory = self.memory.has_room();
        let window = self.flows.entry(key_of(&head.flow)).or_default();
        let is_ahead = window.read_to < Some(head.position);
        // Rows that come back free others: without them memory might never be freed.
        let frees_others = !is_ahead && window.sendable.is_empty();
        let has_room = may_read && (has_memory || frees_others);
        if window.more && is_ahead {
            window.has_news |= window.reading;
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

    /// Note work that was announced during a scan of its partition: its flow is read after the scan.
    pub fn note_news(&mut self, head: &WorkHead) {
        if self.ledger.knows(head.position.work) {
            return;
        }
        let window = self.flows.entry(key_of(&head.flow)).or_default();
        window.has_news = true;
        if window.read_to >= Some(head.position) {
            window.read_to = None;
        }
    }

    /// Record that the scan has ended.
    pub fn scanned(&mut self) {
        for window in self.flows.values_mut().filter(|window| window.has_news && !window.reading) {
            window.has_news = false;
            window.more = true;
        }
    }

    /// Record that announced work is being read.
    pub fn asked(&mut self, work: WorkId) {
        self.asked.insert(work);
    }

    /// Record that requested work could not be read. Its flow is not known: all flows are read anew, or later
    /// work would go first.
    pub fn unread(&mut self, work: WorkId) {
        self.asked.remove(&work);
        self.flows.values_mut().for_each(Window::rewind);
    }

    /// Whether announced work is being read: work announced later waits its turn.
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Add work that was read by its number: `None` if it has ended, or its campaign does not run. Return the
    /// work that has ended according to the reading.
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
                // The flow of the work is not known.
                self.flows.values_mut().for_each(|window| window.missed = true);
                self.forget_work(work);
                None
            }
        }
    }

    /// Add the result of a [`FlowRead`]. Return the work that has ended according to the reading.
    pub fn read_flow(&mut self, read: &FlowRead, page: FlowPage) -> Vec<WorkId> {
        let window = self.flows.entry(key_of(&read.flow)).or_default();
        window.reading = false;
        // The flow was rewound meanwhile: the next read begins at the beginning.
        if window.read_to == read.after {
            window.more = page.more || window.has_news;
            window.reached(page.work.last().map(|work| work.position));
        }
        page.work.into_iter().filter_map(|work| self.take_in(work)).collect()
    }

    /// Record that a read failed: it is requested again.
    pub fn read_failed(&mut self, flow: &Flow) {
        if let Some(window) = self.flows.get_mut(&key_of(flow)) {
            window.reading = false;
        }
    }

    /// Record a flow's first work, which a scan found. If it is not in hand, the flow is read again from its
    /// beginning. `is_first`: the line waited for the scan, as work that no job named may follow the first.
    pub fn found(&mut self, flow: &Flow, first: Position, is_first: bool) {
        let is_known = self.ledger.knows(first.work);
        let window = self.flows.entry(key_of(flow)).or_default();
        if std::mem::take(&mut window.missed) || !is_known {
            window.rewind();
        } else if is_first {
            window.has_news = window.reading;
            window.more = true;
        }
    }

    /// Take the rows of the work into hand, also those that were refused or given back; return the work if no
    /// row is left.
    fn take_in(&mut self, read: WorkRead) -> Option<WorkId> {
        let work = read.position.work;
        let mut missing = self.ledger.refused_of(work);
        self.ledger.open(work);
        for row in read.rows {
            missing.remove(&row.id);
            self.closing.joined(row.id);
            let is_elsewhere = self.has(row.id) && !self.ledger.holds_of(work, row.id);
            if self.is_foreign(row.id, row.fence) || self.ended.is_stale(&row) {
                self.ledger.leaves_behind(work);
                self.flows.entry(flow_key(&row)).or_default().missed = true;
            } else if is_elsewhere && !self.ledger.is_refused(row.id) {
                // The row is in a call, or about to be, as other work brought it.
                self.ledger.leaves_behind(work);
            } else if self.ledger.is_refused(row.id) || !self.has(row.id) {
                self.insert(row);
            }
        }
        // The row was refused before and is not ready now: another process has ended it.
        for (id, (lane, dest)) in missing {
            self.ledger.drop_row(id);
            self.free(lane, &dest, id);
        }
        self.ledger.close_if_empty(work)
    }

    /// Take rows of work that has ended elsewhere, or may not be sent for now, out of hand, except those in a
    /// call. A scan finds the rest.
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

    /// Return the reads that fill windows which run low; each is requested once until it is answered.
    ///
    /// While memory is full, only flows with no row in hand are read, and a small part of them.
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
                window.has_news = false;
                reads.push(FlowRead {
                    flow: Flow { line, lane: *lane, medium: *medium, campaign: campaign.to_string() },
                    after: window.read_to,
                    limit: size as u32,
                });
            }
        }
        reads
    }
}
