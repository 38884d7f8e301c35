//! The pace of a line: its limits, the limiter that keeps them, and the pauses that Graph demands.
//!
//! Time is an argument: [`Pacer`] reads the clock that it receives and never sleeps.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::Backoff;
use super::classify::{PauseDemand, PauseTarget};
use crate::channel::{Class, Medium, Rates};

const SECOND_IN_NANOS: u64 = 1_000_000_000;

/// A limit that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Messages a second.
    pub per_second: NonZeroU32,
    /// The configured limit, if it is above Meta's ceiling: worth a warning.
    pub clamped_from: Option<u32>,
}

/// The two limits of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub text: Limit,
    pub media: Limit,
}

impl Limits {
    /// Return the limits of a line of this class: its own, else the class's `defaults`; never above Meta's
    /// ceilings if `enforce_ceilings`.
    pub fn of(
        class: Class,
        defaults: Rates,
        enforce_ceilings: bool,
        rate_text: Option<u32>,
        rate_media: Option<u32>,
    ) -> Limits {
        let ceiling = class.ceiling;
        let limit = |wanted: u32, ceiling: u32| {
            let clamped = enforce_ceilings && wanted > ceiling;
            let in_force = if clamped { ceiling } else { wanted };
            Limit {
                // Settings and schema do not admit a limit of 0.
                per_second: NonZeroU32::new(in_force).unwrap_or(NonZeroU32::MIN),
                clamped_from: clamped.then_some(wanted),
            }
        };
        Limits {
            text: limit(rate_text.unwrap_or(defaults.text), ceiling.text),
            media: limit(rate_media.unwrap_or(defaults.media), ceiling.media),
        }
    }

    /// Return the limit for messages of this medium.
    pub fn of_medium(&self, medium: Medium) -> Limit {
        match medium {
            Medium::Text => self.text,
            Medium::Media => self.media,
        }
    }
}

/// The setting of a limiter: `rate` messages a second and `burst` at once.
///
/// A limiter admits up to `burst + rate` in a second, so `burst + rate` is the limit and one. The burst makes
/// up for timers that fire late (they have a grain of 1 ms); at 20 a second and less, lateness costs under 2
/// % without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub rate: NonZeroU32,
    pub burst: NonZeroU32,
}

/// Return the allowance for a limit in messages a second: no one-second window holds more than the limit and
/// one, and at least 95 % of the limit is reached.
pub fn quota(limit: NonZeroU32) -> Allowance {
    if limit.get() <= 20 {
        return Allowance { rate: limit, burst: NonZeroU32::MIN };
    }
    let burst = NonZeroU32::MIN.saturating_add(limit.get().div_ceil(50));
    let rate = NonZeroU32::MIN.saturating_add(limit.get() - burst.get());
    Allowance { rate, burst }
}

/// Keeps one limit of one line. A new pacer has no saved-up permits, so that a hand-over between processes or
/// a changed limit never lets a burst through on top of earlier sends.
#[derive(Debug)]
pub struct Pacer<C: Clock = DefaultClock> {
    limiter: RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock> Pacer<C> {
    /// Build a pacer for a limit in messages a second; the first message may go one interval from now.
    pub fn new(limit: NonZeroU32, clock: C) -> Pacer<C> {
        let Allowance { rate, burst } = quota(limit);
        // Rounded up: governor's own `per_second` rounds the interval down and lets more through.
        let interval = Duration::from_nanos(SECOND_IN_NANOS.div_ceil(u64::from(rate.get())));
        let quota =
            Quota::with_period(interval).expect("the interval is longer than zero").allow_burst(burst);
        let limiter = RateLimiter::direct_with_clock(quota, clock);
        let drained = limiter.check_n(burst);
        debug_assert!(matches!(drained, Ok(Ok(()))), "a new limiter holds its burst");
        Pacer { limiter }
    }

    /// Take a permit to send one message now, or return the time to wait before the next call (zero: none).
    pub fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }
}

/// The length of the next pause: each kind of demand doubles until a success.
///
/// Use it only for the answer to a call that began after the last pause ended. Answers to calls that were in
/// flight when the pause began are no news, and would drive the pause to its cap at once.
///
/// A pause of a line that cannot send does not double while one recipient alone causes it: the refusal may be
/// about that recipient, and the others do not wait longer for it than the first time.
#[derive(Debug, Clone, Default)]
pub struct PauseBackoff {
    /// One ladder for each kind seen since the last success; `classify` has as many kinds.
    ladders: Vec<Ladder>,
}

#[derive(Debug, Clone)]
struct Ladder {
    kind: DemandKind,
    /// The next step.
    next: u32,
    /// The recipient whose refusal caused the last one.
    dest: String,
}

/// Demands with the same target and bounds are of one kind.
type DemandKind = (PauseTarget, Backoff);

impl PauseBackoff {
    /// Return the length of the pause that the answer about this recipient demands. A time that Graph names
    /// is kept as it is and moves no step.
    pub fn next(&mut self, demand: &PauseDemand, dest: &str) -> Duration {
        if let Some(named) = demand.named {
            return named;
        }
        let lengths = Backoff { base: demand.first, cap: demand.cap };
        let kind = (demand.target, lengths);
        let Some(ladder) = self.ladders.iter_mut().find(|ladder| ladder.kind == kind) else {
            self.ladders.push(Ladder { kind, next: 1, dest: dest.to_owned() });
            return lengths.delay(0);
        };
        if demand.ends_with_trial && ladder.dest == dest {
            return lengths.delay(0);
        }
        ladder.dest = dest.to_owned();
        let step = ladder.next;
        ladder.next = step.saturating_add(1);
        lengths.delay(step)
    }

    /// Record a success: the next demand starts at its first step again.
    pub fn reset(&mut self) {
        self.ladders.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use rstest::rstest;

    const DEFAULTS: Rates = Rates { text: 40, media: 10 };
    const LIMITS: [u32; 22] =
        [1, 2, 3, 7, 9, 10, 19, 20, 21, 22, 39, 40, 50, 51, 99, 100, 101, 299, 300, 1_000, 2_500, 10_000];

    fn some(limit: u32) -> NonZeroU32 {
        NonZeroU32::new(limit).expect("limits under test are positive")
    }

    /// Send as fast as the pacer allows for `seconds`, waking `late` nanoseconds after each wait has ended
    /// (timers wake on whole milliseconds). Return the times of sending in nanoseconds.
    fn sent(limit: u32, seconds: u64, late: impl Fn(u64) -> u64) -> Vec<u64> {
        let clock = FakeRelativeClock::default();
        let pacer = Pacer::new(some(limit), clock.clone());
        let (mut now, mut waits, mut times) = (0, 0, Vec::new());
        while now < seconds * SECOND_IN_NANOS {
            match pacer.check() {
                Ok(()) => times.push(now),
                Err(wait) => {
                    let nap = wait.as_nanos() as u64 + late(waits);
                    assert!(nap > 0, "a refusal names a time to come");
                    clock.advance(Duration::from_nanos(nap));
                    now += nap;
                    waits += 1;
                }
            }
        }
        times
    }

    /// Return the most messages sent in any window of one second, both ends included.
    fn fullest_second(times: &[u64]) -> usize {
        let mut first = 0;
        let mut fullest = 0;
        for (last, &time) in times.iter().enumerate() {
            while time - times[first] > SECOND_IN_NANOS {
                first += 1;
            }
            fullest = fullest.max(last - first + 1);
        }
        fullest
    }

    /// Timers that are punctual, always late, late by a changing amount, and now and then stuck.
    const TIMERS: [fn(u64) -> u64; 5] = [
        |_| 0,
        |_| 1_000_000,
        |n| n.wrapping_mul(2_654_435_761) % 1_000_001,
        |n| if n % 7 == 0 { 40_000_000 } else { 0 },
        |n| if n % 50 == 49 { 2_500_000_000 } else { 300_000 },
    ];

    #[rstest]
    fn no_second_holds_more_than_the_limit_and_one(#[values(0, 1, 2, 3, 4)] timer: usize) {
        for limit in LIMITS {
            let fullest = fullest_second(&sent(limit, 6, TIMERS[timer]));
            assert!(fullest <= limit as usize + 1, "{fullest} in a second at a limit of {limit}");
        }
    }

    #[rstest]
    fn late_timers_cost_at_most_a_twentieth(#[values(0, 1, 2)] timer: usize) {
        for limit in LIMITS {
            // From the first message on: a line at 1 a second starts with a second of silence.
            let times = sent(limit, 20, TIMERS[timer]);
            let lasted = (times[times.len() - 1] - times[0]) as f64 / SECOND_IN_NANOS as f64;
            let rate = (times.len() - 1) as f64 / lasted;
            assert!(rate >= 0.95 * f64::from(limit), "{rate} a second at a limit of {limit}");
        }
    }

    #[test]
    fn burst_and_rate_add_up_to_the_limit_and_one_at_most() {
        for limit in (1..=2_000).chain([9_999, 100_000, 1_000_000, u32::MAX]) {
            let Allowance { rate, burst } = quota(some(limit));
            let sum = u64::from(rate.get()) + u64::from(burst.get());
            assert!(sum <= u64::from(limit) + 1, "{sum} at a limit of {limit}");
            assert!(f64::from(rate.get()) >= 0.95 * f64::from(limit), "rate {rate} at a limit of {limit}");
        }
    }

    #[test]
    fn a_new_pacer_starts_with_nothing_saved_up() {
        for limit in LIMITS {
            let clock = FakeRelativeClock::default();
            let pacer = Pacer::new(some(limit), clock.clone());
            let wait = pacer.check().expect_err("the burst was drained");
            clock.advance(wait);
            assert_eq!(pacer.check(), Ok(()));
            assert!(pacer.check().is_err(), "one interval earns one permit at a limit of {limit}");
        }
    }

    #[test]
    fn a_change_of_pacers_keeps_the_limit() {
        for limit in LIMITS {
            let clock = FakeRelativeClock::default();
            let (mut now, mut times) = (0, Vec::new());
            for _ in 0..40 {
                let pacer = Pacer::new(some(limit), clock.clone());
                let until = now + 137_000_000;
                while now < until {
                    if pacer.check().is_ok() {
                        times.push(now);
                    } else {
                        clock.advance(Duration::from_micros(250));
                        now += 250_000;
                    }
                }
            }
            let fullest = fullest_second(&times);
            assert!(fullest <= limit as usize + 1, "{fullest} in a second at a limit of {limit}");
        }
    }

    #[rstest]
    #[case(Class::MESSENGER, None, None, 40, 10)]
    #[case(Class::INSTAGRAM, None, None, 40, 10)]
    #[case(Class::MESSENGER, Some(300), Some(10), 300, 10)]
    #[case(Class::INSTAGRAM, Some(100), Some(1), 100, 1)]
    fn a_line_has_limits_of_its_own_or_those_of_its_class(
        #[case] class: Class,
        #[case] rate_text: Option<u32>,
        #[case] rate_media: Option<u32>,
        #[case] text: u32,
        #[case] media: u32,
    ) {
        let limits = Limits::of(class, DEFAULTS, true, rate_text, rate_media);
        assert_eq!(limits.of_medium(Medium::Text), Limit { per_second: some(text), clamped_from: None });
        assert_eq!(limits.of_medium(Medium::Media), Limit { per_second: some(media), clamped_from: None });
    }

    #[rstest]
    #[case(Class::MESSENGER, 300, 10)]
    #[case(Class::INSTAGRAM, 100, 10)]
    fn a_limit_above_metas_ceiling_is_lowered_to_it(
        #[case] class: Class,
        #[case] text: u32,
        #[case] media: u32,
    ) {
        let limits = Limits::of(class, DEFAULTS, true, Some(text + 1), Some(5_000));
        assert_eq!(limits.text, Limit { per_second: some(text), clamped_from: Some(text + 1) });
        assert_eq!(limits.media, Limit { per_second: some(media), clamped_from: Some(5_000) });
        let by_default = Limits::of(class, Rates { text: 1_000, media: 1_000 }, true, None, None);
        assert_eq!(by_default.text, Limit { per_second: some(text), clamped_from: Some(1_000) });
        let rehearsal = Limits::of(class, DEFAULTS, false, Some(9_000), Some(5_000));
        assert_eq!(rehearsal.text, Limit { per_second: some(9_000), clamped_from: None });
    }

    fn demand(first: u64, cap: u64, named: Option<u64>) -> PauseDemand {
        PauseDemand {
            target: PauseTarget::Line,
            first: Duration::from_secs(first),
            cap: Duration::from_secs(cap),
            named: named.map(Duration::from_secs),
            ends_with_trial: false,
            reason: "slowed down".into(),
        }
    }

    fn pauses(backoff: &mut PauseBackoff, demand: &PauseDemand, count: usize) -> Vec<u64> {
        (0..count).map(|_| backoff.next(demand, "ann").as_secs()).collect()
    }

    #[test]
    fn pauses_double_to_their_cap_until_a_success() {
        let mut backoff = PauseBackoff::default();
        let slow = demand(1, 60, None);
        assert_eq!(pauses(&mut backoff, &slow, 8), [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(pauses(&mut backoff, &slow, 2), [1, 2]);
    }

    #[test]
    fn pause_by_one_recipient_alone_does_not_double() {
        let mut backoff = PauseBackoff::default();
        let refused = PauseDemand { ends_with_trial: true, ..demand(1_800, 14_400, None) };
        let mut next = |dest: &str| backoff.next(&refused, dest).as_secs();
        assert_eq!([next("ann"), next("ann"), next("ann")], [1_800; 3]);
        assert_eq!([next("bob"), next("bob"), next("cleo")], [3_600, 1_800, 7_200]);
    }

    #[test]
    fn each_kind_of_pause_has_its_own_ladder() {
        let mut backoff = PauseBackoff::default();
        assert_eq!(pauses(&mut backoff, &demand(1, 60, None), 3), [1, 2, 4]);
        assert_eq!(pauses(&mut backoff, &demand(1_800, 14_400, None), 2), [1_800, 3_600]);
        assert_eq!(pauses(&mut backoff, &demand(1, 60, None), 1), [8]);
    }

    #[test]
    fn time_that_graph_names_is_kept() {
        let mut backoff = PauseBackoff::default();
        assert_eq!(pauses(&mut backoff, &demand(900, 3_600, Some(420)), 2), [420, 420]);
        assert_eq!(pauses(&mut backoff, &demand(900, 3_600, None), 2), [900, 1_800]);
    }
}
