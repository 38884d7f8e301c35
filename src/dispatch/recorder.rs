//! The recorder: one task per process that commits, in one transaction, the results just finished and the claims
//! about to start.
//!
//! Claims so cost no commit of their own, and no call is made without a committed claim. Results wait while the
//! database is away and are written when it is back; claims do not wait: what could not be claimed is read again.
//! Never here: decisions about a row.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use crate::broker::SharedBroker;
use crate::failpoint;
use crate::message::{ErrorKind, LineId, MessageId, Outcome, Reply};
use crate::store::{Change, Claim, SharedStore, StoreError};

/// Entries one transaction holds at most.
const BATCH: usize = 400;
/// A small batch waits this long for more.
const LINGER: Duration = Duration::from_millis(2);
/// Batches of this size do not wait.
const ENOUGH: usize = 64;
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

/// How long a claim takes from being asked for to its answer, smoothed; in microseconds.
#[derive(Clone, Default)]
pub struct Latency(Arc<AtomicU64>);

impl Latency {
    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn observe(&self, sample: Duration) {
        let smoothed = (self.0.load(Ordering::Relaxed) * 7 + sample.as_micros() as u64) / 8;
        self.0.store(smoothed, Ordering::Relaxed);
    }
}

/// Writes entries until their senders are gone and everything is written.
pub struct Recorder {
    pub worker: String,
    pub store: SharedStore,
    pub broker: SharedBroker,
    pub entries: mpsc::UnboundedReceiver<Entry>,
    pub events: mpsc::UnboundedSender<Event>,
    pub latency: Latency,
}

/// A batch on its way into the database.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    waiters: Vec<Option<String>>,
    claims: Vec<Claim>,
    lines: Vec<LineId>,
}

impl Recorder {
    pub async fn run(mut self) {
        let mut backlog: VecDeque<Entry> = VecDeque::new();
        let mut pause = FIRST_PAUSE;
        loop {
            if backlog.is_empty() {
                match self.entries.recv().await {
                    Some(entry) => backlog.push_back(entry),
                    None => return,
                }
            }
            self.gather(&mut backlog).await;
            let started = Instant::now();
            let batch = take_batch(&mut backlog);
            match self.write(batch).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.latency.observe(started.elapsed() + LINGER);
                }
                Err((batch, error)) => {
                    tracing::warn!(%error, results = batch.changes.len(), "results wait: the log cannot be written");
                    for (change, waiter) in batch.changes.into_iter().zip(batch.waiters).rev() {
                        backlog.push_front(Entry::Change { change, waiter });
                    }
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
    async fn write(&self, batch: Batch) -> Result<(), (Batch, StoreError)> {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            if !part.changes.is_empty() {
                failpoint::hit("before_result_commit");
            }
            match self.store.record(&self.worker, &part.changes, &part.claims).await {
                Ok(recorded) => {
                    if !part.claims.is_empty() {
                        failpoint::hit("after_claim_commit");
                    }
                    if !part.changes.is_empty() {
                        failpoint::hit("after_result_commit");
                    }
                    self.announce(&part, &recorded.changed);
                    self.answer_claims(&part, &recorded.claimed);
                }
                Err(StoreError::Rejected(reason)) => match part.split() {
                    Some((first, second)) => parts.extend([second, first]),
                    None => self.give_up(part, &reason),
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

    /// A single entry that the database refuses. Its row stays claimed and is settled as unknown after its deadline.
    fn give_up(&self, part: Batch, reason: &str) {
        for change in &part.changes {
            tracing::error!(cdls_id = %change.id(), reason, "the database refuses this result");
        }
        self.answer_claims(&part, &[]);
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

    /// Tells those who wait for an outcome that is now in the log.
    fn announce(&self, batch: &Batch, changed: &[bool]) {
        for ((change, waiter), changed) in batch.changes.iter().zip(&batch.waiters).zip(changed) {
            if !changed {
                tracing::debug!(cdls_id = %change.id(), "the row had changed already");
                continue;
            }
            let Some((address, ticket)) = waiter.as_deref().and_then(|waiter| waiter.rsplit_once('/')) else {
                continue;
            };
            if let Some(outcome) = outcome(change) {
                self.broker.reply(address, Reply { ticket: ticket.to_owned(), outcome });
            }
        }
    }
}

/// What a waiter is told about a change; nothing while the row goes on.
fn outcome(change: &Change) -> Option<Outcome> {
    let row = change.row();
    let status = Some(row.to).filter(|status| status.is_outcome())?;
    Some(Outcome {
        cdls_id: change.id(),
        status,
        // An expired row was not ended by an answer of Graph.
        status_code: match row.error_kind {
            Some(kind) if kind == ErrorKind::Expired.as_str() => 0,
            _ => row.status_code.unwrap_or(0),
        },
        message_id: row.message_id.unwrap_or_default(),
    })
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
        };
        Some((first, std::mem::take(self)))
    }
}
