//! The way of one submission: authenticate → check → prepare → accept → wait for the outcome.
//!
//! Each way in (HTTP, RabbitMQ, a batch) enters it where it differs from the others. An answer depends on the
//! database alone. Never here: a call to Meta, or a wait for a broker.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::Acceptor;
use super::batch::SpoolRoom;
use super::held_lines::{self, HeldLines, LineWatch};
use super::parameters::{self, Parameters};
use super::validate::{self, CheckedMessage};
use super::waiters::Waiters;
use crate::broker::{BrokerState, SharedBroker};
use crate::channel::Class;
use crate::domain::{
    AccountId, CampaignState, ErrorKind, Outcome, Reply, RowId, Status, Submission, TokenScope, Waiter,
};
use crate::edge::{Caller, Directory, Refusal, Refused, Turns, unavailable};
use crate::feedback::Feedback;
use crate::settings::{ReplyScope, Settings};
use crate::store::{Idempotency, IdempotencyKey, Inserted, NewMessage, Scope, SharedStore};
use crate::tasks::every;
use crate::text::trimmed;

const MAX_KEY_CHARS: usize = 255;
/// How often a waiting repetition of a request reads the row of the first.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Requests of this process that wait for an outcome, and batches that are read, at the same time; one
/// account may have half of the former, and a quarter of the latter.
const MAX_WAITING: usize = 4_000;
const MAX_BATCHES: usize = 32;

/// The note to a caller whose request does not wait.
const NOT_WAITED: &str = "The request did not wait, as too many requests of the account do: look the message up by its \
                          `cdls_id`, or let fewer wait.";

/// How often a waiting request reads its row while no answer can come over the broker.
const LOOK_WITHOUT_BROKER: Duration = Duration::from_millis(200);

/// The headers of a request that ingest reads.
#[derive(Debug, Default)]
pub(super) struct RequestHeaders {
    pub bearer: Option<String>,
    pub prefer_wait: Option<Duration>,
    /// As given: not yet checked. A refusal where the request has several.
    pub idempotency_key: Option<Result<String, Refused>>,
}

/// The ingest of one process.
pub struct Ingest {
    pub(super) store: SharedStore,
    pub(super) broker: SharedBroker,
    pub(super) directory: Arc<Directory>,
    pub(super) acceptor: Acceptor,
    waiters: Waiters,
    held_lines: HeldLines,
    waits: Turns,
    pub(super) batches: Turns,
    pub(super) spools: Arc<SpoolRoom>,
    default_wait: Duration,
    default_valid_for: Duration,
    pub(super) idempotency_ttl: Duration,
    pub(super) reply_scope: ReplyScope,
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
        let acceptor = Acceptor::new(store.clone(), broker.clone(), feedback, settings, stopping.clone());
        Arc::new(Ingest {
            directory,
            store,
            broker,
            acceptor,
            waiters: Waiters::default(),
            held_lines: HeldLines::default(),
            waits: Turns::new(MAX_WAITING),
            batches: Turns::long(MAX_BATCHES),
            spools: SpoolRoom::new(settings.ingest.max_spool),
            default_wait: settings.http.default_wait,
            default_valid_for: settings.dispatch.valid_for,
            idempotency_ttl: settings.ingest.idempotency_ttl,
            reply_scope: settings.broker.reply_to,
            stopping,
        })
    }

    /// Commit submissions and hand outcomes to the waiting requests, until `ended`. Runs once.
    pub async fn run(self: Arc<Self>, mut replies: mpsc::Receiver<Reply>, ended: CancellationToken) {
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
            self.acceptor.run(&ended),
            self.acceptor.watch_backlog(&ended),
            self.acceptor.forget_expired(&ended),
            every(ended.clone(), || self.held_lines.look(&self.directory)),
            answer_waiters,
        );
    }

    /// Authenticate, check and accept one request. `from_headers` holds the values of its headers.
    pub(super) async fn submit(
        &self,
        class: Class,
        parameters: &Parameters,
        from_headers: RequestHeaders,
        caller: &Caller,
    ) -> Result<Outcome, Refused> {
        let arrived = Instant::now();
        let token = token(parameters, from_headers.bearer.as_deref());
        let account = self.directory.admit(caller, &token, TokenScope::Send).await?;
        let wait_is_given = validate::wait(parameters).or(from_headers.prefer_wait);
        let wait = wait_is_given.unwrap_or(self.default_wait);
        let turn = if wait.is_zero() { None } else { self.waits.try_take(account) };
        let is_crowded = !wait.is_zero() && turn.is_none();
        let deadline = if is_crowded { arrived } else { arrived + wait };
        let key = from_headers.idempotency_key;
        let outcome = self.submit_of(account, class, parameters, key, deadline).await?;
        Ok(if is_crowded { with_note(outcome, NOT_WAITED) } else { outcome })
    }

    /// Check and accept one request of an account, and wait for its outcome until `deadline`.
    async fn submit_of(
        &self,
        account: AccountId,
        class: Class,
        parameters: &Parameters,
        idempotency_key: Option<Result<String, Refused>>,
        deadline: Instant,
    ) -> Result<Outcome, Refused> {
        let key = idempotency_key.map(|text| self.key(text?, class, parameters));
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
        if let Some(reason) = self.directory.held_up(line).await {
            return Ok(with_note(Outcome::queued(id), &reason));
        }
        let watch = self.held_lines.watch(line);
        tokio::select! {
            outcome = ticket.outcome() => return Ok(self.with_last_answer(account, outcome).await),
            outcome = self.outcome_without_broker(account, id) => return Ok(outcome),
            outcome = self.state_when_held_up(account, id, watch) => return Ok(outcome),
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

    /// Return the state of a row once its line can send no more before somebody acts; wait for ever while the line
    /// sends. A row in a call is answered by that.
    async fn state_when_held_up(&self, account: AccountId, id: RowId, mut watch: LineWatch) -> Outcome {
        loop {
            let reason = watch.held_up().await;
            if let Ok(Some(row)) = self.store.log_row(Scope::Account(account), id).await
                && row.status != Status::Sending
            {
                return with_note(row.into_outcome(), &reason);
            }
            tokio::time::sleep(held_lines::LOOK_EVERY).await;
        }
    }

    /// Return the state of a row that an earlier request logged: now, or when its outcome is known, its line can send
    /// no more before somebody acts, or `deadline` has passed. The row's waiter belongs to the earlier request; the
    /// log is therefore read again and again.
    async fn standing(&self, account: AccountId, id: RowId, deadline: Instant) -> Result<Outcome, Refusal> {
        let mut look_at_line = Instant::now();
        loop {
            let Some(row) = self.store.log_row(Scope::Account(account), id).await.map_err(unavailable)?
            else {
                return Ok(Outcome::queued(id));
            };
            let is_late = Instant::now() >= deadline || self.stopping.is_cancelled();
            if row.status.is_outcome() || is_late {
                return Ok(row.into_outcome());
            }
            if row.status != Status::Sending && Instant::now() >= look_at_line {
                look_at_line = Instant::now() + held_lines::LOOK_EVERY;
                let line = row.v8l_id;
                if let Ok(reasons) = self.directory.held_up_of(&[line]).await
                    && let Some(reason) = reasons.get(&line)
                {
                    return Ok(with_note(row.into_outcome(), reason));
                }
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}

/// Add a note to the outcome of a row that has not ended.
fn with_note(outcome: Outcome, note: &str) -> Outcome {
    if outcome.status.is_outcome() || outcome.detail.is_some() {
        return outcome;
    }
    Outcome { detail: Some(note.to_owned()), ..outcome }
}

/// Return the token of a request: of several `tsid` counts, then `sid`, then Bearer.
pub fn token(parameters: &Parameters, bearer: Option<&str>) -> Result<SecretString, Refused> {
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
    if parameters.looks_like_json() { Refusal::NoContentType.into() } else { Refusal::NoToken.into() }
}
