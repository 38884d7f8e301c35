//! Dispatch: owns lines, paces, claims, sends, records. A worker process has one.
//!
//! Start with `send.rs`: the life of one message's call. Around it: `tasks::lease` keeps this process's
//! partitions → `tasks::scan` and jobs report ready rows → `tasks::reader` fetches them → `dispatcher` holds
//! a `line` actor for each active line, which paces and picks from its `queue` → `tasks::recorder` commits
//! claims and results → `send` makes the call.
//!
//! The dispatcher is one task without locks; each of its inputs is an `Event`.

mod clock;
mod dispatcher;
mod event;
mod line;
mod memory;
mod options;
mod queue;
mod send;
mod start;
mod tasks;

pub use options::DispatchOptions;
pub use start::Dispatch;
