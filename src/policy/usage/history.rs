//! The calls of this process, by time: how many had begun by a moment, and when so many had.
//!
//! Calls of one grain share a mark. Marks grow coarser with age, so that a day of calls costs a few kilobytes.

use std::collections::VecDeque;

/// Marks of a budget whose use has been told.
pub const ROOM: usize = 1_024;
/// Marks of a budget of which nothing was ever heard.
pub const ROOM_UNHEARD: usize = 64;

/// Calls up to this moment's grain.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: f64,
    /// All calls so far, those of this mark included.
    total: f64,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    marks: VecDeque<Mark>,
    /// The calls before the first mark.
    forgotten: f64,
}

impl History {
    /// Return the number of calls so far.
    pub fn total(&self) -> f64 {
        self.marks.back().map_or(self.forgotten, |mark| mark.total)
    }

    /// Return the time of the first call that is remembered.
    pub fn first(&self) -> Option<f64> {
        self.marks.front().map(|mark| mark.at)
    }

    /// Add calls that begin now. Calls within `grain` of a mark are counted with it.
    pub fn add(&mut self, now: f64, calls: f64, grain: f64, room: usize) {
        let total = self.total() + calls;
        match self.marks.back_mut() {
            Some(last) if now < last.at + grain => last.total = total,
            _ => self.marks.push_back(Mark { at: now, total }),
        }
        if self.marks.len() > room {
            self.coarsen();
        }
    }

    /// Join pairs of marks of the older half.
    fn coarsen(&mut self) {
        let half = self.marks.len() / 2;
        let mut kept = VecDeque::with_capacity(self.marks.len());
        let older: Vec<Mark> = self.marks.drain(..half).collect();
        kept.extend(older.chunks(2).map(|pair| Mark { at: pair[0].at, total: pair[pair.len() - 1].total }));
        kept.append(&mut self.marks);
        self.marks = kept;
    }

    /// Return how many calls had begun by this time.
    pub fn begun_by(&self, at: f64) -> f64 {
        match self.marks.partition_point(|mark| mark.at <= at) {
            0 => self.forgotten,
            after => self.marks[after - 1].total,
        }
    }

    /// Return the time by which so many calls had begun; the first or last known one for a count outside of that.
    pub fn time_of(&self, total: f64) -> Option<f64> {
        let found = self.marks.partition_point(|mark| mark.total < total);
        self.marks.get(found).or(self.marks.back()).map(|mark| mark.at)
    }

    /// Forget calls before this time.
    pub fn forget(&mut self, before: f64) {
        while self.marks.len() > 1 && self.marks[1].at <= before {
            if let Some(mark) = self.marks.pop_front() {
                self.forgotten = mark.total;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(calls: usize, grain: f64, room: usize) -> History {
        let mut history = History::default();
        (0..calls).for_each(|n| history.add(n as f64, 1.0, grain, room));
        history
    }

    #[test]
    fn counts_up_to_a_moment_and_back() {
        let history = filled(100, 0.1, ROOM);
        assert_eq!((history.total(), history.first()), (100.0, Some(0.0)));
        assert_eq!(
            [-1.0, 0.0, 9.5, 99.0, 500.0].map(|at| history.begun_by(at)),
            [0.0, 1.0, 10.0, 100.0, 100.0]
        );
        assert_eq!(
            [1.0, 10.0, 100.0, 101.0].map(|calls| history.time_of(calls)),
            [0.0, 9.0, 99.0, 99.0].map(Some)
        );
    }

    #[test]
    fn calls_of_a_grain_share_a_mark() {
        let history = filled(100, 10.0, ROOM);
        assert_eq!(history.marks.len(), 10);
        assert_eq!((history.begun_by(9.0), history.begun_by(10.0)), (10.0, 20.0));
    }

    #[test]
    fn old_marks_grow_coarse_within_the_room() {
        let history = filled(10_000, 0.1, 64);
        assert!(history.marks.len() <= 64, "{}", history.marks.len());
        assert_eq!((history.total(), history.begun_by(9_999.0)), (10_000.0, 10_000.0));
        assert!((history.begun_by(9_990.0) - 9_991.0).abs() <= 16.0, "{}", history.begun_by(9_990.0));
    }

    #[test]
    fn forgotten_calls_stay_in_the_total() {
        let mut history = filled(100, 0.1, ROOM);
        history.forget(50.5);
        assert_eq!((history.total(), history.first()), (100.0, Some(50.0)));
        assert_eq!((history.begun_by(10.0), history.begun_by(60.0)), (50.0, 61.0));
        assert_eq!(History::default().time_of(1.0), None);
    }
}
