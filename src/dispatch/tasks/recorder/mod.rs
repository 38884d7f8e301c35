//! The recorder: one task per process that commits, in one transaction, the results just finished and the
//! claims about to start.
//!
//! Claims therefore cost no commit of their own, and no call is made without a committed claim. Results wait
//! while the database is away and are written when it is back; claims do not wait: their work is read again.
//! A result that the database refuses is written without its texts, or as UNKNOWN; a result whose row another
//! transaction has locked is put aside, and the others go on.
//!
//! Never here: decisions about a row.

mod batch;
mod claims;
mod progress;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::dispatch::event::{ClaimAnswer, Event, ReturnedRow};
use crate::domain::{Lane, LineId, RowId, Status, WorkId};
use crate::failpoint;
use crate::feedback::Feedback;
use crate::metrics::METRICS;
use crate::policy::Backoff;
use crate::store::{Change, Claim, DispatchStore, Record, Recorded, StoreError};
use batch::{ClaimEntry, CommitBatch, LockedResults, take_batch};
use claims::OpenClaims;
pub use progress::WriteProgress;

/// Entries one transaction holds at most.
const MAX_BATCH_ENTRIES: usize = 400;
/// The time for which entries of the bulk lane wait for others; those of the high lane do not wait.
const LINGER: Duration = Duration::from_millis(10);
/// Batches of this size do not wait.
const FULL_BATCH_ENTRIES: usize = 128;
/// Ended work and claims that one transaction removes at most.
const ENDED_AT_ONCE: usize = 1_000;
/// Ended work and claims are removed with the next batch, or after this time.
const TIDY_AFTER: Duration = Duration::from_secs(1);
/// Pauses while the log cannot be written.
const PAUSES: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(1) };

/// An entry of the record, in order.
pub enum Entry {
    Change {
        change: Change,
        lane: Lane,
        waiter: Option<String>,
    },
    Claim {
        line: LineId,
        lane: Lane,
        claim: Claim,
    },
    /// The work's last row has ended with an earlier change.
    WorkEnded(WorkId),
    Barrier(Barrier),
}

/// A request for an answer when all entries before it are written.
pub struct Barrier {
    pub done: oneshot::Sender<bool>,
    /// The answer for `done`: whether there was an entry to write.
    pub answer: bool,
}

/// Writes entries until their senders are gone and all are written.
pub struct Recorder {
    pub worker: String,
    pub store: Arc<dyn DispatchStore>,
    pub feedback: Feedback,
    pub entries: mpsc::UnboundedReceiver<Entry>,
    pub events: mpsc::UnboundedSender<Event>,
    /// Notified when a row was put off.
    pub due: Arc<Notify>,
    pub progress: WriteProgress,
}

/// Results that the database refuses in every form, by their rows, with the fence of the call. Such a row
/// stays claimed by this process and looks as if its call had never begun; giving it back would send it
/// again.
#[derive(Default)]
struct RefusedResults(HashMap<RowId, i32>);

impl RefusedResults {
    /// Replace the release of a row whose call was made by "not known".
    fn guard(&self, change: &mut Change) {
        if self.0.get(&change.id) == Some(&change.fence) && change.call().is_none() && change.ends_claim() {
            *change = Change::lost(change.id, change.fence);
        }
    }
}

/// The state that the recorder keeps between batches.
#[derive(Default)]
struct RecorderState {
    unwritten: RefusedResults,
    claims: OpenClaims,
    /// Work that has ended, and whose removal is not committed.
    ended_work: BTreeSet<WorkId>,
    /// Whether ended work and claims stay when the next batch is written.
    keeps_ended: bool,
    aside: LockedResults,
    /// Rows whose changes may be written already.
    unanswered: HashSet<RowId>,
}

impl Recorder {
    pub async fn run(mut self) {
        let mut backlog: VecDeque<Entry> = VecDeque::new();
        let mut state = RecorderState::default();
        let mut failures = 0;
        loop {
            self.look_at_locked(&mut state, &mut backlog).await;
            if backlog.is_empty() && !self.wait(&state, &mut backlog).await {
                if state.aside.is_empty() {
                    self.tidy(&mut state).await;
                    return;
                }
                tokio::time::sleep(PAUSES.base).await;
                continue;
            }
            if backlog.is_empty() {
                self.tidy(&mut state).await;
                continue;
            }
            self.gather(&mut backlog).await;
            let started = Instant::now();
            let mut batch = take_batch(&mut backlog, MAX_BATCH_ENTRIES);
            self.wait_behind(&mut batch, &mut state);
            self.progress.put_aside(state.aside.rows());
            self.progress.set_waiting(backlog.len() + self.entries.len());
            batch.changes.iter_mut().for_each(|change| state.unwritten.guard(change));
            let barriers = std::mem::take(&mut batch.barriers);
            // This includes rows whose result waits for a lock, or for the database: each has an open claim
            // until that is written.
            state.ended_work.extend(std::mem::take(&mut batch.ended_work));
            match self.write(batch, &mut state).await {
                Ok(()) => {
                    // The task that waits for the answer may be gone.
                    for Barrier { done, answer } in barriers {
                        let _ = done.send(answer);
                    }
                    failures = 0;
                    METRICS.dispatch.results_waiting.set(0.0);
                    self.progress.observe(started.elapsed());
                    if self.progress.set_stalled(false) {
                        // The dispatcher is gone only when the process ends.
                        let _ = self.events.send(Event::LogIsBack);
                    }
                }
                Err((batch, error)) => {
                    self.put_back(batch, barriers, &mut backlog);
                    METRICS.dispatch.results_waiting.set(backlog.len() as f64);
                    self.progress.set_stalled(!backlog.is_empty());
                    tracing::warn!(%error, waiting = backlog.len(), "cannot write the log: results wait in memory, sending stopped; keep the process running");
                    tokio::time::sleep(PAUSES.delay(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Write results whose rows were locked, once they are not.
    async fn look_at_locked(&self, state: &mut RecorderState, backlog: &mut VecDeque<Entry>) {
        let mut due = state.aside.due(Instant::now());
        if due.changes.is_empty() {
            return;
        }
        state.aside.put(Instant::now(), self.take_locked(&mut due).await);
        // These go in front of later changes of the rows.
        due.into_entries().rev().for_each(|entry| backlog.push_front(entry));
    }

    /// Hold back later changes of a row behind one that was set aside, and refuse its claim: a row's changes
    /// are written in the order of their arrival.
    fn wait_behind(&self, batch: &mut CommitBatch, state: &mut RecorderState) {
        if state.aside.is_empty() {
            return;
        }
        let rows = state.aside.rows();
        state.aside.put_behind(batch.take_changes(&rows));
        let (refused, claims) = std::mem::take(&mut batch.claims)
            .into_iter()
            .partition(|entry: &ClaimEntry| rows.contains(&entry.claim.id));
        batch.claims = claims;
        self.answer_claims(&CommitBatch { claims: refused, ..CommitBatch::default() }, &[]);
    }

    /// Take out the results whose rows others have locked; none, if the log does not answer.
    async fn take_locked(&self, batch: &mut CommitBatch) -> CommitBatch {
        let ids: Vec<RowId> = batch.changes.iter().map(|change| change.id).collect();
        let locked = self.store.locked(&ids).await.unwrap_or_default();
        batch.take_changes(&locked.into_iter().collect())
    }

    /// Wait for an entry, or for another task that is due; return whether entries may still come.
    async fn wait(&mut self, state: &RecorderState, backlog: &mut VecDeque<Entry>) -> bool {
        let patience = if state.has_ended() { Some(TIDY_AFTER) } else { None };
        let until = [patience.map(|patience| Instant::now() + patience), state.aside.next()];
        let entry = match until.into_iter().flatten().min() {
            Some(until) => match tokio::time::timeout_at(until, self.entries.recv()).await {
                Ok(entry) => entry,
                Err(_) => return true,
            },
            None => self.entries.recv().await,
        };
        let more = entry.is_some();
        backlog.extend(entry);
        more
    }

    /// Take the entries at hand; wait a moment for more while there are few, and none of the high lane.
    async fn gather(&mut self, backlog: &mut VecDeque<Entry>) {
        let until = Instant::now() + LINGER;
        loop {
            while backlog.len() < MAX_BATCH_ENTRIES {
                match self.entries.try_recv() {
                    Ok(entry) => backlog.push_back(entry),
                    Err(_) => break,
                }
            }
            if backlog.len() >= FULL_BATCH_ENTRIES || backlog.iter().any(Entry::is_urgent) {
                return;
            }
            match tokio::time::timeout_at(until, self.entries.recv()).await {
                Ok(Some(entry)) => backlog.push_back(entry),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Put results that could not be written in front again.
    fn put_back(&self, batch: CommitBatch, barriers: Vec<Barrier>, backlog: &mut VecDeque<Entry>) {
        barriers.into_iter().for_each(|barrier| backlog.push_front(Entry::Barrier(barrier)));
        batch.into_entries().rev().for_each(|entry| backlog.push_front(entry));
    }

    /// Remove work and claims that have ended.
    async fn tidy(&self, state: &mut RecorderState) {
        if state.has_ended()
            && let Err((_, error)) = self.write(CommitBatch::default(), state).await
        {
            tracing::debug!(%error, "ended work stays in the queue: it is removed later");
        }
    }

    /// Commit a batch and inform its requesters, waiters and listeners. When the database is away, return the
    /// batch's results; its claims were answered.
    async fn write(
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

    fn answer_claims(&self, batch: &CommitBatch, made: &[bool]) {
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
        let mut back = Vec::new();
        for ((change, waiter), changed) in batch.changes.iter().zip(&batch.waiters).zip(changed) {
            if change.stays_in_work() {
                back.push(ReturnedRow { id: change.id, fence: change.fence, is_written: *changed });
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
    }
}

impl RecorderState {
    fn has_ended(&self) -> bool {
        !self.ended_work.is_empty() || !self.claims.ended().is_empty()
    }
}

impl Entry {
    fn is_urgent(&self) -> bool {
        match self {
            Entry::Change { lane, .. } | Entry::Claim { lane, .. } => *lane == Lane::High,
            Entry::WorkEnded(_) => false,
            Entry::Barrier(..) => true,
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
