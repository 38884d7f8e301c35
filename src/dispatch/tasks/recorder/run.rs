//! The recorder's loop: gathers entries into batches, has them written, and waits while that fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::batch::{ClaimEntry, CommitBatch, take_batch};
use super::entry::{Barrier, Entry};
use super::progress::WriteProgress;
use super::state::RecorderState;
use crate::dispatch::event::Event;
use crate::feedback::Feedback;
use crate::metrics::METRICS;
use crate::policy::Backoff;
use crate::store::DispatchStore;

/// Entries one transaction holds at most.
const MAX_BATCH_ENTRIES: usize = 400;
/// The time for which entries of the bulk lane wait for others; those of the high lane do not wait.
pub(super) const LINGER: Duration = Duration::from_millis(10);
/// Batches of this size do not wait.
const FULL_BATCH_ENTRIES: usize = 128;
/// Ended work and claims are removed with the next batch, or after this time.
const TIDY_AFTER: Duration = Duration::from_secs(1);
/// Pauses while the log cannot be written.
const PAUSES: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(1) };

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
}
