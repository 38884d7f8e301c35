//! The budget of connections that may be opened again without a pause. Pure.
//!
//! A message of one producer may end a connection that others wait for, so the next one follows at once. An endless
//! series of such messages meets a pause, as each connection costs the broker too.

use std::time::Duration;

use tokio::time::Instant;

/// Connections that may follow at once, when there was none for a while: enough for a submission that the broker
/// puts aside after twenty of them, and for the next one.
const AT_ONCE: f64 = 40.0;
/// How many more there may be in each second.
const A_SECOND: f64 = 10.0;

/// The connections that may still follow at once.
pub(super) struct ReconnectBudget {
    left: f64,
    counted_at: Instant,
}

impl Default for ReconnectBudget {
    fn default() -> ReconnectBudget {
        ReconnectBudget { left: AT_ONCE, counted_at: Instant::now() }
    }
}

impl ReconnectBudget {
    /// Take one; return the longest pause before the connection: zero, or `otherwise` where too many were taken.
    pub(super) fn pause(&mut self, otherwise: Duration) -> Duration {
        let now = Instant::now();
        let earned = now.duration_since(self.counted_at).as_secs_f64() * A_SECOND;
        (self.left, self.counted_at) = ((self.left + earned).min(AT_ONCE), now);
        if self.left < 1.0 {
            return otherwise;
        }
        self.left -= 1.0;
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn endless_ends_are_slowed_down() {
        let pause = Duration::from_millis(250);
        let mut budget = ReconnectBudget::default();
        let at_once =
            |budget: &mut ReconnectBudget| (0..1_000).filter(|_| budget.pause(pause).is_zero()).count();
        assert_eq!(at_once(&mut budget), 40);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(at_once(&mut budget), 10);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(at_once(&mut budget), 40, "no more than a burst is saved up");
    }
}
