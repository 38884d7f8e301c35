//! The state of a line, beside its pauses, that Graph's answers have shown: its trial, its suspect messages,
//! its refusals under unknown codes, and its failing calls.
//!
//! After a pause of a line that cannot send, after a rest, and after a refusal under an unknown code, the
//! line makes a trial: one call in flight, and no further claim until it is answered. A message whose refusal
//! may be its line's waits behind another one; if Graph takes that, the suspect is refused without another
//! call. The state belongs to this process only: after a restart a suspect is tried again at its time.

use std::time::Duration;

use tokio::time::Instant;

use super::actor::Line;
use crate::domain::{ErrorDetail, Lane, RowId};
use crate::policy::breaker::LineBreaker;
use crate::policy::classify::{Judgement, Verdict};
use crate::policy::unlisted::UnlistedStreak;
use crate::store::ReadyRow;

/// The state of a line.
#[derive(Default)]
pub(super) struct Standing {
    trial: Option<Trial>,
    suspects: Vec<Suspect>,
    unlisted: UnlistedStreak,
    breaker: LineBreaker,
}

/// A limit of one call in flight for the line.
struct Trial {
    /// Calls begun before are no evidence.
    since: Instant,
    /// Whether only a success ends the trial, and not any judgement of Graph about a message.
    needs_success: bool,
    calling: Option<RowId>,
}

/// A message that waits as RETRY because its refusal may be its line's.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub id: RowId,
    /// The fence in the log.
    pub fence: i32,
    pub lane: Lane,
    pub dest: String,
    pub waiter: Option<String>,
    pub refused_at: Instant,
    pub error: ErrorDetail,
}

/// An ended call, for its line.
pub struct EndedCall<'a> {
    pub row: &'a ReadyRow,
    pub begun: Instant,
    pub judgement: &'a Judgement,
    /// Whether the call failed; `None` if it was not made.
    pub is_failure: Option<bool>,
}

/// The consequences of an ended call.
#[derive(Default)]
pub struct Learnt {
    /// Whether refusals under an unknown code are too many: the line is refused.
    pub is_lines: bool,
    /// Messages that are refused because Graph has taken another one.
    pub refused: Vec<Suspect>,
    /// The length of the line's rest.
    pub rest: Option<Duration>,
}

impl Standing {
    /// Return the number of calls that may still be claimed while `claimed` rows wait for theirs.
    pub(super) fn room(&self, claimed: usize) -> usize {
        match &self.trial {
            Some(Trial { calling: Some(_), .. }) => 0,
            Some(_) => 1usize.saturating_sub(claimed),
            None => usize::MAX,
        }
    }

    /// Whether a call of the line's trial is in flight: no other begins.
    pub(super) fn is_busy(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.calling.is_some())
    }

    pub(super) fn call_begun(&mut self, id: RowId) {
        if let Some(trial) = &mut self.trial {
            trial.calling = Some(id);
        }
    }

    /// Record that a call ended, with any result: the suspicion of its row is over, unless the result renews
    /// it.
    pub(super) fn call_ended(&mut self, id: RowId) {
        self.suspects.retain(|suspect| suspect.id != id);
        if let Some(trial) = &mut self.trial
            && trial.calling == Some(id)
        {
            trial.calling = None;
        }
    }

    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.breaker.rests_until(now.into_std()).map(Instant::from_std)
    }

    /// Begin a trial: one call at a time. Calls begun before `since` are no evidence about it.
    pub(super) fn begin_trial(&mut self, since: Instant, needs_success: bool) {
        match &mut self.trial {
            Some(trial) => {
                trial.since = trial.since.max(since);
                trial.needs_success |= needs_success;
            }
            None => self.trial = Some(Trial { since, needs_success, calling: None }),
        }
    }

    fn end_trial(&mut self, begun: Instant, is_success: bool) {
        let ends = |trial: &Trial| begun >= trial.since && (is_success || !trial.needs_success);
        if self.trial.as_ref().is_some_and(ends) {
            self.trial = None;
        }
    }

    /// Whether the line has no state to remember.
    pub(super) fn is_clear(&self) -> bool {
        self.trial.is_none() && self.suspects.is_empty()
    }
}

impl Line {
    /// Whether the line rests because its calls keep failing.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.standing.rests_until(now).is_some()
    }

    /// Apply an ended call to the line's state. `unknown_refusals`: how many in a row are the line's; 0:
    /// none.
    pub fn learn(
        &mut self,
        call: &EndedCall<'_>,
        unknown_refusals: u32,
        now: Instant,
        jitter: f64,
    ) -> Learnt {
        let EndedCall { row, begun, judgement, is_failure } = *call;
        let standing = &mut self.standing;
        let mut learnt = Learnt::default();
        match is_failure {
            Some(true) => {
                learnt.rest = standing.breaker.failed(row.id, begun.into_std(), now.into_std(), jitter);
                if learnt.rest.is_some() {
                    standing.begin_trial(now, false);
                }
            }
            Some(false) => standing.breaker.answered(now.into_std()),
            None => {}
        }
        match judgement.verdict {
            Verdict::Sent { .. } => {
                standing.unlisted.succeeded();
                standing.end_trial(begun, true);
                let suspects = std::mem::take(&mut standing.suspects).into_iter();
                let is_refused = |suspect: &Suspect| suspect.refused_at < begun && suspect.id != row.id;
                let (refused, left): (Vec<Suspect>, Vec<Suspect>) = suspects.partition(is_refused);
                standing.suspects = left;
                learnt.refused = refused;
                self.succeeded(begun);
            }
            Verdict::Unlisted if unknown_refusals > 0 => {
                learnt.is_lines =
                    standing.unlisted.refused(judgement.error.code, &row.dest, unknown_refusals);
                standing.begin_trial(begun, true);
            }
            Verdict::Refused
            | Verdict::Unlisted
            | Verdict::RetryCounted { .. }
            | Verdict::TryAgain
            | Verdict::Hold => {
                let is_lines = judgement.pause.as_ref().is_some_and(|pause| pause.ends_with_trial);
                let is_about_a_message = !is_lines || judgement.verdict == Verdict::Unlisted;
                if judgement.by_graph && is_about_a_message {
                    standing.end_trial(begun, false);
                }
            }
            Verdict::ServerFailed | Verdict::Ambiguous | Verdict::WaitForLine | Verdict::Suspect => {}
        }
        learnt
    }

    /// Note a waiting message that may be refused itself, or with its line.
    pub fn suspect(&mut self, suspect: Suspect) {
        self.standing.suspects.push(suspect);
    }
}
