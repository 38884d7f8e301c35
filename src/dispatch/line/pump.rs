//! The actions that are due: claims to request, calls to begin, rows to end or to give back, work to read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::actions::{LineActions, PermitBudget, PlannedCall};
use super::actor::Line;
use super::allowance::Choice;
use super::pacing::PendingCall;
use super::sender::Sender;
use crate::channel::Medium;
use crate::domain::ErrorKind;
use crate::store::{Change, ChangeKind, ReadyRow};

/// A claimed row is given back if its call has not begun this long after the request of the claim:
/// `call_deadline` allows for two seconds.
const CLAIM_STALE_AFTER: Duration = Duration::from_millis(1_500);

/// The rest of a line that has ended as many rows as it may.
pub(super) const END_LIMIT_PAUSE: Duration = Duration::from_millis(10);

impl Line {
    /// Return the actions that are due now. `horizon`: the time that a claim takes to commit, with a margin.
    pub fn pump(
        &mut self,
        now: Instant,
        horizon: Duration,
        mut budget: PermitBudget,
        actions: &mut LineActions,
    ) {
        let Some(sender) = self.sender() else {
            self.give_back(|_| true, actions);
            return;
        };
        if let Some(until) = self.paused_until(now) {
            self.give_back(|_| true, actions);
            actions.wake = Some(until);
            return;
        }
        if let Some(until) = self.standing.rests_until(now) {
            self.give_back(|_| true, actions);
            actions.wake = Some(until);
            return;
        }
        let is_busy = self.standing.is_busy();
        let is_stale = |pending: &PendingCall| is_busy || now >= pending.asked + CLAIM_STALE_AFTER;
        self.give_back(|pending| is_stale(pending) || pending.row.account != sender.account, actions);
        for medium in [Medium::Text, Medium::Media] {
            self.begin_calls(medium, now, &sender, actions);
            self.ask_claims(medium, now, horizon, &sender, &mut budget, actions);
        }
        self.look_at_assets(&sender, now, actions);
        let (text, media) = (self.window(Medium::Text), self.window(Medium::Media));
        actions.reads = self.queue.reads(self.id, |medium| if medium == Medium::Text { text } else { media });
    }

    /// Hand claimed rows to their calls, as the limiter allows; in a trial only one.
    fn begin_calls(&mut self, medium: Medium, now: Instant, sender: &Sender, actions: &mut LineActions) {
        while !self.standing.is_busy() {
            let pacing = self.pacing_mut(medium);
            let Some(pacer) = pacing.pacer.as_ref().filter(|_| !pacing.claimed.is_empty()) else { return };
            if let Err(wait) = pacer.check() {
                sooner(&mut actions.wake, now + wait);
                return;
            }
            let Some(pending) = pacing.claimed.pop_front() else { return };
            pacing.last_call = Some(now);
            pacing.calling += 1;
            self.standing.call_begun(pending.row.id);
            let attachment_id = self.attachment_of(&pending.row, sender, now);
            actions.calls.push(PlannedCall {
                attachment_id,
                row: Arc::new(pending.row),
                sender: sender.clone(),
                expires: pending.expires,
                begun: now,
            });
        }
    }

    /// Request claims of the rows whose calls are due within the horizon.
    fn ask_claims(
        &mut self,
        medium: Medium,
        now: Instant,
        horizon: Duration,
        sender: &Sender,
        budget: &mut PermitBudget,
        actions: &mut LineActions,
    ) {
        while self.queue.has_next(medium) {
            let due = self.pacing(medium).next_due(now);
            if due > now + horizon {
                sooner(&mut actions.wake, due - horizon);
                return;
            }
            // The end of a trial, or of its call, makes the line look again.
            if self.standing.room(self.reserved()) == 0 {
                return;
            }
            let Some(choice) = self.choice(medium, actions) else { return };
            let held = match medium {
                Medium::Text => self.permits(),
                Medium::Media => self.media.permits(),
            };
            if !budget.take(held, medium) {
                actions.wants_permits = true;
                return;
            }
            let next = match choice {
                Choice::Any => self.queue.next(medium),
                Choice::High => self.queue.next_high(medium),
            };
            let Some(row) = next else { return };
            let left = Duration::try_from(row.valid_for).unwrap_or_default();
            let is_lost = left.is_zero() || row.account != sender.account;
            let withheld = row.contact.withholds(now.into_std());
            if is_lost || withheld.is_some() {
                budget.give_back();
                match withheld.filter(|_| !is_lost) {
                    Some(kind) => withhold(row, kind, actions),
                    None => self.end_unsent(row, left.is_zero(), actions),
                }
                budget.ends = budget.ends.saturating_sub(1);
                if budget.ends == 0 {
                    sooner(&mut actions.wake, now + END_LIMIT_PAUSE);
                    return;
                }
                continue;
            }
            if let Some(obstacle) = self.asset_obstacle(&row, sender, now, actions) {
                budget.give_back();
                if self.keep_for_asset(row, obstacle, now, budget, actions) {
                    continue;
                }
                return;
            }
            self.pacing_mut(medium).claiming += 1;
            self.take_allowance();
            actions.claims.push(row.clone());
            self.claiming.insert(row.id, PendingCall { expires: now + left, asked: now, row });
        }
    }

    /// Return the number of rows of a flow to keep in hand: a second's worth, within bounds.
    fn window(&self, medium: Medium) -> usize {
        (self.pacing(medium).limit.get() as usize).clamp(16, 256)
    }

    /// End a row without a call: the row has expired, or its line has another owner by now.
    fn end_unsent(&mut self, row: ReadyRow, is_expired: bool, actions: &mut LineActions) {
        let kind = if is_expired { ChangeKind::Expire } else { ChangeKind::Unsendable };
        actions.changes.push((Change::waiting(row.id, row.fence, kind), row.waiter));
        self.queue.ended_with(row.id, row.fence + 1);
        self.queue.end_without_call(row.lane, &row.dest, row.id);
    }

    /// Give back claimed rows whose call cannot begin.
    fn give_back(&mut self, cannot_begin: impl Fn(&PendingCall) -> bool, actions: &mut LineActions) {
        for medium in [Medium::Text, Medium::Media] {
            let (back, kept): (VecDeque<PendingCall>, VecDeque<PendingCall>) =
                std::mem::take(&mut self.pacing_mut(medium).claimed).into_iter().partition(&cannot_begin);
            self.pacing_mut(medium).claimed = kept;
            for pending in back {
                let row = pending.row;
                self.queue.hold(row.lane, &row.dest, row.id);
                actions.changes.push((Change::release(row.id, row.fence), None));
                actions.returned.push(ReadyRow { attempts: row.attempts - 1, ..row });
            }
        }
    }

    /// Give back claimed rows whose calls have not begun, because this process stops or no longer owns the
    /// line. Claims that are not committed yet are given back when they are answered.
    pub fn abandon(&mut self, actions: &mut LineActions) {
        self.give_back(|_| true, actions);
    }
}

/// End a row without a call because of its recipient, if the log agrees. The row counts as taken until that is known.
fn withhold(row: ReadyRow, kind: ErrorKind, actions: &mut LineActions) {
    let change = Change::waiting(row.id, row.fence, ChangeKind::Withheld { kind });
    actions.changes.push((change, row.waiter.clone()));
    actions.withheld.push(row);
}

pub(super) fn sooner(wake: &mut Option<Instant>, at: Instant) {
    *wake = Some(wake.map_or(at, |known| known.min(at)));
}
