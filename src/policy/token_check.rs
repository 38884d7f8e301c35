//! Judges Meta's answers about one line: whether its token is good and until when, which Page or account it belongs to,
//! and what is missing. Each finding names its remedy.
//!
//! Pure: the answers and the time are arguments. Never here: calls, and a token.

mod api_version;
mod facts;
mod findings;
#[cfg(test)]
mod tests;

use serde::Serialize;
use time::OffsetDateTime;

use super::classify::CallResult;
use crate::channel::{Class, Login};
pub use api_version::{ends_at, version_of};
pub use facts::{Facts, Owner, TokenEnd};

/// The line as it is configured, and the answers about it. A question that was not asked has no answer.
#[derive(Debug)]
pub struct Answers<'a> {
    pub login: Login,
    pub class: Class,
    pub page_id: Option<&'a str>,
    pub instagram_account_id: Option<&'a str>,
    /// The app that the line names.
    pub app_id: Option<&'a str>,
    /// Whether calls of the line carry a proof of the app.
    pub proves: bool,
    /// The end of the token as the database has it.
    pub known_end: Option<OffsetDateTime>,
    /// The version in the path of the line's calls.
    pub path_version: Option<String>,
    pub now: OffsetDateTime,
    pub debug: Option<CallResult>,
    pub identity: CallResult,
    /// The same without a proof, where the line's calls carry one.
    pub identity_without_proof: Option<CallResult>,
    pub subscriptions: CallResult,
    pub features: Option<CallResult>,
}

/// The weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The line sends, and loses something, or will stop.
    Warning,
    /// The line cannot send, or sends in another name.
    Error,
}

/// A state that somebody has to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// A short word for programs.
    pub code: &'static str,
    pub detail: String,
    pub remedy: String,
}

/// The facts about a line's token, and what has to be changed.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    #[serde(flatten)]
    pub facts: Facts,
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Return the check of a line about which Meta cannot be asked.
    pub fn unasked(code: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Checked {
        let finding = Finding { level: Level::Error, code, detail: detail.into(), remedy: remedy.into() };
        Checked { facts: Facts::default(), findings: vec![finding] }
    }

    /// Whether the line sends as configured.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Error)
    }
}

/// Judge the answers about a line.
pub fn judge(answers: &Answers<'_>) -> Checked {
    let facts = Facts::of(answers);
    let findings = findings::of(answers, &facts);
    Checked { facts, findings }
}

/// Return the webhook fields that the program makes use of, for a line's object.
pub fn wanted_fields(class: Class, login: Login) -> &'static [&'static str] {
    match (class == Class::INSTAGRAM, login) {
        // A Page's subscription; the fields of its Instagram account are those of the app.
        (false, _) => &[
            "messages",
            "message_deliveries",
            "message_reads",
            "message_echoes",
            "message_reactions",
            "messaging_postbacks",
            "messaging_referrals",
            "messaging_policy_enforcement",
        ],
        (true, Login::Facebook) => &["messages"],
        (true, Login::Instagram | Login::Unified) => {
            &["messages", "messaging_seen", "messaging_postbacks", "messaging_referral", "message_reactions"]
        }
    }
}

/// Return the permissions without which a line cannot send.
fn wanted_permissions(class: Class, login: Login) -> &'static [&'static str] {
    match (class == Class::INSTAGRAM, login) {
        (false, _) => &["pages_messaging"],
        (true, Login::Facebook | Login::Unified) => &["instagram_basic", "instagram_manage_messages"],
        (true, Login::Instagram) => &["instagram_business_basic", "instagram_business_manage_messages"],
    }
}
