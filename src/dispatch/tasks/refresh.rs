//! Refreshes the page tokens that end after 60 days (Instagram Login), for the lines of owned partitions.
//!
//! A line keeps its token until the new one has been used for a call and is written: a failure at any step leaves the
//! old one, which Meta does not withdraw. The line's row says which process tries, and when the next try is due. A
//! token that has ended pauses its line until a person connects the account again. Never here: the decision when to
//! refresh; `policy::token_life` has it.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::channel::Login;
use crate::dispatch::event::Event;
use crate::dispatch::line::GRAPH_PAUSE_PREFIX;
use crate::domain::{LineId, Partition};
use crate::graph::{Caller, Endpoint, GraphClient};
use crate::metrics::{METRICS, TokenRefresh};
use crate::policy::classify::{CANNOT_SEND, asked};
use crate::policy::token_life::{Refreshed, TokenLife, TokenStep, judge_refresh, next_step, next_try, told};
use crate::seal::{KeyRing, Purpose};
use crate::store::{AgeingToken, PauseScope, RefreshedToken, SharedStore, StoreError};
use crate::tasks::every;

const LOOK_EVERY: Duration = Duration::from_secs(10);
const AFTER_STORE_FAILURE: Duration = Duration::from_secs(30);
/// Tokens looked at before the next look, one after the other.
const AT_ONCE: u32 = 16;
/// Tokens that end later are not looked at.
const WITHIN: Duration = Duration::from_secs(32 * 86_400);
/// The next look at a token that is none of Instagram Login.
const ANOTHER_KIND: Duration = Duration::from_secs(86_400);
/// The next look at a token that ended, that cannot be opened, or whose refreshing was broken off: no other process tries
/// before.
const AGAIN_AFTER: Duration = Duration::from_secs(3_600);
/// The pause of a line whose token has ended, made anew each hour.
const ENDED_PAUSE: Duration = Duration::from_secs(4 * 3_600);
/// Writes of a new token that are tried, and the rest between: Meta gave the token, and the log may be back soon.
const WRITES: u32 = 5;
const BETWEEN_WRITES: Duration = Duration::from_secs(1);

/// The task that refreshes tokens.
pub struct TokenKeeper {
    pub store: SharedStore,
    pub graph: GraphClient,
    pub keys: Arc<KeyRing>,
    pub owned: watch::Receiver<Vec<Partition>>,
    pub events: mpsc::UnboundedSender<Event>,
}

impl TokenKeeper {
    /// Look through the owned partitions until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        every(stop.clone(), || async {
            // A call in flight is given up: the old token stays.
            match stop.run_until_cancelled(self.look()).await {
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot look at page tokens: retrying");
                    AFTER_STORE_FAILURE
                }
                _ => LOOK_EVERY,
            }
        })
        .await;
    }

    async fn look(&self) -> Result<(), StoreError> {
        let partitions = self.owned.borrow().clone();
        if partitions.is_empty() {
            return Ok(());
        }
        for token in self.store.ageing_tokens(&partitions, WITHIN, AT_ONCE).await? {
            self.look_at(&token).await?;
        }
        Ok(())
    }

    async fn look_at(&self, token: &AgeingToken) -> Result<(), StoreError> {
        let AgeingToken { line, version, left, held, .. } = *token;
        let Ok(opened) = self.keys.open(&token.text, Purpose::PageToken(line)) else {
            // The line's actor tells of it, and pauses the line.
            return self.put_off(token, AGAIN_AFTER, None).await.map(drop);
        };
        if !Login::of(token.login, opened.expose_secret()).has_refresh() {
            return self.put_off(token, ANOTHER_KIND, None).await.map(drop);
        }
        match next_step(TokenLife { left, held }, line) {
            TokenStep::Wait(length) => self.put_off(token, length, None).await.map(drop),
            TokenStep::Ended => self.ended(token).await,
            TokenStep::Refresh => {
                if !self.put_off(token, AGAIN_AFTER, None).await? {
                    return Ok(());
                }
                let refreshed = self.refreshed(&opened).await;
                let wait = next_try(&refreshed, rand::rng().random());
                match refreshed {
                    Refreshed::New { token: new, valid_for } => {
                        self.write(line, version, &new, valid_for, wait).await
                    }
                    refusal => self.failed(token, &refusal, wait).await,
                }
            }
        }
    }

    /// Ask for the successor of a token, and make a call with it.
    async fn refreshed(&self, token: &SecretString) -> Refreshed {
        let refreshed = judge_refresh(&self.graph.refresh_token(token).await);
        let Refreshed::New { token: new, .. } = &refreshed else { return refreshed };
        let caller = Caller { endpoint: &Endpoint::Instagram, app_secret: None, page_token: new };
        match asked(&self.graph.identity(&caller).await) {
            // Any other refusal of Graph, as of a proof, is an answer to a token that it takes.
            Err(refusal) if refusal.is_about_the_token() || refusal.is_passing() => Refreshed::Failed {
                reason: format!("no call with the new token was answered: {}", told(&refusal)),
            },
            _ => refreshed,
        }
    }

    async fn write(
        &self,
        line: LineId,
        version: i64,
        new: &SecretString,
        valid_for: Option<Duration>,
        next_try: Duration,
    ) -> Result<(), StoreError> {
        let text = match self.keys.first() {
            Some(key) => key.seal(new, Purpose::PageToken(line)),
            None => new.clone(),
        };
        let new = RefreshedToken { text, valid_for, next_try };
        let mut written = self.store.renew_token(line, version, &new).await;
        for _ in 1..WRITES {
            if written.is_ok() {
                break;
            }
            tokio::time::sleep(BETWEEN_WRITES).await;
            written = self.store.renew_token(line, version, &new).await;
        }
        if written? {
            METRICS.page_tokens.refreshed(TokenRefresh::Refreshed);
            let days = valid_for.map(|valid_for| valid_for.as_secs() / 86_400);
            tracing::info!(%line, days, "page token refreshed: line goes on with the new one");
            self.inform(line).await?;
        } else {
            tracing::info!(%line, "page token was replaced while it was refreshed: the refreshed one is dropped");
        }
        Ok(())
    }

    async fn failed(
        &self,
        token: &AgeingToken,
        failure: &Refreshed,
        wait: Duration,
    ) -> Result<(), StoreError> {
        let line = token.line;
        let days_left = token.left.map(|left| left.as_secs() / 86_400);
        match failure {
            Refreshed::New { .. } => Ok(()),
            Refreshed::Failed { reason } => {
                METRICS.page_tokens.refreshed(TokenRefresh::Failed);
                tracing::warn!(%line, reason, days_left, "page token not refreshed: line goes on with the old one; next try in an hour");
                self.note(token, wait, Some(reason)).await
            }
            // Meta refuses a token in its first day, and its age is not known.
            Refreshed::Refused { reason, is_ended: false }
                if token.held.is_none() && token.left.is_none() =>
            {
                tracing::info!(%line, reason, "page token not refreshed: next try tomorrow");
                self.note(token, wait, None).await
            }
            Refreshed::Refused { reason, .. } => {
                METRICS.page_tokens.refreshed(TokenRefresh::Refused);
                tracing::error!(%line, reason, days_left, "page token refused for refreshing: line stops when it ends; connect the account again, and use `line set-pat`");
                self.note(token, wait, Some(reason)).await
            }
        }
    }

    /// Pause a line whose token has ended.
    async fn ended(&self, token: &AgeingToken) -> Result<(), StoreError> {
        const REASON: &str = "the page token has ended; connect the account again, and use `line set-pat`";
        if !self.put_off(token, AGAIN_AFTER, Some(REASON)).await? {
            return Ok(());
        }
        METRICS.page_tokens.refreshed(TokenRefresh::Ended);
        tracing::error!(line = %token.line, "page token has ended: line paused; connect the account again, and use `line set-pat`");
        let reason = format!("{GRAPH_PAUSE_PREFIX}{CANNOT_SEND}: {REASON}");
        self.store.pause(PauseScope::Line(token.line), ENDED_PAUSE, &reason).await?;
        self.inform(token.line).await
    }

    /// Give the changed record to the line at once.
    async fn inform(&self, line: LineId) -> Result<(), StoreError> {
        let records = self.store.lines(&[line]).await?;
        // The dispatcher is gone only when the process ends.
        let _ = self.events.send(Event::Lines { asked: Vec::new(), records, pause_written: false });
        Ok(())
    }

    /// Whether the token was this process's to look at.
    async fn put_off(
        &self,
        token: &AgeingToken,
        wait: Duration,
        error: Option<&str>,
    ) -> Result<bool, StoreError> {
        self.store.put_off_refresh(token.line, token.version, wait, error).await
    }

    async fn note(&self, token: &AgeingToken, wait: Duration, error: Option<&str>) -> Result<(), StoreError> {
        self.store.note_refresh_failure(token.line, token.version, wait, error).await.map(drop)
    }
}
