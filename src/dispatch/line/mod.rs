//! The actor of one line: paces its calls, decides which rows to claim, and keeps its pauses.
//!
//! Pace first, claim last: a row is claimed when a permit is free and its call is due within the time that a
//! claim takes to commit. The limiter is asked again when the claimed row is handed to the connection, so
//! that a slow commit cannot bunch calls. Never here: I/O. [`Line::pump`] returns the actions, the dispatcher
//! carries them out.

mod actions;
mod pacing;
mod pauses;
mod standing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::memory::RowMemory;
use super::queue::LineQueue;
use crate::channel::Rates;
use crate::channel::{Class, Medium};
use crate::domain::{AccountId, Lane, LineId, RowId, WorkId};
use crate::policy::classify::Subject;
use crate::policy::pace::{Limits, PauseBackoff};
use crate::settings::{ClassLimits, LimitSettings};
use crate::store::{Change, ChangeKind, HeldRecipient, LineRecord, ReadyRow};
pub use actions::{LineActions, PermitBudget, PlannedCall};
use pacing::{MediumPacing, PendingCall};
use pauses::{Demanded, is_refusal};
use standing::Standing;
pub use standing::{EndedCall, Suspect};

/// A claimed row is given back if its call has not begun this long after the request of the claim:
/// `call_deadline` allows for two seconds.
const CLAIM_STALE_AFTER: Duration = Duration::from_millis(1_500);

/// A line that sent is remembered this long, with the state of its limiters and pauses.
const IDLE_LINE_TTL: Duration = Duration::from_secs(120);

/// The beginning of the reason of a pause that an answer of Graph demanded, and no operator.
pub const GRAPH_PAUSE_PREFIX: &str = "Graph: ";

/// The rest of a line that has ended as many rows as it may.
const END_LIMIT_PAUSE: Duration = Duration::from_millis(10);

/// One line of a partition this process owns.
pub struct Line {
    pub id: LineId,
    pub queue: LineQueue,
    config: Option<Config>,
    /// A pause that this process demanded and the line's record may not show yet.
    local_pause: Option<Instant>,
    backoff: PauseBackoff,
    /// The last demanded pause.
    demanded: Option<Demanded>,
    standing: Standing,
    text: MediumPacing,
    media: MediumPacing,
    /// Rows claimed or about to be claimed, until their call begins.
    claiming: HashMap<RowId, PendingCall>,
}

/// The place of a row whose call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// The row has ended, or its outcome is not known.
    Ended,
    /// The row waits for its next try.
    Postponed,
    /// The row waits for its turn again.
    Returns,
}

/// The data that the calls of a line need.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The owner of the line. Rows of another account, logged before the line changed hands, are never sent
    /// from it.
    pub account: AccountId,
    pub class: Class,
    pub page_token: Arc<SecretString>,
    /// Page and Instagram account, as usage headers name them.
    pub subject: Arc<Subject>,
}

struct Config {
    sender: Option<Sender>,
    active: bool,
    paused_until: Option<Instant>,
}

impl Line {
    pub fn new(id: LineId, memory: RowMemory) -> Line {
        Line {
            id,
            queue: LineQueue::new(memory),
            config: None,
            local_pause: None,
            backoff: PauseBackoff::default(),
            demanded: None,
            standing: Standing::default(),
            text: MediumPacing::new(),
            media: MediumPacing::new(),
            claiming: HashMap::new(),
        }
    }

    /// Apply the line's record. A changed limit starts with a drained limiter, so that it cannot burst.
    /// Return whether the line's pause is to end: Graph demanded it of a page token that has been replaced
    /// since. `pause_written`: the record was read after a pause demanded here was written to it.
    pub fn configure(
        &mut self,
        record: &LineRecord,
        limits: &LimitSettings,
        pause_written: bool,
        now: Instant,
    ) -> bool {
        let ClassLimits { text, media } = limits.of(record.class);
        let limits = Limits::of(
            record.class,
            Rates { text, media },
            limits.enforce_ceilings,
            record.rate_text,
            record.rate_media,
        );
        for limit in [limits.text, limits.media] {
            if let (Some(asked), None) = (limit.clamped_from, &self.config) {
                tracing::warn!(line = %self.id, asked, ceiling = limit.per_second, "limit above Meta's ceiling: lowered to the ceiling");
            }
        }
        self.text.set_limit(limits.text.per_second);
        self.media.set_limit(limits.media.per_second);
        if pause_written {
            self.local_pause = None;
        }
        let is_first = self.config.is_none();
        let had = self.sender().map(|sender| sender.page_token.expose_secret().to_owned());
        self.config = Some(Config {
            sender: record.page_token.as_ref().filter(|token| !token.expose_secret().trim().is_empty()).map(
                |token| Sender {
                    account: record.account,
                    class: record.class,
                    page_token: Arc::new(token.clone()),
                    subject: Arc::new(Subject {
                        page_id: record.page_id.clone(),
                        instagram_account_id: record.instagram_account_id.clone(),
                    }),
                },
            ),
            active: record.active && record.account_active,
            paused_until: record.pause_left.map(|left| now + left.min(Duration::from_secs(365 * 86_400))),
        });
        let has = self.sender().map(|sender| sender.page_token.expose_secret().to_owned());
        let is_new = matches!((had, has), (Some(had), Some(has)) if had != has);
        let was_demanded =
            record.pause_reason.as_deref().is_some_and(|reason| reason.starts_with(GRAPH_PAUSE_PREFIX));
        let ends = is_new && was_demanded && self.paused_until(now).is_some();
        if ends {
            self.local_pause = None;
        }
        // The refusal came while another process had the line, or this one before a restart.
        if is_first
            && self.paused_until(now).is_some()
            && record.pause_reason.as_deref().is_some_and(is_refusal)
        {
            self.standing.begin_trial(now, false);
        }
        ends
    }

    /// Stop sending until the line's record, which is gone, is back.
    pub fn deconfigure(&mut self) {
        self.config = None;
    }

    /// Whether rows are read for the line: not while it is known that the line cannot send.
    pub fn may_read(&self, now: Instant) -> bool {
        self.config.is_none() || (self.sender().is_some() && self.paused_until(now).is_none())
    }

    /// Hold a recipient whose row is claimed elsewhere or waits for its next try.
    pub fn hold(&mut self, held: &HeldRecipient) {
        if !self.queue.in_call(held.by) {
            self.queue.hold(held.lane, &held.dest, held.by);
        }
    }

    /// Return the number of rows of a flow to keep in hand: a second's worth, within bounds.
    fn window(&self, medium: Medium) -> usize {
        (self.pacing(medium).limit.get() as usize).clamp(16, 256)
    }

    fn pacing(&self, medium: Medium) -> &MediumPacing {
        match medium {
            Medium::Text => &self.text,
            Medium::Media => &self.media,
        }
    }

    fn pacing_mut(&mut self, medium: Medium) -> &mut MediumPacing {
        match medium {
            Medium::Text => &mut self.text,
            Medium::Media => &mut self.media,
        }
    }

    /// Return the number of permits that the line holds: rows claimed, or about to be, and calls in flight.
    pub fn permits(&self) -> usize {
        self.text.permits() + self.media.permits()
    }

    fn sender(&self) -> Option<Sender> {
        self.config.as_ref().filter(|config| config.active).and_then(|config| config.sender.clone())
    }

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
            self.ask_claims(medium, now, horizon, sender.account, &mut budget, actions);
        }
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
            actions.calls.push(PlannedCall {
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
        account: AccountId,
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
            let held = match medium {
                Medium::Text => self.permits(),
                Medium::Media => self.media.permits(),
            };
            if !budget.take(held, medium) {
                actions.wants_permits = true;
                return;
            }
            let Some(row) = self.queue.next(medium) else { return };
            let left = Duration::try_from(row.valid_for).unwrap_or_default();
            if left.is_zero() || row.account != account {
                budget.give_back();
                self.end_unsent(row, left.is_zero(), actions);
                budget.ends = budget.ends.saturating_sub(1);
                if budget.ends == 0 {
                    sooner(&mut actions.wake, now + END_LIMIT_PAUSE);
                    return;
                }
                continue;
            }
            self.pacing_mut(medium).claiming += 1;
            actions.claims.push(row.clone());
            self.claiming.insert(row.id, PendingCall { expires: now + left, asked: now, row });
        }
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

    /// Record the answer to a claim, and return whether the claim was made. If not, the row's state changed,
    /// its campaign does not run, or the log is away: its work is read again, and its recipient waits for it.
    pub fn claim_answered(&mut self, id: RowId, made: bool) -> Option<bool> {
        let mut pending = self.claiming.remove(&id)?;
        let pacing = self.pacing_mut(pending.row.kind.medium());
        pacing.claiming -= 1;
        if made {
            pending.row.fence += 1;
            pending.row.attempts += 1;
            pacing.claimed.push_back(pending);
        } else {
            self.queue.refuse(&pending.row);
        }
        Some(made)
    }

    /// Return the open claims, with the fence that each row has if the claim is made.
    pub fn open_claims(&self) -> impl Iterator<Item = (RowId, (i32, Lane))> {
        self.claiming.values().map(|pending| (pending.row.id, (pending.row.fence + 1, pending.row.lane)))
    }

    /// Return the number of permits held for calls that have not begun.
    pub fn reserved(&self) -> usize {
        self.permits() - self.text.calling - self.media.calling
    }

    /// Record that a call ended. Return the work that ended with it.
    pub fn call_ended(&mut self, row: &ReadyRow, end: CallEnd) -> Option<WorkId> {
        // A line that was let go and came back meanwhile holds no permit for this call.
        if self.queue.in_call(row.id) {
            self.pacing_mut(row.kind.medium()).calling -= 1;
        }
        self.standing.call_ended(row.id);
        if end != CallEnd::Returns {
            self.queue.ended_with(row.id, row.fence);
        }
        match end {
            CallEnd::Ended => self.queue.end(row.lane, &row.dest, row.id),
            CallEnd::Postponed => self.queue.postpone(row.lane, &row.dest, row.id),
            CallEnd::Returns => {
                self.queue.hold(row.lane, &row.dest, row.id);
                None
            }
        }
    }

    /// Give back claimed rows whose calls have not begun, because this process stops or no longer owns the
    /// line. Claims that are not committed yet are given back when they are answered.
    pub fn abandon(&mut self, actions: &mut LineActions) {
        self.give_back(|_| true, actions);
    }

    /// Whether the line has no row in hand or in flight, and no state to remember.
    pub fn is_idle(&self, now: Instant) -> bool {
        let recent = [&self.text, &self.media]
            .into_iter()
            .any(|pacing| pacing.last_call.is_some_and(|last| now < last + IDLE_LINE_TTL));
        let is_known = !self.standing.is_clear() || self.paused_until(now).is_some();
        self.queue.is_idle() && self.permits() == 0 && !recent && !is_known
    }
}

fn sooner(wake: &mut Option<Instant>, at: Instant) {
    *wake = Some(wake.map_or(at, |known| known.min(at)));
}

#[cfg(test)]
mod tests;
