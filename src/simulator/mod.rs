//! The Graph simulator: a local stand-in for Meta's Graph API, for `simulate`, `demo`, load tests and tests.
//!
//! The simulator takes `POST {any prefix}/me/messages` as Graph does (contract: "What goes to Graph"), and
//! answers as Graph does: a message id, or Graph's error envelope with its HTTP status and usage headers. The
//! recipient id's first word chooses the outcome ([`outcomes_help`]): `code10-ana` is outside the window,
//! `cut-ana` loses its connection after the request was read, `code1200x2-ana` fails twice and is then sent.
//!
//! Evidence lets a test compare the calls received with the calls recorded:
//!
//! | call | answer |
//! |---|---|
//! | `GET /simulator/calls?after=SEQ&dest=ID` | JSON list of [`PlayedCall`]s, oldest first, at most [`SimulatorOptions::keep`] |
//! | `GET /simulator/count` | [`CallCounts`], exact however many calls there were |
//! | `POST /simulator/reset?latency=80ms&jitter=20ms` | forgets all calls; sets the given values; answers [`CallCounts`] |
//!
//! A call counts when its request was read, before its latency: a caller that gives up meanwhile has sent it.
//! Never here: calls to anything outside, and page tokens in any list, count or log (a token is shown as
//! [`token_tag`]).

mod answer;
mod control;
mod journal;
mod limits;
mod outcome;
mod request;
mod server;
mod shared;

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use journal::{CallCounts, PlayedCall};
pub use outcome::outcomes_help;
pub use request::token_tag;

use shared::Shared;

/// The version in the path of [`Simulator::base_url`] and in `facebook-api-version`.
const GRAPH_VERSION: &str = "v25.0";

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

/// The simulator cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("the Graph simulator cannot listen on {address}: {source}; choose another address or port")]
pub struct SimulatorError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A running simulator. Dropping it closes all its connections, as [`Simulator::shutdown`] does.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    shared: Shared,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Simulator {
    /// Listen, and serve on the current tokio runtime. The address takes calls when this returns.
    pub fn start(options: SimulatorOptions) -> Result<Simulator, SimulatorError> {
        let wanted = options.listen;
        let failed = |source| SimulatorError { address: wanted, source };
        let listener = std::net::TcpListener::bind(wanted).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Shared::new(options);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(server::accept(listener, shared.clone(), stop.clone(), tasks.clone()));
        tasks.close();
        Ok(Simulator { address, shared, stop, tasks })
    }

    /// Return the address of the listener, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Return the value for `graph.base_url`, e.g. `http://127.0.0.1:9100/v25.0`.
    pub fn base_url(&self) -> String {
        format!("{}/{GRAPH_VERSION}", self.origin())
    }

    /// Return the origin of the evidence endpoints, e.g. `http://127.0.0.1:9100`.
    pub fn origin(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }

    /// Return the kept calls, oldest first.
    pub fn calls(&self) -> Vec<PlayedCall> {
        self.shared.calls(0, None)
    }

    /// Return the arrival times of the kept calls that carry the token with this [`token_tag`], oldest first.
    /// The function is cheap: watching does not disturb a measurement.
    pub fn arrivals(&self, token_tag: &str) -> Vec<std::time::Instant> {
        self.shared.journal().arrivals(token_tag)
    }

    /// Return how many messages this recipient has received.
    pub fn delivered_to(&self, dest: &str) -> usize {
        self.shared.journal().delivered_to(dest)
    }

    /// Return the counters since the start or the last reset.
    pub fn counts(&self) -> CallCounts {
        self.shared.counts()
    }

    /// Delete all calls; message ids and sequence numbers continue.
    pub fn reset(&self) {
        self.shared.reset();
    }

    /// Change the latency of the next calls.
    pub fn set_latency(&self, latency: Duration, jitter: Duration) {
        self.shared.set_latency(latency, jitter);
    }

    /// Close the listener and all connections, answered or not, and return when that is done.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
