//! Rehearses a campaign in virtual time: how long it takes, how many messages end outside their window, and which
//! limits bind.
//!
//! `profile` is what an operator knows of the campaign, `queue` the messages of a line in the program's order,
//! `budget` a rolling budget, `play` the seconds of the campaign, and `report` their result. Rates come from
//! `policy`, as in a worker. Never here: a clock, randomness, I/O.

mod budget;
mod play;
mod profile;
mod queue;
mod report;

pub use play::rehearse;
pub use profile::{Closing, LineProfile, Profile, RollingBudget, Usual, WrongProfile};
pub use report::{Binding, Bound, LineReport, Report};
