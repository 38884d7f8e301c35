//! What goes into the store and comes out of it: rows, wishes, and reports. Plain data.

use std::time::Duration;

use secrecy::SecretString;
use time::OffsetDateTime;

use crate::message::{
    AccountId, Class, ErrorKind, Lane, LineId, Medium, MessageId, MessageKind, Partition, Status,
};

/// A token as stored: looked up by its first ten characters, compared by the SHA-256 of the whole.
#[derive(Debug, Clone)]
pub struct TokenRecord {
    pub account: AccountId,
    pub account_active: bool,
    pub hash: Vec<u8>,
}

/// The account that a user of the broker sends for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerUser {
    pub account: AccountId,
    pub account_active: bool,
}

/// A line as the worker and the ingest need it, with its account's state.
#[derive(Debug, Clone)]
pub struct LineRecord {
    pub id: LineId,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub active: bool,
    pub account_active: bool,
    /// Plain or sealed, as stored; empty counts as none.
    pub page_token: Option<SecretString>,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    /// Messages a second; `None` is the class's default.
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
    pub paused_until: Option<OffsetDateTime>,
    /// How long its pause still lasts by the database's clock.
    pub pause_left: Option<Duration>,
    pub pause_reason: Option<String>,
}

/// A row that may be claimed, as a line's actor holds it.
#[derive(Debug, Clone)]
pub struct ReadyRow {
    pub id: MessageId,
    pub line: LineId,
    pub account: AccountId,
    pub lane: Lane,
    pub kind: MessageKind,
    pub cp_id: Option<String>,
    pub dest: String,
    pub mdata: String,
    pub fence: i32,
    /// Calls begun so far.
    pub attempts: i32,
    /// Retried answers about the message itself so far.
    pub tries: i32,
    /// How long the row is still valid, by the database's clock; zero or less has expired.
    pub valid_for: time::Duration,
    pub waiter: Option<String>,
}

impl ReadyRow {
    /// The flow this row is served in.
    pub fn flow(&self) -> Flow {
        Flow {
            line: self.line,
            lane: self.lane,
            medium: self.kind.medium(),
            campaign: self.cp_id.clone().unwrap_or_default(),
        }
    }
}

/// Ready rows of one line that are served in turn with its other flows: one lane, one medium, one campaign
/// (the empty campaign holds the rows without a `cp_id`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    pub line: LineId,
    pub lane: Lane,
    pub medium: Medium,
    pub campaign: String,
}

/// A wish for the next ready rows of a flow, in id order: those with ids above `after`, at most `limit`.
#[derive(Debug, Clone)]
pub struct FlowRead {
    pub flow: Flow,
    pub after: MessageId,
    pub limit: u32,
}

/// What a look through the waiting rows of a flow found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// Rows looked at: fewer than the limit means that there are no more.
    pub rows: u32,
    /// The highest of their ids; 0 if there were none.
    pub last: MessageId,
    /// Those that have expired.
    pub expired: Vec<MessageId>,
}

/// A wish for the ready rows that a job announced, at most `limit`, in id order.
#[derive(Debug, Clone, Copy)]
pub struct RangeRead {
    pub line: LineId,
    pub lane: Lane,
    pub first: MessageId,
    pub last: MessageId,
    pub limit: u32,
}

/// A claim to be made: the row as read, with the fence it had then.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    pub id: MessageId,
    pub fence: i32,
    /// How long others leave the claimed row alone: the call's total timeout and two seconds.
    pub call_deadline: Duration,
}

/// What one recorder transaction did: for each change and each claim, in the order given, whether it took place.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    pub changed: Vec<bool>,
    pub claimed: Vec<bool>,
    /// Of the changes, successes of rows that others had settled, or that waited for another call.
    pub late: usize,
}

/// A recipient whose next message has to wait: a row of theirs is claimed, or waits for its next try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecipient {
    pub line: LineId,
    pub lane: Lane,
    pub dest: String,
    pub by: MessageId,
    pub status: Status,
    /// Until the row is due (RETRY) or may be settled (SENDING), by the database's clock.
    pub wait: Duration,
}

/// A claimed row, as the owner of its partition compares it with its own calls in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedRow {
    pub id: MessageId,
    pub line: LineId,
    pub fence: i32,
    pub worker: String,
    /// Calls begun, this one included.
    pub attempts: i32,
    /// Retried answers about the message itself so far.
    pub tries: i32,
    /// Workers that died inside a call of this row so far.
    pub crashes: i32,
    /// How long the row is still valid, by the database's clock; zero or less has expired.
    pub valid_for: time::Duration,
    /// Whether `call_deadline` has passed by the database's clock.
    pub overdue: bool,
    pub waiter: Option<String>,
}

/// A partition held by a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub partition: Partition,
    pub epoch: i64,
}

/// What a worker holds after a renewal, and how many workers share the partitions.
#[derive(Debug, Clone, Default)]
pub struct LeaseReport {
    pub held: Vec<Lease>,
    /// Worker processes alive, this one included.
    pub workers: usize,
}

/// A row of the log as callers and dashboards see it (contract: "SQL: for dashboards"), names and order included.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
#[schema(as = Message)]
pub struct LogRow {
    #[schema(value_type = i64)]
    pub cdls_id: MessageId,
    #[schema(value_type = i64)]
    pub cdcs_id: AccountId,
    #[schema(value_type = i64)]
    pub v8l_id: LineId,
    #[schema(inline)]
    pub class: Class,
    pub dest: String,
    #[schema(inline)]
    pub mtype: MessageKind,
    pub mdata: String,
    #[schema(required)]
    pub mcaption: Option<String>,
    #[schema(required)]
    pub msg_id: Option<String>,
    #[schema(required)]
    pub cp_id: Option<String>,
    #[schema(inline)]
    pub priority: Lane,
    #[schema(inline)]
    pub status: Status,
    /// Graph's HTTP code
    pub status_code: i32,
    /// Graph's id of the message
    #[schema(required)]
    pub message_id: Option<String>,
    /// Graph's code
    #[schema(required)]
    pub error_code: Option<i32>,
    /// Graph's subcode
    #[schema(required)]
    pub error_subcode: Option<i32>,
    /// Why the row ended as `ERROR`
    #[schema(inline, required)]
    pub error_kind: Option<ErrorKind>,
    #[schema(required)]
    pub error_message: Option<String>,
    #[schema(required)]
    pub fbtrace_id: Option<String>,
    /// Calls begun
    pub attempts: i32,
    /// Calls that Graph may have taken without saying so
    pub ambiguous_attempts: i32,
    /// When a `RETRY` row is tried again
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub next_at: Option<OffsetDateTime>,
    /// Not sent after this
    #[serde(serialize_with = "crate::message::time")]
    pub expires_at: OffsetDateTime,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
    /// When the last call was begun
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub sent_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub done_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub delivered_at: Option<OffsetDateTime>,
    #[serde(serialize_with = "crate::message::time_or_null")]
    #[schema(required)]
    pub read_at: Option<OffsetDateTime>,
}

/// Whose rows a look-up may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One account's: everything a token can reach.
    Account(AccountId),
    /// All: operators at the command line.
    Operator,
}

/// Which rows `log tail` shows.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    pub line: Option<LineId>,
    pub status: Option<Status>,
    pub cp_id: Option<String>,
}

/// Rows of one line in one state: a cell of `log stats`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StatusCount {
    pub v8l_id: LineId,
    pub class: Class,
    pub status: Status,
    pub rows: i64,
}

/// An account as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AccountRow {
    pub cdcs_id: AccountId,
    pub cdcs_name: String,
    pub cdcs_active: bool,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
}

/// A mapped user of the broker as listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BrokerUserRow {
    pub broker_user: String,
    pub cdcs_id: AccountId,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
}

/// A token as listed: its identifier, never the token.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TokenRow {
    pub token_id: String,
    pub cdcs_id: AccountId,
    #[serde(serialize_with = "crate::message::time")]
    pub created_at: OffsetDateTime,
    #[serde(serialize_with = "crate::message::time_or_null")]
    pub revoked_at: Option<OffsetDateTime>,
}

/// A line to be added.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// Chosen by the operator, or the next free id.
    pub id: Option<LineId>,
    pub account: AccountId,
    pub name: Option<String>,
    pub class: Class,
    pub page_token: SecretString,
    pub page_id: Option<String>,
    pub instagram_account_id: Option<String>,
    pub rate_text: Option<u32>,
    pub rate_media: Option<u32>,
}

/// Which lines a pause concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseScope {
    Line(LineId),
    /// Every line: Graph limited the app they all share.
    App,
}
