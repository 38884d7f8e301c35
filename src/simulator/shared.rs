//! What the simulator's connections share: options, journal, latency, and the calls in flight.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SimulatorOptions;
use super::journal::{Call, Counts, Journal};

/// Everything connections share. Cheap to clone.
#[derive(Clone)]
pub struct Shared(Arc<State>);

struct State {
    options: SimulatorOptions,
    run: u64,
    journal: Mutex<Journal>,
    /// Latency and jitter of the calls that follow.
    latency: Mutex<(Duration, Duration)>,
    in_flight: AtomicUsize,
    max_in_flight: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(options: SimulatorOptions) -> Shared {
        Shared(Arc::new(State {
            run: rand::random(),
            journal: Mutex::new(Journal::new(options.keep, options.limit_per_token)),
            latency: Mutex::new((options.latency, options.latency_jitter)),
            in_flight: AtomicUsize::new(0),
            max_in_flight: AtomicUsize::new(0),
            options,
        }))
    }

    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.0.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn latency(&self) -> (Duration, Duration) {
        *self.0.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_latency(&self, latency: Duration, jitter: Duration) {
        *self.0.latency.lock().unwrap_or_else(PoisonError::into_inner) = (latency, jitter);
    }

    /// The kept calls after a sequence number, oldest first. Arrivals wait for the lock, so it is held for the copying
    /// of pointers only.
    pub fn calls(&self, after: u64, dest: Option<&str>) -> Vec<Call> {
        let kept = self.journal().kept(after, dest);
        kept.iter().map(|kept| kept.call()).collect()
    }

    pub fn counts(&self) -> Counts {
        let now = self.0.in_flight.load(Ordering::Relaxed);
        self.journal().counts(now, self.0.max_in_flight.load(Ordering::Relaxed))
    }

    pub fn reset(&self) {
        self.journal().reset();
        self.0.max_in_flight.store(self.0.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub fn options(&self) -> &SimulatorOptions {
        &self.0.options
    }

    /// A number that tells this run's message ids from another's.
    pub fn run(&self) -> u64 {
        self.0.run
    }
}

/// A call being answered; ends also when its caller gives up.
pub struct InFlight<'a>(&'a State);

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
