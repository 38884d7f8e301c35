//! A running simulator: its listener, and its evidence for tests in the same process.

use std::net::SocketAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::GRAPH_VERSION;
use super::budget::BudgetRules;
use super::identities::GivenIdentity;
use super::journal::{CallCounts, PlayedCall};
use super::options::SimulatorOptions;
use super::server;
use super::shared::Shared;
use super::webhooks::{self, WebhookRules};
use super::windows::WindowRules;

/// The simulator cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("the Graph simulator cannot listen on {address}: {source}; choose another address or port")]
pub struct SimulatorError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Rules that the simulator cannot play.
#[derive(Debug, thiserror::Error)]
#[error("the Graph simulator cannot play the {part}: {wrong}")]
pub struct WrongRules {
    part: &'static str,
    wrong: String,
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
        let pump = webhooks::pump(shared.clone(), stop.clone(), tasks.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(pump));
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

    /// Return the arrival times of the kept calls that carry the token with this
    /// [`token_tag`](super::token_tag), oldest first.
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

    /// Play budgets, as `PUT /simulator/budgets` does.
    pub fn play_budgets(&self, rules: BudgetRules) -> Result<(), WrongRules> {
        played("budgets", self.shared.put_budgets(rules))
    }

    /// Play windows, as `PUT /simulator/windows` does.
    pub fn play_windows(&self, rules: WindowRules) -> Result<(), WrongRules> {
        played("windows", self.shared.put_windows(rules))
    }

    /// Send webhooks, as `PUT /simulator/webhooks` does.
    pub fn play_webhooks(&self, rules: WebhookRules) -> Result<(), WrongRules> {
        played("webhooks", self.shared.put_webhooks(rules))
    }

    /// Give a token an identity, as `PUT /simulator/pages` does for all.
    pub fn play_identity(&self, token: &str, identity: GivenIdentity) {
        self.shared.add_identity(token, identity);
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

fn played<T>(part: &'static str, result: Result<T, String>) -> Result<(), WrongRules> {
    result.map(drop).map_err(|wrong| WrongRules { part, wrong })
}
