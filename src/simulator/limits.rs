//! How many messages each token sent in the last second.
//!
//! The count is exact: a message counts for one second from its own arrival, not until a calendar second
//! ends. A message that was refused for the limit does not count.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// The value in the usage headers: percent of the limit, over 100 when it is passed.
pub(super) type UsagePercent = u32;

/// The last second of each token, by its tag.
#[derive(Debug, Default)]
pub(super) struct RateWindows {
    arrivals: HashMap<String, VecDeque<Instant>>,
}

impl RateWindows {
    /// Count a message under a limit of messages a second; `Err` if the message is one too many. `now` must
    /// not go back.
    pub fn take(&mut self, tag: &str, limit: u32, now: Instant) -> Result<UsagePercent, UsagePercent> {
        if !self.arrivals.contains_key(tag) {
            self.arrivals.insert(tag.to_owned(), VecDeque::new());
        }
        let Some(arrivals) = self.arrivals.get_mut(tag) else { return Ok(0) };
        while arrivals.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            arrivals.pop_front();
        }
        let percent = |count: usize| {
            UsagePercent::try_from(count as u64 * 100 / u64::from(limit.max(1))).unwrap_or(UsagePercent::MAX)
        };
        if arrivals.len() >= limit as usize {
            return Err(percent(arrivals.len() + 1).max(101));
        }
        arrivals.push_back(now);
        Ok(percent(arrivals.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_exceeds_the_limit() {
        let mut windows = RateWindows::default();
        let start = Instant::now();
        let taken: Vec<u64> = (0..5_000_u64)
            .step_by(7)
            .filter(|at| windows.take("a", 40, start + Duration::from_millis(*at)).is_ok())
            .collect();
        for (index, first) in taken.iter().enumerate() {
            let within = taken[index..].iter().take_while(|at| *at - first < 1000).count();
            assert!(within <= 40, "{within} within the second from {first} ms");
        }
        assert!(taken.len() >= 5 * 40, "{} taken in 5 s", taken.len());
    }

    #[test]
    fn tokens_do_not_share_a_limit() {
        let mut windows = RateWindows::default();
        let now = Instant::now();
        assert_eq!(windows.take("a", 1, now), Ok(100));
        assert_eq!(windows.take("a", 1, now), Err(200));
        assert_eq!(windows.take("b", 1, now), Ok(100));
    }
}
