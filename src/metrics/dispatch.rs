//! The metrics of dispatch: calls, claims, the recorder, leases and scans.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::names;
use super::series::{by_class, of};
use crate::channel::Class;

/// The end of a call, for its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// Graph took the message.
    Ok,
    /// ERROR: refused, or its tries are used up.
    Error,
    Retry,
    /// UNKNOWN.
    Unknown,
    /// PENDING: waits with its line.
    Line,
}

const CALL_OUTCOMES: [(CallOutcome, &str); 5] = [
    (CallOutcome::Ok, "ok"),
    (CallOutcome::Error, "error"),
    (CallOutcome::Retry, "retry"),
    (CallOutcome::Unknown, "unknown"),
    (CallOutcome::Line, "line"),
];

/// Calls, claims and the recorder.
pub struct DispatchMetrics {
    pub begun: Counter,
    ended: [(CallOutcome, Counter); CALL_OUTCOMES.len()],
    seconds: [(Class, Histogram); Class::ALL.len()],
    pub in_flight: Gauge,
    /// Calls recorded as possibly taken by Graph without a confirming answer.
    pub ambiguous: Counter,
    /// Successes recorded for rows that had been settled otherwise, or waited for another call.
    pub late: Counter,
    pub batch_entries: Histogram,
    pub batch_seconds: Histogram,
    /// Entries that wait because the log cannot be written.
    pub results_waiting: Gauge,
    /// Results that the database refuses; their rows are settled as UNKNOWN after their deadline.
    pub results_refused: Counter,
    pub claims_made: Counter,
    pub claims_refused: Counter,
    /// Lines that rest because their calls keep failing.
    pub resting: Gauge,
    /// Partitions that this process holds.
    pub leases: Gauge,
    pub unserved: Gauge,
    pub scans_failed: Counter,
    pub snapshot_age: Gauge,
}

impl DispatchMetrics {
    pub(super) fn new() -> DispatchMetrics {
        DispatchMetrics {
            begun: metrics::counter!(names::CALLS_BEGUN),
            ended: CALL_OUTCOMES
                .map(|(outcome, word)| (outcome, metrics::counter!(names::CALLS_ENDED, "outcome" => word))),
            seconds: by_class(|class| metrics::histogram!(names::CALL_SECONDS, "class" => class.as_str())),
            in_flight: metrics::gauge!(names::CALLS_IN_FLIGHT),
            ambiguous: metrics::counter!(names::AMBIGUOUS),
            late: metrics::counter!(names::LATE),
            batch_entries: metrics::histogram!(names::BATCH_ENTRIES),
            batch_seconds: metrics::histogram!(names::BATCH_SECONDS),
            results_waiting: metrics::gauge!(names::RESULTS_WAITING),
            results_refused: metrics::counter!(names::RESULTS_REFUSED),
            claims_made: metrics::counter!(names::CLAIMS_MADE),
            claims_refused: metrics::counter!(names::CLAIMS_REFUSED),
            resting: metrics::gauge!(names::RESTING),
            leases: metrics::gauge!(names::LEASES),
            unserved: metrics::gauge!(names::UNSERVED),
            scans_failed: metrics::counter!(names::SCANS_FAILED),
            snapshot_age: metrics::gauge!(names::SNAPSHOT_AGE),
        }
    }

    pub fn ended(&self, outcome: CallOutcome) {
        if let Some(counter) = of(&self.ended, outcome) {
            counter.increment(1);
        }
    }

    /// Note the length of a call to Graph, whatever its result.
    pub fn call_took(&self, class: Class, length: Duration) {
        if let Some(histogram) = of(&self.seconds, class) {
            histogram.record(length);
        }
    }
}
