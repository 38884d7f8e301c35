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
use crate::message::Job;
use crate::store::{Inserted, NewMessage, SharedStore, StoreError};

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
    is_full: AtomicBool,
    store: SharedStore,
    broker: SharedBroker,
    max_backlog: i64,
}

/// Submissions on their way to a commit.
pub struct Waiting(mpsc::Receiver<(NewMessage, Answer)>);

impl Acceptor {
    pub fn new(store: SharedStore, broker: SharedBroker, max_backlog: i64) -> (Acceptor, Waiting) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Acceptor { queue, is_full: AtomicBool::new(false), store, broker, max_backlog }, Waiting(waiting))
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
        self.queue.send((message, answer)).await.map_err(|_| Refusal::Unavailable)?;
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
                    && let Ok(message) = waiting.0.try_recv()
                {
                    batch.push(message);
                }
            }
            last = batch.len();
            let (messages, answers) = batch.drain(..).unzip();
            self.commit(messages, answers).await;
        }
    }

    async fn commit(&self, messages: Vec<NewMessage>, answers: Vec<Answer>) {
        let mut parts = vec![(messages, answers)];
        while let Some((mut messages, mut answers)) = parts.pop() {
            match self.store.accept(&messages).await {
                Ok(inserted) => self.announce(&messages, answers, &inserted),
                // One row that the database refuses must not take the others down with it.
                Err(StoreError::Rejected(_)) if messages.len() > 1 => {
                    let half = messages.len() / 2;
                    parts.push((messages.split_off(half), answers.split_off(half)));
                    parts.push((messages, answers));
                }
                Err(error) => {
                    tracing::error!(%error, rows = messages.len(), "messages could not be logged");
                    for answer in answers {
                        // Its client may have gone away.
                        let _ = answer.send(Err(Refusal::Unavailable));
                    }
                }
            }
        }
    }

    fn announce(&self, messages: &[NewMessage], answers: Vec<Answer>, inserted: &[Inserted]) {
        for (answer, inserted) in answers.into_iter().zip(inserted) {
            // Its client may have gone away.
            let _ = answer.send(Ok(*inserted));
        }
        let now = time::OffsetDateTime::now_utc();
        let ready = messages.iter().zip(inserted).filter_map(|(message, inserted)| match inserted {
            Inserted::New(id) if message.submission.send_at.is_none_or(|at| at <= now) => {
                Some((message.submission.line, message.submission.lane, *id))
            }
            _ => None,
        });
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
