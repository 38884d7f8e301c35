//! The options of a simulator.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

/// The options of a simulator. The default answers at once, without limits, on a free port of 127.0.0.1.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The shortest time that a call takes.
    pub latency: Duration,
    /// The longest addition to that time, evenly spread.
    pub latency_jitter: Duration,
    /// Messages a token may send in any second; further ones are answered 613. None: no limit.
    pub limit_per_token: Option<u32>,
    /// `estimated_time_to_regain_access` in answers to a rate limit, in minutes; 0 names no time.
    pub regain_minutes: u32,
    /// When set, each call needs the `appsecret_proof` of this app secret, in query or body.
    pub app_secret: Option<SecretString>,
    /// Calls kept for `/simulator/calls`; the oldest go first. The counters do not depend on it.
    pub keep: usize,
}

impl Default for SimulatorOptions {
    fn default() -> SimulatorOptions {
        SimulatorOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Duration::ZERO,
            latency_jitter: Duration::ZERO,
            limit_per_token: None,
            regain_minutes: 0,
            app_secret: None,
            keep: 10_000,
        }
    }
}
