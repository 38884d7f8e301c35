//! The way of one submission: authenticate → check → prepare → accept → wait for the outcome.
//!
//! Each way in (HTTP, RabbitMQ, a batch) enters it where it differs from the others. An answer depends on the
//! database alone. Never here: a call to Meta, or a wait for a broker.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::{Acceptor, AdmissionQueue};
use super::parameters::{self, Parameters};
use super::validate::{self, CheckedMessage};
use super::waiters::Waiters;
use crate::broker::{BrokerState, SharedBroker};
use crate::channel::Class;
use crate::domain::{AccountId, CampaignState, ErrorKind, Outcome, Reply, RowId, Submission, Waiter};
use crate::edge::{Directory, Refusal, Refused, unavailable};
use crate::feedback::Feedback;
use crate::settings::Settings;
use crate::store::{Idempotency, IdempotencyKey, Inserted, NewMessage, Scope, SharedStore};
use crate::text::trimmed;

const MAX_KEY_CHARS: usize = 255;
/// How often a waiting repetition of a request reads the row of the first.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often a waiting request reads its row while no answer can come over the broker.
const LOOK_WITHOUT_BROKER: Duration = Duration::from_millis(200);

/// The headers of a request that ingest reads.
#[derive(Debug, Default)]
pub(super) struct RequestHeaders {
    pub bearer: Option<String>,
    pub prefer_wait: Option<Duration>,
    /// As given: not yet checked.
    pub idempotency_key: Option<String>,
}

/// The ingest of one process.
pub struct Ingest {
    pub(super) store: SharedStore,
    pub(super) broker: SharedBroker,
    pub(super) directory: Arc<Directory>,
    pub(super) acceptor: Acceptor,
    waiting: Mutex<Option<AdmissionQueue>>,
    waiters: Waiters,
    default_wait: Duration,
    default_valid_for: Duration,
    pub(super) idempotency_ttl: Duration,
    /// Cancelled when the process stops: no request waits for its outcome any more.
    pub(super) stopping: CancellationToken,
}

impl Ingest {
    pub fn new(
        store: SharedStore,
        directory: Arc<Directory>,
        broker: SharedBroker,
        feedback: Feedback,
        settings: &Settings,
        stopping: CancellationToken,
    ) -> Arc<Ingest> {
        let (acceptor, waiting) =
            Acceptor::new(store.clone(), broker.clone(), feedback, settings.ingest.max_backlog);
        Arc::new(Ingest {
            directory,
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

    /// Commit submissions and hand outcomes to the waiting requests, until `ended`. Runs once.
    pub async fn run(self: Arc<Self>, mut replies: mpsc::Receiver<Reply>, ended: CancellationToken) {
        let waiting = self.waiting.lock().take();
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

    /// Authenticate, check and accept one request. `from_headers` holds the values of its headers.
    pub(super) async fn submit(
        &self,
        class: Class,
        parameters: &Parameters,
        from_headers: RequestHeaders,
    ) -> Result<Outcome, Refused> {
        let arrived = Instant::now();
        let account = self.authenticate(parameters, from_headers.bearer.as_deref()).await?;
        let wait_is_given = validate::wait(parameters).or(from_headers.prefer_wait);
        let deadline = arrived + wait_is_given.unwrap_or(self.default_wait);
        let key = from_headers.idempotency_key.map(|text| self.key(text, class, parameters));
        if let Some(Ok(key)) = &key
            && let Some(id) = self.logged_before(account, key).await?
        {
            return Ok(self.standing(account, id, deadline).await?);
        }
        let of_header = key.as_ref().map_or(Ok(()), |key| key.as_ref().map(drop).map_err(Refused::clone));
        let mut message = self.prepare(account, class, parameters, of_header).await?;
        message.idempotency = key.transpose()?.map(Idempotency::Key);
        Ok(self.accept_and_wait(account, message, deadline).await?)
    }

    /// Return an idempotency key for these parameters; refuse (229) a text that has not 1 to 255 characters.
    pub(super) fn key(
        &self,
        key: String,
        class: Class,
        parameters: &Parameters,
    ) -> Result<IdempotencyKey, Refused> {
        let key = trimmed(&key).to_owned();
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS || key.contains('\0') {
            return Err(Refused::parameter(
                "Idempotency-Key",
                "The Idempotency-Key (`message_id` over RabbitMQ) is a text of 1 to 255 characters without NUL",
            ));
        }
        let request_hash = parameters::request_hash(class, parameters);
        Ok(IdempotencyKey { key, request_hash, kept: self.idempotency_ttl })
    }

    /// Return the row that a key stands for, if the key stands for these parameters.
    pub(super) async fn logged_before(
        &self,
        account: AccountId,
        key: &IdempotencyKey,
    ) -> Result<Option<RowId>, Refusal> {
        let known = self.store.remembered_key(account, &key.key).await.map_err(unavailable)?;
        match known.map(|known| known.verdict(&key.request_hash)) {
            Some(Inserted::Replay(id)) => Ok(Some(id)),
            Some(_) => Err(Refusal::KeyReused),
            None => Ok(None),
        }
    }

    /// Check a message of an account, in the contract's order from 210 on. `of_carrier` is the refusal (229)
    /// caused by the headers or properties, if any.
    pub(super) async fn prepare(
        &self,
        account: AccountId,
        class: Class,
        parameters: &Parameters,
        of_carrier: Result<(), Refused>,
    ) -> Result<NewMessage, Refused> {
        let checked = validate::check(parameters, class)?;
        of_carrier?;
        self.may_send(account, class, &checked).await?;
        let httpdup = checked.httpdup;
        Ok(NewMessage { submission: self.submission(account, class, checked), idempotency: None, httpdup })
    }

    /// Return the account that a request's token belongs to.
    pub(super) async fn authenticate(
        &self,
        parameters: &Parameters,
        bearer: Option<&str>,
    ) -> Result<AccountId, Refused> {
        Ok(self.directory.account(token(parameters, bearer)?.expose_secret()).await?)
    }

    /// Check that the account may send this: line and campaign.
    async fn may_send(
        &self,
        account: AccountId,
        class: Class,
        checked: &CheckedMessage,
    ) -> Result<(), Refusal> {
        self.directory.usable(account, checked.line, class).await?;
        match &checked.cp_id {
            Some(cp_id) => self.campaign_goes_on(account, cp_id).await,
            None => Ok(()),
        }
    }

    pub(super) async fn campaign_goes_on(&self, account: AccountId, cp_id: &str) -> Result<(), Refusal> {
        match self.store.campaign_state(account, cp_id).await {
            Ok(CampaignState::Cancelled) => Err(Refusal::CampaignCancelled),
            Ok(CampaignState::Running | CampaignState::Paused) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    pub(super) fn submission(&self, account: AccountId, class: Class, checked: CheckedMessage) -> Submission {
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
    ) -> Result<Outcome, Refusal> {
        let mut ticket = None;
        let line = message.submission.line;
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
        let Some(mut ticket) = ticket else { return Ok(Outcome::queued(id)) };
        if let Some(reason) = self.directory.held_up(line) {
            return Ok(Outcome { detail: Some(reason.to_string()), ..Outcome::queued(id) });
        }
        tokio::select! {
            outcome = ticket.outcome() => return Ok(self.with_last_answer(account, outcome).await),
            outcome = self.outcome_without_broker(account, id) => return Ok(outcome),
            () = tokio::time::sleep_until(deadline) => {}
            () = self.stopping.cancelled() => {}
        }
        // The answer may have been lost on its way: the log has it.
        match self.store.log_row(Scope::Account(account), id).await {
            Ok(Some(row)) => Ok(row.into_outcome()),
            Ok(None) | Err(_) => Ok(Outcome::queued(id)),
        }
    }

    /// Complete the outcome of a row that ended without a call, such as an expired one: the row keeps the error of the call
    /// before, which the one who ended the row does not know.
    async fn with_last_answer(&self, account: AccountId, outcome: Outcome) -> Outcome {
        if !outcome.error_kind.is_some_and(ErrorKind::is_without_answer) {
            return outcome;
        }
        match self.store.log_row(Scope::Account(account), outcome.cdls_id).await {
            Ok(Some(row)) => row.into_outcome(),
            Ok(None) | Err(_) => outcome,
        }
    }

    /// Return the outcome in the log, which is read while no answer can come over the broker; wait for ever
    /// where the broker is up.
    async fn outcome_without_broker(&self, account: AccountId, id: RowId) -> Outcome {
        let mut tick = tokio::time::interval(LOOK_WITHOUT_BROKER);
        let mut was_away = false;
        loop {
            tick.tick().await;
            let is_away = self.broker.state() != BrokerState::Up;
            // The log is read once more after the broker's return: the answer may have been lost before.
            if !std::mem::replace(&mut was_away, is_away) && !is_away {
                continue;
            }
            if let Ok(Some(row)) = self.store.log_row(Scope::Account(account), id).await
                && row.status.is_outcome()
            {
                return row.into_outcome();
            }
        }
    }

    /// Return the state of a row that an earlier request logged: now, or when its outcome is known or
    /// `deadline` has passed. The row's waiter belongs to the earlier request; the log is therefore read
    /// again and again.
    async fn standing(&self, account: AccountId, id: RowId, deadline: Instant) -> Result<Outcome, Refusal> {
        loop {
            let Some(row) = self.store.log_row(Scope::Account(account), id).await.map_err(unavailable)?
            else {
                return Ok(Outcome::queued(id));
            };
            let is_late = Instant::now() >= deadline || self.stopping.is_cancelled();
            if row.status.is_outcome() || is_late {
                return Ok(row.into_outcome());
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}

/// Return the token of a request: of several `tsid` counts, then `sid`, then Bearer.
pub(super) fn token(parameters: &Parameters, bearer: Option<&str>) -> Result<SecretString, Refused> {
    for name in ["tsid", "sid"] {
        if matches!(parameters.get(name), Some(parameters::ParameterValue::WrongType(_))) {
            return Err(Refusal::UnknownToken.into());
        }
        if let Some(token) = parameters.text(name) {
            return Ok(token.into());
        }
    }
    bearer.map(SecretString::from).ok_or_else(|| no_token(parameters))
}

/// Return the refusal of a request without a token. JSON sent without its Content-Type is read as a form,
/// which has no token.
fn no_token(parameters: &Parameters) -> Refused {
    if parameters.looks_like_json() {
        return Refused::because(
            Refusal::NoToken,
            "No token was found: the body looks like JSON and was read as a form; send it with the header \
             `Content-Type: application/json`",
        );
    }
    Refusal::NoToken.into()
}
