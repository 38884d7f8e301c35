//! The way in over RabbitMQ (contract: "RabbitMQ: for producers and listeners"): a batch of submissions from
//! `cdls.submit` is checked, logged in one commit, and then acknowledged.
//!
//! The order of the queue is kept: while the database is away, no submission behind the first one that cannot
//! be logged is logged, and none is acknowledged. A refused submission goes to `cdls.rejected` without its
//! token, and is acknowledged when the broker has confirmed it there. Never here: a submission given back to
//! the queue because of its content.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::body::submission_charset;
use super::parameters::Parameters;
use super::rejected::rejected;
use super::{Ingest, LONGEST_BODY};
use crate::broker::{IntakeBatch, Submitted, TokenHeader, public};
use crate::channel::Class;
use crate::domain::{AccountId, ReplyTo, RowId, Waiter};
use crate::edge::{Envelope, Refusal, Refused};
use crate::metrics::METRICS;
use crate::policy::Backoff;
use crate::store::{Idempotency, Inserted, NewMessage, Scope};

/// The version of submissions that this program reads (header `v`).
const VERSION: i64 = 1;
/// Submissions checked at a time: most need no look-up.
const CHECKED_AT_ONCE: usize = 16;
/// Pauses while nothing can be logged, or a refusal cannot be published.
const PAUSES: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

/// The result of checking a submission, before its commit.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, and none lives long")]
enum CheckedSubmission {
    New(NewMessage),
    LoggedBefore(AccountId, RowId),
}

/// A refused submission and the reason.
type RefusedSubmission = (Submitted, Refused);

impl Ingest {
    /// Take batches until the process stops, or the broker has no more.
    pub async fn take_in(self: Arc<Self>, mut batches: mpsc::Receiver<IntakeBatch>) {
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                () = self.stopping.cancelled() => return,
            };
            let Some(mut batch) = batch else {
                // The supervisor of the connection ends only when the process stops.
                return self.stopping.cancelled().await;
            };
            let submitted = std::mem::take(&mut batch.submitted);
            if self.take_all(submitted, batch.gone()).await {
                batch.settle();
            }
        }
    }

    /// Log or refuse every submission of a batch, however long that takes. Return false when the batch is
    /// `gone`, or the process stops.
    async fn take_all(&self, mut waiting: Vec<Submitted>, gone: &CancellationToken) -> bool {
        let mut failures = 0;
        loop {
            let before = waiting.len();
            let (rest, refused) = self.take_some(waiting, gone).await;
            if !self.reject(refused, gone).await {
                return false;
            }
            if rest.is_empty() {
                return true;
            }
            failures = if rest.len() < before { 0 } else { failures + 1 };
            waiting = rest;
            if !self.rested(PAUSES.delay(failures), gone).await {
                return false;
            }
        }
    }

    /// Log the submissions that can be logged now. Return the ones that have to wait, in their order, and the
    /// refused ones.
    async fn take_some(
        &self,
        waiting: Vec<Submitted>,
        gone: &CancellationToken,
    ) -> (Vec<Submitted>, Vec<RefusedSubmission>) {
        let checks: Vec<_> = waiting.iter().map(|submitted| self.check(submitted).boxed()).collect();
        let checked: Vec<_> = stream::iter(checks).buffered(CHECKED_AT_ONCE).collect().await;
        let (mut rest, mut refused, mut good, mut messages) = (vec![], vec![], VecDeque::new(), vec![]);
        for (submitted, checked) in waiting.into_iter().zip(checked) {
            match checked {
                // No submission may overtake one that could not be checked.
                _ if !rest.is_empty() => rest.push(submitted),
                Err(refused) if refused.refusal == Refusal::Unavailable => rest.push(submitted),
                Ok(CheckedSubmission::New(message)) => {
                    good.push_back(submitted);
                    messages.push(message);
                }
                Ok(CheckedSubmission::LoggedBefore(account, id)) => {
                    self.answer_again(&submitted, account, id).await
                }
                Err(reason) => refused.push((submitted, reason)),
            }
        }
        let accounts: Vec<_> = messages.iter().map(|message| message.submission.account).collect();
        // The next owner of a batch that is gone logs it.
        let admissions =
            if gone.is_cancelled() { vec![] } else { self.acceptor.accept_in_order(messages).await };
        for (admission, account) in admissions.into_iter().zip(accounts) {
            let Some(submitted) = good.pop_front() else { break };
            match admission {
                Ok(Inserted::New(_)) => {}
                Ok(Inserted::Replay(id)) => self.answer_again(&submitted, account, id).await,
                Ok(Inserted::KeyReused) => refused.push((submitted, Refusal::KeyReused.into())),
                Ok(Inserted::Duplicate) => refused.push((submitted, Refusal::Duplicate.into())),
                Err(refusal) => refused.push((submitted, refusal.into())),
            }
        }
        (good.into_iter().chain(rest).collect(), refused)
    }

    async fn check(&self, submitted: &Submitted) -> Result<CheckedSubmission, Refused> {
        if submitted.body_bytes > LONGEST_BODY {
            return Err(Refusal::TooLarge.into());
        }
        let property = |text: &Option<String>| text.clone().unwrap_or_default();
        let charset =
            submission_charset(&property(&submitted.content_type), &property(&submitted.content_encoding))?;
        if submitted.body.is_empty() {
            return Err(Refused::malformed("The body is empty: publish a JSON object with the parameters"));
        }
        let mut parameters = Parameters::of_json(&submitted.body, charset)?;
        parameters.forget_wait();
        let account = self.account_of(submitted, &parameters).await?;
        if submitted.version != VERSION {
            return Err(Refused::parameter(
                "v",
                "The header `v` names another version of submissions than 1: publish version 1",
            ));
        }
        let class: Class = submitted.routing_key.parse().map_err(|_| wrong_routing_key())?;
        let key = match &submitted.message_id {
            Some(id) => Some(self.key(id.clone(), class, &parameters)?),
            None => None,
        };
        let prepared = self.prepare_submitted(account, class, &parameters, submitted).await;
        match (prepared, key) {
            (Ok(message), key) => {
                Ok(CheckedSubmission::New(NewMessage { idempotency: key.map(Idempotency::Key), ..message }))
            }
            (Err(refused), _) if refused.refusal == Refusal::Unavailable => Err(refused),
            // A logged submission is not refused when it is repeated, even where a new one would be.
            (Err(refused), Some(key)) => match self.logged_before(account, &key).await? {
                Some(id) => Ok(CheckedSubmission::LoggedBefore(account, id)),
                None => Err(refused),
            },
            (Err(refused), None) => Err(refused),
        }
    }

    async fn prepare_submitted(
        &self,
        account: AccountId,
        class: Class,
        parameters: &Parameters,
        submitted: &Submitted,
    ) -> Result<NewMessage, Refused> {
        let reply_to = reply_to(submitted);
        let of_properties = reply_to.as_ref().map(drop).map_err(Refused::clone);
        let mut message = self.prepare(account, class, parameters, of_properties).await?;
        let reply_to = reply_to?;
        message.submission.waiter = reply_to.map(|reply_to| Waiter::Producer(reply_to).column());
        Ok(message)
    }

    /// Answer a repeated submission whose first one is in the log. If the first one has ended, its outcome is
    /// sent to the producer; if not, it will be sent at its end. A submission that the broker delivers again
    /// is not answered twice.
    async fn answer_again(&self, submitted: &Submitted, account: AccountId, id: RowId) {
        let Ok(Some(to)) = reply_to(submitted) else { return };
        if submitted.redelivered {
            return;
        }
        if let Ok(Some(row)) = self.store.log_row(Scope::Account(account), id).await
            && row.status.is_final()
        {
            self.broker.answer(&to, Envelope::of(&row.into_outcome()).to_json());
        }
    }

    /// Return the account of the header `tsid`, of the body's `tsid` or `sid`, or of the user that the broker
    /// vouches for; in this order.
    async fn account_of(&self, submitted: &Submitted, parameters: &Parameters) -> Result<AccountId, Refused> {
        match &submitted.tsid {
            TokenHeader::Text(token) => return Ok(self.directory.account(token.expose_secret()).await?),
            TokenHeader::WrongType => return Err(Refusal::UnknownToken.into()),
            TokenHeader::Absent => {}
        }
        match (self.authenticate(parameters, None).await, &submitted.user_id) {
            (Err(refused), Some(user)) if refused.refusal == Refusal::NoToken => {
                Ok(self.directory.account_of_broker_user(user).await?)
            }
            (account, _) => account,
        }
    }

    /// Publish refused submissions to `cdls.rejected`, and answer their producers. Return false when the
    /// batch is `gone`, or the process stops.
    async fn reject(&self, refused: Vec<RefusedSubmission>, gone: &CancellationToken) -> bool {
        let rejecting: Vec<_> = refused
            .into_iter()
            .map(|(submitted, reason)| self.reject_one(submitted, reason, gone).boxed())
            .collect();
        join_all(rejecting).await.into_iter().all(|is_done| is_done)
    }

    async fn reject_one(&self, submitted: Submitted, reason: Refused, gone: &CancellationToken) -> bool {
        METRICS.ingest.refused(reason.code());
        tracing::debug!(status_code = reason.code(), "a submission is refused");
        let answer = reply_to(&submitted).ok().flatten();
        let rejected = rejected(submitted, &reason);
        let mut failures = 0;
        while !self.broker.reject(rejected.clone()).await {
            if !self.rested(PAUSES.delay(failures), gone).await {
                return false;
            }
            failures += 1;
        }
        if let Some(to) = answer {
            let envelope = Envelope::refused(&reason, &rejected.status);
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

fn wrong_routing_key() -> Refused {
    Refused::parameter(
        "class",
        "The routing key is the class of the line: publish with `messenger` or `instagram`",
    )
}

/// Return the producer's address for answers. A submission with a forbidden address is refused, and that
/// refusal is not answered.
fn reply_to(submitted: &Submitted) -> Result<Option<ReplyTo>, Refused> {
    match &submitted.reply_to {
        Some(queue) if !public::takes_answers(queue) => Err(Refused::parameter(
            "reply_to",
            "`reply_to` names a queue of meta-dispatch or an address that no broker made: name a queue of your own",
        )),
        Some(queue) => {
            Ok(Some(ReplyTo { queue: queue.clone(), correlation_id: submitted.correlation_id.clone() }))
        }
        None => Ok(None),
    }
}
