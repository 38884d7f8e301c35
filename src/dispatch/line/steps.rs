//! What a line is given when it is pumped, and what it then wants done.

use std::sync::Arc;

use tokio::time::Instant;

use super::Sender;
use crate::message::Medium;
use crate::store::{Change, FlowRead, ReadyRow};

/// What a line may take of the process's permits.
///
/// A line may hold up to four times what is left to spare, its media up to twice: one busy line takes four fifths of all
/// permits, eight take 97 %, and a line that wakes up always finds some, even beside lines whose calls hang.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Permits that nobody holds.
    pub spare: usize,
    /// Calls that may begin: fewer, while the breaker lets them out one by one.
    pub room: usize,
    /// Whether media may be claimed. Not while calls are tried: a text is answered sooner.
    pub media: bool,
    /// Rows that may be ended without a call, before the log has written what waits.
    pub ends: usize,
}

impl Allowance {
    /// Takes a permit for a line that holds `held`, if there is one for it.
    pub fn take(&mut self, held: usize, medium: Medium) -> bool {
        let (share, admitted) = match medium {
            Medium::Text => (4, true),
            Medium::Media => (2, self.media),
        };
        let granted = admitted && self.room.min(self.spare) > 0 && held < (share * self.spare).max(8);
        self.spare -= usize::from(granted);
        self.room -= usize::from(granted);
        granted
    }

    /// The permit taken last is not needed.
    pub fn give_back(&mut self) {
        self.spare += 1;
        self.room += 1;
    }
}

/// What a line wants done.
#[derive(Default)]
pub struct Steps {
    pub claims: Vec<ReadyRow>,
    pub calls: Vec<PlannedCall>,
    pub changes: Vec<(Change, Option<String>)>,
    pub reads: Vec<FlowRead>,
    /// Rows that are given back by `changes`, as they will be claimed next, but for the fence: that of the change.
    pub returned: Vec<ReadyRow>,
    /// Rows could be claimed, but for want of permits.
    pub wants_permits: bool,
    /// When to look again, if nothing happens before.
    pub wake: Option<Instant>,
}

/// A claimed row whose call begins now.
pub struct PlannedCall {
    pub row: Arc<ReadyRow>,
    pub sender: Sender,
    pub expires: Instant,
    pub begun: Instant,
}
