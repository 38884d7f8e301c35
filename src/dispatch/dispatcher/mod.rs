//! The event loop: one task that holds the line actors, deals out permits, and carries out the actions of
//! lines.
//!
//! Each event changes the state of lines; then every line concerned is pumped once. Never here: I/O and
//! locks. Other tasks read, write and call.

mod budget_rows;
mod budgets;
mod calls;
mod event_loop;
#[cfg(test)]
mod fixture;
mod held;
mod held_rows;
mod hosts;
mod learn;
mod outage;
mod pump;
mod recipients;
mod work;

pub use budgets::Tickets;
pub use event_loop::{Channels, Dispatcher};
