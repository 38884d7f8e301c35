//! Pumps the lines concerned: deals out permits, and carries out the actions of lines.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::dispatch::line::{LineActions, PermitBudget};
use crate::dispatch::send::call_deadline;
use crate::dispatch::tasks::reader::Request;
use crate::dispatch::tasks::recorder::Entry;
use crate::domain::{BreakerState, Lane, LineId, RowId};
use crate::store::{Claim, digest};

/// The shortest time ahead of its call that a row is claimed; slow commits lengthen it.
const SHORTEST_HORIZON: Duration = Duration::from_millis(15);
const LONGEST_HORIZON: Duration = Duration::from_secs(1);

/// Rows that a line may end at once without sending them; only one while this many entries wait for the log,
/// so that claims and results do not wait behind a campaign that has expired.
const ENDED_AT_ONCE: usize = 64;
const MANY_ENTRIES: usize = 1_000;

impl Dispatcher {
    pub(super) fn pump(&mut self) {
        let now = Instant::now();
        if !self.send_until.allows_any(now) || self.progress.is_stalled() {
            return;
        }
        if matches!(self.breaker.state(), BreakerState::Stalled | BreakerState::HalfOpen) {
            self.pump_texts(now);
        }
        self.pump_fresh(now);
        // Lines that wait for permits go first, the longest waiting before the others.
        for _ in 0..self.hungry.len().min(self.free_permits()) {
            self.pump_hungriest(now, true);
        }
        for id in std::mem::take(&mut self.dirty) {
            self.pump_line(id, now, true);
        }
    }

    /// Pump the texts of all lines before any media, while calls are tried one by one.
    fn pump_texts(&mut self, now: Instant) {
        for _ in 0..self.hungry.len() {
            if self.free_permits() == 0 {
                return;
            }
            self.pump_hungriest(now, false);
        }
        for id in std::mem::take(&mut self.dirty) {
            self.pump_line(id, now, false);
        }
    }

    /// Pump the line that has waited longest, of the lines that may call although the breaker holds the
    /// others back.
    fn pump_fresh(&mut self, now: Instant) {
        if !self.breaker.lets_fresh_out() {
            return;
        }
        let first = self.hungry.iter().position(|id| self.breaker.lets_out(*id));
        if let Some(id) = first.and_then(|first| self.hungry.remove(first)) {
            self.is_hungry.remove(&id);
            self.dirty.remove(&id);
            self.pump_line(id, now, true);
        }
    }

    /// Pump the line that has waited longest for permits.
    fn pump_hungriest(&mut self, now: Instant, media: bool) {
        if let Some(id) = self.hungry.pop_front() {
            self.is_hungry.remove(&id);
            self.dirty.remove(&id);
            self.pump_line(id, now, media);
        }
    }

    fn pump_line(&mut self, id: LineId, now: Instant, media: bool) {
        let horizon = (self.progress.latency() * 2).clamp(SHORTEST_HORIZON, LONGEST_HORIZON);
        let (spare, free) = (self.spare_permits(), self.free_permits());
        let is_let_out = self.breaker.lets_out(id);
        let budget = PermitBudget {
            spare,
            room: if is_let_out { spare.min(1) } else { free },
            media,
            ends: if self.progress.waiting() < MANY_ENTRIES { ENDED_AT_ONCE } else { 1 },
        };
        if !self.send_until.allows(id.partition(), now) {
            return;
        }
        let Some(line) = self.lines.get_mut(&id) else { return };
        let mut actions = LineActions::default();
        self.reserved -= line.reserved();
        if self.breaker.withholds(id) {
            line.abandon(&mut actions);
        }
        line.pump(now, horizon, budget, &mut actions);
        self.reserved += line.reserved();
        if is_let_out && !actions.claims.is_empty() {
            self.breaker.let_out(id, now.into_std());
        }
        if actions.wants_permits && self.is_hungry.insert(id) {
            self.hungry.push_back(id);
        }
        self.set_wake(id, actions.wake);
        for row in std::mem::take(&mut actions.claims) {
            let call_deadline = call_deadline(self.send_context.graph.total_timeout(row.kind));
            let digest = Some(digest(row.account, id, &row.dest, &row.mdata));
            let in_campaign = row.cp_id.is_some();
            let claim = Claim { id: row.id, line: id, fence: row.fence, digest, in_campaign, call_deadline };
            self.entry(Entry::Claim { line: id, lane: row.lane, claim });
        }
        for read in std::mem::take(&mut actions.reads) {
            self.request(Request::Flow(read));
        }
        for call in std::mem::take(&mut actions.calls) {
            self.begin(call);
        }
        self.carry_out(actions);
    }

    /// Record the changes that lines ask for, and remember the rows that come back.
    pub(super) fn carry_out(&mut self, actions: LineActions) {
        let lanes: HashMap<RowId, Lane> = actions.returned.iter().map(|row| (row.id, row.lane)).collect();
        for (change, waiter) in actions.changes {
            let lane = lanes.get(&change.id).copied().unwrap_or(Lane::Bulk);
            self.entry(Entry::Change { change, lane, waiter });
        }
        for row in actions.returned {
            self.returning.insert(row.id, row);
        }
    }

    /// Return the number of free permits.
    fn spare_permits(&self) -> usize {
        self.options.concurrency.saturating_sub(self.reserved + self.in_flight.len())
    }

    /// Return the number of free permits that the breaker lets out.
    fn free_permits(&self) -> usize {
        self.spare_permits().min(self.breaker.room(self.reserved))
    }
}
