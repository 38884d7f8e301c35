//! Decisions as pure functions: the meaning of Graph's answers, the time of the next try, the pace of a line.
//!
//! Never here: a clock, randomness, I/O. `now` and jitter are arguments, and table tests pin every row of
//! Meta's tables.

mod account_rate;
mod backoff;
pub mod breaker;
pub mod classify;
pub mod pace;
mod reach;
pub mod reconcile;
pub mod retry;
pub mod token_check;
pub mod token_life;
pub mod unlisted;
pub mod usage;

pub use self::account_rate::AccountRate;
pub use self::backoff::{Backoff, spread};
pub use self::reach::is_unreachable;
