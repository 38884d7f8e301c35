//! Rows of the bulk lane that go first, as their recipients' windows close before the backlog would reach them; and
//! recipients that Graph said a moment ago cannot be reached.
//!
//! A row that a look found far behind the place its flow is read to is taken into hand alone. Its work is then partly in
//! hand: the flow reads the work again when its turn comes, and finds the row ended, or still in hand.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::flow::{FlowKey, flow_key};
use super::rows::LineQueue;
use super::window::Window;
use crate::channel::Medium;
use crate::domain::{Lane, LineId, RowId, WorkId};
use crate::store::{ClosingCursor, ClosingRow, ClosingRows, Flow, ReadyRow};

/// Rows of a line that go first at most; a look finds the others when these have gone.
const MAX_FIRST: usize = 512;

/// The rows of a line that go first, and the next look for more.
#[derive(Default)]
pub(super) struct Closing {
    /// By the end of the window.
    waiting: BTreeSet<(Instant, RowId)>,
    closes: HashMap<RowId, (Instant, FlowKey)>,
    /// Rows in hand without the rest of their work.
    alone: HashSet<RowId>,
    /// The flow looked at last, and the place to go on from.
    looked_at: Option<FlowKey>,
    reached: Option<ClosingCursor>,
    is_looking: bool,
}

/// Recipients that cannot be reached, of the last two turns: reads that are under way may not show it.
#[derive(Default)]
pub(super) struct LatelyUnreachable {
    now: HashSet<Arc<str>>,
    before: HashSet<Arc<str>>,
}

impl LatelyUnreachable {
    fn note(&mut self, dest: &str) {
        self.now.insert(dest.into());
    }

    pub fn has(&self, dest: &str) -> bool {
        self.now.contains(dest) || self.before.contains(dest)
    }

    pub fn turn(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

impl Closing {
    fn goes_first(&mut self, id: RowId, closes: Instant, flow: FlowKey) {
        if let Some((before, _)) = self.closes.insert(id, (closes, flow)) {
            self.waiting.remove(&(before, id));
        }
        self.waiting.insert((closes, id));
    }

    /// Return the rows that go first, by the ends of the windows.
    pub fn first(&self) -> impl Iterator<Item = (RowId, &FlowKey)> {
        self.waiting.iter().filter_map(|(_, id)| self.closes.get(id).map(|(_, flow)| (*id, flow)))
    }

    /// Record that the row was taken for a call.
    pub fn taken(&mut self, id: RowId) {
        if let Some((closes, _)) = self.closes.get(&id) {
            self.waiting.remove(&(*closes, id));
        }
    }

    /// Record that the row waits again, if it went first before.
    pub fn returned(&mut self, id: RowId) {
        if let Some((closes, _)) = self.closes.get(&id) {
            self.waiting.insert((*closes, id));
        }
    }

    /// Forget a row that is not in hand any more.
    pub fn left(&mut self, id: RowId) {
        self.alone.remove(&id);
        if let Some((closes, _)) = self.closes.remove(&id) {
            self.waiting.remove(&(closes, id));
        }
    }

    /// Forget the rows that are not in hand any more.
    pub fn keep(&mut self, is_in_hand: impl Fn(RowId) -> bool) {
        let gone: Vec<RowId> = self.closes.keys().copied().filter(|id| !is_in_hand(*id)).collect();
        gone.into_iter().for_each(|id| self.left(id));
    }

    pub fn is_alone(&self, id: RowId) -> bool {
        self.alone.contains(&id)
    }

    /// Record that the row's work has been read, and the row is in hand with it.
    pub fn joined(&mut self, id: RowId) {
        self.alone.remove(&id);
    }
}

impl LineQueue {
    /// Return the next look for rows that have to go first: a flow of the bulk lane that is not sent within two seconds, the
    /// row behind which to look, and the place to go on from. Flows take turns. `None` while a look is under way, or enough
    /// rows go first.
    pub fn closing_look(
        &mut self,
        line: LineId,
        per_second: impl Fn(Medium) -> usize,
    ) -> Option<(Flow, RowId, Option<ClosingCursor>)> {
        if self.closing.is_looking || self.closing.closes.len() * 2 > MAX_FIRST || !self.memory.has_room() {
            return None;
        }
        let is_long = |key: &FlowKey, window: &Window| {
            key.0 == Lane::Bulk && (window.more || window.rows.len() > 2 * per_second(key.1))
        };
        let long: Vec<&FlowKey> =
            self.flows.iter().filter(|(key, window)| is_long(key, window)).map(|(key, _)| key).collect();
        let last = self.closing.looked_at.as_ref();
        let goes_on = self.closing.reached.is_some() && last.is_some_and(|last| long.contains(&last));
        let behind = || long.iter().copied().find(|key| last.is_none_or(|last| *key > last));
        let next = if goes_on { last } else { behind().or_else(|| long.first().copied()) };
        let key = next?.clone();
        let after = self.flows.get(&key).map_or(RowId(-1), Window::before_first);
        let from = self.closing.reached.take().filter(|_| goes_on);
        let (lane, medium, campaign) = &key;
        let flow = Flow { line, lane: *lane, medium: *medium, campaign: campaign.to_string() };
        self.closing.is_looking = true;
        self.closing.looked_at = Some(key);
        Some((flow, after, from))
    }

    /// Let the rows that a look has found go first.
    pub fn closing_found(&mut self, found: ClosingRows) {
        self.closing.is_looking = false;
        self.closing.reached = found.reached;
        for ClosingRow { row, closes } in found.rows {
            if self.closing.closes.len() >= MAX_FIRST || !self.memory.has_room() {
                return;
            }
            self.go_first(row, closes);
        }
    }

    fn go_first(&mut self, row: ReadyRow, closes: Instant) {
        let (id, work, key) = (row.id, row.work, flow_key(&row));
        if self.calls.contains(&id) || self.ledger.is_refused(id) {
            return;
        }
        if self.ledger.holds(id) {
            self.closing.goes_first(id, closes, key);
            return;
        }
        if self.is_foreign(id, row.fence) || self.ended.is_stale(&row) {
            return;
        }
        self.insert(row);
        self.ledger.leaves_behind(work);
        if self.ledger.holds(id) {
            self.closing.alone.insert(id);
            self.closing.goes_first(id, closes, key);
        } else {
            // Read past: the recipient has too many rows.
            self.ledger.close_if_empty(work);
        }
    }

    /// Return the row of this medium that goes first, if any can be sent.
    pub(super) fn first_to_close(&self, medium: Medium, avoided: Option<RowId>) -> Option<(FlowKey, RowId)> {
        self.closing.first().find_map(|(id, key)| {
            let is_sendable = || self.flows.get(key).is_some_and(|window| window.sendable.contains(&id));
            (key.1 == medium && avoided != Some(id) && is_sendable()).then(|| (key.clone(), id))
        })
    }

    /// Let go of a row that is in hand without its work, instead of reading that: rows between would be overtaken.
    pub(super) fn let_go(&mut self, row: &ReadyRow) {
        // If the flow is past the work by now, a scan has it read again.
        if let Some(window) = self.flows.get_mut(&flow_key(row)) {
            window.missed = true;
        }
        self.calls.remove(&row.id);
        self.closing.left(row.id);
        self.ledger.drop_row(row.id);
        self.ledger.close_if_empty(row.work);
        self.free(row.lane, &row.dest, row.id);
    }

    /// Record that the recipient cannot be reached: rows in hand, and rows that are being read, are not sent.
    pub fn cannot_reach(&mut self, dest: &str) {
        self.unreachable.note(dest);
        for lane in [Lane::High, Lane::Bulk] {
            let Some(recipient) = self.recipients.get(&(lane, Arc::from(dest))) else { continue };
            for (id, key) in &recipient.waiting {
                if let Some(row) = self.flows.get_mut(key).and_then(|window| window.rows.get_mut(id)) {
                    row.contact.is_unreachable = true;
                }
            }
        }
    }

    /// Record that a row was ended because of its recipient. Return its work if that has ended with it.
    pub fn withheld(&mut self, row: &ReadyRow) -> Option<WorkId> {
        self.ended_with(row.id, row.fence + 1);
        self.end(row.lane, &row.dest, row.id)
    }
}
