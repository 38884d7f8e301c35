//! The Graph simulator: a local stand-in for Meta's Graph API, for `simulate`, `demo`, load tests and tests.
//!
//! The simulator takes `POST {any prefix}/me/messages` as Graph does (contract: "What goes to Graph"), and
//! answers as Graph does: a message id, or Graph's error envelope with its HTTP status and usage headers. The
//! recipient id's first word chooses the outcome ([`outcomes_help`]): `code10-ana` is outside the window,
//! `cut-ana` loses its connection after the request was read, `code1200x2-ana` fails twice and is then sent.
//!
//! Evidence lets a test compare the calls received with the calls recorded:
//!
//! | call | answer |
//! |---|---|
//! | `GET /simulator/calls?after=SEQ&dest=ID` | JSON list of [`PlayedCall`]s, oldest first, at most [`SimulatorOptions::keep`] |
//! | `GET /simulator/count` | [`CallCounts`], exact however many calls there were |
//! | `POST /simulator/reset?latency=80ms&jitter=20ms` | forgets all calls; sets the given values; answers [`CallCounts`] |
//!
//! A call counts when its request was read, before its latency: a caller that gives up meanwhile has sent it.
//! Never here: calls to anything outside, and page tokens in any list, count or log (a token is shown as
//! [`token_tag`]).

mod answer;
mod control;
mod journal;
mod limits;
mod options;
mod outcome;
mod request;
mod running;
mod server;
mod shared;

pub use journal::{CallCounts, PlayedCall};
pub use options::SimulatorOptions;
pub use outcome::outcomes_help;
pub use request::token_tag;
pub use running::{Simulator, SimulatorError};
