//! The line itself: its rows, its limiters and its state, and the permits that it holds.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::allowance::Allowance;
use super::app_secret::LineSecret;
use super::assets::LineAssets;
use super::pacing::{MediumPacing, PendingCall};
use super::pauses::Demanded;
use super::sender::Config;
use super::standing::Standing;
use crate::channel::Medium;
use crate::dispatch::memory::RowMemory;
use crate::dispatch::queue::LineQueue;
use crate::domain::{Lane, LineId, RowId, WorkId};
use crate::policy::pace::PauseBackoff;
use crate::settings::OnUnfetchable;
use crate::store::{HeldRecipient, ReadyRow};

/// A line that sent is remembered this long, with the state of its limiters and pauses.
const IDLE_LINE_TTL: Duration = Duration::from_secs(120);

/// One line of a partition this process owns.
pub struct Line {
    pub id: LineId,
    pub queue: LineQueue,
    pub(super) config: Option<Config>,
    /// The secret of the app that the line names.
    pub(super) app_secret: Option<LineSecret>,
    /// A pause that this process demanded and the line's record may not show yet.
    pub(super) local_pause: Option<Instant>,
    pub(super) backoff: PauseBackoff,
    /// The last demanded pause.
    pub(super) demanded: Option<Demanded>,
    pub(super) standing: Standing,
    pub(super) assets: LineAssets,
    pub(super) text: MediumPacing,
    pub(super) media: MediumPacing,
    /// The calls that Meta's budgets leave to the line.
    pub(super) allowance: Allowance,
    /// Rows claimed or about to be claimed, until their call begins.
    pub(super) claiming: HashMap<RowId, PendingCall>,
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

impl Line {
    pub fn new(id: LineId, memory: RowMemory) -> Line {
        Line {
            id,
            queue: LineQueue::new(memory),
            config: None,
            app_secret: None,
            local_pause: None,
            backoff: PauseBackoff::default(),
            demanded: None,
            standing: Standing::default(),
            assets: LineAssets::new(None),
            text: MediumPacing::new(),
            media: MediumPacing::new(),
            allowance: Allowance::default(),
            claiming: HashMap::new(),
        }
    }

    /// Upload the assets of the line's media, with this treatment of URLs that Meta cannot fetch.
    pub fn with_assets(self, policy: Option<OnUnfetchable>) -> Line {
        Line { assets: LineAssets::new(policy), ..self }
    }

    /// Hold a recipient whose row is claimed elsewhere or waits for its next try.
    pub fn hold(&mut self, held: &HeldRecipient) {
        if !self.queue.in_call(held.by) {
            self.queue.hold(held.lane, &held.dest, held.by);
        }
    }

    pub(super) fn pacing(&self, medium: Medium) -> &MediumPacing {
        match medium {
            Medium::Text => &self.text,
            Medium::Media => &self.media,
        }
    }

    pub(super) fn pacing_mut(&mut self, medium: Medium) -> &mut MediumPacing {
        match medium {
            Medium::Text => &mut self.text,
            Medium::Media => &mut self.media,
        }
    }

    /// Return the number of permits that the line holds: rows claimed, or about to be, and calls in flight.
    pub fn permits(&self) -> usize {
        self.text.permits() + self.media.permits()
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

    /// Whether the line has no row in hand or in flight, and no state to remember.
    pub fn is_idle(&self, now: Instant) -> bool {
        let recent = [&self.text, &self.media]
            .into_iter()
            .any(|pacing| pacing.last_call.is_some_and(|last| now < last + IDLE_LINE_TTL));
        let is_known = !self.standing.is_clear() || self.paused_until(now).is_some();
        self.queue.is_idle() && self.permits() == 0 && !recent && !is_known
    }
}
