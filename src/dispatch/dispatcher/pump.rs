//! Pumps the lines concerned: deals out permits, and carries out the actions of lines.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::event_loop::Dispatcher;
use crate::dispatch::line::{Line, LineActions, PermitBudget};
use crate::dispatch::send::call_deadline;
use crate::dispatch::tasks::reader::Request;
use crate::dispatch::tasks::recorder::Entry;
use crate::domain::{Lane, LineId, RowId};
use crate::graph::Host;
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
        if !self.breakers.are_closed() {
            self.breakers.count_reserved(self.lines.values().map(|line| (line.host(), line.reserved())));
        }
        if self.breakers.are_tried() {
            self.pump_texts(now);
        }
        self.pump_fresh(now);
        // Lines that wait for permits go first, the longest waiting before the others.
        for _ in 0..self.hungry.len().min(self.spare_permits()) {
            if !self.pump_hungriest(now, true) {
                break;
            }
        }
        for id in std::mem::take(&mut self.dirty) {
            self.pump_line(id, now, true);
        }
    }

    /// Pump the texts of all lines before any media, while calls are tried one by one.
    fn pump_texts(&mut self, now: Instant) {
        for _ in 0..self.hungry.len() {
            if self.spare_permits() == 0 {
                return;
            }
            if !self.pump_hungriest(now, false) {
                break;
            }
        }
        for id in std::mem::take(&mut self.dirty) {
            self.pump_line(id, now, false);
        }
    }

    /// Pump the line that has waited longest, of the lines that may call although the breaker holds the
    /// others back.
    fn pump_fresh(&mut self, now: Instant) {
        for host in Host::ALL {
            let breaker = self.breakers.of(host);
            if !breaker.lets_fresh_out() {
                continue;
            }
            let first = self.hungry.iter().position(|id| self.host(*id) == host && breaker.lets_out(*id));
            if let Some(id) = first.and_then(|first| self.hungry.remove(first)) {
                self.is_hungry.remove(&id);
                self.dirty.remove(&id);
                self.pump_line(id, now, true);
            }
        }
    }

    /// Pump the line that has waited longest for permits, of the lines whose host may be called. Return whether there
    /// was one.
    fn pump_hungriest(&mut self, now: Instant, media: bool) -> bool {
        let next = match self.breakers.are_closed() {
            true => self.hungry.pop_front(),
            false => {
                let first = self.hungry.iter().position(|id| self.breakers.room(self.host(*id)) > 0);
                first.and_then(|first| self.hungry.remove(first))
            }
        };
        let Some(id) = next else { return false };
        self.is_hungry.remove(&id);
        self.dirty.remove(&id);
        self.pump_line(id, now, media);
        true
    }

    /// Return the host that a line calls.
    fn host(&self, id: LineId) -> Host {
        self.lines.get(&id).map(Line::host).unwrap_or_default()
    }

    fn pump_line(&mut self, id: LineId, now: Instant, media: bool) {
        let horizon = (self.progress.latency() * 2).clamp(SHORTEST_HORIZON, LONGEST_HORIZON);
        let host = self.host(id);
        let spare = self.spare_permits();
        let free = spare.min(self.breakers.room(host));
        let is_let_out = self.breakers.of(host).lets_out(id);
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
        let before = line.reserved();
        if self.breakers.of(host).withholds(id) {
            line.abandon(&mut actions);
        }
        line.allow(self.budgets.allowance(id, now));
        line.pump(now, horizon, budget, &mut actions);
        let after = line.reserved();
        self.reserved = self.reserved - before + after;
        self.breakers.reserved_changed(host, before, after);
        if is_let_out && !actions.claims.is_empty() {
            self.breakers.of_mut(host).let_out(id, now.into_std());
        }
        if actions.wants_permits && self.is_hungry.insert(id) {
            self.hungry.push_back(id);
        }
        if actions.wants_budget {
            self.budgets.waits(id, now);
        }
        self.set_wake(id, actions.wake);
        for row in std::mem::take(&mut actions.claims) {
            self.budgets.spend(id, row.lane, now);
            let call_deadline = call_deadline(self.send_context.graph.total_timeout(row.kind));
            let digest = Some(digest(row.account, id, &row.dest, &row.mdata));
            let in_campaign = row.cp_id.is_some();
            let claim = Claim { id: row.id, line: id, fence: row.fence, digest, in_campaign, call_deadline };
            self.entry(Entry::Claim { line: id, lane: row.lane, claim });
        }
        for read in std::mem::take(&mut actions.reads) {
            self.request(Request::Flow(read));
        }
        for order in std::mem::take(&mut actions.uploads) {
            // The receiver is gone only when the process ends.
            let _ = self.channels.uploads.send(order);
        }
        for call in std::mem::take(&mut actions.calls) {
            self.begin(call);
        }
        self.carry_out(actions);
    }

    /// Record the changes that lines ask for, and remember the rows that come back.
    pub(super) fn carry_out(&mut self, actions: LineActions) {
        let lanes: HashMap<RowId, Lane> =
            actions.returned.iter().chain(&actions.withheld).map(|row| (row.id, row.lane)).collect();
        for (change, waiter) in actions.changes {
            let lane = lanes.get(&change.id).copied().unwrap_or(Lane::Bulk);
            self.entry(Entry::Change { change, lane, waiter });
        }
        for row in actions.returned {
            self.returning.insert(row.id, row);
        }
        for row in actions.withheld {
            self.withheld.insert(row.id, row);
        }
    }

    /// Return the number of free permits.
    fn spare_permits(&self) -> usize {
        self.options.concurrency.saturating_sub(self.reserved + self.in_flight.len())
    }
}
