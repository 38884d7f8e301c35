//! How a worker process serves its lines, as health checks and metrics show it.

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

/// The partitions of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Serving {
    /// Partitions the process holds.
    pub leases: usize,
    /// Partitions it holds in the database whose work it cannot look for. After two leases it gives them back.
    pub unserved: usize,
}
