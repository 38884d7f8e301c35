//! `simulate`: the Graph simulator alone.

use serde::Serialize;

use super::SimulateArgs;
use super::output::Output;
use crate::shutdown::{self, Hangup};
use crate::simulator::{Simulator, SimulatorOptions};
use crate::telemetry;

#[derive(Serialize)]
struct Listening {
    base_url: String,
}

pub async fn run(arguments: SimulateArgs, out: &Output) -> anyhow::Result<()> {
    let stop = shutdown::on_signal(Hangup::Stops, telemetry::finish)?;
    let options = SimulatorOptions {
        listen: arguments.listen,
        latency: arguments.latency,
        latency_jitter: arguments.jitter,
        limit_per_token: arguments.limit_per_token,
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(options)?;
    out.answer(&Listening { base_url: simulator.base_url() }, |listening| {
        format!(
            "Simulating Graph. Set graph.base_url to {} (META_DISPATCH__GRAPH__BASE_URL).\n\
             Evidence: GET http://{address}/simulator/calls and /simulator/count; POST /simulator/reset?latency=80ms.",
            listening.base_url,
            address = simulator.address()
        )
    })?;
    stop.cancelled().await;
    simulator.shutdown().await;
    Ok(())
}
