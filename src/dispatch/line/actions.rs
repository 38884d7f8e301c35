//! The permits a line may take when it is pumped, and the actions it then asks for.

use std::sync::Arc;

use tokio::time::Instant;

use super::assets::UploadOrder;
use super::sender::Sender;
use crate::channel::Medium;
use crate::store::{Change, FlowRead, ReadyRow};

/// The permits of the process that a line may take.
///
/// A line may hold up to four times the number of spare permits, its media up to twice: one busy line takes
/// four fifths of all permits, eight take 97 %, and a line that wakes up always finds some, even beside lines
/// whose calls hang.
#[derive(Debug, Clone, Copy)]
pub struct PermitBudget {
    /// Permits that are free.
    pub spare: usize,
    /// Calls that may begin: fewer while the breaker lets them out one by one.
    pub room: usize,
    /// Whether media may be claimed. False while calls are tried: a text is answered sooner.
    pub media: bool,
    /// Rows that may be ended without a call before the log has written the waiting entries.
    pub ends: usize,
}

impl PermitBudget {
    /// Take a permit for a line that holds `held`, if there is one for it.
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

    /// Return the permit that was taken last.
    pub fn give_back(&mut self) {
        self.spare += 1;
        self.room += 1;
    }
}

/// The actions that a line asks the dispatcher for.
#[derive(Default)]
pub struct LineActions {
    pub claims: Vec<ReadyRow>,
    pub calls: Vec<PlannedCall>,
    pub changes: Vec<(Change, Option<String>)>,
    pub reads: Vec<FlowRead>,
    /// Rows that `changes` give back, as they will be claimed next, except for the fence, which is that of
    /// the change.
    pub returned: Vec<ReadyRow>,
    /// Rows that `changes` end because of their recipients, until the log has answered.
    pub withheld: Vec<ReadyRow>,
    /// Questions about assets that messages wait for.
    pub uploads: Vec<UploadOrder>,
    /// Whether rows wait only for permits.
    pub wants_permits: bool,
    /// Whether rows wait for Meta's budgets.
    pub wants_budget: bool,
    /// The time of the next look, if no event comes before.
    pub wake: Option<Instant>,
}

/// A claimed row whose call begins now.
pub struct PlannedCall {
    pub row: Arc<ReadyRow>,
    pub sender: Sender,
    pub expires: Instant,
    pub begun: Instant,
    /// The id of the asset, in place of its URL.
    pub attachment_id: Option<Arc<str>>,
}
