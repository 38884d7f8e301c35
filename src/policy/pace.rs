//! How fast a line may go: its limits, the limiter that keeps them, and how long it pauses.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::classify::PauseDemand;
use crate::message::Class;

/// Messages a second, text and media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub text: u32,
    pub media: u32,
}

/// Meta's published ceilings (Messenger Platform, "Rate limits": 300 a second for text and 10 for audio and video per
/// Page; Instagram Messaging: 100 and 10 per account).
pub const fn ceiling(class: Class) -> Rates {
    match class {
        Class::Messenger => Rates { text: 300, media: 10 },
        Class::Instagram => Rates { text: 100, media: 10 },
    }
}

/// The limits of lines that have none of their own, and whether the ceilings are kept.
#[derive(Debug, Clone, Copy)]
pub struct LimitPolicy {
    pub enforce_ceilings: bool,
    pub messenger: Rates,
    pub instagram: Rates,
}

impl LimitPolicy {
    /// The limits in force for a line with these of its own. What was asked for may be more.
    pub fn rates(&self, class: Class, text: Option<u32>, media: Option<u32>) -> Rates {
        let asked = self.asked(class, text, media);
        if !self.enforce_ceilings {
            return asked;
        }
        let ceiling = ceiling(class);
        Rates { text: asked.text.min(ceiling.text), media: asked.media.min(ceiling.media) }
    }

    /// What the line's record and the settings ask for.
    pub fn asked(&self, class: Class, text: Option<u32>, media: Option<u32>) -> Rates {
        let defaults = match class {
            Class::Messenger => self.messenger,
            Class::Instagram => self.instagram,
        };
        Rates { text: text.unwrap_or(defaults.text), media: media.unwrap_or(defaults.media) }
    }
}

/// A limit as steady rate and burst. A burst of several absorbs late timers; burst and rate together never exceed
/// the limit by more than one, so no one-second window does.
pub fn quota(limit: u32) -> (u32, u32) {
    let limit = limit.max(1);
    if limit <= 20 {
        return (limit, 1);
    }
    let burst = 1 + limit.div_ceil(50);
    (limit + 1 - burst, burst)
}

/// The limiter of one line and medium: governor's direct limiter, drained at the start so that neither a new owner
/// nor a changed limit begins with a burst.
pub struct Pacer<C: Clock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
    clock: C,
}

impl<C: Clock + Clone> Pacer<C> {
    /// `limit`: messages a second, at least 1.
    pub fn new(limit: u32, clock: C) -> Pacer<C> {
        let (rate, burst) = quota(limit);
        let burst = NonZeroU32::new(burst).expect("a burst is at least one");
        let quota = Quota::with_period(Duration::from_secs(1) / rate)
            .expect("a second divided by a rate below a billion is not zero")
            .allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        limiter
            .check_n(burst)
            .expect("a burst fits into its own quota")
            .expect("a new limiter has its whole burst");
        Pacer { limiter, clock }
    }

    /// Takes a permit, or says how long until there is one.
    pub fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|not_yet| not_yet.wait_time_from(self.clock.now()))
    }
}

/// How long a line pauses: each further demand of the same kind doubles the pause, up to the demand's cap, until a
/// message is sent again. A time that Graph names stands instead.
#[derive(Debug, Default)]
pub struct PauseLadder {
    /// The last demand's first step and the pause it led to.
    last: Option<(Duration, Duration)>,
}

impl PauseLadder {
    pub fn next(&mut self, demand: &PauseDemand) -> Duration {
        if let Some(named) = demand.named {
            return named;
        }
        let length = match self.last {
            Some((first, length)) if first == demand.first => (length * 2).min(demand.cap),
            _ => demand.first,
        };
        self.last = Some((demand.first, length));
        length
    }

    /// A message was sent.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::policy::classify::PauseTarget;

    const DEFAULTS: LimitPolicy = LimitPolicy {
        enforce_ceilings: true,
        messenger: Rates { text: 40, media: 10 },
        instagram: Rates { text: 40, media: 10 },
    };

    #[test]
    fn a_lines_own_limit_beats_the_classs_and_the_ceiling_beats_both() {
        let rates = |class, text, media| {
            let rates = DEFAULTS.rates(class, text, media);
            (rates.text, rates.media)
        };
        assert_eq!(rates(Class::Messenger, None, None), (40, 10));
        assert_eq!(rates(Class::Messenger, Some(300), Some(3)), (300, 3));
        assert_eq!(rates(Class::Messenger, Some(301), Some(11)), (300, 10));
        assert_eq!(rates(Class::Instagram, Some(300), None), (100, 10));
        let rehearsal = LimitPolicy { enforce_ceilings: false, ..DEFAULTS };
        assert_eq!(rehearsal.rates(Class::Instagram, Some(5_000), None).text, 5_000);
    }

    #[test]
    fn rate_and_burst_stay_within_the_limit_and_use_it() {
        for limit in 1..=5_000 {
            let (rate, burst) = quota(limit);
            assert!(rate + burst <= limit + 1, "{limit}");
            assert!(rate * 100 >= limit * 95, "{limit}: {rate}");
        }
    }

    #[test]
    fn no_window_of_the_limiter_holds_more_than_the_limit_and_one_even_with_late_timers() {
        for limit in [1, 10, 20, 21, 40, 100, 300] {
            let clock = FakeRelativeClock::default();
            let pacer = Pacer::new(limit, clock.clone());
            let mut now = Duration::ZERO;
            let mut passed = Vec::new();
            while now < Duration::from_secs(10) {
                match pacer.check() {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        let step = wait + Duration::from_millis(1);
                        clock.advance(step);
                        now += step;
                    }
                }
            }
            let most = passed
                .iter()
                .map(|first| {
                    passed
                        .iter()
                        .filter(|at| **at >= *first && **at < *first + Duration::from_secs(1))
                        .count()
                })
                .max();
            assert!(most <= Some(limit as usize + 1), "limit {limit}: {most:?}");
            assert!(passed.len() >= limit as usize * 95 / 10, "limit {limit}: {}", passed.len());
        }
    }

    #[test]
    fn a_pacer_starts_drained() {
        let clock = FakeRelativeClock::default();
        let pacer = Pacer::new(100, clock.clone());
        assert!(pacer.check().is_err());
        clock.advance(Duration::from_millis(11));
        assert_eq!(pacer.check(), Ok(()));
        assert!(pacer.check().is_err());
    }

    #[test]
    fn pauses_double_to_their_cap_and_start_again_after_a_success() {
        let demand = PauseDemand {
            target: PauseTarget::Line,
            first: Duration::from_secs(1),
            cap: Duration::from_secs(5),
            named: None,
            reason: "613".into(),
        };
        let mut ladder = PauseLadder::default();
        let pauses: Vec<u64> = (0..5).map(|_| ladder.next(&demand).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        let other =
            PauseDemand { first: Duration::from_secs(900), cap: Duration::from_secs(3600), ..demand.clone() };
        assert_eq!(ladder.next(&other).as_secs(), 900);
        ladder.reset();
        assert_eq!(ladder.next(&demand).as_secs(), 1);
        let named = PauseDemand { named: Some(Duration::from_secs(300)), ..demand };
        assert_eq!(ladder.next(&named).as_secs(), 300);
    }
}
