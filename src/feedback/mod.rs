//! Feedback: sends outcomes to waiting callers and producers, and events to listeners.
//!
//! Feedback follows the commit, at most once, and no other part waits for it: the log has the same data.

mod events;
mod outcomes;
mod row_event;

pub use events::EventPublisher;
pub use outcomes::Feedback;
