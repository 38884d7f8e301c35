use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::message::ErrorDetail;
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
        let period = self.breaker.begun(self.now);
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

fn judged(verdict: Verdict, by_graph: bool) -> Judgement {
    Judgement { verdict, error: ErrorDetail::default(), pause: None, by_graph }
}

#[rstest]
#[case(CallResult::NotSent { reason: "refused".into() }, Verdict::TryAgain, Some(Health::Failing))]
#[case(CallResult::Cut { reason: "timeout".into() }, Verdict::Ambiguous, Some(Health::Failing))]
#[case(CallResult::Unsendable { reason: "token".into() }, Verdict::WaitForLine, None)]
fn silence_of_the_host_is_a_failure_and_a_call_not_made_is_nothing(
    #[case] result: CallResult,
    #[case] verdict: Verdict,
    #[case] health: Option<Health>,
) {
    assert_eq!(Health::of(&result, &judged(verdict, false)), health);
}

#[rstest]
#[case(Verdict::ServerFailed, Health::Failing)]
#[case(Verdict::Ambiguous, Health::Failing)]
#[case(Verdict::Refused, Health::Alive)]
#[case(Verdict::WaitForLine, Health::Alive)]
#[case(Verdict::TryAgain, Health::Alive)]
#[case(Verdict::Hold, Health::Alive)]
fn refusals_of_graph_are_signs_of_life_and_answers_in_its_place_are_not(
    #[case] verdict: Verdict,
    #[case] health: Health,
) {
    let result = CallResult::Answer(Answer::default());
    assert_eq!(Health::of(&result, &judged(verdict.clone(), true)), Some(health));
    assert_eq!(Health::of(&result, &judged(verdict, false)), Some(Health::Failing));
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
    assert_ne!(host.breaker.state(), BreakerState::Open);
    host.call(Health::Alive);
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
    assert_eq!(host.breaker.wakes_at(), Some(host.now + FIRST_REST));
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

#[test]
fn a_trial_without_an_answer_is_not_waited_for_alone() {
    let mut host = Host::tripped();
    host.wait(FIRST_REST);
    let video = host.begin();
    host.wait(SHORTEST_PATIENCE - Duration::from_millis(1));
    assert_eq!(host.breaker.room(0), 0);
    host.wait(Duration::from_millis(1));
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, 1));
    // Its answer is a sign of life, however long the video takes.
    host.call(Health::Alive);
    while host.breaker.state() == BreakerState::HalfOpen {
        assert!(host.breaker.room(0) > 0, "nothing waits for the video");
        host.call(Health::Alive);
    }
    host.end(video, Health::Failing);
    assert_eq!(host.breaker.state(), BreakerState::Closed);
}

#[test]
fn trials_that_are_all_swallowed_cost_two_calls_a_minute() {
    let mut host = Host::tripped();
    let mut in_flight: VecDeque<Heard> = VecDeque::new();
    let (end, before) = (host.now + Duration::from_secs(600), host.calls);
    while host.now < end {
        if host.breaker.room(0) > 0 {
            in_flight.push_back(host.begin());
        }
        host.wait(Duration::from_millis(250));
        while let Some(call) = in_flight.pop_front_if(|call| host.now >= call.begun + TIMEOUT) {
            host.end(call, Health::Failing);
        }
    }
    assert!(host.calls - before <= 2 * 13, "{} calls", host.calls - before);
}

#[test]
fn a_trial_that_fails_opens_it_again_although_another_is_in_flight() {
    let mut host = Host::tripped();
    host.wait(FIRST_REST);
    let (first, _) = (host.begin(), host.wait(SHORTEST_PATIENCE));
    let second = host.begin();
    assert_eq!(host.breaker.room(0), 0);
    host.end(first, Health::Failing);
    assert_eq!(host.breaker.state(), BreakerState::Open);
    host.end(second, Health::Alive);
    assert_eq!(host.breaker.state(), BreakerState::Open, "what an earlier period says is old");
}

#[rstest]
fn rests_differ_by_a_fifth_at_most(#[values(0.0, 0.5, 1.0, -3.0, 9.0, f64::NAN)] jitter: f64) {
    let mut host = Host::new();
    for _ in 0..TRIPS_AFTER {
        let call = host.begin();
        host.breaker.heard(Heard { health: Some(Health::Failing), ..call }, host.now, jitter);
    }
    let rest = host.breaker.wakes_at().expect("it is open") - host.now;
    assert!((0.799..=1.201).contains(&rest.as_secs_f64()), "{rest:?}");
}

/// Calls as a worker makes them: as many a second as it wants and may, each answered in time or given up.
struct Traffic {
    host: Host,
    in_flight: BTreeMap<(Instant, i64), (Heard, Health)>,
    permits: usize,
}

/// graph.timeout
const TIMEOUT: Duration = Duration::from_secs(30);

impl Traffic {
    fn new(permits: usize) -> Traffic {
        Traffic {
            host: Host { breaker: Breaker::new(permits), ..Host::new() },
            in_flight: BTreeMap::new(),
            permits,
        }
    }

    /// Goes on for a while; `latency`: until an answer, or `None` while the host swallows what it gets. Returns how many
    /// calls the breaker held back that permits would have allowed.
    fn run(&mut self, length: Duration, per_second: u32, latency: Option<Duration>) -> usize {
        let mut held_back = 0;
        let end = self.host.now + length;
        while self.host.now < end {
            if self.in_flight.len() < self.permits {
                if self.host.breaker.room(0) == 0 {
                    held_back += 1;
                } else {
                    let health = latency.map_or(Health::Failing, |_| Health::Alive);
                    let call = self.host.begin();
                    let ends = self.host.now + latency.unwrap_or(TIMEOUT);
                    self.in_flight.insert((ends, call.id.0), (call, health));
                }
            }
            self.wait(Duration::from_secs(1) / per_second);
        }
        held_back
    }

    fn wait(&mut self, length: Duration) {
        let until = self.host.now + length;
        while let Some(entry) = self.in_flight.first_entry()
            && entry.key().0 <= until
        {
            let ((ends, _), (call, health)) = entry.remove_entry();
            self.host.wait(ends - self.host.now);
            self.host.end(call, health);
        }
        self.host.wait(until - self.host.now);
    }
}

#[rstest]
#[case::one_line_at_its_default(40, 1_024)]
#[case::many_lines(400, 1_024)]
fn an_outage_that_swallows_requests_costs_what_went_out_in_a_second_and_a_call_a_second(
    #[case] per_second: u32,
    #[case] permits: usize,
) {
    let mut traffic = Traffic::new(permits);
    let round_trip = Duration::from_millis(80);
    assert_eq!(traffic.run(Duration::from_secs(10), per_second, Some(round_trip)), 0);
    let before = traffic.host.calls;
    traffic.run(TIMEOUT, per_second, None);
    let lost = (traffic.host.calls - before) as u32;
    assert!(lost <= per_second * 11 / 10 + 32, "{lost} calls");
    assert_eq!(traffic.host.breaker.state(), BreakerState::Stalled);
    traffic.run(Duration::from_secs(1), per_second, None);
    assert_eq!(traffic.host.breaker.state(), BreakerState::Open);
}

#[rstest]
#[case::all_permits_in_use(12_800, 80)]
#[case::few_calls(1, 80)]
#[case::calls_as_slow_as_the_patience(100, 990)]
fn while_answers_come_nothing_is_held_back(#[case] per_second: u32, #[case] milliseconds: u64) {
    let mut traffic = Traffic::new(1_024);
    let latency = Some(Duration::from_millis(milliseconds));
    assert_eq!(traffic.run(Duration::from_secs(5), per_second, latency), 0);
    assert_eq!(traffic.host.breaker.state(), BreakerState::Closed);
}

#[test]
fn a_host_that_takes_five_seconds_for_each_answer_is_suspected_once() {
    let mut traffic = Traffic::new(1_024);
    let latency = Some(Duration::from_secs(5));
    let at_first = traffic.run(Duration::from_secs(6), 100, latency);
    assert!(at_first <= 400, "{at_first} calls held back");
    assert_eq!(traffic.run(Duration::from_secs(60), 100, latency), 0);
}

#[test]
fn a_host_that_pauses_for_three_seconds_loses_no_more_than_these() {
    let mut traffic = Traffic::new(1_024);
    let latency = Some(Duration::from_millis(80));
    traffic.run(Duration::from_secs(5), 100, latency);
    let pause = Duration::from_secs(3);
    let held_back = traffic.run(pause, 100, Some(pause));
    assert!(held_back <= 200, "{held_back} calls held back");
    assert_eq!(traffic.run(Duration::from_secs(10), 100, latency), 0);
}

#[test]
fn the_first_answer_ends_the_suspicion_whatever_it_says_and_whoever_waited_for_it() {
    let mut host = Host::new();
    let slow = host.begin();
    host.wait(SHORTEST_PATIENCE - Duration::from_millis(1));
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Closed, usize::MAX));
    host.wait(Duration::from_millis(1));
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Stalled, 1));
    assert_eq!(host.breaker.room(1), 0, "a claim on its way is the call to come");
    host.begin();
    assert_eq!(host.breaker.room(0), 0);
    host.wait(SHORTEST_PATIENCE);
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Stalled, 1));
    host.end(slow, Health::Alive);
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Closed, usize::MAX));
}

#[test]
fn a_line_that_hangs_holds_nobody_back_while_another_is_answered_now_and_then() {
    let mut host = Host::new();
    let _hanging: Vec<Heard> = (0..200).map(|_| host.begin()).collect();
    for _ in 0..60 {
        host.wait(Duration::from_millis(900));
        assert_eq!(host.breaker.room(0), usize::MAX);
        host.call(Health::Alive);
    }
    // A line that sends now and then finds a call free for it, and its answer frees the rest.
    for _ in 0..20 {
        host.wait(Duration::from_secs(7));
        assert_eq!(host.breaker.room(0), 1);
        host.call(Health::Alive);
        assert_eq!(host.breaker.room(0), usize::MAX);
    }
}

#[test]
fn without_calls_in_flight_nobody_is_suspected() {
    let mut host = Host::new();
    host.call(Health::Alive);
    let withdrawn = host.begin();
    host.breaker.heard(withdrawn, host.now, MIDDLE);
    host.wait(Duration::from_secs(3_600));
    assert_eq!((host.breaker.state(), host.breaker.wakes_at()), (BreakerState::Closed, None));
}
