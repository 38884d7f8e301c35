//! How work comes into hand: announced by a job, read by its number, or read along its flow; and when more is to be read.

use super::window::Window;
use super::{Queue, flow_key, key_of};
use crate::message::{LineId, Medium, WorkId};
use crate::store::{Flow, FlowPage, FlowRead, Position, WorkHead, WorkRead};

/// Rows a flow may hold that cannot be sent because their recipients are busy. Beyond it the flow is not read further
/// until some of them are gone.
const MAX_BLOCKED: usize = 2_000;
/// Announced rows a flow holds at most; those beyond are read when their turn comes.
pub(super) const MAX_OFFERED: usize = 512;

impl Queue {
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
            window.told |= window.reading;
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

    /// Work was announced while a scan of its partition was under way: its flow is read once that has ended.
    pub fn told(&mut self, head: &WorkHead) {
        if self.ledger.knows(head.position.work) {
            return;
        }
        let window = self.flows.entry(key_of(&head.flow)).or_default();
        window.told = true;
        if window.read_to >= Some(head.position) {
            window.read_to = None;
        }
    }

    /// The scan has ended.
    pub fn scanned(&mut self) {
        for window in self.flows.values_mut().filter(|window| window.told && !window.reading) {
            window.told = false;
            window.more = true;
        }
    }

    /// Announced work is being read.
    pub fn asked(&mut self, work: WorkId) {
        self.asked.insert(work);
    }

    /// Work that was asked for could not be read. Its flow is not known: all are read anew, or later work would go first.
    pub fn unread(&mut self, work: WorkId) {
        self.asked.remove(&work);
        self.flows.values_mut().for_each(Window::rewind);
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
            window.more = page.more || window.told;
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

    /// A scan found work, the flow's first. If it is not in hand, the flow is read again from its beginning. `is_first`: the scan
    /// was waited for, as work behind the first may be there of which no job told.
    pub fn found(&mut self, flow: &Flow, first: Position, is_first: bool) {
        let is_known = self.ledger.knows(first.work);
        let window = self.flows.entry(key_of(flow)).or_default();
        if std::mem::take(&mut window.missed) || !is_known {
            window.rewind();
        } else if is_first {
            window.told = window.reading;
            window.more = true;
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
                window.told = false;
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
