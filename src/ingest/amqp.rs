//! The way in over RabbitMQ (contract: "RabbitMQ: for producers and listeners"): a batch of submissions of one
//! queue is checked, logged in one commit, and then acknowledged.
//!
//! The order of a queue is kept: while the database is away, no submission behind the first one that cannot be
//! logged is logged, and none is acknowledged. The queues take turns with their batches, so that a producer that
//! fills its own queue costs the others a turn. A refused submission goes to `cdls.rejected` without its
//! token, and is acknowledged when the broker has confirmed it there. Never here: a submission given back to the
//! queue because of its content, or held until the broker's consumer timeout (30 minutes by default) closes its
//! channel: submissions that cannot be logged are given back, and the first one tells when there is room again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ingest;
use super::rejected::rejected;
use super::submission::{CheckFailure, CheckedSubmission};
use crate::broker::{IntakeBatch, Submitted};
use crate::domain::{AccountId, RowId};
use crate::edge::{Envelope, Refusal};
use crate::metrics::METRICS;
use crate::policy::Backoff;
use crate::store::{Idempotency, Inserted, NewMessage, Scope};
use crate::tasks::every;

/// Submissions checked at a time: most need no look-up.
const CHECKED_AT_ONCE: usize = 16;
/// Batches checked and committed at a time. The others wait for their turn, in the order in which they came; a
/// queue has one batch at a time.
const TURNS: usize = 4;
/// How often the users with a queue of their own are looked for: a change is seen within 10 seconds.
const QUEUES_EVERY: Duration = Duration::from_secs(5);
/// Pauses while nothing can be logged, or a refusal cannot be published.
const PAUSES: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

/// How long a batch is held. Up to four batches may be delivered at once, and wait one after another: together they
/// have to stay below the broker's consumer timeout.
const HELD_FOR: Duration = Duration::from_secs(5 * 60);
/// How often a given-back submission is tried.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A refused submission and the reason.
type RefusedSubmission = (Submitted, CheckFailure);

impl Ingest {
    /// Take batches until the process stops, or the broker has no more.
    pub async fn take_in(self: Arc<Self>, batches: mpsc::Receiver<IntakeBatch>) {
        let ended = self.stopping.child_token();
        let take_batches = async {
            self.clone().take_batches(batches).await;
            ended.cancel();
        };
        let follow_queues = every(ended.clone(), || self.follow_queues());
        tokio::join!(take_batches, ended.run_until_cancelled(follow_queues));
    }

    /// Have the queues of single users consumed. Return the pause before the next look.
    async fn follow_queues(&self) -> Duration {
        match self.store.submit_queues().await {
            Ok(users) => self.broker.take_in_from(&users),
            Err(error) => {
                tracing::debug!(%error, "users' queues cannot be read: the known ones are consumed")
            }
        }
        QUEUES_EVERY
    }

    async fn take_batches(self: Arc<Self>, mut batches: mpsc::Receiver<IntakeBatch>) {
        let turns = Arc::new(Semaphore::new(TURNS));
        let mut taken = JoinSet::new();
        loop {
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(batch) => drop(taken.spawn(self.clone().take_batch(batch, turns.clone()))),
                    // The supervisors of the connections end only when the process stops.
                    None => return self.stopping.cancelled().await,
                },
                Some(end) = taken.join_next() => if end.is_err() {
                    // A panic, which the panic hook has reported: the process stops.
                    return;
                },
                () = self.stopping.cancelled() => break,
            }
        }
        while taken.join_next().await.is_some() {}
    }

    async fn take_batch(self: Arc<Self>, mut batch: IntakeBatch, turns: Arc<Semaphore>) {
        let submitted = std::mem::take(&mut batch.submitted);
        let is_from_own_queue = batch.is_from_own_queue();
        let Some(mut rest) = self.take_all(submitted, is_from_own_queue, batch.gone(), &turns).await else {
            return;
        };
        if rest.is_empty() {
            return batch.settle();
        }
        let has_room = batch.give_back(rest.iter().map(|submitted| submitted.delivery_tag).collect());
        rest.truncate(1);
        if let Some(first) = rest.pop() {
            self.probe(&first, is_from_own_queue, &has_room).await;
        }
    }

    /// Tell whether a submission could be logged, until the queue is consumed again or the process stops.
    async fn probe(&self, first: &Submitted, is_from_own_queue: bool, has_room: &watch::Sender<bool>) {
        while !has_room.is_closed() {
            has_room.send_replace(self.could_take(first, is_from_own_queue).await);
            tokio::select! {
                () = tokio::time::sleep(PROBE_EVERY) => {}
                () = has_room.closed() => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// Whether a submission would be logged or refused now.
    async fn could_take(&self, submitted: &Submitted, is_from_own_queue: bool) -> bool {
        if self.acceptor.has_room().is_err() || !matches!(self.store.not_writable().await, Ok(None)) {
            return false;
        }
        match self.check(submitted).await {
            Ok(CheckedSubmission::New(message)) => {
                !is_from_own_queue || self.acceptor.has_place(message.submission.account).await
            }
            Ok(CheckedSubmission::LoggedBefore(..)) => true,
            Err(failure) => !(failure.waits() || is_from_own_queue && failure.waits_alone()),
        }
    }

    /// Log or refuse the submissions of a batch. Return the ones that could not be logged in the time that a batch is
    /// held; nothing when the batch is `gone`, or the process stops.
    async fn take_all(
        &self,
        mut waiting: Vec<Submitted>,
        is_from_own_queue: bool,
        gone: &CancellationToken,
        turns: &Semaphore,
    ) -> Option<Vec<Submitted>> {
        let give_back_at = Instant::now() + HELD_FOR;
        let (mut failures, mut counted_in, mut at_once) = (0, 0, waiting.len());
        loop {
            let behind = waiting.split_off(at_once.min(waiting.len()));
            let before = waiting.len();
            // Never closed: there is always a turn.
            let turn = turns.acquire().await;
            let (mut rest, refused) = self.take_some(waiting, is_from_own_queue, &mut counted_in, gone).await;
            drop(turn);
            if !self.reject(refused, gone).await {
                return None;
            }
            let left = rest.len();
            rest.extend(behind);
            if rest.is_empty() || Instant::now() >= give_back_at {
                return Some(rest);
            }
            at_once = next_at_once(before, left, counted_in);
            waiting = rest;
            if left == 0 {
                continue;
            }
            failures = if left < before { 0 } else { failures + 1 };
            if !self.rested(PAUSES.delay(failures), gone).await {
                return None;
            }
        }
    }

    /// Log the submissions that can be logged now. Return the ones that have to wait, in their order, and the
    /// refused ones. The first `counted_in` submissions are counted in their accounts' quotas already.
    async fn take_some(
        &self,
        waiting: Vec<Submitted>,
        is_from_own_queue: bool,
        counted_in: &mut usize,
        gone: &CancellationToken,
    ) -> (Vec<Submitted>, Vec<RefusedSubmission>) {
        let checks: Vec<_> = waiting.iter().map(|submitted| self.check(submitted).boxed()).collect();
        let checked: Vec<_> = stream::iter(checks).buffered(CHECKED_AT_ONCE).collect().await;
        let (mut rest, mut refused, mut good, mut messages) = (vec![], vec![], VecDeque::new(), vec![]);
        for (place, (submitted, checked)) in waiting.into_iter().zip(checked).enumerate() {
            let checked = match checked {
                Ok(CheckedSubmission::New(message)) if rest.is_empty() && place >= *counted_in => {
                    self.count_in(message).await
                }
                checked => checked,
            };
            match checked {
                // No submission may overtake one that could not be checked.
                _ if !rest.is_empty() => rest.push(submitted),
                Err(failure) if failure.waits() => rest.push(submitted),
                // Only submissions of the same user wait behind it.
                Err(failure) if is_from_own_queue && failure.waits_alone() => rest.push(submitted),
                Ok(CheckedSubmission::New(message)) => {
                    good.push_back(submitted);
                    messages.push(message);
                }
                Ok(CheckedSubmission::LoggedBefore(account, id)) => {
                    self.answer_again(&submitted, account, id).await
                }
                Err(failure) => refused.push((submitted, failure)),
            }
        }
        let accounts: Vec<_> = messages.iter().map(|message| message.submission.account).collect();
        // The next owner of a batch that is gone logs it.
        let admissions =
            if gone.is_cancelled() { vec![] } else { self.acceptor.accept_in_order(messages).await };
        for (admission, account) in admissions.into_iter().zip(accounts) {
            let Some(submitted) = good.pop_front() else { break };
            let refusal = match admission {
                Ok(Inserted::New(_)) => continue,
                Ok(Inserted::Replay(id)) => {
                    self.answer_again(&submitted, account, id).await;
                    continue;
                }
                Ok(Inserted::KeyReused) => Refusal::KeyReused,
                Ok(Inserted::Duplicate) => Refusal::Duplicate,
                Err(refusal) => refusal,
            };
            refused.push((submitted, CheckFailure::of(account, refusal)));
        }
        *counted_in = good.len();
        (good.into_iter().chain(rest).collect(), refused)
    }

    /// Count a submission in its account's quotas. One that is over a quota is refused, so that the submissions
    /// of others behind it do not wait, unless its queue is its user's own. A logged one is not refused when it
    /// is repeated.
    async fn count_in(&self, message: NewMessage) -> Result<CheckedSubmission, CheckFailure> {
        let account = message.submission.account;
        let Err(over) = self.acceptor.within_quota(account).await else {
            return Ok(CheckedSubmission::New(message));
        };
        if let Some(Idempotency::Key(key)) = &message.idempotency {
            let logged = self.logged_before(account, key).await;
            if let Some(id) = logged.map_err(|refusal| CheckFailure::of(account, refusal))? {
                return Ok(CheckedSubmission::LoggedBefore(account, id));
            }
        }
        Err(CheckFailure::of(account, over))
    }

    /// Answer a repeated submission whose first one is in the log. If the first one has ended, its outcome is
    /// sent to the producer; if not, it will be sent at its end. A submission that the broker delivers again
    /// is not answered twice.
    async fn answer_again(&self, submitted: &Submitted, account: AccountId, id: RowId) {
        let Ok(Some(to)) = self.reply_to(submitted, account) else { return };
        if submitted.redelivered {
            return;
        }
        if let Ok(Some(row)) = self.store.log_row(Scope::Account(account), id).await
            && row.status.is_final()
        {
            self.broker.answer(&to, Envelope::of(&row.into_outcome()).to_json());
        }
    }

    /// Publish refused submissions to `cdls.rejected`, and answer their producers. Return false when the
    /// batch is `gone`, or the process stops.
    async fn reject(&self, refused: Vec<RefusedSubmission>, gone: &CancellationToken) -> bool {
        let rejecting: Vec<_> = refused
            .into_iter()
            .map(|(submitted, failure)| self.reject_one(submitted, failure, gone).boxed())
            .collect();
        join_all(rejecting).await.into_iter().all(|is_done| is_done)
    }

    async fn reject_one(
        &self,
        submitted: Submitted,
        failure: CheckFailure,
        gone: &CancellationToken,
    ) -> bool {
        let reason = &failure.reason;
        METRICS.ingest.refused(reason.code());
        if reason.refusal.is_over_quota() {
            METRICS.ingest.over_quota(reason.refusal == Refusal::OverBacklog);
        }
        tracing::debug!(status_code = reason.code(), "a submission is refused");
        let answer = failure.account.and_then(|account| self.reply_to(&submitted, account).ok().flatten());
        let rejected = rejected(submitted, reason, failure.is_unauthenticated());
        let mut failures = 0;
        while !self.broker.reject(rejected.clone()).await {
            if !self.rested(PAUSES.delay(failures), gone).await {
                return false;
            }
            failures += 1;
        }
        if let Some(to) = answer {
            let envelope = Envelope::refused(reason, &rejected.status);
            self.broker.answer(&to, envelope.to_json());
        }
        true
    }

    /// Wait; return false if the wait is in vain.
    async fn rested(&self, pause: Duration, gone: &CancellationToken) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = gone.cancelled() => false,
            () = self.stopping.cancelled() => false,
        }
    }
}

/// Return how many submissions are checked next, after `taken` of which `left` could not be logged: a check may need
/// look-ups, which are in vain for a submission that still waits. The `counted_in` ones stay together.
fn next_at_once(taken: usize, left: usize, counted_in: usize) -> usize {
    let next = if left == 0 { taken.saturating_mul(2) } else { taken - left };
    next.max(counted_in).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_submissions_are_not_checked_over_and_over() {
        assert_eq!(next_at_once(100, 100, 0), 1, "none could be logged");
        assert_eq!(next_at_once(100, 60, 0), 40, "as many as the rate let through");
        assert_eq!(next_at_once(40, 0, 0), 80, "all were logged");
        assert_eq!(next_at_once(100, 100, 70), 70, "no submission is counted in twice");
    }
}
