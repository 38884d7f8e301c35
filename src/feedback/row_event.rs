//! A change of a row, on its way to become an event.

use time::OffsetDateTime;

use crate::domain::{RowId, Status};

/// The news of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowNews {
    /// The row is in this state now.
    Became(Status),
    /// The recipient has the message.
    Delivered,
    /// The recipient has seen the message.
    Read,
}

impl RowNews {
    /// Return the word of the event, in upper case.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            RowNews::Became(status) => status.as_str(),
            RowNews::Delivered => "DELIVERED",
            RowNews::Read => "READ",
        }
    }

    /// Whether the event is published with `events.publish = "outcomes"`.
    pub(super) fn is_outcome(self) -> bool {
        match self {
            RowNews::Became(status) => status.is_outcome(),
            RowNews::Delivered | RowNews::Read => true,
        }
    }

    /// Whether the event is about a row that Graph has taken, whose columns it shows.
    pub(super) fn is_receipt(self) -> bool {
        matches!(self, RowNews::Delivered | RowNews::Read)
    }
}

/// A committed change of a row: the part of its event that does not come from the log.
#[derive(Debug)]
pub(super) struct RowEvent {
    pub(super) id: RowId,
    pub(super) news: RowNews,
    pub(super) status_code: i32,
    pub(super) graph_id: Option<String>,
    pub(super) error: RowEventError,
    pub(super) at: OffsetDateTime,
}

/// The error of an event.
#[derive(Debug)]
pub(super) enum RowEventError {
    /// The error columns of the row.
    OfTheRow,
    Of {
        code: Option<i32>,
        subcode: Option<i32>,
        kind: Option<&'static str>,
    },
}

impl RowEvent {
    pub(super) fn now(id: RowId, status: Status) -> RowEvent {
        RowEvent::at(id, RowNews::Became(status), OffsetDateTime::now_utc())
    }

    pub(super) fn at(id: RowId, news: RowNews, at: OffsetDateTime) -> RowEvent {
        RowEvent { id, news, status_code: 0, graph_id: None, error: RowEventError::OfTheRow, at }
    }
}
