//! Delays before the next try: an interval that doubles up to a cap, and its spread.
//!
//! No other file knows the `backoff` crate, and this one uses only its arithmetic. The crate's clock, its
//! random numbers and its limit of elapsed time are not used: callers count their tries and bring a random
//! number.

use std::ops::RangeInclusive;
use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// Delays that double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Backoff {
    /// Return `base` doubled `doublings` times, at most `cap`.
    pub fn delay(self, doublings: u32) -> Duration {
        let mut interval: ExponentialBackoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(self.base.min(self.cap))
            .with_max_interval(self.cap)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        for _ in 0..doublings {
            if interval.current_interval >= self.cap {
                break;
            }
            // The returned delay has a random nanosecond in it; the interval that it steps to does not.
            interval.next_backoff();
        }
        interval.current_interval
    }
}

/// Multiply a delay by a factor of this range, so that calls which failed together are not repeated together.
/// `random` is uniform in 0.0..1.0.
pub fn spread(delay: Duration, factors: RangeInclusive<f64>, random: f64) -> Duration {
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 };
    let factor = factors.start() * (1.0 - random) + factors.end() * random;
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_to_the_cap() {
        let backoff = Backoff { base: Duration::from_millis(50), cap: SECOND };
        let delays: Vec<u128> = (0..7).map(|doublings| backoff.delay(doublings).as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff.delay(u32::MAX), SECOND);
    }

    #[test]
    fn a_base_above_the_cap_is_lowered_to_it() {
        assert_eq!(Backoff { base: SECOND * 9, cap: SECOND }.delay(0), SECOND);
    }

    #[test]
    fn the_longest_times_never_overflow() {
        let backoff = Backoff { base: Duration::MAX, cap: Duration::MAX };
        assert_eq!(spread(backoff.delay(u32::MAX), 0.8..=1.2, 1.0), Duration::MAX);
    }

    #[test]
    fn a_spread_stays_within_its_range() {
        for (random, millis) in
            [(0.0, 800), (0.25, 900), (0.5, 1_000), (1.0, 1_200), (-7.0, 800), (9.0, 1_200)]
        {
            assert_eq!(spread(SECOND, 0.8..=1.2, random), Duration::from_millis(millis), "{random}");
        }
        for random in [f64::NAN, f64::INFINITY] {
            assert_eq!(spread(SECOND, 0.8..=1.2, random), SECOND, "{random}");
        }
    }
}
