//! The way in over RabbitMQ (contract 4, `cdls.submit`): a batch of submissions is checked, logged in one commit, and
//! then acknowledged.
//!
//! The order of the queue is kept: while the database is away nothing behind the first submission that cannot be
//! logged is, and nothing is acknowledged. What is refused goes to `cdls.rejected` without its token, and is
//! acknowledged when the broker has it there. Never here: a submission given back to the queue because of what it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::parameters::{BodyType, Parameters};
use super::refusal::Refusal;
use super::rejected::rejected;
use super::{Ingest, LONGEST_BODY, outcome_of};
use crate::broker::{IntakeBatch, Submitted, TokenHeader, public};
use crate::message::{AccountId, Class, Envelope, MessageId, ReplyTo, Waiter};
use crate::metrics::METRICS;
use crate::store::{Inserted, NewMessage, Once, Scope};

/// The version of submissions that this program reads (header `v`).
const VERSION: i64 = 1;
/// Submissions checked at a time: most need no look-up.
const CHECKED_AT_ONCE: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is known of a submission before its commit.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one, and none lives long")]
enum Checked {
    New(NewMessage),
    LoggedBefore(AccountId, MessageId),
}

/// A submission that did not get in.
type Refused = (Submitted, Refusal);

impl Ingest {
    /// Takes batches in until the process stops, or the broker has no more.
    pub async fn take_in(self: Arc<Self>, mut batches: mpsc::Receiver<IntakeBatch>) {
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                () = self.stopping.cancelled() => return,
            };
            let Some(mut batch) = batch else {
                // The supervisor of the connection is gone only when the process stops.
                return self.stopping.cancelled().await;
            };
            let submitted = std::mem::take(&mut batch.submitted);
            if self.take_all(submitted, batch.gone()).await {
                batch.settle();
            }
        }
    }

    /// Logs or refuses every one of a batch, however long that takes. False when it is `gone`, or the process stops.
    async fn take_all(&self, mut waiting: Vec<Submitted>, gone: &CancellationToken) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = waiting.len();
            let (rest, refused) = self.take_some(waiting, gone).await;
            if !self.reject(refused, gone).await {
                return false;
            }
            if rest.is_empty() {
                return true;
            }
            pause = if rest.len() < before { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            waiting = rest;
            if !self.rested(pause, gone).await {
                return false;
            }
        }
    }

    /// Logs what can be logged now. Says what has to wait, in its order, and what is refused.
    async fn take_some(
        &self,
        waiting: Vec<Submitted>,
        gone: &CancellationToken,
    ) -> (Vec<Submitted>, Vec<Refused>) {
        let checks: Vec<_> = waiting.iter().map(|submitted| self.check(submitted).boxed()).collect();
        let checked: Vec<_> = stream::iter(checks).buffered(CHECKED_AT_ONCE).collect().await;
        let (mut rest, mut refused, mut good, mut messages) = (vec![], vec![], VecDeque::new(), vec![]);
        for (submitted, checked) in waiting.into_iter().zip(checked) {
            match checked {
                // Nothing may overtake one that could not be checked.
                _ if !rest.is_empty() => rest.push(submitted),
                Err(Refusal::Unavailable) => rest.push(submitted),
                Ok(Checked::New(message)) => {
                    good.push_back(submitted);
                    messages.push(message);
                }
                Ok(Checked::LoggedBefore(account, id)) => self.answer_again(&submitted, account, id).await,
                Err(refusal) => refused.push((submitted, refusal)),
            }
        }
        let accounts: Vec<_> = messages.iter().map(|message| message.submission.account).collect();
        // Whoever has a batch that is gone logs it.
        let verdicts =
            if gone.is_cancelled() { vec![] } else { self.acceptor.accept_in_order(messages).await };
        for (verdict, account) in verdicts.into_iter().zip(accounts) {
            let Some(submitted) = good.pop_front() else { break };
            match verdict {
                Ok(Inserted::New(_)) => {}
                Ok(Inserted::Replay(id)) => self.answer_again(&submitted, account, id).await,
                Ok(Inserted::KeyReused) => refused.push((submitted, Refusal::KeyReused)),
                Ok(Inserted::Duplicate) => refused.push((submitted, Refusal::Duplicate)),
                Err(refusal) => refused.push((submitted, refusal)),
            }
        }
        (good.into_iter().chain(rest).collect(), refused)
    }

    async fn check(&self, submitted: &Submitted) -> Result<Checked, Refusal> {
        if submitted.body_bytes > LONGEST_BODY {
            return Err(Refusal::TooLarge);
        }
        if submitted.body.is_empty() || !is_json(submitted) {
            return Err(Refusal::Malformed);
        }
        let mut parameters = Parameters::read("", BodyType::Json, &submitted.body)?;
        parameters.forget_wait();
        let account = self.account_of(submitted, &parameters).await?;
        if submitted.version != VERSION {
            return Err(Refusal::InvalidParameter("v"));
        }
        let class: Class = submitted.routing_key.parse().map_err(|_| Refusal::InvalidParameter("class"))?;
        let key = match &submitted.message_id {
            Some(id) => Some(self.key(id.clone(), class, &parameters)?),
            None => None,
        };
        let prepared = self.prepare_submitted(account, class, &parameters, submitted).await;
        match (prepared, key) {
            (Ok(message), key) => Ok(Checked::New(NewMessage { once: key.map(Once::Key), ..message })),
            (Err(Refusal::Unavailable), _) => Err(Refusal::Unavailable),
            // What was logged is not refused when it comes again, though it would be by now.
            (Err(refusal), Some(key)) => match self.logged_before(account, &key).await? {
                Some(id) => Ok(Checked::LoggedBefore(account, id)),
                None => Err(refusal),
            },
            (Err(refusal), None) => Err(refusal),
        }
    }

    async fn prepare_submitted(
        &self,
        account: AccountId,
        class: Class,
        parameters: &Parameters,
        submitted: &Submitted,
    ) -> Result<NewMessage, Refusal> {
        let reply_to = reply_to(submitted);
        let of_properties = reply_to.as_ref().map(drop).map_err(|refusal| *refusal);
        let mut message = self.prepare(account, class, parameters, of_properties).await?;
        let reply_to = reply_to?;
        message.submission.waiter = reply_to.map(|reply_to| Waiter::Producer(reply_to).column());
        Ok(message)
    }

    /// A submission came again, and its first stands in the log. If that has ended, its producer is told so; if not, the
    /// first one's will be. Nor is it told twice for what the broker delivers again.
    async fn answer_again(&self, submitted: &Submitted, account: AccountId, id: MessageId) {
        let Ok(Some(to)) = reply_to(submitted) else { return };
        if submitted.redelivered {
            return;
        }
        if let Ok(Some(row)) = self.store.log_row(Scope::Account(account), id).await
            && let Some(envelope) = Envelope::of(&outcome_of(row))
        {
            self.broker.answer(&to, envelope.to_json());
        }
    }

    /// The header `tsid`, the body's `tsid` or `sid`, or the user that the broker vouches for; in this order.
    async fn account_of(&self, submitted: &Submitted, parameters: &Parameters) -> Result<AccountId, Refusal> {
        match &submitted.tsid {
            TokenHeader::Text(token) => return self.directory.account(token.expose_secret()).await,
            TokenHeader::WrongType => return Err(Refusal::UnknownToken),
            TokenHeader::Absent => {}
        }
        match (self.authenticate(parameters, None).await, &submitted.user_id) {
            (Err(Refusal::NoToken), Some(user)) => self.directory.account_of_broker_user(user).await,
            (account, _) => account,
        }
    }

    /// Puts refused submissions where their operators find them, and tells their producers. False when the batch is
    /// `gone`, or the process stops.
    async fn reject(&self, refused: Vec<Refused>, gone: &CancellationToken) -> bool {
        let rejecting: Vec<_> = refused
            .into_iter()
            .map(|(submitted, refusal)| self.reject_one(submitted, refusal, gone).boxed())
            .collect();
        join_all(rejecting).await.into_iter().all(|is_done| is_done)
    }

    async fn reject_one(&self, submitted: Submitted, refusal: Refusal, gone: &CancellationToken) -> bool {
        METRICS.ingest.refused(refusal.code());
        tracing::debug!(status_code = refusal.code(), "a submission is refused");
        let answer = reply_to(&submitted).ok().flatten();
        let rejected = rejected(submitted, refusal);
        let mut pause = FIRST_PAUSE;
        while !self.broker.reject(rejected.clone()).await {
            if !self.rested(pause, gone).await {
                return false;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        if let Some(to) = answer {
            let envelope = Envelope::refusal(&rejected.status, rejected.status_code);
            self.broker.answer(&to, envelope.to_json());
        }
        true
    }

    /// Waits; false if the wait is in vain.
    async fn rested(&self, pause: Duration, gone: &CancellationToken) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = gone.cancelled() => false,
            () = self.stopping.cancelled() => false,
        }
    }
}

/// Many clients name UTF-8 as the encoding of what they publish.
fn is_json(submitted: &Submitted) -> bool {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is = |text: &Option<String>, known: &[&str]| {
        text.as_deref().is_none_or(|text| known.contains(&essence(text).as_str()))
    };
    is(&submitted.content_type, &["", "application/json"])
        && is(&submitted.content_encoding, &["", "identity", "utf-8", "utf8"])
}

/// Where the producer wants its answer. One that may not be sent is refused, and that refusal is not answered.
fn reply_to(submitted: &Submitted) -> Result<Option<ReplyTo>, Refusal> {
    match &submitted.reply_to {
        Some(queue) if !public::takes_answers(queue) => Err(Refusal::InvalidParameter("reply_to")),
        Some(queue) => {
            Ok(Some(ReplyTo { queue: queue.clone(), correlation_id: submitted.correlation_id.clone() }))
        }
        None => Ok(None),
    }
}
