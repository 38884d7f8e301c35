//! The counters of this process: every name, and the handle that counts it. `ops` serves the text.
//!
//! A handle is made once and counting with it is an atomic addition, so any layer may count where it works.
//! No label has a value for each line, account or campaign: there are thousands. Budgets of Meta and 24-hour budgets have
//! a series each up to a bound. Never here: decisions, and reads of the log.

mod attachments;
mod broker;
mod budgets;
mod codes;
mod dispatch;
mod ingest;
mod listeners;
mod meta_events;
mod names;
mod page_tokens;
mod registry;
mod rows;
mod series;
mod webhooks;

pub use attachments::UploadResult;
pub use budgets::BudgetOwner;
pub use codes::SettledBy;
pub use dispatch::CallOutcome;
pub use page_tokens::TokenRefresh;
pub use registry::METRICS;
pub use webhooks::{AppliedKind, WebhookResult};
