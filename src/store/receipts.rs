//! The changes that Meta's events make: receipts of messages, recipients that write, and lines that Meta blocks.
//!
//! Every call may be repeated, and the events of two calls may come in either order: the earliest time of a receipt
//! counts, the latest of an inbound event, the newest of a block. Never here: the reading of Meta's JSON, and clocks of
//! other machines; a caller names no time to come.

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::StoreError;
use crate::channel::Class;
use crate::domain::{AccountId, LineId, RowId};

/// How the reason of a pause begins that lasts until Meta lifts a block. Begins like `REFUSED_PAUSE`: somebody has to act.
pub const BLOCKED_PAUSE: &str = "Graph: cannot send: Meta has blocked the account";

/// How the reason of every pause begins that no operator made.
pub const GRAPH_PAUSE: &str = "Graph: ";

/// How long a window stays open after an inbound event.
pub const WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// How much later a row may be logged, by the database's clock, than a receipt for it tells by Meta's.
pub const RECEIPT_SKEW: Duration = Duration::from_secs(60);

/// The newest rows of a recipient that a receipt may be about.
pub const RECEIPT_ROWS: u32 = 200;

/// How long a receipt is applied again that came before the outcome of its message.
pub const EARLY_FOR: Duration = Duration::from_secs(3_600);

/// The rests between two looks at such a receipt grow with its age, within these bounds.
pub const EARLY_RESTS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A line that sends for a Page or an Instagram account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineOfPage {
    pub line: LineId,
    pub account: AccountId,
    pub class: Class,
    /// Meta's id of the Page or the Instagram account.
    pub page: String,
    /// The app that the line belongs to; `None`: that of the settings.
    pub app: Option<String>,
}

/// The messages that a receipt is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Receipted {
    /// One, by Graph's id.
    Message(String),
    /// All that were sent up to a time.
    UpTo(OffsetDateTime),
}

impl Receipted {
    /// Return the text under which a receipt is kept.
    pub(super) fn mark(&self) -> String {
        match self {
            Receipted::Message(id) => format!("m{id}"),
            Receipted::UpTo(at) => format!("t{}", at.unix_timestamp_nanos() / 1_000_000),
        }
    }

    pub(super) fn of_mark(mark: &str) -> Option<Receipted> {
        if let Some(id) = mark.strip_prefix('m') {
            return Some(Receipted::Message(id.to_owned()));
        }
        let milliseconds: i64 = mark.strip_prefix('t')?.parse().ok()?;
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()?;
        Some(Receipted::UpTo(at))
    }

    pub(super) fn message_id(&self) -> Option<&str> {
        match self {
            Receipted::Message(id) => Some(id),
            Receipted::UpTo(_) => None,
        }
    }

    pub(super) fn up_to(&self) -> Option<OffsetDateTime> {
        match self {
            Receipted::Message(_) => None,
            Receipted::UpTo(at) => Some(*at),
        }
    }
}

/// A receipt for messages of a line to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub account: AccountId,
    pub line: LineId,
    pub dest: String,
    pub of: Receipted,
    pub at: OffsetDateTime,
    /// Read, and so delivered; else delivered.
    pub is_read: bool,
}

/// A row that receipts have changed; the times that it did not have before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub id: RowId,
    pub delivered_at: Option<OffsetDateTime>,
    pub read_at: Option<OffsetDateTime>,
}

/// An event of a recipient that opens the window of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundEvent {
    pub line: LineId,
    pub dest: String,
    pub at: OffsetDateTime,
}

/// A block of a line's account by Meta, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforced {
    pub line: LineId,
    pub at: OffsetDateTime,
    /// The words of Meta.
    pub reason: Option<String>,
    /// The reason of the pause; `None` ends the block.
    pub pause: Option<String>,
}

impl Enforced {
    pub(super) fn action(&self) -> &'static str {
        if self.pause.is_some() { "block" } else { "unblock" }
    }

    /// Return the newest event of each line, in order of line.
    pub(super) fn newest(enforced: &[Enforced]) -> Vec<&Enforced> {
        let mut newest: Vec<&Enforced> = enforced.iter().collect();
        newest.sort_by_key(|event| (event.line, std::cmp::Reverse(event.at)));
        newest.dedup_by_key(|event| event.line);
        newest
    }
}

/// The statements about Meta's events.
#[async_trait]
pub trait ReceiptStore: Send + Sync {
    /// Return the lines of these Pages and Instagram accounts; one of them may have several.
    async fn event_lines(&self, pages: &[(Class, String)]) -> Result<Vec<LineOfPage>, StoreError>;

    /// Write receipts into the OK rows they are about, of the newest [`RECEIPT_ROWS`] to each recipient, and count them
    /// for the rows' campaigns. Return the rows of which more is known now. A receipt whose message may have no outcome
    /// yet is kept for [`receive_early`](ReceiptStore::receive_early).
    async fn receive(&self, receipts: &[Receipt]) -> Result<Vec<Received>, StoreError>;

    /// Apply at most `limit` kept receipts that are due for it, and forget those that are settled or too old.
    async fn receive_early(&self, limit: u32) -> Result<Vec<Received>, StoreError>;

    /// Note recipients that wrote: their windows are open until [`WINDOW`] after that, and they can be reached.
    async fn note_inbound(&self, inbound: &[InboundEvent]) -> Result<(), StoreError>;

    /// Pause the lines of blocked accounts until the block is lifted, and resume those of others; return the lines that
    /// changed. An operator's pause is left alone, and so is what an older event would change.
    async fn enforce(&self, enforced: &[Enforced]) -> Result<Vec<LineId>, StoreError>;
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::store::REFUSED_PAUSE;

    #[test]
    fn mark_is_read_back() {
        for of in [
            Receipted::Message("m_t1".into()),
            Receipted::Message("t99".into()),
            Receipted::UpTo(datetime!(2026-11-23 14:15:20.123 UTC)),
        ] {
            assert_eq!(Receipted::of_mark(&of.mark()), Some(of));
        }
        for broken in ["", "x1", "t", "tx", "t99999999999999999"] {
            assert_eq!(Receipted::of_mark(broken), None, "{broken}");
        }
    }

    #[test]
    fn newest_event_of_a_line_counts() {
        let event = |line, at, pause: Option<&str>| Enforced {
            line: LineId(line),
            at,
            reason: None,
            pause: pause.map(str::to_owned),
        };
        let (early, late) = (datetime!(2026-11-23 14:00 UTC), datetime!(2026-11-23 15:00 UTC));
        let events = [event(2, early, None), event(1, late, None), event(1, early, Some("x"))];
        let newest = Enforced::newest(&events);
        assert_eq!(newest, [&events[1], &events[0]]);
        assert_eq!(newest[0].action(), "unblock");
    }

    #[test]
    fn block_waits_for_somebody() {
        assert!(BLOCKED_PAUSE.starts_with(REFUSED_PAUSE) && BLOCKED_PAUSE.starts_with(GRAPH_PAUSE));
    }
}
