//! The state that the recorder keeps between batches.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::batch::LockedResults;
use super::claims::OpenClaims;
use crate::domain::{RowId, WorkId};
use crate::store::Change;

/// Results that the database refuses in every form, by their rows, with the fence of the call. Such a row
/// stays claimed by this process and looks as if its call had never begun; giving it back would send it
/// again.
#[derive(Default)]
pub(super) struct RefusedResults(pub(super) HashMap<RowId, i32>);

impl RefusedResults {
    /// Replace the release of a row whose call was made by "not known".
    pub(super) fn guard(&self, change: &mut Change) {
        if self.0.get(&change.id) == Some(&change.fence) && change.call().is_none() && change.ends_claim() {
            *change = Change::lost(change.id, change.fence);
        }
    }
}

/// The state that the recorder keeps between batches.
#[derive(Default)]
pub(super) struct RecorderState {
    pub(super) unwritten: RefusedResults,
    pub(super) claims: OpenClaims,
    /// Work that has ended, and whose removal is not committed.
    pub(super) ended_work: BTreeSet<WorkId>,
    /// Whether ended work and claims stay when the next batch is written.
    pub(super) keeps_ended: bool,
    pub(super) aside: LockedResults,
    /// Rows whose changes may be written already.
    pub(super) unanswered: HashSet<RowId>,
}

impl RecorderState {
    /// Whether work or claims have ended that are to be removed from the queue.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended_work.is_empty() || !self.claims.ended().is_empty()
    }
}
