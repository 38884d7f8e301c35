//! Echoes of messages: Meta's report that a message was sent, kept until the outcome of its call is known.
//!
//! An echo often comes before the answer to its call, and always before a call that was cut is known to be: it is noted,
//! and a worker settles the row once its call has ended without an answer. Never here: which echo belongs to which row,
//! where the echo does not name it; `policy::reconcile` decides that.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{StoreError, digest};
use crate::domain::{AccountId, LineId, RowId, Status};

/// An echo whose metadata names the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEcho {
    pub row: RowId,
    /// The fence of the claim whose call sent the message.
    pub fence: i32,
    /// The Page that sent the message, as Meta names it.
    pub page_id: String,
    pub dest: String,
    /// Graph's id of the message.
    pub message_id: String,
}

/// An echo that names no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnnamedEcho {
    /// The Instagram account that sent the message, as Meta names it.
    pub instagram_account_id: String,
    pub dest: String,
    /// Graph's id of the message.
    pub message_id: String,
    /// [`text_digest`] of the text.
    pub text: i64,
    /// The time of the message by Meta's clock.
    pub at: OffsetDateTime,
}

/// A noted echo that names its row, with the row as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotedEcho {
    pub row: RowId,
    pub line: LineId,
    pub echoed_fence: i32,
    pub message_id: String,
    /// The row's status in the log: a claim does not show in it.
    pub status: Status,
    pub fence: i32,
    pub waiter: Option<String>,
}

impl NotedEcho {
    /// Whether the row has ended, so that the echo tells nothing new.
    pub fn is_over(&self) -> bool {
        self.status.is_final()
    }

    /// Whether the end of the echoed call is written, and does not say that Graph took the message.
    pub fn settles(&self) -> bool {
        !self.is_over() && self.fence >= self.echoed_fence
    }
}

/// A noted echo that names no row, for a line whose account sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardEcho {
    pub line: LineId,
    pub dest: String,
    pub message_id: String,
    pub text: i64,
    pub at: OffsetDateTime,
    /// How long ago the echo was noted.
    pub age: Duration,
}

/// Return a number for a text, under which echo and row are compared: the text itself is not kept twice. White space at
/// its ends does not count, as Meta may take it away.
pub fn text_digest(text: &str) -> i64 {
    digest(AccountId(0), LineId(0), "", text.trim())
}

/// The statements about echoes.
#[async_trait]
pub trait EchoStore: Send + Sync {
    /// Note echoes whose row has not ended, and was sent from this Page to this recipient; leave out all others. An
    /// echo that is noted already changes nothing.
    async fn note_echoes(&self, echoes: &[NamedEcho]) -> Result<(), StoreError>;

    /// Note echoes of accounts that a line has; leave out all others.
    async fn note_unnamed_echoes(&self, echoes: &[UnnamedEcho]) -> Result<(), StoreError>;

    /// Return at most `limit` noted echoes, lowest rows first. Echoes of rows that are no longer in the log are
    /// forgotten.
    async fn noted_echoes(&self, limit: u32) -> Result<Vec<NotedEcho>, StoreError>;

    /// Return at most `limit` echoes that name no row, one for each line of the account, oldest first.
    async fn unnamed_echoes(&self, limit: u32) -> Result<Vec<HeardEcho>, StoreError>;

    /// Forget the echoes of these rows, those of these ids of Graph, and all that were noted before this time.
    async fn forget_echoes(
        &self,
        rows: &[RowId],
        message_ids: &[String],
        older_than: Duration,
    ) -> Result<(), StoreError>;
}
