//! The metrics of rows and lines, by the last count.

use metrics::Gauge;

use super::names;
use super::series::of;
use crate::domain::Status;

/// The states of rows that are not final.
const OPEN: [Status; 4] = [Status::Pending, Status::Sending, Status::Retry, Status::Unknown];

/// Rows of the log by this process's last count: the same in every process.
pub struct RowMetrics {
    open: [(Status, Gauge); OPEN.len()],
    pub unknown: Gauge,
    pub oldest_unknown_seconds: Gauge,
    /// Lines that do not send, and will by themselves.
    pub lines_stopped: Gauge,
    /// Lines that do not send before somebody acts.
    pub lines_held_up: Gauge,
    /// 1 if the last count succeeded, else 0.
    pub database_up: Gauge,
    pub database_writable: Gauge,
}

impl RowMetrics {
    pub(super) fn new() -> RowMetrics {
        RowMetrics {
            open: OPEN.map(|status| (status, metrics::gauge!(names::ROWS, "status" => status.as_str()))),
            unknown: metrics::gauge!(names::UNKNOWN_ROWS),
            oldest_unknown_seconds: metrics::gauge!(names::OLDEST_UNKNOWN),
            lines_stopped: metrics::gauge!(names::LINES_STOPPED, "ends" => "itself"),
            lines_held_up: metrics::gauge!(names::LINES_STOPPED, "ends" => "somebody"),
            database_up: metrics::gauge!(names::DATABASE_UP),
            database_writable: metrics::gauge!(names::DATABASE_WRITABLE),
        }
    }

    /// Note how many rows are in a state that is not final.
    pub fn open(&self, status: Status, rows: i64) {
        if let Some(gauge) = of(&self.open, status) {
            gauge.set(rows as f64);
        }
    }
}
