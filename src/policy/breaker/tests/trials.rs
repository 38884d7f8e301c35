//! Rests and trials, until the breaker closes.

use std::collections::VecDeque;

use rstest::rstest;

use super::*;

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
