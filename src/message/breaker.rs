//! Whether calls go to Graph's host, as health checks and metrics show it.

use super::words;

/// State of the breaker of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BreakerState {
    /// Calls go out.
    #[default]
    Closed,
    /// The host has answered nothing for a while: calls in flight wait, new ones go out one at a time.
    Stalled,
    /// The host failed call after call: none goes out.
    Open,
    /// A few calls go out, more with each answer.
    HalfOpen,
}
words!(BreakerState, "breaker state", { Closed => "closed", Stalled => "stalled", Open => "open", HalfOpen => "half-open" });
