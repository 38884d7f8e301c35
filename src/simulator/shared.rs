//! The state that the simulator's connections share: options, journal, latency, the calls in flight, and the
//! played parts (`stage.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::journal::{CallCounts, Journal, PlayedCall};
use super::options::SimulatorOptions;
use super::stage::Stage;

/// The shared state. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<SharedState>);

struct SharedState {
    options: SimulatorOptions,
    run: u64,
    journal: Mutex<Journal>,
    /// Latency and jitter of the next calls.
    latency: Mutex<(Duration, Duration)>,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
    stage: Stage,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(options: SimulatorOptions) -> Shared {
        Shared(Arc::new(SharedState {
            run: rand::random(),
            journal: Mutex::new(Journal::new(options.keep, options.limit_per_token)),
            latency: Mutex::new((options.latency, options.latency_jitter)),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
            stage: Stage::new(),
            options,
        }))
    }

    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.0.journal.lock()
    }

    pub fn latency(&self) -> (Duration, Duration) {
        *self.0.latency.lock()
    }

    pub fn set_latency(&self, latency: Duration, jitter: Duration) {
        *self.0.latency.lock() = (latency, jitter);
    }

    /// Return the kept calls after a sequence number, oldest first. Arrivals wait for the lock, which is
    /// therefore held only while pointers are copied.
    pub fn calls(&self, after: u64, dest: Option<&str>) -> Vec<PlayedCall> {
        let kept = self.journal().kept(after, dest);
        kept.iter().map(|kept| kept.call()).collect()
    }

    pub fn counts(&self) -> CallCounts {
        let now = self.0.in_flight.load(Ordering::Relaxed);
        self.journal().counts(now, self.0.max_in_flight.load(Ordering::Relaxed))
    }

    pub fn reset(&self) {
        self.0.stage.reset();
        self.journal().reset();
        self.0.max_in_flight.store(self.0.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub fn options(&self) -> &SimulatorOptions {
        &self.0.options
    }

    /// Return the parts that decide more than a recipient's word does.
    pub fn stage(&self) -> &Stage {
        &self.0.stage
    }

    /// Return a number that distinguishes this run's message ids from another's.
    pub fn run(&self) -> u64 {
        self.0.run
    }
}

/// A call being answered; ends also when its caller gives up.
pub struct InFlight<'a>(&'a SharedState);

impl InFlight<'_> {
    pub fn enter(shared: &Shared) -> InFlight<'_> {
        let state = &*shared.0;
        let now = state.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        state.max_in_flight.fetch_max(now, Ordering::Relaxed);
        InFlight(state)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
