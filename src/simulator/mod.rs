//! The Graph simulator: a local stand-in for Meta's Graph API, for `simulate`, `demo`, load tests and tests.
//!
//! The simulator takes `POST {any prefix}/me/messages` as Graph does (contract: "What goes to Graph"), and
//! answers as Graph does: a message id, or Graph's error envelope with its HTTP status and usage headers. The
//! recipient id's first word chooses the outcome ([`outcomes_help`]): `code10-ana` is outside the window,
//! `cut-ana` loses its connection after the request was read, `code1200x2-ana` fails twice and is then sent.
//!
//! Control calls let a test play budgets, windows, webhooks, uploads and tokens, and compare the calls received
//! with the calls recorded; docs/simulator.md lists them. A part that is not asked for costs a send call nothing.
//!
//! A call counts when its request was read, before its latency: a caller that gives up meanwhile has sent it.
//! Never here: calls to anything but the webhook URL that was given, and page tokens in any list, count or log
//! (a token is shown as [`token_tag`]).

mod answer;
mod budget;
mod calls;
mod control;
mod conversations;
mod identities;
mod journal;
mod judge;
mod limits;
mod options;
mod outcome;
mod path;
mod refusal;
mod request;
mod running;
mod server;
mod shared;
mod stage;
mod uploads;
mod webhooks;
mod windows;

pub use budget::{AppBudget, BudgetRules, LineBudget, LineHeader, UsageHeaders};
pub use identities::{GivenIdentity, Object, TokenKind};
pub use journal::{CallCounts, PlayedCall};
pub use options::SimulatorOptions;
pub use outcome::outcomes_help;
pub use request::token_tag;
pub use running::{Simulator, SimulatorError, WrongRules};
pub use webhooks::{EventKind, RetryRules, WebhookRules};
pub use windows::{UnknownWindow, WindowRules};
