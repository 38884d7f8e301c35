//! The actor of one line: paces its calls, decides which rows to claim, and keeps its pauses.
//!
//! Pace first, claim last: a row is claimed when a permit is there and its call is due within the time a claim takes
//! to commit. The limiter is asked again when the claimed row is handed to the connection, so that a slow commit
//! cannot bunch calls. No I/O: [`Line::pump`] says what is to be done, the dispatcher does it.

mod steps;
mod track;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::memory::Memory;
use super::queue::Queue;
use crate::message::{AccountId, Class, Lane, LineId, Medium, MessageId, WorkId};
use crate::policy::classify::{PauseDemand, Subject};
use crate::policy::pace::{Limits, PauseLadder, Rates};
use crate::settings::{ClassLimits, LimitSettings};
use crate::store::{Change, ChangeKind, HeldRecipient, LineRecord, ReadyRow};
pub use steps::{Allowance, PlannedCall, Steps};
use track::{Due, Track};

/// A claimed row whose call has not begun this long after the claim was asked for is given back: `call_deadline`
/// allows for two seconds.
const CLAIM_STALE_AFTER: Duration = Duration::from_millis(1_500);

/// A line that sent is remembered this long, with the state of its limiters and pauses.
const REMEMBERED: Duration = Duration::from_secs(120);

/// How the reason of a pause begins that an answer of Graph demanded, and no operator.
pub const DEMANDED: &str = "Graph: ";

/// How long a line that has ended as many rows as it may looks for no more.
const REST: Duration = Duration::from_millis(10);

/// One line of a partition this process owns.
pub struct Line {
    pub id: LineId,
    pub queue: Queue,
    config: Option<Config>,
    /// A pause this process demanded and that the line's record may not show yet.
    local_pause: Option<Instant>,
    ladder: PauseLadder,
    /// The last pause that was demanded.
    demanded: Option<Demanded>,
    text: Track,
    media: Track,
    /// Rows claimed or about to be, until their call begins.
    claiming: HashMap<MessageId, Due>,
}

/// The place of a row whose call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    /// It has ended, or its outcome is not known.
    Ended,
    /// It waits for its next try.
    Postponed,
    /// It waits for its turn again.
    Returns,
}

/// What the calls of a line need to know.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Whose line it is. Rows of another account, logged before it changed hands, are never sent from it.
    pub account: AccountId,
    pub class: Class,
    pub page_token: Arc<SecretString>,
    /// Page and Instagram account, as usage headers name them.
    pub subject: Arc<Subject>,
}

/// A pause that was demanded of the line.
#[derive(Debug, Clone, Copy)]
struct Demanded {
    /// The first step of its kind.
    first: Duration,
    length: Duration,
    at: Instant,
}

struct Config {
    sender: Option<Sender>,
    active: bool,
    paused_until: Option<Instant>,
}

impl Line {
    pub fn new(id: LineId, memory: Memory) -> Line {
        Line {
            id,
            queue: Queue::new(memory),
            config: None,
            local_pause: None,
            ladder: PauseLadder::default(),
            demanded: None,
            text: Track::new(),
            media: Track::new(),
            claiming: HashMap::new(),
        }
    }

    /// Takes over the line's record. A changed limit starts with a drained limiter, so it cannot burst. Returns whether
    /// its pause is to be ended: Graph demanded it of a page token that has been replaced since.
    /// `pause_written`: the record was read after a pause demanded here was written to it.
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
        let was_demanded = record.pause_reason.as_deref().is_some_and(|reason| reason.starts_with(DEMANDED));
        let ends = is_new && was_demanded && self.paused_until(now).is_some();
        if ends {
            self.local_pause = None;
        }
        ends
    }

    /// The line's record is gone: nothing is sent until it is back.
    pub fn deconfigure(&mut self) {
        self.config = None;
    }

    /// Whether rows are read for it: not while it is known that it cannot send.
    pub fn may_read(&self, now: Instant) -> bool {
        self.config.is_none() || (self.sender().is_some() && self.paused_until(now).is_none())
    }

    /// A recipient with a row that is claimed elsewhere or waits for its next try.
    pub fn hold(&mut self, held: &HeldRecipient) {
        if !self.queue.in_call(held.by) {
            self.queue.hold(held.lane, &held.dest, held.by);
        }
    }

    /// Rows of a flow that are kept in hand: a second's worth, within bounds.
    fn window(&self, medium: Medium) -> usize {
        (self.track(medium).limit.get() as usize).clamp(16, 256)
    }

    fn track(&self, medium: Medium) -> &Track {
        match medium {
            Medium::Text => &self.text,
            Medium::Media => &self.media,
        }
    }

    fn track_mut(&mut self, medium: Medium) -> &mut Track {
        match medium {
            Medium::Text => &mut self.text,
            Medium::Media => &mut self.media,
        }
    }

    /// Permits the line holds: rows claimed, or about to be, and calls in flight.
    pub fn permits(&self) -> usize {
        self.text.permits() + self.media.permits()
    }

    /// When the line may send again, if not now.
    fn paused_until(&self, now: Instant) -> Option<Instant> {
        let recorded = self.config.as_ref().and_then(|config| config.paused_until);
        recorded.max(self.local_pause).filter(|until| *until > now)
    }

    fn sender(&self) -> Option<Sender> {
        self.config.as_ref().filter(|config| config.active).and_then(|config| config.sender.clone())
    }

    /// What is to be done now. `horizon`: how long a claim takes to commit, with a margin.
    pub fn pump(&mut self, now: Instant, horizon: Duration, mut allowance: Allowance, steps: &mut Steps) {
        let Some(sender) = self.sender() else {
            self.give_back(|_| true, steps);
            return;
        };
        if let Some(until) = self.paused_until(now) {
            self.give_back(|_| true, steps);
            steps.wake = Some(until);
            return;
        }
        let is_stale = |due: &Due| now >= due.asked + CLAIM_STALE_AFTER;
        self.give_back(|due| is_stale(due) || due.row.account != sender.account, steps);
        for medium in [Medium::Text, Medium::Media] {
            self.begin_calls(medium, now, &sender, steps);
            self.ask_claims(medium, now, horizon, sender.account, &mut allowance, steps);
        }
        let (text, media) = (self.window(Medium::Text), self.window(Medium::Media));
        steps.reads = self.queue.reads(self.id, |medium| if medium == Medium::Text { text } else { media });
    }

    /// Hands claimed rows to their calls, as the limiter allows.
    fn begin_calls(&mut self, medium: Medium, now: Instant, sender: &Sender, steps: &mut Steps) {
        let track = self.track_mut(medium);
        let Some(pacer) = &track.pacer else { return };
        while !track.claimed.is_empty() {
            if let Err(wait) = pacer.check() {
                sooner(&mut steps.wake, now + wait);
                return;
            }
            if let Some(due) = track.claimed.pop_front() {
                track.last_call = Some(now);
                track.calling += 1;
                steps.calls.push(PlannedCall {
                    row: Arc::new(due.row),
                    sender: sender.clone(),
                    expires: due.expires,
                    begun: now,
                });
            }
        }
    }

    /// Asks for claims of the rows whose calls are due within the horizon.
    fn ask_claims(
        &mut self,
        medium: Medium,
        now: Instant,
        horizon: Duration,
        account: AccountId,
        allowance: &mut Allowance,
        steps: &mut Steps,
    ) {
        while self.queue.has_next(medium) {
            let due = self.track(medium).next_due(now);
            if due > now + horizon {
                sooner(&mut steps.wake, due - horizon);
                return;
            }
            let held = match medium {
                Medium::Text => self.permits(),
                Medium::Media => self.media.permits(),
            };
            if !allowance.take(held, medium) {
                steps.wants_permits = true;
                return;
            }
            let Some(row) = self.queue.next(medium) else { return };
            let left = Duration::try_from(row.valid_for).unwrap_or_default();
            if left.is_zero() || row.account != account {
                allowance.give_back();
                self.end_unsent(row, left.is_zero(), steps);
                allowance.ends = allowance.ends.saturating_sub(1);
                if allowance.ends == 0 {
                    sooner(&mut steps.wake, now + REST);
                    return;
                }
                continue;
            }
            self.track_mut(medium).claiming += 1;
            steps.claims.push(row.clone());
            self.claiming.insert(row.id, Due { expires: now + left, asked: now, row });
        }
    }

    /// Ends a row without a call: it has expired, or its line has another owner by now.
    fn end_unsent(&mut self, row: ReadyRow, is_expired: bool, steps: &mut Steps) {
        let kind = if is_expired { ChangeKind::Expire } else { ChangeKind::Unsendable };
        steps.changes.push((Change::waiting(row.id, row.fence, kind), row.waiter));
        self.queue.ended_with(row.id, row.fence + 1);
        self.queue.end_without_call(row.lane, &row.dest, row.id);
    }

    /// Gives claimed rows back whose call cannot begin.
    fn give_back(&mut self, cannot_begin: impl Fn(&Due) -> bool, steps: &mut Steps) {
        for medium in [Medium::Text, Medium::Media] {
            let (back, kept): (VecDeque<Due>, VecDeque<Due>) =
                std::mem::take(&mut self.track_mut(medium).claimed).into_iter().partition(&cannot_begin);
            self.track_mut(medium).claimed = kept;
            for due in back {
                let row = due.row;
                self.queue.hold(row.lane, &row.dest, row.id);
                steps.changes.push((Change::release(row.id, row.fence), None));
                steps.returned.push(ReadyRow { attempts: row.attempts - 1, ..row });
            }
        }
    }

    /// A claim was made, or not: the row's state changed, its campaign does not run, or the log is away. In the latter
    /// case its work is read again; its recipient waits for it. Returns whether it was made.
    pub fn claim_answered(&mut self, id: MessageId, made: bool) -> Option<bool> {
        let mut due = self.claiming.remove(&id)?;
        let track = self.track_mut(due.row.kind.medium());
        track.claiming -= 1;
        if made {
            due.row.fence += 1;
            due.row.attempts += 1;
            track.claimed.push_back(due);
        } else {
            self.queue.refuse(&due.row);
        }
        Some(made)
    }

    /// Claims asked for and not answered, with the fence their rows have if they are made.
    pub fn open_claims(&self) -> impl Iterator<Item = (MessageId, (i32, Lane))> {
        self.claiming.values().map(|due| (due.row.id, (due.row.fence + 1, due.row.lane)))
    }

    /// Permits held for calls that have not begun.
    pub fn reserved(&self) -> usize {
        self.permits() - self.text.calling - self.media.calling
    }

    /// A call ended. Returns the work that ended with it.
    pub fn call_ended(&mut self, row: &ReadyRow, end: CallEnd) -> Option<WorkId> {
        // A line that was let go and came back meanwhile holds no permit for this call.
        if self.queue.in_call(row.id) {
            self.track_mut(row.kind.medium()).calling -= 1;
        }
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

    /// The last pause, if a call begun at `begun` was in flight when it was demanded: its answer says nothing new.
    fn demanded_since(&self, begun: Instant) -> Option<Demanded> {
        self.demanded.filter(|last| begun < last.at)
    }

    /// Graph took a message whose call was begun at `begun`: the next pause starts from the bottom of its ladder again,
    /// unless the call was in flight already when the last one was demanded. During a pause no calls begin.
    pub fn succeeded(&mut self, begun: Instant) {
        if self.demanded_since(begun).is_none() {
            self.ladder.reset();
        }
    }

    /// Stops sending as the answer to a call demands that was begun at `begun`; returns for how long.
    ///
    /// Nothing if the call was in flight already when a pause as long was demanded: its answer says nothing new, and
    /// a burst of such answers would drive the pauses to their cap at once. But a longer time that Graph names is news. A
    /// call that was begun later, after a pause that somebody ended early, says something new.
    pub fn pause(&mut self, demand: &PauseDemand, begun: Instant, now: Instant) -> Option<Duration> {
        let last = self.demanded_since(begun);
        let is_known = |last: Demanded| {
            demand.first <= last.first && demand.named.is_none_or(|named| named <= last.length)
        };
        if last.is_some_and(is_known) {
            return None;
        }
        let length = self.ladder.next(demand);
        self.note(demand.first, length, last, now);
        Some(length)
    }

    /// Stops sending as the answer to another line's call demands of every line of the app.
    pub fn pause_with_app(&mut self, demand: &PauseDemand, length: Duration, now: Instant) {
        let in_force = self.demanded.filter(|last| now < last.at + last.length);
        self.note(demand.first, length, in_force, now);
    }

    /// Notes a pause that was demanded and begins it; `last` still counts for calls that were in flight when it was.
    fn note(&mut self, first: Duration, length: Duration, last: Option<Demanded>, now: Instant) {
        self.demanded = Some(Demanded {
            first: last.map_or(first, |last| last.first.max(first)),
            length: last.map_or(length, |last| last.length.max(length)),
            at: now,
        });
        self.pause_for(length, now);
    }

    /// Stops sending for a while, until the line's record shows the pause.
    fn pause_for(&mut self, length: Duration, now: Instant) {
        self.local_pause = self.local_pause.max(Some(now + length));
    }

    /// Rows claimed whose calls have not begun, given back because this process stops or no longer owns the line.
    /// Claims that are not committed yet are given back when they are answered.
    pub fn abandon(&mut self, steps: &mut Steps) {
        self.give_back(|_| true, steps);
    }

    /// Whether nothing of this line is in hand or in flight, and nothing about it has to be remembered.
    pub fn is_idle(&self, now: Instant) -> bool {
        let recent = [&self.text, &self.media]
            .into_iter()
            .any(|track| track.last_call.is_some_and(|last| now < last + REMEMBERED));
        self.queue.is_idle() && self.permits() == 0 && !recent && self.paused_until(now).is_none()
    }
}

fn sooner(wake: &mut Option<Instant>, at: Instant) {
    *wake = Some(wake.map_or(at, |known| known.min(at)));
}

#[cfg(test)]
mod tests;
