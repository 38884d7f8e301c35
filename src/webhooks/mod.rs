//! Meta's webhooks (contract: "What comes from Meta"): the door that takes them in, and the tasks that apply them.
//!
//! `http` answers Meta: `verify` and `signature` decide with the secrets of `apps`, and `keep` makes a body durable before
//! the 200. `intake` takes kept bodies again, has `event` read them and `apply` write them, and `inbound` publishes them for
//! other programs. Each step may be repeated: Meta delivers more than once, and so does the queue.
//!
//! Never here: SQL, and a secret or a text of a person in the log.

mod apply;
pub mod apps;
mod echoes;
mod event;
pub mod http;
mod inbound;
mod intake;
mod keep;
mod notice;
mod signature;
mod verify;

pub use apply::{apply, apply_early};
pub use apps::Apps;
pub use echoes::EchoReader;
pub use event::{Event, EventKind, Object, Unreadable, read};
pub use inbound::Inbound;
pub use intake::{Intake, IntakeOptions};
pub use keep::Keeper;
