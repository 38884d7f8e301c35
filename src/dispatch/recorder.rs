//! The recorder: one task per process that commits, in one transaction, the results just finished and the claims
//! about to start.
//!
//! Claims so cost no commit of their own, and no call is made without a committed claim. Results wait while the
//! database is away and are written when it is back; claims do not wait: what could not be claimed is read again.
//! A result that the database refuses is written without its texts, or as UNKNOWN.
//! Never here: decisions about a row.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use crate::failpoint;
use crate::feedback::Feedback;
use crate::message::{LineId, MessageId, Status};
use crate::metrics::METRICS;
use crate::store::{Change, Claim, Recorded, SharedStore, StoreError};

/// Entries one transaction holds at most.
const BATCH: usize = 400;
/// A small batch waits this long for more.
const LINGER: Duration = Duration::from_millis(2);
/// Batches of this size do not wait.
const ENOUGH: usize = 128;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is to be recorded.
pub enum Entry {
    Change { change: Change, waiter: Option<String> },
    Claim { line: LineId, claim: Claim },
}

impl Entry {
    fn id(&self) -> MessageId {
        match self {
            Entry::Change { change, .. } => change.id(),
            Entry::Claim { claim, .. } => claim.id,
        }
    }
}

/// How writing goes, as the lines see it.
#[derive(Clone, Default)]
pub struct Progress(Arc<ProgressState>);

#[derive(Default)]
struct ProgressState {
    /// How long a claim takes from being asked for to its answer, smoothed; in microseconds.
    latency: AtomicU64,
    stalled: AtomicBool,
    /// Entries that wait to be written.
    waiting: AtomicUsize,
}

impl Progress {
    /// How long a claim takes from being asked for to its answer, smoothed.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.0.latency.load(Ordering::Relaxed))
    }

    /// Whether results wait because the log cannot be written. What is handed in meanwhile would wait behind them.
    pub fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// Entries that wait to be written, when the last batch was begun.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    fn observe(&self, sample: Duration) {
        let smoothed = (self.latency().as_micros() as u64 * 7 + sample.as_micros() as u64) / 8;
        self.0.latency.store(smoothed, Ordering::Relaxed);
    }

    /// Says whether this is a change.
    fn set_stalled(&self, stalled: bool) -> bool {
        self.0.stalled.swap(stalled, Ordering::Relaxed) != stalled
    }
}

/// Writes entries until their senders are gone and everything is written.
pub struct Recorder {
    pub worker: String,
    pub store: SharedStore,
    pub feedback: Feedback,
    pub entries: mpsc::UnboundedReceiver<Entry>,
    pub events: mpsc::UnboundedSender<Event>,
    pub progress: Progress,
}

/// A batch on its way into the database.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    waiters: Vec<Option<String>>,
    claims: Vec<Claim>,
    lines: Vec<LineId>,
    /// How often the database has refused this single result, each time in a plainer form.
    refused: u8,
}

/// Results that the database refuses in every form, by their rows, with the fence of the call. Such a row stays
/// claimed by this process and looks as if its call had never begun; giving it back would send it again.
#[derive(Default)]
struct Unwritten(HashMap<MessageId, i32>);

impl Unwritten {
    /// Puts "not known" in the place of giving back a row whose call was made.
    fn guard(&self, change: &mut Change) {
        if let Change::Release { id, fence } = change
            && self.0.get(id) == Some(fence)
        {
            *change = Change::lost(*id, *fence);
        }
    }
}

impl Recorder {
    pub async fn run(mut self) {
        let mut backlog: VecDeque<Entry> = VecDeque::new();
        let mut pause = FIRST_PAUSE;
        let mut unwritten = Unwritten::default();
        loop {
            if backlog.is_empty() {
                match self.entries.recv().await {
                    Some(entry) => backlog.push_back(entry),
                    None => return,
                }
            }
            self.gather(&mut backlog).await;
            let started = Instant::now();
            let mut batch = take_batch(&mut backlog);
            self.progress.0.waiting.store(backlog.len() + self.entries.len(), Ordering::Relaxed);
            batch.changes.iter_mut().for_each(|change| unwritten.guard(change));
            match self.write(batch, &mut unwritten).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    METRICS.dispatch.results_waiting.set(0.0);
                    self.progress.observe(started.elapsed() + LINGER);
                    if self.progress.set_stalled(false) {
                        // The dispatcher is gone only when the process ends.
                        let _ = self.events.send(Event::LogIsBack);
                    }
                }
                Err((batch, error)) => {
                    tracing::warn!(%error, results = batch.changes.len(), "results wait: the log cannot be written");
                    for (change, waiter) in batch.changes.into_iter().zip(batch.waiters).rev() {
                        backlog.push_front(Entry::Change { change, waiter });
                    }
                    METRICS.dispatch.results_waiting.set((backlog.len() + self.entries.len()) as f64);
                    self.progress.set_stalled(!backlog.is_empty());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes what is there; waits a moment for more while there is little.
    async fn gather(&mut self, backlog: &mut VecDeque<Entry>) {
        let until = Instant::now() + LINGER;
        loop {
            while backlog.len() < BATCH {
                match self.entries.try_recv() {
                    Ok(entry) => backlog.push_back(entry),
                    Err(_) => break,
                }
            }
            if backlog.len() >= ENOUGH {
                return;
            }
            match tokio::time::timeout_at(until, self.entries.recv()).await {
                Ok(Some(entry)) => backlog.push_back(entry),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Commits a batch and tells everybody concerned. When the database is away, the batch's results come back;
    /// its claims were answered.
    async fn write(&self, batch: Batch, unwritten: &mut Unwritten) -> Result<(), (Batch, StoreError)> {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if !part.changes.is_empty() {
                failpoint::hit("before_result_commit");
            }
            let started = Instant::now();
            let recorded = self.store.record(&self.worker, &part.changes, &part.claims).await;
            METRICS.dispatch.batch_entries.record((part.changes.len() + part.claims.len()) as f64);
            METRICS.dispatch.batch_seconds.record(started.elapsed());
            match recorded {
                Ok(recorded) => {
                    if !part.claims.is_empty() {
                        failpoint::hit("after_claim_commit");
                    }
                    if !part.changes.is_empty() {
                        failpoint::hit("after_result_commit");
                    }
                    count(&part, &recorded);
                    self.announce(&part, &recorded.changed);
                    let claims = part.claims.iter().zip(&recorded.claimed).filter(|(_, made)| **made);
                    self.feedback.became(claims.map(|(claim, _)| claim.id), Status::Sending);
                    self.answer_claims(&part, &recorded.claimed);
                }
                Err(StoreError::Rejected(reason)) => match part.split() {
                    Some((first, second)) => parts.extend([second, first]),
                    None => parts.extend(self.refused(part, &reason, unwritten)),
                },
                Err(error) => {
                    for rest in std::iter::once(&part).chain(&parts) {
                        self.answer_claims(rest, &[]);
                    }
                    part.claims.clear();
                    part.lines.clear();
                    for rest in parts.into_iter().rev() {
                        part.changes.extend(rest.changes);
                        part.waiters.extend(rest.waiters);
                    }
                    if failpoint::defect("result_lost") {
                        return Ok(());
                    }
                    return Err((part, error));
                }
            }
        }
        Ok(())
    }

    /// A single entry that the database refuses: a result in the form to be tried next. A claim was not made; a result
    /// that is refused in every form is tried as UNKNOWN again whenever its row is found claimed without a call.
    fn refused(&self, mut part: Batch, reason: &str, unwritten: &mut Unwritten) -> Option<Batch> {
        self.answer_claims(&part, &[]);
        let change = part.changes.first_mut()?;
        METRICS.dispatch.results_refused.increment(1);
        tracing::error!(cdls_id = %change.id(), reason, "the database refuses this result");
        match change.plain(part.refused > 0).filter(|_| part.refused < 2) {
            Some(plain) => {
                *change = plain;
                part.refused += 1;
                Some(part)
            }
            None => {
                if let Some((id, fence)) = change.call() {
                    unwritten.0.insert(id, fence);
                }
                None
            }
        }
    }

    fn answer_claims(&self, batch: &Batch, made: &[bool]) {
        if batch.claims.is_empty() {
            return;
        }
        let answers = batch
            .claims
            .iter()
            .zip(&batch.lines)
            .enumerate()
            .map(|(n, (claim, line))| (*line, claim.id, made.get(n).copied().unwrap_or(false)))
            .collect();
        // The dispatcher is gone only when the process ends; claims are settled by the next owner then.
        let _ = self.events.send(Event::ClaimsAnswered(answers));
    }

    /// Tells those who wait for an outcome, or listen to changes, that are now in the log.
    fn announce(&self, batch: &Batch, changed: &[bool]) {
        for ((change, waiter), changed) in batch.changes.iter().zip(&batch.waiters).zip(changed) {
            if !changed {
                tracing::debug!(cdls_id = %change.id(), "the row had changed already");
                continue;
            }
            self.feedback.changed(change, waiter.as_deref());
        }
    }
}

fn count(batch: &Batch, recorded: &Recorded) {
    let made = recorded.claimed.iter().filter(|made| **made).count();
    METRICS.dispatch.claims_made.increment(made as u64);
    METRICS.dispatch.claims_refused.increment((recorded.claimed.len() - made) as u64);
    let ambiguous =
        batch.changes.iter().zip(&recorded.changed).filter(|(change, done)| **done && change.is_ambiguous());
    METRICS.dispatch.ambiguous.increment(ambiguous.count() as u64);
    METRICS.dispatch.late.increment(recorded.late as u64);
}

/// Takes a transaction's worth from the front; a row appears once in it, so a second entry for it waits.
fn take_batch(backlog: &mut VecDeque<Entry>) -> Batch {
    let mut batch = Batch::default();
    let mut seen = HashSet::new();
    let mut later = VecDeque::new();
    while seen.len() < BATCH
        && let Some(entry) = backlog.pop_front()
    {
        if !seen.insert(entry.id()) {
            later.push_back(entry);
            continue;
        }
        match entry {
            Entry::Change { change, waiter } => {
                batch.changes.push(change);
                batch.waiters.push(waiter);
            }
            Entry::Claim { line, claim } => {
                batch.claims.push(claim);
                batch.lines.push(line);
            }
        }
    }
    while let Some(entry) = later.pop_back() {
        backlog.push_front(entry);
    }
    batch
}

impl Batch {
    /// Two halves, or nothing if there is a single entry left.
    fn split(&mut self) -> Option<(Batch, Batch)> {
        if self.changes.len() + self.claims.len() < 2 {
            return None;
        }
        let first = Batch {
            changes: self.changes.drain(..self.changes.len().div_ceil(2)).collect(),
            waiters: self.waiters.drain(..self.waiters.len().div_ceil(2)).collect(),
            claims: self.claims.drain(..self.claims.len() / 2).collect(),
            lines: self.lines.drain(..self.lines.len() / 2).collect(),
            refused: 0,
        };
        Some((first, std::mem::take(self)))
    }
}
