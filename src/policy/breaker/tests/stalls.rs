//! Suspicion of a host that does not answer.

use std::collections::BTreeMap;

use rstest::rstest;

use super::*;

/// Calls as a worker makes them: up to a wanted number a second, each answered in time or given up.
struct Traffic {
    host: Host,
    in_flight: BTreeMap<(Instant, i64), (CallReport, HostHealth)>,
    permits: usize,
}

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
