//! The recorder: one task per process that commits, in one transaction, the results just finished and the claims
//! about to start.
//!
//! Claims so cost no commit of their own, and no call is made without a committed claim. Results wait while the
//! database is away and are written when it is back; claims do not wait: their work is read again. A result that the
//! database refuses is written without its texts, or as UNKNOWN; a result whose row another transaction has locked is put
//! aside, and the others go on.
//! Never here: decisions about a row.

mod batch;
mod claims;
mod progress;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::Event;
use crate::failpoint;
use crate::feedback::Feedback;
use crate::message::{Lane, LineId, MessageId, Status, WorkId};
use crate::metrics::METRICS;
use crate::store::{Change, ChangeKind, Claim, DispatchStore, Record, Recorded, StoreError};
use batch::{Aside, Batch, ClaimEntry, take_batch};
use claims::Claims;
pub use progress::Progress;

/// Entries one transaction holds at most.
const BATCH: usize = 400;
/// Entries of the bulk lane wait this long for company; those of the high lane do not wait.
const LINGER: Duration = Duration::from_millis(10);
/// Batches of this size do not wait.
const ENOUGH: usize = 128;
/// Work and claims that have ended and that one transaction removes at most.
const ENDED_AT_ONCE: usize = 1_000;
/// Work and claims that have ended are removed with the next batch, or after this long.
const TIDY_AFTER: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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
    /// The work's last row has ended with a change before this.
    WorkEnded(WorkId),
    /// Answered when all before it is written; with whether there was something.
    Barrier(oneshot::Sender<bool>, bool),
}

/// Writes entries until their senders are gone and everything is written.
pub struct Recorder {
    pub worker: String,
    pub store: Arc<dyn DispatchStore>,
    pub feedback: Feedback,
    pub entries: mpsc::UnboundedReceiver<Entry>,
    pub events: mpsc::UnboundedSender<Event>,
    /// Notified when a row was put off.
    pub due: Arc<Notify>,
    pub progress: Progress,
}

/// Results that the database refuses in every form, by their rows, with the fence of the call. Such a row stays
/// claimed by this process and looks as if its call had never begun; giving it back would send it again.
#[derive(Default)]
struct Unwritten(HashMap<MessageId, i32>);

impl Unwritten {
    /// Puts "not known" in the place of giving back a row whose call was made.
    fn guard(&self, change: &mut Change) {
        if self.0.get(&change.id) == Some(&change.fence) && change.call().is_none() && change.ends_claim() {
            *change = Change::lost(change.id, change.fence);
        }
    }
}

/// The state that the recorder keeps between batches.
#[derive(Default)]
struct Memory {
    unwritten: Unwritten,
    claims: Claims,
    /// Work that has ended, and whose removal is not committed.
    ended_work: BTreeSet<WorkId>,
    /// Ended work and claims are not removed with this batch.
    keeps_ended: bool,
    aside: Aside,
    /// Rows whose changes may be written already.
    unanswered: HashSet<MessageId>,
}

impl Recorder {
    pub async fn run(mut self) {
        let mut backlog: VecDeque<Entry> = VecDeque::new();
        let mut memory = Memory::default();
        let mut pause = FIRST_PAUSE;
        loop {
            self.look_at_locked(&mut memory, &mut backlog).await;
            if backlog.is_empty() && !self.wait(&memory, &mut backlog).await {
                if memory.aside.is_empty() {
                    self.tidy(&mut memory).await;
                    return;
                }
                tokio::time::sleep(FIRST_PAUSE).await;
                continue;
            }
            if backlog.is_empty() {
                self.tidy(&mut memory).await;
                continue;
            }
            self.gather(&mut backlog).await;
            let started = Instant::now();
            let mut batch = take_batch(&mut backlog, BATCH);
            self.wait_behind(&mut batch, &mut memory);
            self.progress.put_aside(memory.aside.rows());
            self.progress.set_waiting(backlog.len() + self.entries.len());
            batch.changes.iter_mut().for_each(|change| memory.unwritten.guard(change));
            let barriers = std::mem::take(&mut batch.barriers);
            // Also of rows whose result waits for a lock, or for the database: each has an open claim until that is written.
            memory.ended_work.extend(std::mem::take(&mut batch.ended_work));
            match self.write(batch, &mut memory).await {
                Ok(()) => {
                    // The task that waits for it may be gone.
                    for (barrier, answer) in barriers {
                        let _ = barrier.send(answer);
                    }
                    pause = FIRST_PAUSE;
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
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Results whose rows were locked are written once they are not.
    async fn look_at_locked(&self, memory: &mut Memory, backlog: &mut VecDeque<Entry>) {
        let mut due = memory.aside.due(Instant::now());
        if due.changes.is_empty() {
            return;
        }
        memory.aside.put(Instant::now(), self.take_locked(&mut due).await);
        // In front of later changes of these rows.
        due.into_entries().rev().for_each(|entry| backlog.push_front(entry));
    }

    /// A row's changes are written in the order they came: later ones wait behind one that was set aside, and no claim of it is made.
    fn wait_behind(&self, batch: &mut Batch, memory: &mut Memory) {
        if memory.aside.is_empty() {
            return;
        }
        let rows = memory.aside.rows();
        memory.aside.put_behind(batch.take_changes(&rows));
        let (refused, claims) = std::mem::take(&mut batch.claims)
            .into_iter()
            .partition(|entry: &ClaimEntry| rows.contains(&entry.claim.id));
        batch.claims = claims;
        self.answer_claims(&Batch { claims: refused, ..Batch::default() }, &[]);
    }

    /// Takes the results out whose rows others have locked. Where the log does not answer there are none.
    async fn take_locked(&self, batch: &mut Batch) -> Batch {
        let ids: Vec<MessageId> = batch.changes.iter().map(|change| change.id).collect();
        let locked = self.store.locked(&ids).await.unwrap_or_default();
        batch.take_changes(&locked.into_iter().collect())
    }

    /// Waits for an entry, or for something else to be done; says whether entries may still come.
    async fn wait(&mut self, memory: &Memory, backlog: &mut VecDeque<Entry>) -> bool {
        let patience = if memory.has_ended() { Some(TIDY_AFTER) } else { None };
        let until = [patience.map(|patience| Instant::now() + patience), memory.aside.next()];
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

    /// Takes entries that are there; waits a moment for more while there are few, and none of the high lane.
    async fn gather(&mut self, backlog: &mut VecDeque<Entry>) {
        let until = Instant::now() + LINGER;
        loop {
            while backlog.len() < BATCH {
                match self.entries.try_recv() {
                    Ok(entry) => backlog.push_back(entry),
                    Err(_) => break,
                }
            }
            if backlog.len() >= ENOUGH || backlog.iter().any(Entry::is_urgent) {
                return;
            }
            match tokio::time::timeout_at(until, self.entries.recv()).await {
                Ok(Some(entry)) => backlog.push_back(entry),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Puts results that could not be written in front again.
    fn put_back(
        &self,
        batch: Batch,
        barriers: Vec<(oneshot::Sender<bool>, bool)>,
        backlog: &mut VecDeque<Entry>,
    ) {
        let barriers = barriers.into_iter().map(|(barrier, answer)| Entry::Barrier(barrier, answer));
        barriers.for_each(|barrier| backlog.push_front(barrier));
        batch.into_entries().rev().for_each(|entry| backlog.push_front(entry));
    }

    /// Removes work and claims that have ended.
    async fn tidy(&self, memory: &mut Memory) {
        if memory.has_ended()
            && let Err((_, error)) = self.write(Batch::default(), memory).await
        {
            tracing::debug!(%error, "ended work stays in the queue: it is removed later");
        }
    }

    /// Commits a batch and tells everybody concerned. When the database is away, the batch's results come back;
    /// its claims were answered.
    async fn write(&self, batch: Batch, memory: &mut Memory) -> Result<(), (Batch, StoreError)> {
        let mut parts = vec![batch];
        // Once for a batch: rows that are locked then are known, and are not waited for one by one.
        let mut was_asked = false;
        memory.keeps_ended = false;
        while let Some(mut part) = parts.pop() {
            self.refuse_open(&mut part, memory);
            if !part.changes.is_empty() {
                failpoint::hit("before_result_commit");
            }
            match self.record(&part, memory).await {
                Ok(recorded) => self.recorded(&part, &recorded, memory),
                // Others may have locked a row of the queue that is to be removed: that can wait.
                Err(StoreError::Locked(_) | StoreError::Undone(_))
                    if memory.has_ended() && !memory.keeps_ended =>
                {
                    memory.keeps_ended = true;
                    parts.push(part);
                }
                Err(StoreError::Locked(_)) if !was_asked => {
                    was_asked = true;
                    let locked = self.take_locked(&mut part).await;
                    self.put_aside(locked, memory);
                    parts.push(part);
                }
                Err(StoreError::Locked(_) | StoreError::Undone(_)) if part.is_single() => {
                    self.put_aside(part, memory);
                }
                Err(StoreError::Rejected(_) | StoreError::Locked(_) | StoreError::Undone(_))
                    if !part.is_single() =>
                {
                    let (first, second) = part.split();
                    parts.extend([second, first]);
                }
                Err(StoreError::Rejected(reason)) => parts.extend(self.refused(part, &reason, memory)),
                Err(error) => {
                    for rest in std::iter::once(&part).chain(&parts) {
                        self.answer_claims(rest, &[]);
                    }
                    part.claims.clear();
                    memory.unanswered.extend(part.changes.iter().map(|change| change.id));
                    parts.into_iter().rev().for_each(|rest| part.changes_of(rest));
                    if failpoint::defect("result_lost") {
                        return Ok(());
                    }
                    return Err((part, error));
                }
            }
        }
        Ok(())
    }

    async fn record(&self, part: &Batch, memory: &mut Memory) -> Result<Recorded, StoreError> {
        let started = Instant::now();
        let claims: Vec<Claim> = part.claims.iter().map(|claim| claim.claim).collect();
        let claim_no = memory.claims.number();
        let at_once = if memory.keeps_ended { 0 } else { ENDED_AT_ONCE };
        let ended_work: Vec<WorkId> = memory.ended_work.iter().take(at_once).copied().collect();
        let ended_claims: Vec<i64> = memory.claims.ended().iter().take(at_once).copied().collect();
        let record = Record {
            worker: &self.worker,
            changes: &part.changes,
            claims: &claims,
            claim_no,
            ended_work: &ended_work,
            ended_claims: &ended_claims,
            repeated: part.changes.iter().any(|change| memory.unanswered.contains(&change.id)),
        };
        let recorded = self.store.record(record).await?;
        METRICS.dispatch.batch_entries.record((part.changes.len() + claims.len()) as f64);
        METRICS.dispatch.batch_seconds.record(started.elapsed());
        for work in &ended_work {
            memory.ended_work.remove(work);
        }
        memory.claims.removed(ended_claims.len());
        let made = claims.iter().zip(&recorded.claimed).filter(|(_, made)| **made);
        memory.claims.made(claim_no, made.map(|(claim, _)| (claim.id, claim.fence + 1)));
        Ok(recorded)
    }

    fn recorded(&self, part: &Batch, recorded: &Recorded, memory: &mut Memory) {
        if !part.claims.is_empty() {
            failpoint::hit("after_claim_commit");
        }
        if !part.changes.is_empty() {
            failpoint::hit("after_result_commit");
        }
        for change in &part.changes {
            memory.unanswered.remove(&change.id);
        }
        for change in part.changes.iter().filter(|change| change.ends_claim()) {
            memory.claims.call_ended(change.id, change.fence);
        }
        count(part, recorded);
        if part.changes.iter().any(|change| matches!(change.kind, ChangeKind::Retry { .. })) {
            self.due.notify_one();
        }
        self.announce(part, &recorded.changed);
        let claims = part.claims.iter().zip(&recorded.claimed).filter(|(_, made)| **made);
        self.feedback.became(claims.map(|(claim, _)| claim.claim.id), Status::Sending);
        self.answer_claims(part, &recorded.claimed);
    }

    /// A claim that this process has made already, and whose call has not ended, is not made again: the row was read anew
    /// after its line had been lost and regained.
    fn refuse_open(&self, part: &mut Batch, memory: &Memory) {
        let (open, claims): (Vec<_>, Vec<_>) = std::mem::take(&mut part.claims)
            .into_iter()
            .partition(|claim| memory.claims.is_open(claim.claim.id, claim.claim.fence + 1));
        part.claims = claims;
        if !open.is_empty() {
            self.answer_claims(&Batch { claims: open, ..Batch::default() }, &[]);
        }
    }

    /// A single entry whose row somebody else has locked: a result is tried again a moment later, a claim is not made.
    fn put_aside(&self, part: Batch, memory: &mut Memory) {
        self.answer_claims(&part, &[]);
        for change in &part.changes {
            tracing::warn!(cdls_id = %change.id, "row locked by another transaction: its result waits");
        }
        memory.aside.put(Instant::now(), part);
        self.progress.put_aside(memory.aside.rows());
    }

    /// A single entry that the database refuses: a result in the form to be tried next. A claim was not made; a result
    /// that is refused in every form is tried as UNKNOWN again whenever its row is found claimed without a call.
    fn refused(&self, mut part: Batch, reason: &str, memory: &mut Memory) -> Option<Batch> {
        self.answer_claims(&part, &[]);
        let change = part.changes.first_mut()?;
        METRICS.dispatch.results_refused.increment(1);
        if change.stays_in_work() {
            // It does not come back: a plainer form ends it. The dispatcher is gone only when the process ends.
            let _ = self.events.send(Event::Returned(vec![(change.id, change.fence, false)]));
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
                    memory.unwritten.0.insert(id, fence);
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
            .enumerate()
            .map(|(n, claim)| (claim.line, claim.claim.id, made.get(n).copied().unwrap_or(false)))
            .collect();
        // The dispatcher is gone only when the process ends; claims are settled by the next owner then.
        let _ = self.events.send(Event::ClaimsAnswered(answers));
    }

    /// Tells those who wait for an outcome, or listen to changes, that are now in the log; and the dispatcher, which rows
    /// are ready again.
    fn announce(&self, batch: &Batch, changed: &[bool]) {
        let mut back = Vec::new();
        for ((change, waiter), changed) in batch.changes.iter().zip(&batch.waiters).zip(changed) {
            if change.stays_in_work() {
                back.push((change.id, change.fence, *changed));
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

impl Memory {
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

fn count(batch: &Batch, recorded: &Recorded) {
    let made = recorded.claimed.iter().filter(|made| **made).count();
    METRICS.dispatch.claims_made.increment(made as u64);
    METRICS.dispatch.claims_refused.increment((recorded.claimed.len() - made) as u64);
    let ambiguous =
        batch.changes.iter().zip(&recorded.changed).filter(|(change, done)| **done && change.is_ambiguous());
    METRICS.dispatch.ambiguous.increment(ambiguous.count() as u64);
    METRICS.dispatch.late.increment(recorded.late as u64);
}
