//! The rate after refusals of a budget of which no header tells the use: slower at once, then back by a cubic curve.
//!
//! The law is that of the AWS SDKs' adaptive retries, without their token bucket.

/// The rate after a refusal, as a share of the rate before.
const SLOWER: f64 = 0.7;
/// The growth of the curve, in calls a second per cubic second.
const SCALE: f64 = 0.4;
/// The slowest rate, in calls a second.
const SLOWEST: f64 = 0.5;
/// The limit ends when the curve has passed the rate before by this factor: nothing refuses it.
const FREE_AGAIN: f64 = 2.0;

/// A limit after a refusal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AfterRefusal {
    at: f64,
    /// The rate that was refused.
    before: f64,
}

impl AfterRefusal {
    /// Begin a limit after a refusal of calls at this rate.
    pub fn new(at: f64, rate: f64) -> AfterRefusal {
        AfterRefusal { at, before: rate.max(SLOWEST / SLOWER) }
    }

    /// Return the calls a second that may go; `None` when the limit has ended.
    pub fn rate(&self, now: f64) -> Option<f64> {
        let back_after = (self.before * (1.0 - SLOWER) / SCALE).cbrt();
        let rate = self.before + SCALE * (now - self.at - back_after).powi(3);
        (rate < self.before * FREE_AGAIN).then_some(rate.max(SLOWEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_falls_at_once_and_comes_back() {
        let limit = AfterRefusal::new(100.0, 40.0);
        let rate = |seconds: f64| limit.rate(100.0 + seconds).unwrap_or(f64::INFINITY);
        assert!((rate(0.0) - 28.0).abs() < 0.1, "{}", rate(0.0));
        assert!((rate(3.1) - 40.0).abs() < 0.1, "{}", rate(3.1));
        assert!(rate(1.0) > rate(0.0) && rate(5.0) > rate(3.0));
        assert_eq!(limit.rate(120.0), None);
    }

    #[test]
    fn slow_line_still_sends() {
        assert!(AfterRefusal::new(0.0, 0.0).rate(0.0).is_some_and(|rate| rate >= 0.49));
    }
}
