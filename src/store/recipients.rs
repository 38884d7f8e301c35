//! The recipients of lines: what inbound events and refusals have told of each, and the waiting messages of
//! recipients whose windows close soon.
//!
//! Never here: what ends a message, and when a recipient is looked up.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{Flow, ReadyRow, Scope, StoreError};
use crate::domain::{AccountId, ErrorKind, LineId, RowId, WindowState};

/// The backlog of a line is counted up to this many rows of `work`. A longer one only makes a message go forward
/// later, and still before its window closes.
pub const BACKLOG_WORK: u32 = 4_096;

/// Waiting messages of one recipient that a look finds at most; the next look finds the others.
pub const CLOSING_ROWS_EACH: u32 = 4;

/// A recipient, as a line knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineRecipient {
    pub line: LineId,
    pub dest: String,
}

/// The facts that keep messages from a recipient. Without any, messages are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contact {
    /// When the window closes, or closed; `None`: not known.
    pub closes: Option<Instant>,
    /// Whether Graph has said that the recipient cannot be reached, and the recipient has not written since.
    pub is_unreachable: bool,
}

impl Contact {
    /// Return the kind of the end that a message to the recipient has now; `None`: the message is sent.
    pub fn withholds(&self, now: Instant) -> Option<ErrorKind> {
        if self.is_unreachable {
            return Some(ErrorKind::Unreachable);
        }
        self.closes.filter(|closes| *closes <= now).map(|_| ErrorKind::Window)
    }
}

/// A recipient that Graph has refused with 551, or 200/1545041.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub recipient: LineRecipient,
    /// When the refused call began: an inbound event of a later time is news.
    pub called: Instant,
}

/// A recipient, as far as inbound events tell
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Recipient)]
pub struct RecipientFacts {
    #[schema(value_type = i64)]
    pub app_id: LineId,
    pub dest: String,
    /// Time of the recipient's last message, postback, reaction or referral
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub last_inbound_at: Option<OffsetDateTime>,
    /// Time at which the window closes, or closed
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub window_until: Option<OffsetDateTime>,
    #[schema(inline)]
    pub window: WindowState,
    /// Time since which Graph says that the recipient cannot be reached; null again when the recipient writes
    #[serde(serialize_with = "crate::text::time_or_null")]
    #[schema(required)]
    pub unreachable_since: Option<OffsetDateTime>,
}

/// How many recipients of a line are known to be in which state; each recipient counts once
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RecipientCounts)]
pub struct RecipientCounts {
    #[schema(value_type = i64)]
    pub app_id: LineId,
    /// Recipients whose window is known to be open
    pub open: i64,
    /// Recipients whose window is known to be closed
    pub closed: i64,
    /// Recipients of whose window nothing is known
    pub unknown: i64,
    /// Recipients that cannot be reached; these count as nothing else
    pub unreachable: i64,
}

/// The place that looks at closing windows have reached: by the end of the window, then by recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosingCursor {
    pub until: OffsetDateTime,
    pub dest: String,
}

/// A look for messages of a flow whose recipients' windows close within the time that the line needs for the
/// backlog of its lane and medium.
#[derive(Debug, Clone)]
pub struct ClosingLook {
    pub account: AccountId,
    pub flow: Flow,
    /// Messages with ids up to this one have ended, or are known to go.
    pub after: RowId,
    /// The rate of the line, in messages a second.
    pub per_second: u32,
    /// Recipients up to this place were looked at before.
    pub from: Option<ClosingCursor>,
    /// Recipients that are looked at.
    pub limit: u32,
}

/// A waiting message whose recipient's window closes soon.
#[derive(Debug, Clone)]
pub struct ClosingRow {
    pub row: ReadyRow,
    pub closes: Instant,
}

/// The answer to a [`ClosingLook`].
#[derive(Debug, Clone, Default)]
pub struct ClosingRows {
    /// In order of the windows' ends; the messages of one recipient in order of id, from the first that waits.
    pub rows: Vec<ClosingRow>,
    /// The place at which the next look begins; `None`: all closing windows were looked at.
    pub reached: Option<ClosingCursor>,
}

/// The statements about recipients.
#[async_trait]
pub trait RecipientStore: Send + Sync {
    /// Return the facts that may keep messages from these recipients, in the order given. One round trip.
    async fn contacts(&self, recipients: &[LineRecipient]) -> Result<Vec<Contact>, StoreError>;

    /// Note that Graph says these recipients cannot be reached, except those who have written since the call.
    /// A recipient that is noted already keeps its time.
    async fn mark_unreachable(&self, recipients: &[Unreachable]) -> Result<(), StoreError>;

    /// Return what is known of a recipient; `None` if the line is not of this scope.
    async fn recipient(
        &self,
        scope: Scope,
        line: LineId,
        dest: &str,
    ) -> Result<Option<RecipientFacts>, StoreError>;

    /// Count the recipients of the account's lines by what is known of them, in order of line. Recipients of
    /// other lines are left out.
    async fn recipient_counts(
        &self,
        account: AccountId,
        recipients: &[LineRecipient],
    ) -> Result<Vec<RecipientCounts>, StoreError>;

    /// Return the lines among these of which a recipient is known to have an open window.
    async fn lines_with_open_windows(&self, lines: &[LineId]) -> Result<Vec<LineId>, StoreError>;

    /// Return waiting messages of a flow whose recipients' windows close soon. Work of campaigns that do not
    /// run, and recipients that cannot be reached, are left out.
    async fn closing_rows(&self, look: &ClosingLook) -> Result<ClosingRows, StoreError>;
}

/// Return the moment that lies this many milliseconds ahead, or, if negative, no later than now.
pub(super) fn moment(now: Instant, milliseconds: i64) -> Instant {
    let ahead = Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default());
    now.checked_add(ahead).unwrap_or(now)
}

/// Return the state of a window of which the database says whether it is open, if it knows.
pub(super) fn window_state(is_open: Option<bool>) -> WindowState {
    match is_open {
        Some(true) => WindowState::Open,
        Some(false) => WindowState::Closed,
        None => WindowState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_known_withholds_nothing() {
        assert_eq!(Contact::default().withholds(Instant::now()), None);
    }

    #[test]
    fn window_withholds_from_its_end() {
        let now = Instant::now();
        let contact = Contact { closes: Some(now + Duration::from_secs(1)), is_unreachable: false };
        assert_eq!(contact.withholds(now), None);
        assert_eq!(contact.withholds(now + Duration::from_secs(1)), Some(ErrorKind::Window));
    }

    #[test]
    fn unreachable_recipient_withholds_in_an_open_window() {
        let now = Instant::now();
        let contact = Contact { closes: Some(now + Duration::from_secs(1)), is_unreachable: true };
        assert_eq!(contact.withholds(now), Some(ErrorKind::Unreachable));
    }
}
