//! The rows that hold their recipients back, and when the log is asked next whether each has not ended.
//!
//! A row may end without this process: it is cancelled, or settled, elsewhere. A row that others wait behind is
//! therefore looked at again and again, and every row when its time has passed. Never here: the recipients'
//! queues.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Lane, LineId, RowId};

/// The time after which the log is asked about a row that is due.
const DUE_SLACK: Duration = Duration::from_secs(2);
/// The pause between looks at a row that is not due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A row that holds its recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRow {
    pub line: LineId,
    pub lane: Lane,
    pub dest: String,
    /// The time at which it comes back by itself.
    pub due: Instant,
}

impl HeldRow {
    /// Whether the row should have come back.
    pub fn is_overdue(&self, now: Instant) -> bool {
        now >= self.due + DUE_SLACK
    }

    fn next_look(&self, now: Instant) -> Instant {
        (self.due + DUE_SLACK).min(now + LOOK_EVERY)
    }
}

/// The held rows, by the time of the next look.
#[derive(Default)]
pub struct HeldRows {
    /// Rows without a time are those that the log is being asked about.
    rows: HashMap<RowId, (HeldRow, Option<Instant>)>,
    looks: BTreeSet<(Instant, RowId)>,
}

impl HeldRows {
    /// Watch a row from now on; an answer to an earlier question about it is out of date.
    pub fn watch(&mut self, id: RowId, row: HeldRow, now: Instant) {
        let look = row.next_look(now);
        if let Some((_, Some(before))) = self.rows.insert(id, (row, Some(look))) {
            self.looks.remove(&(before, id));
        }
        self.looks.insert((look, id));
    }

    /// Return the time of the next look.
    pub fn next_look(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Take the next row whose look has come. The caller watches it again, marks it as asked about, or forgets
    /// it.
    pub fn take_look(&mut self, now: Instant) -> Option<(RowId, HeldRow)> {
        let (at, id) = self.looks.first().copied().filter(|(at, _)| *at <= now)?;
        self.looks.remove(&(at, id));
        self.rows.remove(&id).map(|(row, _)| (id, row))
    }

    /// Record that the log is being asked about the row.
    pub fn asked(&mut self, id: RowId, row: HeldRow) {
        self.rows.insert(id, (row, None));
    }

    /// Take a row that the log was asked about; none, if it is watched anew since then.
    pub fn take_asked(&mut self, id: RowId) -> Option<HeldRow> {
        let is_asked = self.rows.get(&id).is_some_and(|(_, look)| look.is_none());
        if is_asked { self.rows.remove(&id).map(|(row, _)| row) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(due: Instant) -> HeldRow {
        HeldRow { line: LineId(1), lane: Lane::High, dest: "ann".into(), due }
    }

    #[tokio::test(start_paused = true)]
    async fn row_is_looked_at_before_it_is_due() {
        let now = Instant::now();
        let late = now + LOOK_EVERY * 10;
        let mut held = HeldRows::default();
        held.watch(RowId(1), row(late), now);
        assert_eq!(held.next_look(), Some(now + LOOK_EVERY));
        assert_eq!(held.take_look(now), None);
        let (id, taken) = held.take_look(now + LOOK_EVERY).expect("its look has come");
        assert_eq!((id, taken.is_overdue(now + LOOK_EVERY)), (RowId(1), false));
        held.watch(id, taken, now + LOOK_EVERY);
        assert_eq!(held.next_look(), Some(now + LOOK_EVERY * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn due_row_is_looked_at_after_a_moment() {
        let now = Instant::now();
        let mut held = HeldRows::default();
        held.watch(RowId(1), row(now), now);
        let (_, taken) = held.take_look(now + DUE_SLACK).expect("its look has come");
        assert!(taken.is_overdue(now + DUE_SLACK));
        assert_eq!(held.next_look(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn answer_to_an_earlier_question_does_not_count() {
        let now = Instant::now();
        let mut held = HeldRows::default();
        held.asked(RowId(1), row(now));
        assert_eq!(held.next_look(), None);
        held.watch(RowId(1), row(now + LOOK_EVERY), now);
        held.watch(RowId(1), row(now), now);
        assert_eq!(held.take_asked(RowId(1)), None);
        assert_eq!(held.next_look(), Some(now + DUE_SLACK), "one look a row");
        let (id, taken) = held.take_look(now + DUE_SLACK).expect("its look has come");
        assert_eq!(held.take_look(now + LOOK_EVERY * 9), None);
        held.asked(id, taken);
        assert!(held.take_asked(id).is_some() && held.take_asked(id).is_none());
    }
}
