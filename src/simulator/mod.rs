//! Meta's Graph API, played: answers `POST …/me/messages` as Graph does, with the outcome chosen by the recipient.
//!
//! For rehearsals, `demo` and tests. It listens on real TCP, keeps evidence of every call (never a token), and can
//! be told a latency and a limit per token. It shares no code with the part of the program that it judges.

mod answer;
mod outcome;
mod server;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use outcome::{OUTCOMES_HELP, Outcome};
use state::State;
pub use state::{Call, Counts};

/// How the simulator behaves.
#[derive(Debug, Clone)]
pub struct SimulatorOptions {
    pub listen: SocketAddr,
    /// Before each answer.
    pub latency: Duration,
    /// Added to the latency, at random up to this.
    pub jitter: Duration,
    /// Messages a second one token may send; more are answered with code 613 and usage headers.
    pub limit_per_token: Option<u32>,
    /// Calls kept as evidence; counters stay exact beyond.
    pub keep: usize,
}

impl Default for SimulatorOptions {
    /// A free port on loopback, answers at once, no limit.
    fn default() -> SimulatorOptions {
        SimulatorOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            limit_per_token: None,
            keep: 10_000,
        }
    }
}

/// A running simulator.
pub struct Simulator {
    address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Simulator {
    /// Listens and serves until [`Simulator::shutdown`].
    pub async fn start(options: SimulatorOptions) -> std::io::Result<Simulator> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(options));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(listener, state.clone(), stop.clone()));
        Ok(Simulator { address, state, stop, serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `graph.base_url` is set to.
    pub fn base_url(&self) -> String {
        format!("http://{}/v25.0", self.address)
    }

    /// The calls kept as evidence, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls(0, None)
    }

    /// How many calls for this recipient were taken as sent, whatever they were answered.
    pub fn delivered_to(&self, dest: &str) -> usize {
        self.state.calls(0, Some(dest)).iter().filter(|call| call.delivered).count()
    }

    pub fn counts(&self) -> Counts {
        self.state.counts()
    }

    /// Stops listening and cuts what is open.
    pub async fn shutdown(self) {
        self.stop.cancel();
        // Its only error is a panic, which the panic hook has reported.
        let _ = self.serving.await;
    }
}
