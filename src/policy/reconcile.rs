//! Which message of a conversation is that of an UNKNOWN row, and which row an echo without metadata is about.
//!
//! A message counts for a row only if nothing else can be true: the counts fit, and no other row may have sent it. A
//! message that is not found proves nothing. Never here: the questions to Meta, and the change of the row.

mod conversation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use time::OffsetDateTime;

use crate::channel::MessageKind;
use crate::domain::RowId;

pub use conversation::{FoundMessage, messages_of};

/// How much earlier than the call a message may seem to be: Meta's times are whole seconds, and its clock is not ours.
const EARLIER: time::Duration = time::Duration::seconds(2);
/// How much later than the longest call.
const LATER: time::Duration = time::Duration::seconds(10);

/// The time after a call's end within which Meta may still show its message; before that, a message that is not found
/// says nothing at all.
const SETTLED_AFTER: time::Duration = time::Duration::seconds(60);

/// How long before its echo a message was sent at most.
const ECHO_WITHIN: time::Duration = time::Duration::minutes(10);

/// Pauses before the looks at a row, the first one after it was seen UNKNOWN: an echo mostly comes sooner. After the last
/// look no worker asks for the row.
const LOOK_AGAIN: [Duration; 6] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(12 * 60 * 60),
];

/// A row of the log with the recipient in question.
#[derive(Debug, Clone)]
pub struct SentRow {
    pub id: RowId,
    pub kind: MessageKind,
    /// The text, or the URL of the asset.
    pub mdata: String,
    pub created_at: OffsetDateTime,
    /// The beginning of the last call.
    pub sent_at: Option<OffsetDateTime>,
    /// Calls that Graph may have taken without saying so.
    pub ambiguous_calls: u32,
    pub standing: Standing,
}

/// The part of a row's state that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Unknown,
    /// Waits, or is being sent.
    Open,
    /// Graph took the message under this id.
    Taken(String),
    /// Ended, and Graph may have taken the message: its id is not known.
    MaybeTaken,
    /// Ended, and Graph did not take the message.
    NotTaken,
}

/// The longest duration of a call: by kind of message, with the time until its result counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLength {
    pub text: Duration,
    pub media: Duration,
}

impl CallLength {
    fn of(self, kind: MessageKind) -> time::Duration {
        let length = if kind == MessageKind::Text { self.text } else { self.media };
        length.try_into().unwrap_or(time::Duration::HOUR)
    }
}

/// The result for one UNKNOWN row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Meta has the message, under this id.
    Found { message_id: String },
    /// Meta does not show the message. No proof that it was not sent.
    NotFound,
    /// Messages are there, and it cannot be told whose they are.
    Unclear,
    /// Not found, and the call may still have been answered a moment ago.
    TooEarly,
}

/// Return a finding for each UNKNOWN row among `rows`, which are those of one line and of the recipient `dest`. `now` is
/// the time of the question.
pub fn reconcile(
    rows: &[SentRow],
    messages: &[FoundMessage],
    dest: &str,
    length: CallLength,
    now: OffsetDateTime,
) -> Vec<(RowId, Finding)> {
    let is_taken = |message: &FoundMessage| {
        rows.iter().any(|row| matches!(&row.standing, Standing::Taken(id) if *id == message.id))
    };
    // A conversation has two sides: what the recipient did not write is the line's.
    let ours: Vec<&FoundMessage> =
        messages.iter().filter(|message| message.from != dest && !is_taken(message)).collect();
    let mut findings = Vec::new();
    let mut left: Vec<&SentRow> = rows.iter().filter(|row| row.standing == Standing::Unknown).collect();
    left.sort_by_key(|row| (row.sent_at, row.id));
    while let Some(first) = left.first().copied() {
        let (alike, others): (Vec<&SentRow>, Vec<&SentRow>) =
            left.into_iter().partition(|row| is_alike(first, row));
        left = others;
        let is_shared = rows
            .iter()
            .any(|row| is_alike(first, row) && matches!(row.standing, Standing::Open | Standing::MaybeTaken));
        let found = match_group(&alike, &ours, is_shared, length);
        findings.extend(alike.iter().zip(found).map(|(row, finding)| {
            let is_early = row.sent_at.is_none_or(|at| now < at + length.of(row.kind) + SETTLED_AFTER);
            let finding = match finding {
                Finding::NotFound if is_early => Finding::TooEarly,
                finding => finding,
            };
            (row.id, finding)
        }));
    }
    findings
}

/// Whether two rows cannot be told apart in a conversation: Meta shows an asset under a URL of its own.
fn is_alike(one: &SentRow, other: &SentRow) -> bool {
    one.kind == other.kind && (one.kind != MessageKind::Text || one.mdata == other.mdata)
}

/// Return the findings of rows that are alike, in order. `is_shared`: further rows may have sent such a message.
fn match_group(
    rows: &[&SentRow],
    messages: &[&FoundMessage],
    is_shared: bool,
    length: CallLength,
) -> Vec<Finding> {
    let mut found: Vec<&FoundMessage> = messages
        .iter()
        .filter(|message| rows.iter().any(|row| may_be(row, message, length)))
        .copied()
        .collect();
    found.sort_by_key(|message| message.at);
    if found.is_empty() {
        return vec![Finding::NotFound; rows.len()];
    }
    let unclear = || vec![Finding::Unclear; rows.len()];
    let calls: usize = rows.iter().map(|row| row.ambiguous_calls.max(1) as usize).sum();
    // More than all calls: somebody else wrote the same. Fewer than the rows: whose they are is not known.
    if is_shared || found.len() < rows.len() || found.len() > calls {
        return unclear();
    }
    let matching = rows.iter().zip(&found).map(|(row, message)| {
        may_be(row, message, length).then(|| Finding::Found { message_id: message.id.clone() })
    });
    matching.collect::<Option<Vec<_>>>().unwrap_or_else(unclear)
}

/// Whether the message may be that of a call of the row.
fn may_be(row: &SentRow, message: &FoundMessage, length: CallLength) -> bool {
    let Some(sent_at) = row.sent_at else { return false };
    // Of several calls only the last one's time is known.
    let first = if row.ambiguous_calls > 1 { row.created_at.min(sent_at) } else { sent_at };
    let is_in_time = message.at >= first - EARLIER && message.at <= sent_at + length.of(row.kind) + LATER;
    is_in_time && has_content_of(row, message)
}

fn has_content_of(row: &SentRow, message: &FoundMessage) -> bool {
    match row.kind {
        // Meta may trim what it shows.
        MessageKind::Text => !message.has_media() && message.text.trim() == row.mdata.trim(),
        kind => message.text.is_empty() && message.may_be_media(kind),
    }
}

/// The meaning of an echo that names no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EchoMatch {
    /// The echo is about this row.
    Row(RowId),
    /// A row that may have sent the message has not ended: look again.
    Wait,
    /// The echo is about a known message, or another's, or it cannot be told.
    None,
}

/// Match an echo of this id and time with the rows of its line, recipient and text.
pub fn match_echo(rows: &[SentRow], message_id: &str, at: OffsetDateTime) -> EchoMatch {
    if rows.iter().any(|row| matches!(&row.standing, Standing::Taken(id) if id == message_id)) {
        return EchoMatch::None;
    }
    if rows.iter().any(|row| row.standing == Standing::Open) {
        return EchoMatch::Wait;
    }
    let fits = |row: &&SentRow| {
        let is_in_time = row.sent_at.is_some_and(|sent| sent - EARLIER <= at && at <= sent + ECHO_WITHIN);
        row.standing == Standing::Unknown && is_in_time
    };
    let is_shared = rows.iter().any(|row| row.standing == Standing::MaybeTaken);
    let mut fitting = rows.iter().filter(fits);
    match (fitting.next(), fitting.next(), is_shared) {
        (Some(row), None, false) => EchoMatch::Row(row.id),
        _ => EchoMatch::None,
    }
}

/// Return the pause before a worker looks at a row that it did not find so many times; `None`: the row is left to a
/// person.
pub fn look_again(looks: u32) -> Option<Duration> {
    LOOK_AGAIN.get(looks as usize).copied()
}
