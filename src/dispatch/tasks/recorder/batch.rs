//! One transaction's worth of entries, and results that wait for a lock.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Barrier, Entry};
use crate::domain::{Lane, LineId, RowId, WorkId};
use crate::store::{Change, Claim};

/// The pause before another try of a result whose row another transaction has locked.
const LOCKED_FOR: Duration = Duration::from_millis(250);

/// A claim to make, and its line.
pub struct ClaimEntry {
    pub line: LineId,
    pub claim: Claim,
}

/// A batch on its way into the database.
#[derive(Default)]
pub struct CommitBatch {
    pub changes: Vec<Change>,
    pub waiters: Vec<Option<String>>,
    pub lanes: Vec<Lane>,
    pub claims: Vec<ClaimEntry>,
    pub ended_work: Vec<WorkId>,
    pub barriers: Vec<Barrier>,
    /// Number of times that the database has refused this single result, each time in a plainer form.
    pub refused: u8,
}

/// Take a transaction's worth from the front; a row appears once in it, so that a second entry for it waits,
/// and all behind it.
pub fn take_batch(backlog: &mut VecDeque<Entry>, at_most: usize) -> CommitBatch {
    let mut batch = CommitBatch::default();
    let mut seen: HashSet<RowId> = HashSet::new();
    while seen.len() < at_most
        && let Some(entry) = backlog.pop_front()
    {
        if let Some(id) = entry.id()
            && !seen.insert(id)
        {
            backlog.push_front(entry);
            break;
        }
        batch.push(entry);
    }
    batch
}

impl CommitBatch {
    fn push(&mut self, entry: Entry) {
        match entry {
            Entry::Change { change, lane, waiter } => {
                self.changes.push(change);
                self.lanes.push(lane);
                self.waiters.push(waiter);
            }
            Entry::Claim { line, claim, .. } => self.claims.push(ClaimEntry { line, claim }),
            Entry::WorkEnded(work) => self.ended_work.push(work),
            Entry::Barrier(barrier) => self.barriers.push(barrier),
        }
    }

    /// Whether the batch holds one entry, or none.
    pub fn is_single(&self) -> bool {
        self.changes.len() + self.claims.len() < 2
    }

    /// Split the batch into two halves.
    pub fn split(mut self) -> (CommitBatch, CommitBatch) {
        let (changes, claims) = (self.changes.len().div_ceil(2), self.claims.len() / 2);
        let first = CommitBatch {
            changes: self.changes.drain(..changes).collect(),
            waiters: self.waiters.drain(..changes).collect(),
            lanes: self.lanes.drain(..changes).collect(),
            claims: self.claims.drain(..claims).collect(),
            ..CommitBatch::default()
        };
        (first, self)
    }

    /// Take the changes of these rows out.
    pub fn take_changes(&mut self, rows: &HashSet<RowId>) -> CommitBatch {
        let mut taken = CommitBatch::default();
        let all = std::mem::take(&mut self.changes).into_iter();
        let lanes = std::mem::take(&mut self.lanes);
        for ((change, waiter), lane) in all.zip(std::mem::take(&mut self.waiters)).zip(lanes) {
            let batch = if rows.contains(&change.id) { &mut taken } else { &mut *self };
            batch.changes.push(change);
            batch.waiters.push(waiter);
            batch.lanes.push(lane);
        }
        taken
    }

    /// Add the changes of another batch.
    pub fn changes_of(&mut self, other: CommitBatch) {
        self.changes.extend(other.changes);
        self.waiters.extend(other.waiters);
        self.lanes.extend(other.lanes);
    }

    /// Return the changes, to write them later.
    pub fn into_entries(self) -> impl DoubleEndedIterator<Item = Entry> {
        let changes: Vec<Entry> = self
            .changes
            .into_iter()
            .zip(self.waiters)
            .zip(self.lanes)
            .map(|((change, waiter), lane)| Entry::Change { change, lane, waiter })
            .collect();
        changes.into_iter()
    }
}

/// Results whose rows others have locked.
#[derive(Default)]
pub struct LockedResults(VecDeque<(Instant, CommitBatch)>);

impl LockedResults {
    pub fn put(&mut self, now: Instant, batch: CommitBatch) {
        if !batch.changes.is_empty() {
            self.0.push_back((now + LOCKED_FOR, batch));
        }
    }

    /// Put changes behind earlier ones of the same rows, to be written in the order of their arrival.
    pub fn put_behind(&mut self, mut changes: CommitBatch) {
        for (_, batch) in &mut self.0 {
            let rows = batch.changes.iter().map(|change| change.id).collect();
            batch.changes_of(changes.take_changes(&rows));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rows(&self) -> HashSet<RowId> {
        self.0.iter().flat_map(|(_, batch)| &batch.changes).map(|change| change.id).collect()
    }

    /// Return the time at which the next results are tried again.
    pub fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Take the results whose time has come.
    pub fn due(&mut self, now: Instant) -> CommitBatch {
        let mut due = CommitBatch::default();
        while self.0.front().is_some_and(|(at, _)| *at <= now) {
            self.0.pop_front().into_iter().for_each(|(_, batch)| due.changes_of(batch));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChangeKind;

    fn batch(ids: &[i64]) -> CommitBatch {
        let mut batch = CommitBatch::default();
        for id in ids {
            let change = Change::waiting(RowId(*id), 0, ChangeKind::Release);
            batch.push(Entry::Change { change, lane: Lane::High, waiter: None });
        }
        batch
    }

    #[test]
    fn later_changes_come_back_with_the_first() {
        let mut aside = LockedResults::default();
        let now = Instant::now();
        aside.put(now, batch(&[1]));
        aside.put(now + LOCKED_FOR, batch(&[2]));
        aside.put_behind(batch(&[2, 1]));
        let ids = |batch: CommitBatch| batch.changes.iter().map(|change| change.id.0).collect::<Vec<_>>();
        assert_eq!(ids(aside.due(now + LOCKED_FOR)), [1, 1]);
        assert_eq!(ids(aside.due(now + LOCKED_FOR * 2)), [2, 2]);
        assert!(aside.is_empty());
    }
}
