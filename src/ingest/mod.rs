//! The way in: a request is checked, its row committed, a job published, and the request answered.
//!
//! Nothing here calls Meta or waits for a broker: an answer depends on the database alone.

mod accept;
mod amqp;
mod batch;
mod directory;
pub mod http;
mod parameters;
mod refusal;
mod rejected;
mod validate;
mod waiters;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::SharedBroker;
use crate::feedback::Feedback;
use crate::message::{
    AccountId, CampaignState, Class, ErrorKind, MessageId, Outcome, Reply, Status, Submission, Waiter,
};
use crate::settings::Settings;
use crate::store::{IdempotencyKey, Inserted, LogRow, NewMessage, Once, Scope, SharedStore, StoreError};
use accept::{Acceptor, Waiting};
use directory::Directory;
use parameters::{BodyType, Parameters};
pub use refusal::Refusal;
use validate::Checked;
use waiters::Waiters;

/// Longest body of a submission (contract code 413).
pub const LONGEST_BODY: usize = 64 * 1024;
const MAX_KEY_CHARS: usize = 255;
/// How often a repeated request that waits looks at the row of the first.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the headers of a request say.
#[derive(Debug, Default)]
struct FromHeaders {
    bearer: Option<String>,
    prefer_wait: Option<Duration>,
    /// As given: not yet checked.
    idempotency_key: Option<String>,
}

/// What a request that was accepted is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Accepted {
    /// Logged and queued: the outcome is not known, or was not waited for.
    Queued(MessageId),
    Sent {
        id: MessageId,
        http_status: i32,
        message_id: String,
    },
    /// Refused by Graph, or ended without an answer from it (`http_status` 0).
    Failed {
        id: MessageId,
        http_status: i32,
    },
    Cancelled(MessageId),
}

/// The ingest of one process.
pub struct Ingest {
    store: SharedStore,
    broker: SharedBroker,
    directory: Directory,
    acceptor: Acceptor,
    waiting: Mutex<Option<Waiting>>,
    waiters: Waiters,
    default_wait: Duration,
    default_valid_for: Duration,
    idempotency_ttl: Duration,
    /// Cancelled when the process stops: nobody waits for outcomes any more.
    stopping: CancellationToken,
}

impl Ingest {
    pub fn new(
        store: SharedStore,
        broker: SharedBroker,
        feedback: Feedback,
        settings: &Settings,
        stopping: CancellationToken,
    ) -> Arc<Ingest> {
        let (acceptor, waiting) =
            Acceptor::new(store.clone(), broker.clone(), feedback, settings.ingest.max_backlog);
        Arc::new(Ingest {
            directory: Directory::new(store.clone()),
            store,
            broker,
            acceptor,
            waiting: Mutex::new(Some(waiting)),
            waiters: Waiters::default(),
            default_wait: settings.http.default_wait,
            default_valid_for: settings.dispatch.valid_for,
            idempotency_ttl: settings.ingest.idempotency_ttl,
            stopping,
        })
    }

    /// Commits submissions and hands outcomes to those who wait, until `ended`. To be run once.
    pub async fn run(self: Arc<Self>, mut replies: mpsc::Receiver<Reply>, ended: CancellationToken) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(waiting) = waiting else { return };
        let answer_waiters = async {
            loop {
                tokio::select! {
                    reply = replies.recv() => match reply {
                        Some(reply) => self.waiters.answer(reply),
                        None => return,
                    },
                    () = ended.cancelled() => return,
                }
            }
        };
        tokio::join!(
            self.acceptor.run(waiting, &ended),
            self.acceptor.watch_backlog(&ended),
            self.acceptor.forget_expired(&ended),
            answer_waiters,
        );
    }

    /// Authenticates, checks and accepts one request. `from_headers` is what its headers say.
    async fn submit(
        &self,
        class: Class,
        parameters: &Parameters,
        from_headers: FromHeaders,
    ) -> Result<Accepted, Refusal> {
        let arrived = Instant::now();
        let account = self.authenticate(parameters, from_headers.bearer.as_deref()).await?;
        let wait_is_given = validate::wait(parameters).or(from_headers.prefer_wait);
        let deadline = arrived + wait_is_given.unwrap_or(self.default_wait);
        let key = from_headers.idempotency_key.map(|text| self.key(text, class, parameters));
        if let Some(Ok(key)) = &key
            && let Some(id) = self.logged_before(account, key).await?
        {
            return self.standing(account, id, deadline).await;
        }
        let of_header = key.as_ref().map_or(Ok(()), |key| key.as_ref().map(drop).map_err(|refusal| *refusal));
        let mut message = self.prepare(account, class, parameters, of_header).await?;
        message.once = key.transpose()?.map(Once::Key);
        self.accept_and_wait(account, message, deadline).await
    }

    /// An idempotency key for these parameters; refused (229) where it is no text of 1 to 255 characters.
    fn key(&self, key: String, class: Class, parameters: &Parameters) -> Result<IdempotencyKey, Refusal> {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS || key.contains('\0') {
            return Err(Refusal::InvalidParameter("Idempotency-Key"));
        }
        let request_hash = parameters::request_hash(class, parameters);
        Ok(IdempotencyKey { key, request_hash, kept: self.idempotency_ttl })
    }

    /// The row that a key stands for, if it stands for these parameters.
    async fn logged_before(
        &self,
        account: AccountId,
        key: &IdempotencyKey,
    ) -> Result<Option<MessageId>, Refusal> {
        let known = self.store.remembered_key(account, &key.key).await.map_err(unavailable)?;
        match known.map(|known| known.verdict(&key.request_hash)) {
            Some(Inserted::Replay(id)) => Ok(Some(id)),
            Some(_) => Err(Refusal::KeyReused),
            None => Ok(None),
        }
    }

    /// Checks a message of an account, in the contract's order from 210 on. `of_carrier` is what its headers or properties
    /// are refused for (229).
    async fn prepare(
        &self,
        account: AccountId,
        class: Class,
        parameters: &Parameters,
        of_carrier: Result<(), Refusal>,
    ) -> Result<NewMessage, Refusal> {
        let checked = validate::check(parameters, class)?;
        of_carrier?;
        self.may_send(account, class, &checked).await?;
        let httpdup = checked.httpdup;
        Ok(NewMessage { submission: self.submission(account, class, checked), once: None, httpdup })
    }

    /// The account of a request whose token stands in its query or its `Authorization` header.
    pub async fn account(&self, query: &str, bearer: Option<&str>) -> Result<AccountId, Refusal> {
        self.authenticate(&Parameters::read(query, BodyType::Form, &[])?, bearer).await
    }

    /// The account a request's token belongs to.
    async fn authenticate(
        &self,
        parameters: &Parameters,
        bearer: Option<&str>,
    ) -> Result<AccountId, Refusal> {
        self.directory.account(token(parameters, bearer)?.expose_secret()).await
    }

    /// Whether the account may send this: line and campaign.
    async fn may_send(&self, account: AccountId, class: Class, checked: &Checked) -> Result<(), Refusal> {
        self.directory.usable(account, checked.line, class).await?;
        match &checked.cp_id {
            Some(cp_id) => self.campaign_goes_on(account, cp_id).await,
            None => Ok(()),
        }
    }

    async fn campaign_goes_on(&self, account: AccountId, cp_id: &str) -> Result<(), Refusal> {
        match self.store.campaign_state(account, cp_id).await {
            Ok(CampaignState::Cancelled) => Err(Refusal::CampaignCancelled),
            Ok(CampaignState::Running | CampaignState::Paused) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    fn submission(&self, account: AccountId, class: Class, checked: Checked) -> Submission {
        Submission {
            account,
            line: checked.line,
            class,
            dest: checked.dest,
            kind: checked.kind,
            mdata: checked.mdata,
            mcaption: checked.mcaption,
            msg_id: checked.msg_id,
            cp_id: checked.cp_id,
            lane: checked.lane,
            send_at: checked.send_at,
            valid_for: checked.valid_for.unwrap_or(self.default_valid_for),
            waiter: None,
        }
    }

    async fn accept_and_wait(
        &self,
        account: AccountId,
        mut message: NewMessage,
        deadline: Instant,
    ) -> Result<Accepted, Refusal> {
        let mut ticket = None;
        if deadline > Instant::now() {
            let registered = self.waiters.register();
            let address = self.broker.reply_address().to_owned();
            let waiter = Waiter::Request { address, ticket: registered.name().to_owned() };
            message.submission.waiter = Some(waiter.column());
            ticket = Some(registered);
        }
        let id = match self.acceptor.accept(message).await? {
            Inserted::New(id) => id,
            Inserted::Replay(id) => return self.standing(account, id, deadline).await,
            Inserted::KeyReused => return Err(Refusal::KeyReused),
            Inserted::Duplicate => return Err(Refusal::Duplicate),
        };
        let Some(mut ticket) = ticket else { return Ok(Accepted::Queued(id)) };
        tokio::select! {
            outcome = ticket.outcome() => {
                return Ok(accepted(id, outcome.status, outcome.status_code, outcome.message_id));
            }
            () = tokio::time::sleep_until(deadline) => {}
            () = self.stopping.cancelled() => {}
        }
        // The answer may have been lost on its way: the log knows.
        match self.store.log_row(Scope::Account(account), id).await {
            Ok(Some(row)) => Ok(accepted_row(row)),
            Ok(None) | Err(_) => Ok(Accepted::Queued(id)),
        }
    }

    /// How a row that was logged by an earlier request stands: now, or when its outcome is known or `deadline` has come.
    /// Its own waiter is the earlier request's, so the log is asked again and again.
    async fn standing(
        &self,
        account: AccountId,
        id: MessageId,
        deadline: Instant,
    ) -> Result<Accepted, Refusal> {
        loop {
            let Some(row) = self.store.log_row(Scope::Account(account), id).await.map_err(unavailable)?
            else {
                return Ok(Accepted::Queued(id));
            };
            let is_late = Instant::now() >= deadline || self.stopping.is_cancelled();
            if row.status.is_outcome() || is_late {
                return Ok(accepted_row(row));
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}

/// The token of a request: of several `tsid` counts, then `sid`, then Bearer.
fn token(parameters: &Parameters, bearer: Option<&str>) -> Result<SecretString, Refusal> {
    for name in ["tsid", "sid"] {
        if parameters.get(name) == Some(&parameters::Given::WrongType) {
            return Err(Refusal::UnknownToken);
        }
        if let Some(token) = parameters.text(name) {
            return Ok(token.into());
        }
    }
    bearer.map(SecretString::from).ok_or(Refusal::NoToken)
}

fn unavailable(error: StoreError) -> Refusal {
    tracing::warn!(%error, "database query of a request failed: caller receives 503");
    Refusal::Unavailable
}

fn accepted(id: MessageId, status: Status, http_status: i32, message_id: String) -> Accepted {
    match status {
        Status::Ok => Accepted::Sent { id, http_status, message_id },
        Status::Error => Accepted::Failed { id, http_status },
        Status::Cancelled => Accepted::Cancelled(id),
        Status::Pending | Status::Sending | Status::Retry | Status::Unknown => Accepted::Queued(id),
    }
}

fn accepted_row(row: LogRow) -> Accepted {
    let Outcome { cdls_id, status, status_code, message_id } = outcome_of(row);
    accepted(cdls_id, status, status_code, message_id)
}

/// How a row stands. One that expired, whose line cannot send it, or which an operator settled was not ended by the
/// answer it had before.
fn outcome_of(row: LogRow) -> Outcome {
    let status_code =
        if row.error_kind.is_some_and(ErrorKind::is_without_answer) { 0 } else { row.status_code };
    let message_id = row.message_id.unwrap_or_default();
    Outcome { cdls_id: row.cdls_id, status: row.status, status_code, message_id }
}
