//! The metrics of page tokens: those that end, and the refreshing of those that can be refreshed.

use metrics::{Counter, Gauge};

use super::names;
use super::series::of;

/// The end of a try to refresh a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRefresh {
    Refreshed,
    /// The way to Graph failed, or Graph itself.
    Failed,
    /// Graph refused the token.
    Refused,
    /// The token had ended before.
    Ended,
}

const REFRESHES: [(TokenRefresh, &str); 4] = [
    (TokenRefresh::Refreshed, "refreshed"),
    (TokenRefresh::Failed, "failed"),
    (TokenRefresh::Refused, "refused"),
    (TokenRefresh::Ended, "ended"),
];

/// Page tokens by the last look of this process; ends are the same in every process.
pub struct PageTokenMetrics {
    refreshes: [(TokenRefresh, Counter); REFRESHES.len()],
    /// Tokens that end within 14 days, those of the next two included.
    pub ending_soon: Gauge,
    /// Tokens that end within 3 days.
    pub ending_near: Gauge,
    pub ended: Gauge,
    /// The Unix time of the first end; 0 without one within 14 days.
    pub first_end: Gauge,
}

impl PageTokenMetrics {
    pub(super) fn new() -> PageTokenMetrics {
        let ending = |within: &'static str| metrics::gauge!(names::TOKENS_ENDING, "within" => within);
        PageTokenMetrics {
            refreshes: REFRESHES.map(|(outcome, word)| {
                (outcome, metrics::counter!(names::TOKEN_REFRESHES, "outcome" => word))
            }),
            ending_soon: ending("14d"),
            ending_near: ending("3d"),
            ended: ending("ended"),
            first_end: metrics::gauge!(names::TOKEN_FIRST_END),
        }
    }

    pub fn refreshed(&self, outcome: TokenRefresh) {
        if let Some(counter) = of(&self.refreshes, outcome) {
            counter.increment(1);
        }
    }
}
