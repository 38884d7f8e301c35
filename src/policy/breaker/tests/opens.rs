//! The failures that open the breaker.

use rstest::rstest;

use super::*;

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
