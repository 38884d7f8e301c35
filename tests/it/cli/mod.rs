//! The commands as an operator meets them: the real program, on a database of its own.

mod accounts;
mod checks;
mod lines;
mod log;
mod postgres;
mod program;
mod senders;
mod settle;
mod settle_answers;
