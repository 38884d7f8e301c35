//! The commands as an operator meets them: the real program, on a database of its own.

mod accounts;
mod apps;
mod checks;
mod files;
mod lines;
mod log;
mod postgres;
pub(crate) mod program;
pub(crate) mod senders;
mod settle;
mod settle_answers;
