//! The breaker of one line: a line whose calls keep failing rests, and other lines go on.
//!
//! After [`TRIPS_AFTER`] failures of different messages without an answer between, the line rests, each time
//! twice as long; after a rest a single failure is enough. Any answer of Graph ends this, unless it reports a
//! failure of Graph's servers.

use std::time::{Duration, Instant};

use super::{RESTS, SPREAD, TRIPS_AFTER};
use crate::domain::RowId;
use crate::policy::spread;

/// The breaker of one line.
#[derive(Debug, Default)]
pub struct LineBreaker {
    /// Messages whose calls failed since the last answer.
    failed: Vec<RowId>,
    answered_at: Option<Instant>,
    /// Number of rests since the last answer, and the time of the last one.
    rests: u32,
    opened_at: Option<Instant>,
    until: Option<Instant>,
}

impl LineBreaker {
    /// Return the end of the line's rest, if the line rests.
    pub fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Record that Graph answered a call of the line.
    pub fn answered(&mut self, now: Instant) {
        *self = LineBreaker { answered_at: Some(now), ..LineBreaker::default() };
    }

    /// Record that a call begun at `begun` failed. Return the length of the line's rest, if one begins. Calls
    /// that were in flight when the line began to rest, or when another was answered, are no news. `jitter`
    /// is uniform in 0.0..1.0.
    pub fn failed(&mut self, id: RowId, begun: Instant, now: Instant, jitter: f64) -> Option<Duration> {
        let known_at = self.answered_at.max(self.opened_at);
        if known_at.is_some_and(|known_at| known_at > begun) {
            return None;
        }
        if !self.failed.contains(&id) {
            self.failed.push(id);
        }
        let enough = if self.rests == 0 { TRIPS_AFTER } else { 1 };
        if self.failed.len() < enough {
            return None;
        }
        let rest = spread(RESTS.delay(self.rests), 1.0 - SPREAD..=1.0 + SPREAD, jitter);
        self.rests = self.rests.saturating_add(1);
        self.failed.clear();
        self.opened_at = Some(now);
        self.until = Some(now + rest);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::breaker::{FIRST_REST, LONGEST_REST};

    const MIDDLE: f64 = 0.5;
    const STEP: Duration = Duration::from_millis(10);

    /// A breaker, and a clock that moves with each call.
    struct FailingLine {
        breaker: LineBreaker,
        now: Instant,
        calls: i64,
    }

    impl FailingLine {
        fn new() -> FailingLine {
            FailingLine { breaker: LineBreaker::default(), now: Instant::now(), calls: 0 }
        }

        fn fail(&mut self) -> Option<Duration> {
            self.calls += 1;
            self.fail_again(self.calls)
        }

        fn fail_again(&mut self, id: i64) -> Option<Duration> {
            let begun = self.now;
            self.now += STEP;
            self.breaker.failed(RowId(id), begun, self.now, MIDDLE)
        }

        fn answer(&mut self) {
            self.now += STEP;
            self.breaker.answered(self.now);
        }
    }

    #[test]
    fn five_failed_messages_in_a_row_begin_a_rest() {
        let mut line = FailingLine::new();
        for _ in 0..3 {
            for _ in 1..TRIPS_AFTER {
                assert_eq!(line.fail(), None);
            }
            line.answer();
        }
        for _ in 1..TRIPS_AFTER {
            line.fail();
        }
        assert_eq!(line.fail(), Some(FIRST_REST));
        assert_eq!(line.breaker.rests_until(line.now), Some(line.now + FIRST_REST));
        assert_eq!(line.breaker.rests_until(line.now + FIRST_REST), None);
    }

    #[test]
    fn one_message_that_fails_again_and_again_begins_none() {
        let mut line = FailingLine::new();
        for _ in 0..50 {
            assert_eq!(line.fail_again(7), None);
        }
    }

    #[test]
    fn rests_double_to_their_cap_until_an_answer() {
        let mut line = FailingLine::new();
        let mut rests = Vec::new();
        while rests.len() < 7 {
            rests.extend(line.fail());
            line.now += LONGEST_REST;
        }
        assert_eq!(rests.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 30, 30]);
        line.answer();
        assert_eq!(line.breaker.rests_until(line.now), None);
        assert_eq!(line.fail(), None, "one failure is nothing again");
    }

    #[test]
    fn calls_in_flight_say_nothing_new() {
        let mut line = FailingLine::new();
        let begun = line.now;
        for _ in 0..TRIPS_AFTER {
            line.fail();
        }
        let until = line.breaker.rests_until(line.now);
        assert_eq!(line.breaker.failed(RowId(900), begun, line.now, MIDDLE), None);
        assert_eq!(line.breaker.rests_until(line.now), until);
        line.answer();
        for id in 901..920 {
            assert_eq!(line.breaker.failed(RowId(id), begun, line.now, MIDDLE), None);
        }
    }
}
