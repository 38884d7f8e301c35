//! A change of a row, on its way to become an event.

use time::OffsetDateTime;

use crate::domain::{RowId, Status};

/// A committed change of a row: the part of its event that does not come from the log.
#[derive(Debug)]
pub(super) struct RowEvent {
    pub(super) id: RowId,
    pub(super) status: Status,
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
        RowEvent {
            id,
            status,
            status_code: 0,
            graph_id: None,
            error: RowEventError::OfTheRow,
            at: OffsetDateTime::now_utc(),
        }
    }
}
