//! The way in: a request is checked, its row committed, a job published, and the request answered.
//!
//! Nothing here calls Meta or waits for a broker: an answer depends on the database alone.

mod accept;
mod directory;
pub mod http;
mod parameters;
mod refusal;
mod validate;
mod waiters;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::SharedBroker;
use crate::message::{AccountId, CampaignState, Class, ErrorKind, MessageId, Reply, Status, Submission};
use crate::settings::Settings;
use crate::store::{LogRow, Scope, SharedStore};
use accept::{Acceptor, Waiting};
use directory::Directory;
use parameters::{BodyType, Parameters};
pub use refusal::Refusal;
use validate::Checked;
use waiters::Waiters;

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
    /// Cancelled when the process stops: nobody waits for outcomes any more.
    stopping: CancellationToken,
}

impl Ingest {
    pub fn new(
        store: SharedStore,
        broker: SharedBroker,
        settings: &Settings,
        stopping: CancellationToken,
    ) -> Arc<Ingest> {
        let (acceptor, waiting) = Acceptor::new(store.clone(), broker.clone(), settings.ingest.max_backlog);
        Arc::new(Ingest {
            directory: Directory::new(store.clone()),
            store,
            broker,
            acceptor,
            waiting: Mutex::new(Some(waiting)),
            waiters: Waiters::default(),
            default_wait: settings.http.default_wait,
            default_valid_for: settings.dispatch.valid_for,
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
        tokio::join!(self.acceptor.run(waiting, &ended), self.acceptor.watch_backlog(&ended), answer_waiters);
    }

    /// Authenticates, checks and accepts one request. `bearer` and `prefer_wait` come from its headers.
    async fn submit(
        &self,
        class: Class,
        parameters: &Parameters,
        bearer: Option<&str>,
        prefer_wait: Option<Duration>,
    ) -> Result<Accepted, Refusal> {
        let arrived = Instant::now();
        let account = self.authenticate(parameters, bearer).await?;
        let checked = validate::check(parameters, class)?;
        self.directory.usable(account, checked.line, class).await?;
        if let Some(cp_id) = &checked.cp_id {
            self.campaign_goes_on(account, cp_id).await?;
        }
        let wait = checked.wait.or(prefer_wait).unwrap_or(self.default_wait);
        let submission = self.submission(account, class, checked);
        if wait.is_zero() {
            return Ok(Accepted::Queued(self.acceptor.accept(submission).await?));
        }
        self.accept_and_wait(account, submission, arrived + wait).await
    }

    /// The account of a request whose token stands in its query or its `Authorization` header.
    pub async fn account(&self, query: &str, bearer: Option<&str>) -> Result<AccountId, Refusal> {
        self.authenticate(&Parameters::read(query, BodyType::Form, &[])?, bearer).await
    }

    /// The account a request's token belongs to: of several tokens `tsid` counts, then `sid`, then Bearer.
    async fn authenticate(
        &self,
        parameters: &Parameters,
        bearer: Option<&str>,
    ) -> Result<AccountId, Refusal> {
        for name in ["tsid", "sid"] {
            if parameters.get(name) == Some(&parameters::Given::WrongType) {
                return Err(Refusal::UnknownToken);
            }
            if let Some(token) = parameters.text(name) {
                return self.directory.account(token).await;
            }
        }
        match bearer {
            Some(token) => self.directory.account(token).await,
            None => Err(Refusal::NoToken),
        }
    }

    async fn campaign_goes_on(&self, account: AccountId, cp_id: &str) -> Result<(), Refusal> {
        match self.store.campaign_state(account, cp_id).await {
            Ok(CampaignState::Cancelled) => Err(Refusal::CampaignCancelled),
            Ok(CampaignState::Running | CampaignState::Paused) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a request is refused: the database does not answer");
                Err(Refusal::Unavailable)
            }
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
        mut submission: Submission,
        deadline: Instant,
    ) -> Result<Accepted, Refusal> {
        let mut ticket = self.waiters.register();
        submission.waiter = Some(format!("{}/{}", self.broker.reply_address(), ticket.name()));
        let id = self.acceptor.accept(submission).await?;
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
    // A row that expired was not ended by the answer it had before.
    let http_status = if row.error_kind == Some(ErrorKind::Expired) { 0 } else { row.status_code };
    accepted(row.cdls_id, row.status, http_status, row.message_id.unwrap_or_default())
}
