//! The one way in: checked submissions are committed together, answered, and announced.
//!
//! While a commit is under way the next batch gathers, so batches form by themselves and a lone message does not
//! wait. A submission that was handed in is committed even if its client goes away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use crate::broker::SharedBroker;
use crate::failpoint;
use crate::feedback::Feedback;
use crate::message::{Job, JobMessage, JobWork, Lane, MessageId, Status, Submission};
use crate::metrics::METRICS;
use crate::store::{Accepted, Flow, Inserted, NewMessage, SharedStore, StoreError, Work};

/// Rows one commit holds at most.
const BATCH: usize = 500;
/// After a commit of at least this many rows, the next one waits a moment for those whose clients were just answered.
const BUSY: usize = 8;
const LINGER: Duration = Duration::from_millis(1);
/// Messages that may wait for a commit; more are refused at once.
const WAITING: usize = 10_000;
/// Places in the queue of those that can wait for one, and in each commit at least.
const PATIENT: usize = 2_000;
const PATIENT_SHARE: usize = 100;
/// How often the backlog is counted, at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Counting may take this share of the time: a large backlog is counted less often.
const COUNT_SHARE: u32 = 50;

/// How many expired keys are forgotten at once, how often is looked for them, and how soon again while there are more.
const FORGET_AT_ONCE: u32 = 2_000;
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_NEXT: Duration = Duration::from_millis(100);

/// What became of a message that was handed in.
pub type Verdict = Result<Inserted, Refusal>;
type Answer = oneshot::Sender<Verdict>;

/// Takes submissions in.
pub struct Acceptor {
    queue: mpsc::Sender<(NewMessage, Answer)>,
    /// Batches and queues: they wait for a place, and do not crowd out those that are refused without one.
    patient: mpsc::Sender<(NewMessage, Answer)>,
    is_full: AtomicBool,
    store: SharedStore,
    broker: SharedBroker,
    feedback: Feedback,
    max_backlog: i64,
}

/// Submissions on their way to a commit.
pub struct Waiting {
    messages: mpsc::Receiver<(NewMessage, Answer)>,
    patient: mpsc::Receiver<(NewMessage, Answer)>,
}

impl Acceptor {
    pub fn new(
        store: SharedStore,
        broker: SharedBroker,
        feedback: Feedback,
        max_backlog: i64,
    ) -> (Acceptor, Waiting) {
        let (queue, messages) = mpsc::channel(WAITING);
        let (patient, patient_waiting) = mpsc::channel(PATIENT);
        let is_full = AtomicBool::new(false);
        let acceptor = Acceptor { queue, patient, is_full, store, broker, feedback, max_backlog };
        (acceptor, Waiting { messages, patient: patient_waiting })
    }

    /// Logs a message, unless it was logged before; what it answers is committed. Refused at once where too many wait.
    pub async fn accept(&self, message: NewMessage) -> Verdict {
        self.has_room()?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send((message, answer)).map_err(|_| Refusal::Unavailable)?;
        answered.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Hands a message in, waiting for a place in the queue: messages handed in one after another are logged in that
    /// order.
    pub async fn hand_in(&self, message: NewMessage) -> Result<oneshot::Receiver<Verdict>, Refusal> {
        self.has_room()?;
        let (answer, answered) = oneshot::channel();
        self.patient.send((message, answer)).await.map_err(|_| Refusal::Unavailable)?;
        Ok(answered)
    }

    fn has_room(&self) -> Result<(), Refusal> {
        if self.is_full.load(Ordering::Relaxed) { Err(Refusal::Unavailable) } else { Ok(()) }
    }

    /// Commits what is handed in, until `ended`.
    pub async fn run(&self, mut waiting: Waiting, ended: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut last = 0;
        loop {
            let first = tokio::select! {
                message = waiting.messages.recv() => message,
                message = waiting.patient.recv() => message,
                () = ended.cancelled() => None,
            };
            let Some(first) = first else { return };
            batch.push(first);
            fill(&mut batch, &mut waiting.messages, BATCH);
            if last >= BUSY && batch.len() < last && waiting.patient.is_empty() {
                tokio::time::sleep(LINGER).await;
                fill(&mut batch, &mut waiting.messages, BATCH);
            }
            let places = BATCH.max(batch.len() + PATIENT_SHARE);
            fill(&mut batch, &mut waiting.patient, places);
            last = batch.len();
            let (messages, answers) = batch.drain(..).unzip();
            self.commit(messages, answers).await;
        }
    }

    async fn commit(&self, messages: Vec<NewMessage>, answers: Vec<Answer>) {
        let mut parts = vec![(messages, answers)];
        while let Some((mut messages, mut answers)) = parts.pop() {
            let started = Instant::now();
            let accepted = self.store.accept(&messages).await;
            METRICS.ingest.commit_rows.record(messages.len() as f64);
            METRICS.ingest.commit_seconds.record(started.elapsed());
            match accepted {
                Ok(accepted) => {
                    failpoint::hit("after_commit");
                    for (answer, inserted) in answers.into_iter().zip(&accepted.inserted) {
                        // Its client may have gone away.
                        let _ = answer.send(Ok(*inserted));
                    }
                    self.announce(&messages, &accepted);
                }
                // One row that the database refuses must not take the others down with it.
                Err(StoreError::Rejected(_)) if messages.len() > 1 => {
                    let half = messages.len() / 2;
                    parts.push((messages.split_off(half), answers.split_off(half)));
                    parts.push((messages, answers));
                }
                Err(error) => {
                    tracing::error!(%error, rows = messages.len(), "cannot log messages: callers receive 503");
                    METRICS.ingest.not_logged.increment(messages.len() as u64);
                    for answer in answers {
                        // Its client may have gone away.
                        let _ = answer.send(Err(Refusal::Unavailable));
                    }
                }
            }
        }
    }

    /// Logs messages in the order given, as many in one commit as there are. What became of each; where a message could
    /// not be logged for want of a database or of room, neither it nor those behind it have a verdict, so that the order
    /// holds when they are handed in again.
    pub async fn accept_in_order(&self, messages: Vec<NewMessage>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(messages.len());
        let mut parts = vec![messages];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            if self.has_room().is_err() {
                return verdicts;
            }
            match self.store.accept(&part).await {
                Ok(accepted) => {
                    self.announce(&part, &accepted);
                    verdicts.extend(accepted.inserted.into_iter().map(Ok));
                }
                Err(StoreError::Rejected(_)) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(StoreError::Rejected(reason)) => {
                    tracing::error!(reason, "message refused by the database: producer receives a refusal");
                    verdicts.push(Err(Refusal::Malformed));
                }
                Err(error) => {
                    tracing::warn!(%error, rows = part.len(), "cannot log submissions: they wait in the queue");
                    return verdicts;
                }
            }
        }
        verdicts
    }

    /// Tells dispatch of the work and of new schedules, and listeners of the rows.
    fn announce(&self, messages: &[NewMessage], accepted: &Accepted) {
        let logged =
            messages.iter().zip(&accepted.inserted).filter_map(|(message, inserted)| match inserted {
                Inserted::New(id) => Some((*id, &message.submission)),
                Inserted::Replay(_) | Inserted::KeyReused | Inserted::Duplicate => None,
            });
        let logged: HashMap<MessageId, &Submission> = logged.collect();
        let work = accepted.work.iter().filter_map(|work| named(work, &logged));
        let scheduled =
            logged.values().filter(|message| message.send_at.is_some()).map(|message| message.line);
        // The answer to their commit was lost: its work is not known.
        let is_found_again = accepted.work.is_empty();
        let waiting = logged.values().filter(|message| is_found_again && message.send_at.is_none());
        for (partition, job) in Job::announcing(work, scheduled, waiting.map(|message| message.line)) {
            self.broker.publish(partition, job);
        }
        let new = accepted.inserted.iter().filter_map(|inserted| match inserted {
            Inserted::New(id) => Some(*id),
            Inserted::Replay(_) | Inserted::KeyReused | Inserted::Duplicate => None,
        });
        self.feedback.became(new, Status::Pending);
        for (message, inserted) in messages.iter().zip(&accepted.inserted) {
            if matches!(inserted, Inserted::New(_)) {
                METRICS.ingest.accepted(message.submission.class);
            }
        }
    }

    /// Watches the backlog bound, until `ended`. While it cannot be counted the last answer holds.
    pub async fn watch_backlog(&self, ended: &CancellationToken) {
        METRICS.ingest.backlog_bound.set(self.max_backlog as f64);
        loop {
            let started = Instant::now();
            match self.store.backlog(self.max_backlog).await {
                Ok(rows) => {
                    let is_full = rows >= self.max_backlog;
                    METRICS.ingest.backlog.set(rows as f64);
                    METRICS.ingest.backlog_full.set(f64::from(u8::from(is_full)));
                    if is_full != self.is_full.swap(is_full, Ordering::Relaxed) {
                        tracing::warn!(rows, is_full, "backlog bound crossed (ingest.max_backlog)");
                    }
                }
                Err(error) => tracing::debug!(%error, "the backlog cannot be counted"),
            }
            let pause = (started.elapsed() * COUNT_SHARE).max(COUNT_EVERY);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ended.cancelled() => return,
            }
        }
    }

    /// Forgets keys, batches and windows that have expired, until `ended`.
    pub async fn forget_expired(&self, ended: &CancellationToken) {
        loop {
            let pause = match self.store.forget_expired(FORGET_AT_ONCE).await {
                Ok(rows) if rows >= u64::from(FORGET_AT_ONCE) => FORGET_NEXT,
                Ok(_) => FORGET_EVERY,
                Err(error) => {
                    tracing::debug!(%error, "expired keys cannot be forgotten");
                    FORGET_EVERY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = ended.cancelled() => return,
            }
        }
    }
}

/// Work as a job names it, with its messages if they are to be sent soon.
fn named(work: &Work, logged: &HashMap<MessageId, &Submission>) -> Option<JobWork> {
    let Flow { line, lane, medium, campaign } = work.flow.clone();
    let rows = u32::try_from(work.ids.len()).unwrap_or(u32::MAX);
    let messages = match lane {
        Lane::High => {
            work.ids.iter().map(|id| logged.get(id).map(|submission| carried(*id, submission))).collect()
        }
        // A campaign waits for its turn; its line reads it piece by piece.
        Lane::Bulk => None,
    };
    let messages = messages.unwrap_or_default();
    Some(JobWork { work: work.id, line, lane, medium, campaign, first: *work.ids.first()?, rows, messages })
}

fn carried(id: MessageId, submission: &Submission) -> JobMessage {
    JobMessage {
        id,
        account: submission.account,
        kind: submission.kind,
        dest: submission.dest.clone(),
        mdata: submission.mdata.clone(),
        valid_ms: i64::try_from(submission.valid_for.as_millis()).unwrap_or(i64::MAX),
        waiter: submission.waiter.clone(),
    }
}

/// Takes what waits until the batch has so many messages.
fn fill(
    batch: &mut Vec<(NewMessage, Answer)>,
    waiting: &mut mpsc::Receiver<(NewMessage, Answer)>,
    places: usize,
) {
    while batch.len() < places
        && let Ok(message) = waiting.try_recv()
    {
        batch.push(message);
    }
}
