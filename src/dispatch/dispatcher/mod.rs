//! The event loop: one task that holds the line actors, deals out permits, and carries out the actions of
//! lines.
//!
//! Each event changes the state of lines; then every line concerned is pumped once. Never here: I/O and
//! locks. Other tasks read, write and call.

mod calls;
mod event_loop;
#[cfg(test)]
mod fixture;
mod held;
mod held_rows;
mod learn;
mod outage;
mod pump;
mod work;

pub use event_loop::{Channels, Dispatcher};
