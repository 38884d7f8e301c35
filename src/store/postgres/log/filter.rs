//! The wanted rows of the log, and their order.

use time::OffsetDateTime;

use crate::domain::{ErrorKind, Status};
use crate::store::MessageFilter;

/// The wanted rows; `None` and an empty list match any.
#[derive(Debug, Clone, Default)]
pub struct ListFilter<'a> {
    pub account: Option<i64>,
    pub line: Option<i64>,
    pub statuses: &'a [Status],
    pub cp_id: Option<&'a str>,
    pub msg_ids: &'a [String],
    pub dest: Option<&'a str>,
    pub batch_id: Option<&'a str>,
    pub error_code: Option<i32>,
    pub error_kind: Option<ErrorKind>,
    /// The earliest time of creation, and the time that is too late.
    pub since: Option<OffsetDateTime>,
    pub until: Option<OffsetDateTime>,
}

impl<'a> ListFilter<'a> {
    /// Return one part of a filter ([`MessageFilter::parts`]), of one account or of all.
    pub fn of(account: Option<i64>, filter: &'a MessageFilter) -> ListFilter<'a> {
        ListFilter {
            account,
            line: filter.line.map(|line| line.0),
            statuses: &filter.statuses,
            cp_id: filter.cp_id.as_deref(),
            msg_ids: &filter.msg_ids,
            dest: filter.dest.as_deref(),
            batch_id: filter.batch_id.as_deref(),
            error_code: filter.error_code,
            error_kind: filter.error_kind,
            since: filter.since,
            until: filter.until,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    pub fn as_sql(self) -> &'static str {
        match self {
            Order::NewestFirst => "desc",
            Order::OldestFirst => "asc",
        }
    }
}
