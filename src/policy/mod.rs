//! Decisions as pure functions: what a Graph answer means, whether and when to try again, how fast a line may go.
//!
//! No clock, no randomness, no I/O: `now` and jitter are arguments, and table tests pin every row of Meta's tables.

pub mod breaker;
pub mod classify;
pub mod pace;
pub mod retry;
