//! One transaction's worth of entries, and results that wait for a lock.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Entry;
use crate::message::{Lane, LineId, MessageId, WorkId};
use crate::store::{Change, Claim};

/// How long a result waits whose row somebody else has locked, before it is tried again.
const LOCKED_FOR: Duration = Duration::from_millis(250);

/// A claim to be made, and for which line.
pub struct ClaimEntry {
    pub line: LineId,
    pub claim: Claim,
}

/// A batch on its way into the database.
#[derive(Default)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub waiters: Vec<Option<String>>,
    pub lanes: Vec<Lane>,
    pub claims: Vec<ClaimEntry>,
    pub ended_work: Vec<WorkId>,
    pub barriers: Vec<(oneshot::Sender<bool>, bool)>,
    /// How often the database has refused this single result, each time in a plainer form.
    pub refused: u8,
}

/// Takes a transaction's worth from the front; a row appears once in it, so a second entry for it waits, and all behind it.
pub fn take_batch(backlog: &mut VecDeque<Entry>, at_most: usize) -> Batch {
    let mut batch = Batch::default();
    let mut seen: HashSet<MessageId> = HashSet::new();
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

impl Entry {
    fn id(&self) -> Option<MessageId> {
        match self {
            Entry::Change { change, .. } => Some(change.id),
            Entry::Claim { claim, .. } => Some(claim.id),
            Entry::WorkEnded(_) | Entry::Barrier(..) => None,
        }
    }
}

impl Batch {
    fn push(&mut self, entry: Entry) {
        match entry {
            Entry::Change { change, lane, waiter } => {
                self.changes.push(change);
                self.lanes.push(lane);
                self.waiters.push(waiter);
            }
            Entry::Claim { line, claim, .. } => self.claims.push(ClaimEntry { line, claim }),
            Entry::WorkEnded(work) => self.ended_work.push(work),
            Entry::Barrier(barrier, answer) => self.barriers.push((barrier, answer)),
        }
    }

    /// Whether it holds one entry, or none.
    pub fn is_single(&self) -> bool {
        self.changes.len() + self.claims.len() < 2
    }

    /// Two halves.
    pub fn split(mut self) -> (Batch, Batch) {
        let (changes, claims) = (self.changes.len().div_ceil(2), self.claims.len() / 2);
        let first = Batch {
            changes: self.changes.drain(..changes).collect(),
            waiters: self.waiters.drain(..changes).collect(),
            lanes: self.lanes.drain(..changes).collect(),
            claims: self.claims.drain(..claims).collect(),
            ..Batch::default()
        };
        (first, self)
    }

    /// Takes the changes of these rows out.
    pub fn take_changes(&mut self, rows: &HashSet<MessageId>) -> Batch {
        let mut taken = Batch::default();
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

    /// Takes in another's changes.
    pub fn changes_of(&mut self, other: Batch) {
        self.changes.extend(other.changes);
        self.waiters.extend(other.waiters);
        self.lanes.extend(other.lanes);
    }

    /// Its changes, to be written later.
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
pub struct Aside(VecDeque<(Instant, Batch)>);

impl Aside {
    pub fn put(&mut self, now: Instant, batch: Batch) {
        if !batch.changes.is_empty() {
            self.0.push_back((now + LOCKED_FOR, batch));
        }
    }

    /// Puts changes behind those of the same rows that are there, to be written in the order they came.
    pub fn put_behind(&mut self, mut changes: Batch) {
        for (_, batch) in &mut self.0 {
            let rows = batch.changes.iter().map(|change| change.id).collect();
            batch.changes_of(changes.take_changes(&rows));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rows(&self) -> HashSet<MessageId> {
        self.0.iter().flat_map(|(_, batch)| &batch.changes).map(|change| change.id).collect()
    }

    /// When the next of them is tried again.
    pub fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    /// Takes those whose time has come.
    pub fn due(&mut self, now: Instant) -> Batch {
        let mut due = Batch::default();
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

    fn batch(ids: &[i64]) -> Batch {
        let mut batch = Batch::default();
        for id in ids {
            let change = Change::waiting(MessageId(*id), 0, ChangeKind::Release);
            batch.push(Entry::Change { change, lane: Lane::High, waiter: None });
        }
        batch
    }

    #[test]
    fn later_changes_of_a_row_that_waits_come_back_with_the_first() {
        let mut aside = Aside::default();
        let now = Instant::now();
        aside.put(now, batch(&[1]));
        aside.put(now + LOCKED_FOR, batch(&[2]));
        aside.put_behind(batch(&[2, 1]));
        let ids = |batch: Batch| batch.changes.iter().map(|change| change.id.0).collect::<Vec<_>>();
        assert_eq!(ids(aside.due(now + LOCKED_FOR)), [1, 1]);
        assert_eq!(ids(aside.due(now + LOCKED_FOR * 2)), [2, 2]);
        assert!(aside.is_empty());
    }
}
