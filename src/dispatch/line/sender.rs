//! The record of a line as this process applies it: the sender of the line's calls with its page token, the
//! limits, and the pause that the record shows.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::actor::Line;
use super::page_token::PageToken;
use super::pauses::{GRAPH_PAUSE_PREFIX, is_refusal};
use crate::channel::{Class, Login, Rates};
use crate::domain::AccountId;
use crate::graph::{AppSecret, Endpoint, Host};
use crate::policy::classify::Subject;
use crate::policy::pace::Limits;
use crate::seal::KeyRing;
use crate::settings::{ClassLimits, LimitSettings};
use crate::store::{LineRecord, UNOPENED_PAUSE};

/// The data that the calls of a line need.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The owner of the line. Rows of another account, logged before the line changed hands, are never sent
    /// from it.
    pub account: AccountId,
    pub class: Class,
    /// Host and path of the calls.
    pub endpoint: Endpoint,
    /// The secret of the line's own app.
    pub app_secret: Option<Arc<AppSecret>>,
    /// The token itself, never a sealed text.
    pub page_token: Arc<SecretString>,
    /// Page and Instagram account, as usage headers name them.
    pub subject: Arc<Subject>,
}

/// The parts of the line's record that decide whether it sends.
pub(super) struct Config {
    token: Option<PageToken>,
    /// `None` without a token, and with one that cannot be opened.
    sender: Option<Sender>,
    active: bool,
    pub(super) paused_until: Option<Instant>,
}

/// A change that a line's record needs, because of its page token.
#[derive(Debug, PartialEq, Eq)]
pub enum PauseChange {
    /// The token cannot be opened: the line is to be paused for this reason.
    Unopened(String),
    /// The pause with this reason is over: the token opens, or is gone.
    Opened(String),
    /// The token was replaced: the pause is over, as Graph demanded it of the token before.
    Replaced,
}

impl Line {
    /// Apply the line's record. A changed limit starts with a drained limiter, so that it cannot burst.
    /// Return the change that the record needs. `pause_written`: the record was read after a pause demanded
    /// here was written to it.
    pub fn configure(
        &mut self,
        record: &LineRecord,
        limits: &LimitSettings,
        keys: &KeyRing,
        pause_written: bool,
        now: Instant,
    ) -> Option<PauseChange> {
        let ClassLimits { text, media } = limits.of(record.class);
        let limits = Limits::of(
            record.class,
            Rates { text, media },
            limits.enforce_ceilings,
            record.rate_text,
            record.rate_media,
        );
        for limit in [limits.text, limits.media] {
            if let (Some(asked), None) = (limit.clamped_from, &self.config) {
                tracing::warn!(line = %self.id, asked, ceiling = limit.per_second, "limit above Meta's ceiling: lowered to the ceiling");
            }
        }
        self.text.set_limit(limits.text.per_second);
        self.media.set_limit(limits.media.per_second);
        if pause_written {
            self.local_pause = None;
        }
        let is_first = self.config.is_none();
        let had = self.sender();
        let before = self.config.take().and_then(|config| config.token);
        let token = PageToken::of(record, before, keys);
        let sender = token.as_ref().and_then(PageToken::opened).and_then(|page_token| {
            Some(Sender {
                account: record.account,
                class: record.class,
                // A line of Unified Login without the id of its account waits; `line list` tells so.
                endpoint: Endpoint::of(
                    Login::of(record.login, page_token.expose_secret()),
                    record.instagram_account_id.as_deref(),
                )?,
                app_secret: self.own_app_secret(),
                page_token,
                subject: Arc::new(Subject {
                    class: Some(record.class),
                    page_id: record.page_id.clone(),
                    instagram_account_id: record.instagram_account_id.clone(),
                }),
            })
        });
        self.config = Some(Config {
            token,
            sender,
            active: record.active && record.account_active,
            paused_until: record.pause_left.map(|left| now + left.min(Duration::from_secs(365 * 86_400))),
        });
        let change = self.pause_change(record, had.as_ref(), now);
        if change == Some(PauseChange::Replaced) {
            self.local_pause = None;
        }
        // The refusal came while another process had the line, or this one before a restart.
        if is_first
            && self.paused_until(now).is_some()
            && record.pause_reason.as_deref().is_some_and(is_refusal)
        {
            self.standing.begin_trial(now, false);
        }
        change
    }

    /// Return the change that the applied record needs. `had`: the sender of the record before. Tokens are
    /// compared, not texts: sealing a token anew is no replacement, and ends no pause.
    fn pause_change(&self, record: &LineRecord, had: Option<&Sender>, now: Instant) -> Option<PauseChange> {
        let config = self.config.as_ref()?;
        let is_paused = self.paused_until(now).is_some();
        let reason = record.pause_reason.as_deref();
        let unopened = reason.filter(|reason| is_paused && reason.starts_with(UNOPENED_PAUSE));
        if let Some(refusal) = config.token.as_ref().and_then(PageToken::refusal) {
            let wanted = format!("{UNOPENED_PAUSE}: {refusal}");
            // Another pause is shown while it lasts.
            let is_due = unopened.map_or(!is_paused, |shown| shown != wanted);
            return (config.active && is_due).then_some(PauseChange::Unopened(wanted));
        }
        if let Some(reason) = unopened {
            return Some(PauseChange::Opened(reason.to_owned()));
        }
        let has = self.sender();
        let is_new = had
            .zip(has.as_ref())
            .is_some_and(|(had, has)| had.page_token.expose_secret() != has.page_token.expose_secret());
        let was_demanded = reason.is_some_and(|reason| reason.starts_with(GRAPH_PAUSE_PREFIX));
        (is_new && was_demanded && is_paused).then_some(PauseChange::Replaced)
    }

    /// Stop sending until the line's record, which is gone, is back.
    pub fn deconfigure(&mut self) {
        self.config = None;
    }

    /// Whether rows are read for the line: not while it is known that the line cannot send.
    pub fn may_read(&self, now: Instant) -> bool {
        self.config.is_none() || (self.sender().is_some() && self.paused_until(now).is_none())
    }

    /// Return the host that the line calls; the common one while it is not known.
    pub fn host(&self) -> Host {
        let sender = self.config.as_ref().and_then(|config| config.sender.as_ref());
        sender.map(|sender| sender.endpoint.host()).unwrap_or_default()
    }

    pub(super) fn sender(&self) -> Option<Sender> {
        self.config.as_ref().filter(|config| config.active).and_then(|config| config.sender.clone())
    }
}
