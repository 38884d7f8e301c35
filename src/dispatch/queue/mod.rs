//! The work that a line has in hand, and the choice of the next row.
//!
//! Work is read whole and its rows are kept per flow (lane, medium, campaign), in order of id. A recipient
//! has at most one row in a call, or waiting for its next try, per lane; a few dozen rows behind it stay in
//! hand and are not sendable, and further ones are read past and fetched when the recipient is free. The
//! `high` lane goes first, `bulk` keeps one send in ten; the flows of a lane take turns. Work ends when the
//! last of its rows has ended or waits for a time elsewhere. On the bulk lane, rows go first whose recipients' windows
//! close before the backlog would reach them.
//!
//! Never here: a clock, I/O, rates.

mod aside;
mod closing;
mod elsewhere;
mod ended;
mod flow;
mod ledger;
mod reading;
mod recipient;
mod rotation;
mod rows;
#[cfg(test)]
mod tests;
mod window;

pub use rows::LineQueue;
