//! A breaker, and a host that answers or does not.

mod evidence;
mod opens;
mod stalls;
mod trials;

use super::*;

const MIDDLE: f64 = 0.5;
/// graph.timeout
const TIMEOUT: Duration = Duration::from_secs(30);

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
