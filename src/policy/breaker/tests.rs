use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::domain::ErrorDetail;
use crate::policy::classify::GraphAnswer;
use rstest::rstest;

const MIDDLE: f64 = 0.5;

/// A breaker, and a clock that moves only on request.
struct Host {
    breaker: Breaker,
    now: Instant,
    calls: i64,
}

impl Host {
    fn new() -> Host {
        Host { breaker: Breaker::default(), now: Instant::now(), calls: 0 }
    }

    /// Begin a call of the first line.
    fn begin(&mut self) -> CallReport {
        self.begin_on(1)
    }

    fn begin_on(&mut self, line: i64) -> CallReport {
        self.calls += 1;
        let line = LineId(line);
        let period = self.breaker.begun(line, self.now);
        CallReport { id: RowId(self.calls), line, begun: self.now, period, health: None }
    }

    fn call_on(&mut self, line: i64, health: HostHealth) {
        let call = self.begin_on(line);
        self.wait(Duration::from_millis(80));
        self.end(call, health);
    }

    fn end(&mut self, call: CallReport, health: HostHealth) {
        self.breaker.report(CallReport { health: Some(health), ..call }, self.now, MIDDLE);
    }

    fn call(&mut self, health: HostHealth) {
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
            host.call(HostHealth::Failing);
        }
        assert_eq!(host.breaker.state(), BreakerState::Open);
        host
    }
}

fn judged(verdict: Verdict, by_graph: bool) -> Judgement {
    Judgement { verdict, error: ErrorDetail::default(), pause: None, by_graph }
}

#[rstest]
#[case(CallResult::NotSent { reason: "refused".into() }, Verdict::TryAgain, Some(HostHealth::Unreachable))]
#[case(CallResult::NoFile { reason: "too many open files".into() }, Verdict::TryAgain, None)]
#[case(CallResult::Cut { reason: "timeout".into() }, Verdict::Ambiguous, Some(HostHealth::Failing))]
#[case(CallResult::Unsendable { reason: "token".into() }, Verdict::WaitForLine, None)]
fn silence_is_a_failure_and_no_call_no_evidence(
    #[case] result: CallResult,
    #[case] verdict: Verdict,
    #[case] health: Option<HostHealth>,
) {
    assert_eq!(HostHealth::of(&result, &judged(verdict.clone(), false)), health);
    assert_eq!(is_failure(&result, &judged(verdict, false)), health.map(|_| true));
}

#[rstest]
#[case(Verdict::ServerFailed, true)]
#[case(Verdict::Ambiguous, true)]
#[case(Verdict::Refused, false)]
#[case(Verdict::WaitForLine, false)]
#[case(Verdict::TryAgain, false)]
#[case(Verdict::Hold, false)]
fn graph_answers_are_life_and_some_fail_their_line(#[case] verdict: Verdict, #[case] fails_its_line: bool) {
    let result = CallResult::Answer(GraphAnswer::default());
    let by_graph = judged(verdict.clone(), true);
    assert_eq!(HostHealth::of(&result, &by_graph), Some(HostHealth::Alive));
    assert_eq!(is_failure(&result, &by_graph), Some(fails_its_line));
    let by_another = judged(verdict, false);
    assert_eq!(HostHealth::of(&result, &by_another), Some(HostHealth::Failing));
    assert_eq!(is_failure(&result, &by_another), Some(true));
}

#[test]
fn failures_of_one_line_among_two_do_not_open_it() {
    let mut host = Host::new();
    host.call_on(2, HostHealth::Alive);
    for _ in 0..500 {
        host.call_on(1, HostHealth::Failing);
    }
    assert_eq!(host.breaker.state(), BreakerState::Closed);
}

#[rstest]
#[case::two_lines(2)]
#[case::three(3)]
#[case::many(40)]
fn failures_of_all_lines_or_of_three_open_it(#[case] lines: i64) {
    let mut host = Host::new();
    (1..=lines).for_each(|line| host.call_on(line, HostHealth::Alive));
    for n in 0..TRIPS_AFTER as i64 {
        assert_eq!(host.breaker.state(), BreakerState::Closed);
        host.call_on(n % lines + 1, HostHealth::Failing);
    }
    assert_eq!(host.breaker.state(), BreakerState::Open);
}

#[test]
fn a_line_that_called_long_ago_is_not_waited_for() {
    let mut host = Host::new();
    host.call_on(2, HostHealth::Alive);
    host.wait(RECENTLY);
    (0..TRIPS_AFTER).for_each(|_| host.call_on(1, HostHealth::Failing));
    assert_eq!(host.breaker.state(), BreakerState::Open);
}

#[test]
fn failed_connections_of_one_line_open_it() {
    let mut host = Host::new();
    host.call_on(2, HostHealth::Alive);
    (0..TRIPS_AFTER).for_each(|_| host.call_on(1, HostHealth::Unreachable));
    assert_eq!(host.breaker.state(), BreakerState::Open);
}

#[test]
fn fresh_line_is_let_out_and_its_answers_close_it() {
    let mut host = Host::tripped();
    let mut sent = 0;
    while host.breaker.state() != BreakerState::Closed {
        if host.breaker.room(0) == 0 {
            assert!(host.breaker.lets_out(LineId(2)), "after {sent}");
            host.breaker.let_out(LineId(2), host.now);
            assert!(!host.breaker.withholds(LineId(2)) && !host.breaker.lets_out(LineId(3)));
        }
        host.call_on(2, HostHealth::Alive);
        sent += 1;
        host.wait(Duration::from_secs(2));
    }
    assert_eq!(sent, CLOSES_AFTER);
}

#[test]
fn failing_lines_are_let_out_less_and_less() {
    let mut host = Host::tripped();
    let (end, mut let_out) = (host.now + Duration::from_secs(60), 0);
    for line in 2.. {
        while !host.breaker.lets_out(LineId(line)) && host.now < end {
            if host.breaker.room(0) > 0 {
                host.call_on(1, HostHealth::Failing);
            }
            host.wait(Duration::from_millis(100));
        }
        if host.now >= end {
            break;
        }
        host.breaker.let_out(LineId(line), host.now);
        host.call_on(line, HostHealth::Failing);
        assert!(!host.breaker.lets_out(LineId(line)));
        let_out += 1;
    }
    assert!(let_out <= 7, "{let_out} lines in a minute");
}

#[test]
fn five_failures_in_a_row_open_it_and_four_do_not() {
    let mut host = Host::new();
    for _ in 0..TRIPS_AFTER - 1 {
        host.call(HostHealth::Failing);
    }
    host.call(HostHealth::Alive);
    for _ in 0..TRIPS_AFTER - 1 {
        host.call(HostHealth::Failing);
    }
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Closed, usize::MAX));
    host.call(HostHealth::Failing);
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Open, 0));
}

#[test]
fn hanging_line_does_not_open_it_beside_answers() {
    let mut host = Host::new();
    let hanging: Vec<CallReport> = (0..200).map(|_| host.begin()).collect();
    // One answer to another call in the thirty seconds for which they hang.
    host.wait(Duration::from_secs(15));
    host.call(HostHealth::Alive);
    host.wait(Duration::from_secs(15));
    for call in hanging {
        host.end(call, HostHealth::Failing);
    }
    assert_ne!(host.breaker.state(), BreakerState::Open);
    host.call(HostHealth::Alive);
    assert_eq!(host.breaker.state(), BreakerState::Closed);
}

#[test]
fn one_failing_message_does_not_open_it() {
    let mut host = Host::new();
    for _ in 0..50 {
        let call = CallReport { id: RowId(7), ..host.begin() };
        host.wait(Duration::from_millis(80));
        host.end(call, HostHealth::Failing);
    }
    assert_eq!(host.breaker.state(), BreakerState::Closed);
}

#[test]
fn failed_trial_doubles_the_rest_up_to_its_cap() {
    let mut host = Host::tripped();
    for rest in [1u64, 2, 4, 8, 16, 30, 30] {
        host.wait(Duration::from_secs(rest) - Duration::from_millis(1));
        assert_eq!(host.breaker.room(0), 0, "before {rest} s");
        host.wait(Duration::from_millis(1));
        assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, 1));
        assert_eq!(host.breaker.room(1), 0, "a claim on its way is the call to come");
        host.call(HostHealth::Failing);
        assert_eq!(host.breaker.state(), BreakerState::Open);
    }
}

#[test]
fn ten_minutes_of_timeouts_cost_few_calls() {
    let mut host = Host::tripped();
    let (end, before) = (host.now + Duration::from_secs(600), host.calls);
    while host.now < end {
        if host.breaker.room(0) > 0 {
            let call = host.begin();
            host.wait(Duration::from_secs(30));
            host.end(call, HostHealth::Failing);
        } else {
            host.wait(Duration::from_millis(250));
        }
    }
    assert!(host.calls - before <= 15, "{} calls", host.calls - before);
}

#[test]
fn closes_after_a_few_answers_in_a_row() {
    let mut host = Host::tripped();
    host.wait(FIRST_REST);
    let mut rounds = Vec::new();
    while host.breaker.state() == BreakerState::HalfOpen {
        let round: Vec<CallReport> = (0..host.breaker.room(0)).map(|_| host.begin()).collect();
        rounds.push(round.len());
        assert_eq!(host.breaker.room(0), 0);
        host.wait(Duration::from_millis(80));
        round.into_iter().for_each(|call| host.end(call, HostHealth::Alive));
    }
    assert_eq!(rounds, [1, 2, 4]);
    assert_eq!(host.breaker.room(0), usize::MAX);
    // The next outage begins with a short rest again.
    for _ in 0..TRIPS_AFTER {
        host.call(HostHealth::Failing);
    }
    assert_eq!(host.breaker.wakes_at(), Some(host.now + FIRST_REST));
}

#[test]
fn one_failure_in_a_trial_restarts_the_count() {
    let mut host = Host::tripped();
    host.wait(FIRST_REST);
    (1..CLOSES_AFTER).for_each(|_| host.call(HostHealth::Alive));
    host.call(HostHealth::Failing);
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, CLOSES_AFTER));
    (1..CLOSES_AFTER).for_each(|_| host.call(HostHealth::Alive));
    assert_eq!(host.breaker.state(), BreakerState::HalfOpen);
    (0..TRIPS_AFTER).for_each(|_| host.call(HostHealth::Failing));
    assert_eq!(host.breaker.state(), BreakerState::Open);
}

#[test]
fn calls_of_before_neither_fill_nor_end_a_trial() {
    let mut host = Host::new();
    let old: Vec<CallReport> = (0..40).map(|_| host.begin()).collect();
    (0..TRIPS_AFTER).for_each(|_| host.call(HostHealth::Failing));
    host.wait(FIRST_REST);
    assert_eq!(host.breaker.room(0), 1);
    old.into_iter().for_each(|call| host.end(call, HostHealth::Failing));
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::HalfOpen, 1));
}

#[test]
fn a_trial_that_was_not_made_makes_room_for_another() {
    let mut host = Host::tripped();
    host.wait(FIRST_REST);
    let trial = host.begin();
    assert_eq!(host.breaker.room(0), 0);
    host.breaker.report(trial, host.now, MIDDLE);
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
    // Another answer is a sign of life, however long the video takes.
    host.call(HostHealth::Alive);
    while host.breaker.state() == BreakerState::HalfOpen {
        assert!(host.breaker.room(0) > 0, "nothing waits for the video");
        host.call(HostHealth::Alive);
    }
    host.end(video, HostHealth::Failing);
    assert_eq!(host.breaker.state(), BreakerState::Closed);
}

#[test]
fn swallowed_trials_cost_two_calls_a_minute() {
    let mut host = Host::tripped();
    let mut in_flight: VecDeque<CallReport> = VecDeque::new();
    let (end, before) = (host.now + Duration::from_secs(600), host.calls);
    while host.now < end {
        if host.breaker.room(0) > 0 {
            in_flight.push_back(host.begin());
        }
        host.wait(Duration::from_millis(250));
        while let Some(call) = in_flight.pop_front_if(|call| host.now >= call.begun + TIMEOUT) {
            host.end(call, HostHealth::Failing);
        }
    }
    assert!(host.calls - before <= 2 * 13, "{} calls", host.calls - before);
}

#[test]
fn failed_trial_reopens_it_beside_another() {
    let mut host = Host::tripped();
    host.wait(FIRST_REST);
    let (first, _) = (host.begin(), host.wait(SHORTEST_PATIENCE));
    let second = host.begin();
    assert_eq!(host.breaker.room(0), 0);
    host.end(first, HostHealth::Failing);
    assert_eq!(host.breaker.state(), BreakerState::Open);
    host.end(second, HostHealth::Alive);
    assert_eq!(host.breaker.state(), BreakerState::Open, "what an earlier period says is old");
}

#[rstest]
fn rests_differ_by_a_fifth_at_most(#[values(0.0, 0.5, 1.0, -3.0, 9.0, f64::NAN)] jitter: f64) {
    let mut host = Host::new();
    for _ in 0..TRIPS_AFTER {
        let call = host.begin();
        host.breaker.report(CallReport { health: Some(HostHealth::Failing), ..call }, host.now, jitter);
    }
    let rest = host.breaker.wakes_at().expect("it is open") - host.now;
    assert!((0.799..=1.201).contains(&rest.as_secs_f64()), "{rest:?}");
}

/// Calls as a worker makes them: up to a wanted number a second, each answered in time or given up.
struct Traffic {
    host: Host,
    in_flight: BTreeMap<(Instant, i64), (CallReport, HostHealth)>,
    permits: usize,
}

/// graph.timeout
const TIMEOUT: Duration = Duration::from_secs(30);

impl Traffic {
    fn new(permits: usize) -> Traffic {
        Traffic { host: Host::new(), in_flight: BTreeMap::new(), permits }
    }

    /// Go on for a while; `latency`: the time until an answer, or `None` while the host swallows requests.
    /// Return the number of calls that permits would have allowed and the breaker held back.
    fn run(&mut self, length: Duration, per_second: u32, latency: Option<Duration>) -> usize {
        let mut held_back = 0;
        let end = self.host.now + length;
        while self.host.now < end {
            if self.in_flight.len() < self.permits {
                if self.host.breaker.room(0) == 0 {
                    held_back += 1;
                } else {
                    let health = latency.map_or(HostHealth::Failing, |_| HostHealth::Alive);
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
fn swallowed_requests_cost_a_call_a_second(#[case] per_second: u32, #[case] permits: usize) {
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
fn slow_host_is_suspected_once() {
    let mut traffic = Traffic::new(1_024);
    let latency = Some(Duration::from_secs(5));
    let at_first = traffic.run(Duration::from_secs(6), 100, latency);
    assert!(at_first <= 400, "{at_first} calls held back");
    assert_eq!(traffic.run(Duration::from_secs(60), 100, latency), 0);
}

#[test]
fn host_pause_holds_calls_back_only_meanwhile() {
    let mut traffic = Traffic::new(1_024);
    let latency = Some(Duration::from_millis(80));
    traffic.run(Duration::from_secs(5), 100, latency);
    let pause = Duration::from_secs(3);
    let held_back = traffic.run(pause, 100, Some(pause));
    assert!(held_back <= 200, "{held_back} calls held back");
    assert_eq!(traffic.run(Duration::from_secs(10), 100, latency), 0);
}

#[test]
fn any_first_answer_ends_the_suspicion() {
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
    host.end(slow, HostHealth::Alive);
    assert_eq!((host.breaker.state(), host.breaker.room(0)), (BreakerState::Closed, usize::MAX));
}

#[test]
fn hanging_line_delays_no_other_beside_answers() {
    let mut host = Host::new();
    let _hanging: Vec<CallReport> = (0..200).map(|_| host.begin()).collect();
    for _ in 0..60 {
        host.wait(Duration::from_millis(900));
        assert_eq!(host.breaker.room(0), usize::MAX);
        host.call(HostHealth::Alive);
    }
    // A line that sends now and then finds a call free, and its answer frees the rest.
    for _ in 0..20 {
        host.wait(Duration::from_secs(7));
        assert_eq!(host.breaker.room(0), 1);
        host.call(HostHealth::Alive);
        assert_eq!(host.breaker.room(0), usize::MAX);
    }
}

#[test]
fn no_suspicion_without_calls_in_flight() {
    let mut host = Host::new();
    host.call(HostHealth::Alive);
    let withdrawn = host.begin();
    host.breaker.report(withdrawn, host.now, MIDDLE);
    host.wait(Duration::from_secs(3_600));
    assert_eq!((host.breaker.state(), host.breaker.wakes_at()), (BreakerState::Closed, None));
}
