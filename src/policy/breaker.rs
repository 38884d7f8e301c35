//! The breaker of Graph's host: turns an outage into few calls, and its end into no storm.
//!
//! Closed, calls are unlimited. After [`TRIPS_AFTER`] failures without a sign of life it opens: no call goes out for a
//! while. Then one call is tried; each answer lets one more be in flight, so that their number doubles with each round
//! trip until nothing is held back any more. A failed trial opens it again, for twice as long.
//!
//! What counts is the host, not a line or a message: any complete answer that is no server error is a sign of life,
//! refusals included; a failure counts only if the host has not answered anybody since that call began, and once a
//! message. So neither a hanging line among good ones nor one message that fails again and again opens it.
//!
//! Pure: the time and the jitter are arguments. It spends no attempts and knows no rows but by their ids.

use std::time::{Duration, Instant};

use super::classify::{CallResult, Verdict};
use crate::message::{BreakerState, MessageId};

/// Failures of different messages in a row that open it.
pub const TRIPS_AFTER: usize = 5;
/// How long it is open at first, and at most; it doubles in between.
pub const FIRST_REST: Duration = Duration::from_secs(1);
pub const LONGEST_REST: Duration = Duration::from_secs(30);
/// Rests differ by up to this share, so that processes do not try at the same moment.
const SPREAD: f64 = 0.2;

/// What a call says about the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered.
    Alive,
    /// Not reached, no complete answer, or a server error.
    Failing,
}

impl Health {
    /// Nothing for a message that was never given to the connection.
    pub fn of(result: &CallResult, verdict: &Verdict) -> Option<Health> {
        match (result, verdict) {
            (CallResult::Unsendable { .. }, _) => None,
            (CallResult::NotSent { .. } | CallResult::Cut { .. }, _) => Some(Health::Failing),
            (CallResult::Answer(_), Verdict::ServerFailed | Verdict::Ambiguous) => Some(Health::Failing),
            (CallResult::Answer(_), _) => Some(Health::Alive),
        }
    }
}

/// A call that ended.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub id: MessageId,
    pub begun: Instant,
    /// What [`Breaker::begun`] returned.
    pub period: u64,
    /// Nothing if the call was not made.
    pub health: Option<Health>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    /// At most `window` calls begun in this period may be in flight.
    Trial {
        window: usize,
    },
}

/// The breaker of one host.
#[derive(Debug)]
pub struct Breaker {
    phase: Phase,
    /// Grows with each phase; what calls of an earlier one say about the host is old.
    period: u64,
    /// Calls of this period in flight.
    in_flight: usize,
    /// Messages whose calls failed since the last sign of life.
    failed: Vec<MessageId>,
    alive_at: Option<Instant>,
    rest: Duration,
    /// Calls in flight at which nothing is held back any more.
    full: usize,
}

impl Breaker {
    /// Closed. `full`: calls that may be in flight without a breaker.
    pub fn new(full: usize) -> Breaker {
        Breaker {
            phase: Phase::Closed,
            period: 0,
            in_flight: 0,
            failed: Vec::new(),
            alive_at: None,
            rest: FIRST_REST,
            full,
        }
    }

    pub fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Trial { .. } => BreakerState::HalfOpen,
        }
    }

    /// How many more calls may begin while `reserved` are about to.
    pub fn room(&self, reserved: usize) -> usize {
        match self.phase {
            Phase::Closed => usize::MAX,
            Phase::Open { .. } => 0,
            Phase::Trial { window } => window.saturating_sub(self.in_flight + reserved),
        }
    }

    /// When it lets the next call out, while it is open.
    pub fn opens_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => Some(until),
            Phase::Closed | Phase::Trial { .. } => None,
        }
    }

    /// A call begins; returns its period.
    pub fn begun(&mut self) -> u64 {
        self.in_flight += 1;
        self.period
    }

    /// Ends a rest whose time has come; says whether the state changed.
    pub fn tick(&mut self, now: Instant) -> bool {
        let over = self.opens_until().is_some_and(|until| until <= now);
        if over {
            self.enter(Phase::Trial { window: 1 });
        }
        over
    }

    /// A call ended; says whether the state changed. `jitter` is uniform in 0.0..1.0.
    pub fn heard(&mut self, heard: Heard, now: Instant, jitter: f64) -> bool {
        if heard.period != self.period {
            return false;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        match heard.health {
            None => false,
            Some(Health::Alive) => self.alive(now),
            Some(Health::Failing) => self.failing(heard, now, jitter),
        }
    }

    fn alive(&mut self, now: Instant) -> bool {
        self.alive_at = Some(now);
        self.failed.clear();
        let Phase::Trial { window } = &mut self.phase else { return false };
        *window += 1;
        let closes = *window >= self.full;
        if closes {
            self.rest = FIRST_REST;
            // The calls in flight belong to the closed breaker.
            self.phase = Phase::Closed;
        }
        closes
    }

    fn failing(&mut self, heard: Heard, now: Instant, jitter: f64) -> bool {
        let answered_meanwhile = self.alive_at.is_some_and(|alive_at| alive_at > heard.begun);
        if answered_meanwhile || self.failed.contains(&heard.id) {
            return false;
        }
        self.failed.push(heard.id);
        let patience = match self.phase {
            Phase::Trial { window } => window.min(TRIPS_AFTER),
            Phase::Closed | Phase::Open { .. } => TRIPS_AFTER,
        };
        let opens = self.failed.len() >= patience;
        if opens {
            let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.5 };
            let rest = self.rest.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * jitter);
            self.rest = (self.rest * 2).min(LONGEST_REST);
            self.enter(Phase::Open { until: now + rest });
        }
        opens
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.period += 1;
        self.in_flight = 0;
        self.failed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::classify::Answer;
    use rstest::rstest;

    const MIDDLE: f64 = 0.5;

    /// A breaker, and a clock that stands until it is moved.
    struct Host {
        breaker: Breaker,
        now: Instant,
        calls: i64,
    }

    impl Host {
        fn new() -> Host {
            Host { breaker: Breaker::new(64), now: Instant::now(), calls: 0 }
        }

        fn begin(&mut self) -> Heard {
            self.calls += 1;
            let period = self.breaker.begun();
            Heard { id: MessageId(self.calls), begun: self.now, period, health: None }
        }

        fn end(&mut self, call: Heard, health: Health) {
            self.breaker.heard(Heard { health: Some(health), ..call }, self.now, MIDDLE);
        }

        fn call(&mut self, health: Health) {
            let call = self.begin();
            self.wait(Duration::from_millis(80));
            self.end(call, health);
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.breaker.tick(self.now);
        }

        fn tripped() -> Host {
            let mut host = Host::new();
            for _ in 0..TRIPS_AFTER {
                host.call(Health::Failing);
            }
            assert_eq!(host.breaker.state(), BreakerState::Open);
            host
        }
    }

    #[rstest]
    #[case(CallResult::NotSent { reason: "refused".into() }, Verdict::TryAgain, Some(Health::Failing))]
    #[case(CallResult::Cut { reason: "timeout".into() }, Verdict::Ambiguous, Some(Health::Failing))]
    #[case(CallResult::Unsendable { reason: "token".into() }, Verdict::WaitForLine, None)]
    #[case(CallResult::Answer(Answer::default()), Verdict::ServerFailed, Some(Health::Failing))]
    #[case(CallResult::Answer(Answer::default()), Verdict::Ambiguous, Some(Health::Failing))]
    #[case(CallResult::Answer(Answer::default()), Verdict::Refused, Some(Health::Alive))]
    #[case(CallResult::Answer(Answer::default()), Verdict::WaitForLine, Some(Health::Alive))]
    #[case(CallResult::Answer(Answer::default()), Verdict::TryAgain, Some(Health::Alive))]
    #[case(CallResult::Answer(Answer::default()), Verdict::Hold, Some(Health::Alive))]
    fn refusals_are_signs_of_life_and_silence_and_server_errors_are_not(
        #[case] result: CallResult,
        #[case] verdict: Verdict,
        #[case] health: Option<Health>,
    ) {
        assert_eq!(Health::of(&result, &verdict), health);
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let mut host = Host::new();
        for _ in 0..TRIPS_AFTER - 1 {
            host.call(Health::Failing);
        }
        host.call(Health::Alive);
        for _ in 0..TRIPS_AFTER - 1 {
            host.call(Health::Failing);
        }
        assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Closed, usize::MAX));
        host.call(Health::Failing);
        assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Open, 0));
    }

    #[test]
    fn a_line_whose_calls_all_hang_does_not_open_it_while_another_is_answered() {
        let mut host = Host::new();
        let hanging: Vec<Heard> = (0..200).map(|_| host.begin()).collect();
        // One answer to somebody else in the thirty seconds they hang.
        host.wait(Duration::from_secs(15));
        host.call(Health::Alive);
        host.wait(Duration::from_secs(15));
        for call in hanging {
            host.end(call, Health::Failing);
        }
        assert_eq!(host.breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn one_message_that_fails_again_and_again_does_not_open_it() {
        let mut host = Host::new();
        for _ in 0..50 {
            let call = Heard { id: MessageId(7), ..host.begin() };
            host.wait(Duration::from_millis(80));
            host.end(call, Health::Failing);
        }
        assert_eq!(host.breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn after_a_rest_one_call_is_tried_and_a_failure_doubles_the_rest_up_to_its_cap() {
        let mut host = Host::tripped();
        for rest in [1u64, 2, 4, 8, 16, 30, 30] {
            host.wait(Duration::from_secs(rest) - Duration::from_millis(1));
            assert_eq!(host.breaker.room(0), 0, "before {rest} s");
            host.wait(Duration::from_millis(1));
            assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, 1));
            assert_eq!(host.breaker.room(1), 0, "a claim on its way is the call to come");
            host.call(Health::Failing);
            assert_eq!(host.breaker.state(), BreakerState::Open);
        }
    }

    #[test]
    fn an_outage_of_ten_minutes_of_timeouts_costs_few_calls() {
        let mut host = Host::tripped();
        let (end, before) = (host.now + Duration::from_secs(600), host.calls);
        while host.now < end {
            if host.breaker.room(0) > 0 {
                let call = host.begin();
                host.wait(Duration::from_secs(30));
                host.end(call, Health::Failing);
            } else {
                host.wait(Duration::from_millis(250));
            }
        }
        assert!(host.calls - before <= 15, "{} calls", host.calls - before);
    }

    #[test]
    fn when_the_outage_ends_calls_in_flight_at_most_double_with_each_round_trip() {
        let mut host = Host::tripped();
        host.wait(FIRST_REST);
        let mut rounds = Vec::new();
        while host.breaker.state() == BreakerState::HalfOpen {
            let round: Vec<Heard> = (0..host.breaker.room(0)).map(|_| host.begin()).collect();
            rounds.push(round.len());
            assert_eq!(host.breaker.room(0), 0);
            host.wait(Duration::from_millis(80));
            round.into_iter().for_each(|call| host.end(call, Health::Alive));
        }
        assert_eq!(rounds, [1, 2, 4, 8, 16, 32]);
        assert_eq!(host.breaker.room(0), usize::MAX);
        // The next outage begins with a short rest again.
        for _ in 0..TRIPS_AFTER {
            host.call(Health::Failing);
        }
        assert_eq!(host.breaker.opens_until(), Some(host.now + FIRST_REST));
    }

    #[test]
    fn a_single_failure_among_answers_does_not_end_the_way_back() {
        let mut host = Host::tripped();
        host.wait(FIRST_REST);
        (0..10).for_each(|_| host.call(Health::Alive));
        host.call(Health::Failing);
        assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, 11));
        (0..TRIPS_AFTER).for_each(|_| host.call(Health::Failing));
        assert_eq!(host.breaker.state(), BreakerState::Open);
    }

    #[test]
    fn calls_that_were_in_flight_when_it_opened_neither_fill_the_trial_nor_end_it() {
        let mut host = Host::new();
        let old: Vec<Heard> = (0..40).map(|_| host.begin()).collect();
        (0..TRIPS_AFTER).for_each(|_| host.call(Health::Failing));
        host.wait(FIRST_REST);
        assert_eq!(host.breaker.room(0), 1);
        old.into_iter().for_each(|call| host.end(call, Health::Failing));
        assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, 1));
    }

    #[test]
    fn a_trial_that_was_not_made_makes_room_for_another() {
        let mut host = Host::tripped();
        host.wait(FIRST_REST);
        let trial = host.begin();
        assert_eq!(host.breaker.room(0), 0);
        host.breaker.heard(trial, host.now, MIDDLE);
        assert_eq!(host.breaker.room(0), 1);
    }

    #[rstest]
    fn rests_differ_by_a_fifth_at_most(#[values(0.0, 0.5, 1.0, -3.0, 9.0, f64::NAN)] jitter: f64) {
        let mut host = Host::new();
        for _ in 0..TRIPS_AFTER {
            let call = host.begin();
            host.breaker.heard(Heard { health: Some(Health::Failing), ..call }, host.now, jitter);
        }
        let rest = host.breaker.opens_until().expect("it is open") - host.now;
        assert!((0.799..=1.201).contains(&rest.as_secs_f64()), "{rest:?}");
    }
}
