//! The state of a worker process, as health checks and metrics show it.

use crate::text::words;

/// State of the breaker of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BreakerState {
    /// Calls go out.
    #[default]
    Closed,
    /// The host has answered nothing for a while: calls in flight wait, new ones go out one at a time.
    Stalled,
    /// The host failed call after call: no call goes out.
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
    /// Partitions that the process holds in the database and cannot scan for work. After two leases it gives
    /// them back.
    pub unserved: usize,
}
