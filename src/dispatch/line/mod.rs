//! The actor of one line: paces its calls, decides which rows to claim, and keeps its pauses.
//!
//! Pace first, claim last: a row is claimed when a permit is free and its call is due within the time that a
//! claim takes to commit. The limiter is asked again when the claimed row is handed to the connection, so
//! that a slow commit cannot bunch calls. Never here: I/O. [`Line::pump`] returns the actions, the dispatcher
//! carries them out.

mod actions;
mod actor;
mod allowance;
mod app_secret;
mod assets;
mod closing;
mod pacing;
mod page_token;
mod pauses;
mod pump;
mod sender;
mod standing;
#[cfg(test)]
mod tests;

pub use actions::{LineActions, PermitBudget, PlannedCall};
pub use actor::{CallEnd, Line};
pub use allowance::Allowance;
pub use assets::{AssetAnswer, UploadOrder};
pub use pauses::GRAPH_PAUSE_PREFIX;
pub use sender::PauseChange;
pub use standing::{EndedCall, Suspect};
