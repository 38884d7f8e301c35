//! The metrics of the broker: jobs, answers to producers, connections.

use metrics::{Counter, Gauge};

use super::names;

/// Jobs, and answers to producers.
pub struct BrokerMetrics {
    /// Announcements of new rows, one per commit and partition.
    pub announced: Counter,
    /// Announcements that were merged into a waiting job.
    pub merged: Counter,
    /// Jobs handed to the broker.
    pub published: Counter,
    /// Jobs that came back: unroutable, or unconfirmed when a connection ended.
    pub returned: Counter,
    /// Answers that this process dropped.
    pub answers_dropped: Counter,
    /// Direct answers that this process withheld from accounts whose addresses end connections.
    pub answers_withheld: Counter,
    up: Gauge,
    blocked: Gauge,
    arriving: Gauge,
}

impl BrokerMetrics {
    pub(super) fn new() -> BrokerMetrics {
        BrokerMetrics {
            announced: metrics::counter!(names::JOBS_ANNOUNCED),
            merged: metrics::counter!(names::JOBS_MERGED),
            published: metrics::counter!(names::JOBS_PUBLISHED),
            returned: metrics::counter!(names::JOBS_RETURNED),
            answers_dropped: metrics::counter!(names::ANSWERS_DROPPED),
            answers_withheld: metrics::counter!(names::ANSWERS_WITHHELD),
            up: metrics::gauge!(names::BROKER_UP),
            blocked: metrics::gauge!(names::BROKER_BLOCKED),
            arriving: metrics::gauge!(names::SUBMISSIONS_ARRIVING),
        }
    }

    /// Note whether producers' submissions reach this process.
    pub fn submissions(&self, arrive: bool) {
        self.arriving.set(f64::from(u8::from(arrive)));
    }

    /// Note whether the broker is connected, and whether it then takes no messages.
    pub fn state(&self, up: bool, blocked: bool) {
        self.up.set(f64::from(u8::from(up)));
        self.blocked.set(f64::from(u8::from(blocked)));
    }
}
