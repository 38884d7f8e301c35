//! The one way in: checked submissions are committed together, answered, and announced.
//!
//! While a commit is under way the next batch gathers, so batches form by themselves and a lone message does not
//! wait. A submission that was handed in is committed even if its client goes away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use crate::broker::SharedBroker;
use crate::failpoint;
use crate::message::{Job, MessageId, Submission};
use crate::store::{SharedStore, StoreError};

/// Rows one commit holds at most.
const BATCH: usize = 500;
/// After a commit of at least this many rows, the next one waits a moment for those whose clients were just answered.
const BUSY: usize = 8;
const LINGER: Duration = Duration::from_millis(1);
/// Submissions that may wait for a commit; more are refused at once.
const WAITING: usize = 10_000;
/// How often the backlog is counted, at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// Counting may take this share of the time: a large backlog is counted less often.
const COUNT_SHARE: u32 = 50;

type Answer = oneshot::Sender<Result<MessageId, Refusal>>;

/// Takes submissions in.
pub struct Acceptor {
    queue: mpsc::Sender<(Submission, Answer)>,
    is_full: AtomicBool,
    store: SharedStore,
    broker: SharedBroker,
    max_backlog: i64,
}

/// Submissions on their way to a commit.
pub struct Waiting(mpsc::Receiver<(Submission, Answer)>);

impl Acceptor {
    pub fn new(store: SharedStore, broker: SharedBroker, max_backlog: i64) -> (Acceptor, Waiting) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Acceptor { queue, is_full: AtomicBool::new(false), store, broker, max_backlog }, Waiting(waiting))
    }

    /// Logs a submission; its row is committed when this answers with an id.
    pub async fn accept(&self, submission: Submission) -> Result<MessageId, Refusal> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Refusal::Unavailable);
        }
        let (answer, answered) = oneshot::channel();
        self.queue.try_send((submission, answer)).map_err(|_| Refusal::Unavailable)?;
        answered.await.unwrap_or(Err(Refusal::Unavailable))
    }

    /// Commits what is handed in, until `ended`.
    pub async fn run(&self, mut waiting: Waiting, ended: &CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut last = 0;
        loop {
            let received = tokio::select! {
                received = waiting.0.recv_many(&mut batch, BATCH) => received,
                () = ended.cancelled() => 0,
            };
            if received == 0 {
                return;
            }
            if last >= BUSY && received < last {
                tokio::time::sleep(LINGER).await;
                while batch.len() < BATCH
                    && let Ok(submission) = waiting.0.try_recv()
                {
                    batch.push(submission);
                }
            }
            last = batch.len();
            let (submissions, answers) = batch.drain(..).unzip();
            self.commit(submissions, answers).await;
        }
    }

    async fn commit(&self, submissions: Vec<Submission>, answers: Vec<Answer>) {
        let mut parts = vec![(submissions, answers)];
        while let Some((mut submissions, mut answers)) = parts.pop() {
            match self.store.insert(&submissions).await {
                Ok(ids) => {
                    failpoint::hit("after_commit");
                    self.announce(&submissions, answers, &ids);
                }
                // One row that the database refuses must not take the others down with it.
                Err(StoreError::Rejected(_)) if submissions.len() > 1 => {
                    let half = submissions.len() / 2;
                    parts.push((submissions.split_off(half), answers.split_off(half)));
                    parts.push((submissions, answers));
                }
                Err(error) => {
                    tracing::error!(%error, rows = submissions.len(), "messages could not be logged");
                    for answer in answers {
                        // Its client may have gone away.
                        let _ = answer.send(Err(Refusal::Unavailable));
                    }
                }
            }
        }
    }

    fn announce(&self, submissions: &[Submission], answers: Vec<Answer>, ids: &[MessageId]) {
        for (answer, id) in answers.into_iter().zip(ids) {
            // Its client may have gone away.
            let _ = answer.send(Ok(*id));
        }
        let now = time::OffsetDateTime::now_utc();
        let ready = submissions
            .iter()
            .zip(ids)
            .filter(|(submission, _)| submission.send_at.is_none_or(|at| at <= now))
            .map(|(submission, id)| (submission.line, submission.lane, *id));
        for (partition, job) in Job::announcing(ready) {
            self.broker.publish(partition, job);
        }
    }

    /// Watches the backlog bound, until `ended`. While it cannot be counted the last answer holds.
    pub async fn watch_backlog(&self, ended: &CancellationToken) {
        loop {
            let started = Instant::now();
            match self.store.backlog(self.max_backlog).await {
                Ok(rows) => {
                    let is_full = rows >= self.max_backlog;
                    if is_full != self.is_full.swap(is_full, Ordering::Relaxed) {
                        tracing::warn!(rows, is_full, "the backlog bound was crossed (ingest.max_backlog)");
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
}
