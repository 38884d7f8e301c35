//! The time in which a queue of submissions is not consumed, after a batch that could not be logged.
//!
//! The broker counts each return of a submission and puts it aside after twenty. Never here: consuming.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::policy::Backoff;

/// Pauses before the queue is consumed again, from the second batch on that is given back with nothing settled.
const RESTS: Backoff = Backoff { base: Duration::from_secs(5 * 60), cap: Duration::from_secs(6 * 60 * 60) };

/// A time in which the queue is not consumed. Survives its session, as each delivery counts.
pub(super) struct Rest {
    pub(super) until: Instant,
    /// Whether ingest could log a submission.
    pub(super) room: watch::Receiver<bool>,
}

/// Return the pause after a batch that is given back, when so many were before with nothing settled.
pub(super) fn pause(given_back: u32) -> Duration {
    given_back.checked_sub(1).map_or(Duration::ZERO, |doublings| RESTS.delay(doublings))
}

/// Wait until the queue may be consumed again. The wait goes on where it was interrupted.
pub(super) async fn rest_over(rest: &mut Option<Rest>) {
    if let Some(Rest { until, room }) = rest {
        sleep_until(*until).await;
        // Ingest tells no more when the process stops.
        let _ = room.wait_for(|has_room| *has_room).await;
    }
    *rest = None;
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn twenty_returns_last_for_days() {
        assert_eq!(pause(0), Duration::ZERO, "the first time, room is enough");
        assert_eq!(pause(1), RESTS.base);
        assert!((0..20).map(pause).sum::<Duration>() > 3 * DAY);
    }

    #[tokio::test(start_paused = true)]
    async fn rest_needs_its_time_and_room_and_survives_an_interruption() {
        let (has_room, room) = watch::channel(true);
        let mut resting = Some(Rest { until: Instant::now() + Duration::from_secs(60), room });
        let second = Duration::from_secs(1);
        assert!(timeout(second, rest_over(&mut resting)).await.is_err(), "its time has not come");
        has_room.send_replace(false);
        assert!(timeout(60 * second, rest_over(&mut resting)).await.is_err(), "there is no room");
        has_room.send_replace(true);
        assert!(timeout(second, rest_over(&mut resting)).await.is_ok());
        assert!(resting.is_none());
    }
}
