//! The one way in: checked submissions are committed together, answered, and announced.
//!
//! While a commit is under way the next batch gathers: batches form by themselves and a lone message does not
//! wait. A submission that was handed in is committed even if its client goes away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use super::admissions::Admission;
use super::admissions::{AdmissionSender, Admissions};
use super::quotas::{OverQuota, Quotas};
use crate::broker::SharedBroker;
use crate::domain::{AccountId, Job, JobMessage, JobWork, Lane, RowId, Status, Submission};
use crate::edge::Refusal;
use crate::failpoint;
use crate::feedback::Feedback;
use crate::metrics::METRICS;
use crate::settings::Settings;
use crate::store::{Accepted, Flow, Inserted, NewMessage, SharedStore, StoreError, Work};
use crate::tasks::every;

/// Most rows of one commit.
const MAX_COMMIT_ROWS: usize = 500;
/// After a commit of at least this many rows, the next one waits a moment for the clients that were just
/// answered.
const BUSY_COMMIT_ROWS: usize = 8;
const LINGER: Duration = Duration::from_millis(1);
/// The least share of patient submissions in each commit.
const MIN_PATIENT_PLACES: usize = 100;
/// The shortest interval between counts of the backlog.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Counting may take this share of the time: a large backlog is counted less often.
const COUNT_SHARE: u32 = 50;

/// How long a line of a batch waits while too many rows of its account wait, and how often it looks.
const BACKLOG_PATIENCE: Duration = Duration::from_secs(30);
const BACKLOG_AGAIN: Duration = Duration::from_millis(500);

/// How many expired keys are deleted at once, how often, and how soon again while there are more.
const FORGET_AT_ONCE: u32 = 2_000;
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_NEXT: Duration = Duration::from_millis(100);

/// The acceptor of submissions.
pub struct Acceptor {
    admissions: Admissions,
    quotas: Quotas,
    is_full: AtomicBool,
    store: SharedStore,
    broker: SharedBroker,
    feedback: Feedback,
    max_backlog: i64,
    /// Cancelled when the process stops: no submission waits for its quota any more.
    stopping: CancellationToken,
}

impl Acceptor {
    pub fn new(
        store: SharedStore,
        broker: SharedBroker,
        feedback: Feedback,
        settings: &Settings,
        stopping: CancellationToken,
    ) -> Acceptor {
        Acceptor {
            admissions: Admissions::default(),
            quotas: Quotas::new(&settings.security, store.clone()),
            is_full: AtomicBool::new(false),
            store,
            broker,
            feedback,
            max_backlog: settings.ingest.max_backlog,
            stopping,
        }
    }

    /// Log a message, unless it was logged before, and return the committed result. Refuse at once where too
    /// many messages wait, or the account is over a quota.
    pub async fn accept(&self, message: NewMessage) -> Admission {
        self.has_room()?;
        let admitted = self.within_quota(message.submission.account).await;
        admitted.inspect_err(|over| METRICS.ingest.over_quota(*over == Refusal::OverBacklog))?;
        let answered = self.admissions.hand_in(message)?;
        answered.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Hand a message in when its account's quota and the queue have a place: messages handed in one after
    /// another are logged in that order.
    pub async fn hand_in(&self, message: NewMessage) -> Result<oneshot::Receiver<Admission>, Refusal> {
        self.has_room()?;
        self.await_quota(message.submission.account).await?;
        self.admissions.hand_in_patiently(message).await
    }

    /// Count a row of the account in, or return the refusal because of a quota.
    pub async fn within_quota(&self, account: AccountId) -> Result<(), Refusal> {
        self.quotas.admit(account).await.map_err(Refusal::from)
    }

    /// Wait until a row of the account is within its quotas. A full backlog may last for hours: the wait for
    /// it is bounded.
    async fn await_quota(&self, account: AccountId) -> Result<(), Refusal> {
        let patient_until = Instant::now() + BACKLOG_PATIENCE;
        loop {
            let pause = match self.quotas.admit(account).await {
                Ok(()) => return Ok(()),
                Err(OverQuota::Rate { wait }) => wait,
                Err(OverQuota::Backlog) if Instant::now() < patient_until => BACKLOG_AGAIN,
                Err(over) => {
                    METRICS.ingest.over_quota(true);
                    return Err(over.into());
                }
            };
            if self.stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(Refusal::Unavailable);
            }
        }
    }

    /// Whether a submission of the account could be logged now, as far as quotas say. Counts no row in.
    pub async fn has_place(&self, account: AccountId) -> bool {
        self.quotas.has_place(account).await
    }

    /// Refuse where too many messages wait.
    pub fn has_room(&self) -> Result<(), Refusal> {
        if self.is_full.load(Ordering::Relaxed) { Err(Refusal::Unavailable) } else { Ok(()) }
    }

    /// Commit submitted messages until `ended`. Runs once.
    pub async fn run(&self, ended: &CancellationToken) {
        let _open = self.admissions.open();
        let mut batch = Vec::with_capacity(MAX_COMMIT_ROWS);
        let mut last = 0;
        while ended.run_until_cancelled(self.admissions.arrival()).await.is_some() {
            self.admissions.take_quick(&mut batch, MAX_COMMIT_ROWS);
            if last >= BUSY_COMMIT_ROWS && batch.len() < last && !self.admissions.has_patient() {
                tokio::time::sleep(LINGER).await;
                self.admissions.take_quick(&mut batch, MAX_COMMIT_ROWS);
            }
            let places = MAX_COMMIT_ROWS.max(batch.len() + MIN_PATIENT_PLACES);
            self.admissions.take_patient(&mut batch, places);
            last = batch.len();
            let (messages, answers) = batch.drain(..).unzip();
            self.commit(messages, answers).await;
        }
    }

    async fn commit(&self, messages: Vec<NewMessage>, answers: Vec<AdmissionSender>) {
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
                        // The client may have gone away.
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
                        // The client may have gone away.
                        let _ = answer.send(Err(Refusal::Unavailable));
                    }
                }
            }
        }
    }

    /// Log messages in the given order, as many in one commit as there are, and return the result of each.
    /// Where a message could not be logged for want of a database or of room, neither the message nor the
    /// ones behind it have a result: the order holds when they are handed in again.
    pub async fn accept_in_order(&self, messages: Vec<NewMessage>) -> Vec<Admission> {
        let mut admissions = Vec::with_capacity(messages.len());
        let mut parts = vec![messages];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            if self.has_room().is_err() {
                return admissions;
            }
            match self.store.accept(&part).await {
                Ok(accepted) => {
                    self.announce(&part, &accepted);
                    admissions.extend(accepted.inserted.into_iter().map(Ok));
                }
                Err(StoreError::Rejected(_)) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(StoreError::Rejected(reason)) => {
                    tracing::error!(reason, "message refused by the database: producer receives a refusal");
                    admissions.push(Err(Refusal::Malformed));
                }
                Err(error) => {
                    tracing::warn!(%error, rows = part.len(), "cannot log submissions: they wait in the queue");
                    return admissions;
                }
            }
        }
        admissions
    }

    /// Announce the work and new schedules to dispatch, and the rows to listeners.
    fn announce(&self, messages: &[NewMessage], accepted: &Accepted) {
        let logged =
            messages.iter().zip(&accepted.inserted).filter_map(|(message, inserted)| match inserted {
                Inserted::New(id) => Some((*id, &message.submission)),
                Inserted::Replay(_) | Inserted::KeyReused | Inserted::Duplicate => None,
            });
        let logged: HashMap<RowId, &Submission> = logged.collect();
        let work = accepted.work.iter().filter_map(|work| named(work, &logged));
        let scheduled =
            logged.values().filter(|message| message.send_at.is_some()).map(|message| message.line);
        // The answer to the commit was lost: its work is not known.
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

    /// Watch the backlog bound until `ended`. The last count holds while the backlog cannot be counted.
    pub async fn watch_backlog(&self, ended: &CancellationToken) {
        METRICS.ingest.backlog_bound.set(self.max_backlog as f64);
        every(ended.clone(), || async {
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
            self.quotas.forget_idle();
            (started.elapsed() * COUNT_SHARE).max(COUNT_EVERY)
        })
        .await;
    }

    /// Delete expired keys, batches and windows, until `ended`.
    pub async fn forget_expired(&self, ended: &CancellationToken) {
        every(ended.clone(), || async {
            match self.store.forget_expired(FORGET_AT_ONCE).await {
                Ok(rows) if rows >= u64::from(FORGET_AT_ONCE) => FORGET_NEXT,
                Ok(_) => FORGET_EVERY,
                Err(error) => {
                    tracing::debug!(%error, "expired keys cannot be forgotten");
                    FORGET_EVERY
                }
            }
        })
        .await;
    }
}

/// Return work in the form of a job, with its messages if they are due soon.
fn named(work: &Work, logged: &HashMap<RowId, &Submission>) -> Option<JobWork> {
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

fn carried(id: RowId, submission: &Submission) -> JobMessage {
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
