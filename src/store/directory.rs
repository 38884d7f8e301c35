//! Accounts, their broker users, and the lines they send from.
//!
//! Never here: the permissions of a line, which are the caller's decision.

use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::StoreError;
use crate::channel::{Class, Login};
use crate::domain::{AccountId, LineId};
use crate::text::is_blank;

/// The account that a user of the broker sends for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerUser {
    pub account: AccountId,
    pub account_active: bool,
}

/// A line without its token, as ingest and the calls of senders read it, with its account's state.
#[derive(Debug, Clone)]
pub struct LineSummary {
    pub id: LineId,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub active: bool,
    pub account_active: bool,
    /// Whether the line has a token that is not blank; the database tells, and keeps the token.
    pub has_token: bool,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// The chosen way to connect; `None`: the token shows it.
    pub login: Option<Login>,
    /// The end of the token, if it is known.
    pub token_expires_at: Option<OffsetDateTime>,
    /// The rate in messages a second; `None` is the class's default.
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
    pub paused_until: Option<OffsetDateTime>,
    /// The time left of the line's pause, by the database's clock.
    pub pause_left: Option<Duration>,
    pub pause_reason: Option<String>,
}

/// A line with its token, as the worker and the commands need it.
#[derive(Debug, Clone)]
pub struct LineRecord {
    pub id: LineId,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub active: bool,
    pub account_active: bool,
    /// The token, plain or sealed, as stored, without white space around it: SQL of other programs leaves
    /// line ends. A blank one is none.
    pub page_token: Option<SecretString>,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// The chosen way to connect; `None`: the token shows it.
    pub login: Option<Login>,
    /// The end of the token, if it is known.
    pub token_expires_at: Option<OffsetDateTime>,
    /// Grows with each change of the token's text.
    pub token_version: i64,
    /// The failure of the last try to refresh the token.
    pub token_error: Option<String>,
    /// The app that the line belongs to; `None`: the common one.
    pub meta_app: Option<String>,
    /// The secret of that app, plain or sealed, as stored.
    pub app_secret: Option<SecretString>,
    /// The rate in messages a second; `None` is the class's default.
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
    pub paused_until: Option<OffsetDateTime>,
    /// The time left of the line's pause, by the database's clock.
    pub pause_left: Option<Duration>,
    pub pause_reason: Option<String>,
}

/// How the reason of a pause begins that lasts until somebody acts: Graph refuses the line.
pub const REFUSED_PAUSE: &str = "Graph: cannot send";

/// A pause longer than any that ends by itself: an operator's, until it is ended.
const ENDLESS: Duration = Duration::from_secs(365 * 86_400);

impl LineSummary {
    /// Why the line cannot send before somebody acts, as one sentence for its account; nothing if it sends, or will by itself.
    pub fn held_up(&self) -> Option<String> {
        let cause = self.cause()?;
        Some(format!("{cause}: the message waits until somebody ends that, or expires."))
    }

    /// Whether the line is switched on and does not send at this moment: it is paused, or has no token.
    pub fn is_stopped(&self) -> bool {
        self.active && self.account_active && (self.pause_left.is_some() || !self.has_token)
    }

    /// Whether the path of the line's calls needs an Instagram account id that the line does not have.
    pub fn lacks_account_id(&self) -> bool {
        self.login.is_some_and(Login::needs_account_id)
            && self.instagram_account_id.as_deref().is_none_or(is_blank)
    }

    fn cause(&self) -> Option<String> {
        let lacks_page_id = self.class.needs_page_id && self.page_id.as_deref().is_none_or(is_blank);
        let lacks_account_id = self.lacks_account_id();
        let obstacles = [
            (!self.account_active, "The account is disabled"),
            (!self.active, "The line is switched off"),
            (!self.has_token, "The line has no page access token"),
            (lacks_page_id, "The line has no Facebook Page id"),
            (lacks_account_id, "The line has no Instagram account id, which Unified Login needs"),
        ];
        if let Some((_, obstacle)) = obstacles.into_iter().find(|(is_there, _)| *is_there) {
            return Some(obstacle.to_owned());
        }
        let left = self.pause_left.filter(|left| !left.is_zero())?;
        let reason = self.pause_reason.as_deref().unwrap_or("no reason is given");
        let needs_somebody = reason.starts_with(REFUSED_PAUSE) || left >= ENDLESS;
        needs_somebody.then(|| format!("The line is paused ({reason})"))
    }
}

/// An account as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AccountRow {
    pub cdcs_id: AccountId,
    pub cdcs_name: String,
    pub cdcs_active: bool,
    /// The networks from which it may be used; none: from everywhere.
    pub networks: Vec<String>,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
}

/// A mapped user of the broker as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BrokerUserRow {
    pub broker_user: String,
    pub cdcs_id: AccountId,
    /// Whether it has a queue for submissions of its own.
    pub submit_queue: bool,
    #[serde(serialize_with = "crate::text::time")]
    pub created_at: OffsetDateTime,
}

/// A line to be added.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// The id that the operator chose; `None` for the next free one.
    pub id: Option<LineId>,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub page_token: SecretString,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// The chosen way to connect; `None`: the token shows it.
    pub login: Option<Login>,
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
}

/// A change of a line; `None` keeps a column as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineChange {
    pub name: Option<String>,
    pub active: Option<bool>,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// The way to connect; `Some(None)`: the token shows it.
    pub login: Option<Option<Login>>,
    /// The rate in messages a second; `Some(None)` is the class's default.
    pub rate_text: Option<Option<u32>>,
    pub rate_media: Option<Option<u32>>,
}

/// The lines that a pause concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseScope {
    Line(LineId),
    /// Every line: Graph limited the app they all share.
    App,
}

/// The statements about accounts and lines.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// Return the account that a user of the broker sends for, if one is mapped.
    async fn broker_user(&self, user: &str) -> Result<Option<BrokerUser>, StoreError>;

    /// Return lines by id, of any account, without their tokens; the caller compares accounts. Missing ids are left
    /// out, and so is a line that this version cannot read.
    async fn line_summaries(&self, ids: &[LineId]) -> Result<Vec<LineSummary>, StoreError>;

    /// Return the lines of an account, by id, without their tokens.
    async fn account_lines(&self, account: AccountId) -> Result<Vec<LineSummary>, StoreError>;

    /// Return the lines, by id and without their tokens, that are switched on and do not send at this moment: paused, or
    /// without a token.
    async fn stopped_lines(&self) -> Result<Vec<LineSummary>, StoreError>;

    /// Return lines by id with their tokens, for the worker and the commands. Missing ids and unreadable lines are left
    /// out.
    async fn lines(&self, ids: &[LineId]) -> Result<Vec<LineRecord>, StoreError>;

    /// Change a line; return whether it exists.
    async fn update_line(&self, line: LineId, change: &LineChange) -> Result<bool, StoreError>;

    /// Remove a line; return whether it existed. Its rows stay in the log.
    async fn remove_line(&self, line: LineId) -> Result<bool, StoreError>;

    /// Enable or disable an account; return whether it exists.
    async fn set_account_active(&self, account: AccountId, active: bool) -> Result<bool, StoreError>;

    /// Return all lines with their tokens, by id.
    async fn all_lines(&self) -> Result<Vec<LineRecord>, StoreError>;

    /// Pause until now + `length`; an existing pause is never shortened.
    async fn pause(&self, scope: PauseScope, length: Duration, reason: &str) -> Result<(), StoreError>;

    async fn add_account(&self, name: &str) -> Result<AccountId, StoreError>;
    async fn accounts(&self) -> Result<Vec<AccountRow>, StoreError>;

    /// Map a user of the broker to an account, with a queue for submissions of its own if `submit_queue`. A user
    /// that is mapped to the account may be given a queue so; else `Invalid` if the user is mapped, or the account
    /// does not exist.
    async fn map_broker_user(
        &self,
        account: AccountId,
        user: &str,
        submit_queue: bool,
    ) -> Result<(), StoreError>;

    /// End the mapping; return whether the user was mapped.
    async fn unmap_broker_user(&self, user: &str) -> Result<bool, StoreError>;

    /// Return the users with a queue for submissions of their own, by name.
    async fn submit_queues(&self) -> Result<Vec<String>, StoreError>;

    /// Return all mapped users, by name.
    async fn broker_users(&self) -> Result<Vec<BrokerUserRow>, StoreError>;

    /// Add a line; `Invalid` if the account does not exist or the id is taken.
    async fn add_line(&self, line: &NewLine) -> Result<LineId, StoreError>;

    /// Replace the page token, forget the known facts about its predecessor, and end a pause that the predecessor
    /// caused; return whether the line exists.
    async fn set_page_token(&self, line: LineId, page_token: &SecretString) -> Result<bool, StoreError>;

    /// Set an operator's pause, which replaces any other; `None` lasts until `resume_line`. Return whether
    /// the line exists.
    async fn pause_line(
        &self,
        line: LineId,
        length: Option<Duration>,
        reason: &str,
    ) -> Result<bool, StoreError>;

    /// End the line's pause; return whether the line exists.
    async fn resume_line(&self, line: LineId) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn line() -> LineSummary {
        LineSummary {
            id: LineId(7),
            account: AccountId(1),
            name: None,
            class: Class::MESSENGER,
            active: true,
            account_active: true,
            has_token: true,
            page_id: Some("1".into()),
            instagram_account_id: None,
            login: None,
            token_expires_at: None,
            rate_text: None,
            rate_media: None,
            paused_until: None,
            pause_left: None,
            pause_reason: None,
        }
    }

    fn paused(left: Duration, reason: &str) -> LineSummary {
        LineSummary { pause_left: Some(left), pause_reason: Some(reason.into()), ..line() }
    }

    const HOUR: Duration = Duration::from_secs(3_600);

    #[rstest]
    #[case::sends(line(), None)]
    #[case::slowed_down(paused(HOUR, "Graph: slowed down: Graph code 613"), None)]
    #[case::paused_for_a_while(paused(HOUR, "new page"), None)]
    #[case::refused(paused(HOUR, "Graph: cannot send: Graph code 190"), Some("Graph code 190"))]
    #[case::paused_without_an_end(paused(ENDLESS, "stock-taking"), Some("stock-taking"))]
    #[case::switched_off(LineSummary { active: false, ..line() }, Some("switched off"))]
    #[case::without_a_token(LineSummary { has_token: false, ..line() }, Some("no page access token"))]
    #[case::without_a_page_id(LineSummary { page_id: Some(" ".into()), ..line() }, Some("no Facebook Page id"))]
    #[case::unified_without_an_account_id(
        LineSummary { login: Some(Login::Unified), ..line() },
        Some("no Instagram account id")
    )]
    #[case::of_a_disabled_account(LineSummary { account_active: false, ..line() }, Some("disabled"))]
    fn line_that_waits_for_somebody_says_why(#[case] line: LineSummary, #[case] words: Option<&str>) {
        let said = line.held_up();
        assert_eq!(said.is_some(), words.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(words.unwrap_or_default()));
    }
}
