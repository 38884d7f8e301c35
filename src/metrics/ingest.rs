//! The metrics of ingest: messages logged and refused, commits, and the backlog.

use metrics::{Counter, Gauge, Histogram};

use super::names;
use super::series::{by_class, of};
use crate::channel::Class;

/// The codes of a refusal (contract: Parameters).
const REFUSALS: [i32; 23] = [
    100,
    102,
    110,
    131,
    142,
    199,
    210,
    220,
    225,
    226,
    227,
    229,
    230,
    233,
    234,
    238,
    244,
    246,
    247,
    400,
    413,
    503,
    OTHER_REFUSAL,
];
/// The code of a refusal that has none of these codes.
const OTHER_REFUSAL: i32 = 0;

/// The metrics of ingest.
pub struct IngestMetrics {
    accepted: [(Class, Counter); Class::ALL.len()],
    refused: [(i32, Counter); REFUSALS.len()],
    over_rate: Counter,
    over_backlog: Counter,
    /// Rows whose commit failed; their requests were answered 503.
    pub not_logged: Counter,
    pub commit_rows: Histogram,
    pub commit_seconds: Histogram,
    /// Waiting rows, counted up to the bound.
    pub backlog: Gauge,
    pub backlog_bound: Gauge,
    /// 1 while the bound is reached, else 0.
    pub backlog_full: Gauge,
}

impl IngestMetrics {
    pub(super) fn new() -> IngestMetrics {
        IngestMetrics {
            accepted: by_class(|class| metrics::counter!(names::ACCEPTED, "class" => class.as_str())),
            refused: REFUSALS.map(|code| {
                let label = if code == OTHER_REFUSAL { "other".to_owned() } else { code.to_string() };
                (code, metrics::counter!(names::REFUSED, "code" => label))
            }),
            over_rate: metrics::counter!(names::OVER_QUOTA, "quota" => "rows_per_second"),
            over_backlog: metrics::counter!(names::OVER_QUOTA, "quota" => "backlog"),
            not_logged: metrics::counter!(names::NOT_LOGGED),
            commit_rows: metrics::histogram!(names::COMMIT_ROWS),
            commit_seconds: metrics::histogram!(names::COMMIT_SECONDS),
            backlog: metrics::gauge!(names::BACKLOG),
            backlog_bound: metrics::gauge!(names::BACKLOG_BOUND),
            backlog_full: metrics::gauge!(names::BACKLOG_FULL),
        }
    }

    /// Count a message of this class as committed.
    pub fn accepted(&self, class: Class) {
        if let Some(counter) = of(&self.accepted, class) {
            counter.increment(1);
        }
    }

    /// Count a submission as refused because of its account's quota: of waiting rows, or of rows a second.
    pub fn over_quota(&self, is_backlog: bool) {
        let counter = if is_backlog { &self.over_backlog } else { &self.over_rate };
        counter.increment(1);
    }

    /// Count a submission as refused with this code.
    pub fn refused(&self, code: i32) {
        if let Some(counter) = of(&self.refused, code).or_else(|| of(&self.refused, OTHER_REFUSAL)) {
            counter.increment(1);
        }
    }
}
