//! A message that passed every check and is about to be logged.

use std::time::Duration;

use time::OffsetDateTime;

use super::{AccountId, Lane, LineId};
use crate::channel::{Class, MessageKind};

/// Longest recipient id accepted, in characters (contract code 229).
pub const MAX_DEST_CHARS: usize = 128;

/// Longest campaign label, in characters: labels are indexed.
pub const MAX_CP_ID_CHARS: usize = 128;
/// Longest name of a batch.
pub const MAX_BATCH_ID_CHARS: usize = 64;
/// Longest reference of a caller, in characters.
pub const MAX_MSG_ID_CHARS: usize = 255;

/// One checked submission: becomes one `PENDING` row. Texts hold no NUL.
#[derive(Debug, Clone)]
pub struct Submission {
    pub account: AccountId,
    pub line: LineId,
    pub class: Class,
    pub dest: String,
    pub kind: MessageKind,
    pub mdata: String,
    pub mcaption: Option<String>,
    pub msg_id: Option<String>,
    pub cp_id: Option<String>,
    pub lane: Lane,
    /// The message is not sent before this time.
    pub send_at: Option<OffsetDateTime>,
    /// The message is not sent later than this long after `send_at`, or after the row's creation.
    pub valid_for: Duration,
    /// The receiver of the outcome: [`super::Waiter::column`].
    pub waiter: Option<String>,
}
