//! The commit of a batch, in parts where the database refuses it whole, and the news of what is written.

use tokio::time::Instant;

use super::batch::CommitBatch;
use super::run::Recorder;
use super::state::RecorderState;
use crate::dispatch::event::{ClaimAnswer, Event, ReturnedRow, WithheldRow};
use crate::domain::{RowId, Status, WorkId};
use crate::failpoint;
use crate::metrics::METRICS;
use crate::store::{Change, Claim, Record, Recorded, StoreError};

/// Ended work and claims that one transaction removes at most.
const ENDED_AT_ONCE: usize = 1_000;

impl Recorder {
    /// Commit a batch and inform its requesters, waiters and listeners. When the database is away, return the
    /// batch's results; its claims were answered.
    pub(super) async fn write(
        &self,
        batch: CommitBatch,
        state: &mut RecorderState,
    ) -> Result<(), (CommitBatch, StoreError)> {
        let mut parts = vec![batch];
        // Asked once for a batch: rows that are locked then are known, and are not awaited one by one.
        let mut was_asked = false;
        state.keeps_ended = false;
        while let Some(mut part) = parts.pop() {
            self.refuse_open(&mut part, state);
            if !part.changes.is_empty() {
                failpoint::hit("before_result_commit");
            }
            match self.record(&part, state).await {
                Ok(recorded) => self.recorded(&part, &recorded, state),
                // Another transaction may have locked a row of the queue that is to be removed: that can
                // wait.
                Err(StoreError::Locked(_) | StoreError::Undone(_))
                    if state.has_ended() && !state.keeps_ended =>
                {
                    state.keeps_ended = true;
                    parts.push(part);
                }
                Err(StoreError::Locked(_)) if !was_asked => {
                    was_asked = true;
                    let locked = self.take_locked(&mut part).await;
                    self.put_aside(locked, state);
                    parts.push(part);
                }
                Err(StoreError::Locked(_) | StoreError::Undone(_)) if part.is_single() => {
                    self.put_aside(part, state);
                }
                Err(StoreError::Rejected(_) | StoreError::Locked(_) | StoreError::Undone(_))
                    if !part.is_single() =>
                {
                    let (first, second) = part.split();
                    parts.extend([second, first]);
                }
                Err(StoreError::Rejected(reason)) => parts.extend(self.refused(part, &reason, state)),
                Err(error) => {
                    for rest in std::iter::once(&part).chain(&parts) {
                        self.answer_claims(rest, &[]);
                    }
                    part.claims.clear();
                    state.unanswered.extend(part.changes.iter().map(|change| change.id));
                    parts.into_iter().rev().for_each(|rest| part.changes_of(rest));
                    return Err((part, error));
                }
            }
        }
        Ok(())
    }

    /// Take out the results whose rows others have locked; none, if the log does not answer.
    pub(super) async fn take_locked(&self, batch: &mut CommitBatch) -> CommitBatch {
        let ids: Vec<RowId> = batch.changes.iter().map(|change| change.id).collect();
        let locked = self.store.locked(&ids).await.unwrap_or_default();
        batch.take_changes(&locked.into_iter().collect())
    }

    async fn record(&self, part: &CommitBatch, state: &mut RecorderState) -> Result<Recorded, StoreError> {
        let started = Instant::now();
        let claims: Vec<Claim> = part.claims.iter().map(|claim| claim.claim).collect();
        let claim_no = state.claims.number();
        let at_once = if state.keeps_ended { 0 } else { ENDED_AT_ONCE };
        let ended_work: Vec<WorkId> = state.ended_work.iter().take(at_once).copied().collect();
        let ended_claims: Vec<i64> = state.claims.ended().iter().take(at_once).copied().collect();
        let record = Record {
            worker: &self.worker,
            changes: &part.changes,
            claims: &claims,
            claim_no,
            ended_work: &ended_work,
            ended_claims: &ended_claims,
            repeated: part.changes.iter().any(|change| state.unanswered.contains(&change.id)),
        };
        let recorded = self.store.record(record).await?;
        METRICS.dispatch.batch_entries.record((part.changes.len() + claims.len()) as f64);
        METRICS.dispatch.batch_seconds.record(started.elapsed());
        for work in &ended_work {
            state.ended_work.remove(work);
        }
        state.claims.removed(ended_claims.len());
        let made = claims.iter().zip(&recorded.claimed).filter(|(_, made)| **made);
        state.claims.made(claim_no, made.map(|(claim, _)| (claim.id, claim.fence + 1)));
        Ok(recorded)
    }

    fn recorded(&self, part: &CommitBatch, recorded: &Recorded, state: &mut RecorderState) {
        if !part.claims.is_empty() {
            failpoint::hit("after_claim_commit");
        }
        if !part.changes.is_empty() {
            failpoint::hit("after_result_commit");
        }
        for change in &part.changes {
            state.unanswered.remove(&change.id);
        }
        for change in part.changes.iter().filter(|change| change.ends_claim()) {
            state.claims.call_ended(change.id, change.fence);
        }
        count(part, recorded);
        if part.changes.iter().any(Change::waits_for_a_time) {
            self.due.notify_one();
        }
        self.announce(part, &recorded.changed);
        let claims = part.claims.iter().zip(&recorded.claimed).filter(|(_, made)| **made);
        self.feedback.became(claims.map(|(claim, _)| claim.claim.id), Status::Sending);
        self.answer_claims(part, &recorded.claimed);
    }

    /// Refuse a claim that this process has made already and whose call has not ended: the row was read anew
    /// after its line had been lost and regained.
    fn refuse_open(&self, part: &mut CommitBatch, state: &RecorderState) {
        let (open, claims): (Vec<_>, Vec<_>) = std::mem::take(&mut part.claims)
            .into_iter()
            .partition(|claim| state.claims.is_open(claim.claim.id, claim.claim.fence + 1));
        part.claims = claims;
        if !open.is_empty() {
            self.answer_claims(&CommitBatch { claims: open, ..CommitBatch::default() }, &[]);
        }
    }

    /// Put aside a single entry whose row another transaction has locked: a result is tried again a moment
    /// later, a claim is not made.
    fn put_aside(&self, part: CommitBatch, state: &mut RecorderState) {
        self.answer_claims(&part, &[]);
        for change in &part.changes {
            tracing::warn!(cdls_id = %change.id, "row locked by another transaction: its result waits");
        }
        state.aside.put(Instant::now(), part);
        self.progress.put_aside(state.aside.rows());
    }

    /// Handle a single entry that the database refuses: return a result in the form to try next. A claim was
    /// not made; a result that is refused in every form is tried as UNKNOWN again whenever its row is found
    /// claimed without a call.
    fn refused(&self, mut part: CommitBatch, reason: &str, state: &mut RecorderState) -> Option<CommitBatch> {
        self.answer_claims(&part, &[]);
        let change = part.changes.first_mut()?;
        METRICS.dispatch.results_refused.increment(1);
        if change.stays_in_work() {
            // The row does not come back: a plainer form ends it. The dispatcher is gone only when the
            // process ends.
            let _ = self.events.send(Event::Returned(vec![ReturnedRow {
                id: change.id,
                fence: change.fence,
                is_written: false,
            }]));
        }
        if change.is_withheld() {
            let row = WithheldRow { id: change.id, is_written: false };
            // As above.
            let _ = self.events.send(Event::Withheld(vec![row]));
        }
        tracing::error!(cdls_id = %change.id, reason, "result refused by the database: retrying in a plainer form");
        match change.plain(part.refused > 0).filter(|_| part.refused < 2) {
            Some(plain) => {
                *change = plain;
                part.refused += 1;
                Some(part)
            }
            None => {
                if let Some((id, fence)) = change.call() {
                    state.unwritten.0.insert(id, fence);
                }
                None
            }
        }
    }

    pub(super) fn answer_claims(&self, batch: &CommitBatch, made: &[bool]) {
        if batch.claims.is_empty() {
            return;
        }
        let answers = batch
            .claims
            .iter()
            .enumerate()
            .map(|(n, claim)| ClaimAnswer {
                line: claim.line,
                id: claim.claim.id,
                is_made: made.get(n).copied().unwrap_or(false),
            })
            .collect();
        // The dispatcher is gone only when the process ends; claims are settled by the next owner then.
        let _ = self.events.send(Event::ClaimsAnswered(answers));
    }

    /// Inform waiters and listeners of changes that are now in the log, and the dispatcher of rows that are
    /// ready again.
    fn announce(&self, batch: &CommitBatch, changed: &[bool]) {
        let (mut back, mut withheld) = (Vec::new(), Vec::new());
        for ((change, waiter), changed) in batch.changes.iter().zip(&batch.waiters).zip(changed) {
            if change.stays_in_work() {
                back.push(ReturnedRow { id: change.id, fence: change.fence, is_written: *changed });
            }
            if change.is_withheld() {
                withheld.push(WithheldRow { id: change.id, is_written: *changed });
            }
            if *changed {
                self.feedback.changed(change, waiter.as_deref());
            } else {
                tracing::debug!(cdls_id = %change.id, "row had changed already: its result is not written");
            }
        }
        if !back.is_empty() {
            // As above.
            let _ = self.events.send(Event::Returned(back));
        }
        if !withheld.is_empty() {
            // As above.
            let _ = self.events.send(Event::Withheld(withheld));
        }
    }
}

fn count(batch: &CommitBatch, recorded: &Recorded) {
    let made = recorded.claimed.iter().filter(|made| **made).count();
    METRICS.dispatch.claims_made.increment(made as u64);
    METRICS.dispatch.claims_refused.increment((recorded.claimed.len() - made) as u64);
    let ambiguous =
        batch.changes.iter().zip(&recorded.changed).filter(|(change, done)| **done && change.is_ambiguous());
    METRICS.dispatch.ambiguous.increment(ambiguous.count() as u64);
    METRICS.dispatch.late.increment(recorded.late as u64);
}
