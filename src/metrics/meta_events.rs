//! The metrics of what Meta's events change: receipts written, steps of Meta against accounts, events without an effect.

use metrics::Counter;

use super::names;

/// Names of events without an effect that have a series of their own; all others are counted together.
const UNKNOWN_EVENTS: [&str; 12] = [
    "account_linking",
    "app_roles",
    "malformed",
    "message_deleted",
    "message_edit",
    "optin",
    "own_message",
    "pass_thread_control",
    "reaction_removed",
    "request_thread_control",
    "take_thread_control",
    OTHER_EVENT,
];
const OTHER_EVENT: &str = "other";

/// Counters of the changes that events made.
pub struct MetaEventMetrics {
    /// Rows that were told to be delivered.
    pub delivered: Counter,
    /// Rows that were told to be read.
    pub read: Counter,
    pub warnings: Counter,
    pub blocks: Counter,
    pub unblocks: Counter,
    /// Events of Pages and Instagram accounts that no line has.
    pub without_line: Counter,
    unknown: [(&'static str, Counter); UNKNOWN_EVENTS.len()],
}

impl MetaEventMetrics {
    pub(super) fn new() -> MetaEventMetrics {
        MetaEventMetrics {
            delivered: metrics::counter!(names::RECEIPTS, "kind" => "delivered"),
            read: metrics::counter!(names::RECEIPTS, "kind" => "read"),
            warnings: metrics::counter!(names::ENFORCEMENTS, "action" => "warning"),
            blocks: metrics::counter!(names::ENFORCEMENTS, "action" => "block"),
            unblocks: metrics::counter!(names::ENFORCEMENTS, "action" => "unblock"),
            without_line: metrics::counter!(names::EVENTS_WITHOUT_LINE),
            unknown: UNKNOWN_EVENTS
                .map(|name| (name, metrics::counter!(names::UNKNOWN_EVENTS, "name" => name))),
        }
    }

    /// Count an event without an effect.
    pub fn unknown(&self, name: &str) {
        let listed = |wanted: &str| self.unknown.iter().find(|(listed, _)| *listed == wanted);
        if let Some((_, counter)) = listed(name).or_else(|| listed(OTHER_EVENT)) {
            counter.increment(1);
        }
    }
}
