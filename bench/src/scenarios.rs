//! What is measured: each scenario sets a system up, loads it, and adds its figures.

#![allow(clippy::print_stderr)]

use anyhow::Context;

use crate::enquiry::{self, Asked};
use crate::ground::on_ground;
use crate::measure::{Measured, Work};
use crate::peers::Peer;
use crate::product::{self, Setup};
use crate::{RunArguments, peers, report};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// One message a request, 64 connections, 8 lines, Graph at 0 ms
    Single,
    /// The same with Graph at 80 ms
    Latency,
    /// The same work by the peers, at 0 and 80 ms
    Peers,
    /// Batches of 1,000 messages a request, 4 connections, Graph at 0 and 80 ms
    Batches,
    /// 300,000 lines in batches of 10,000 into the log, without a worker
    Intake,
    /// 500 messages a second: how long each takes
    Paced,
    /// 2,000 lines instead of 8
    Lines,
    /// 10,000 to 1,000,000 rows waiting on other lines meanwhile
    Waiting,
    /// High messages beside 1,000,000 bulk rows, and beside a line whose calls hang; Graph at 50 ms
    Fairness,
    /// 1,000,000 waiting rows sent as fast as possible
    Drain,
    /// Pages of a log of 10,000,000 rows, by each filter
    Status,
    /// Pause, resume and cancel of campaigns of 1,000,000 rows: just logged, and half sent
    Campaign,
}

const SINGLE: Work = Work { messages: 60_000, connections: 64, rate: 0, batch: 0, first_line: 1, lines: 8 };

#[tokio::main]
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let scenarios: &[Scenario] = if arguments.scenarios.is_empty() {
        <Scenario as clap::ValueEnum>::value_variants()
    } else {
        &arguments.scenarios
    };
    report::machine(&arguments).await?;
    let (mut runs, mut asked) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        for scenario in scenarios {
            eprintln!("round {round} of {}: {scenario:?}", arguments.rounds);
            for measured in measure(&arguments, *scenario).await? {
                report::record(&arguments, &measured)?;
                runs.push(measured);
            }
            for figures in ask(&arguments, *scenario).await? {
                report::record(&arguments, &figures)?;
                asked.push(figures);
            }
        }
    }
    report::tables(&runs);
    report::asked(&asked);
    Ok(())
}

/// The scenarios of what senders ask afterwards.
async fn ask(arguments: &RunArguments, scenario: Scenario) -> anyhow::Result<Vec<Asked>> {
    match scenario {
        Scenario::Status => {
            let setup = Setup { workers: 0, lines: 16, ..Setup::default() };
            on_ground(arguments, async |ground| {
                let system = product::start(ground, setup).await?;
                let asked = enquiry::pages(&system, 10_000_000 / arguments.divide).await?;
                Ok((system, asked))
            })
            .await
        }
        Scenario::Campaign => {
            let setup = Setup { line_rate: 300, ..Setup::default() };
            on_ground(arguments, async |ground| {
                let mut system = product::start(ground, setup).await?;
                let asked = enquiry::commands(&mut system, 1_000_000 / arguments.divide).await?;
                Ok((system, asked))
            })
            .await
        }
        _ => Ok(Vec::new()),
    }
}

async fn measure(arguments: &RunArguments, scenario: Scenario) -> anyhow::Result<Vec<Measured>> {
    let single = Work { messages: SINGLE.messages / arguments.divide, ..SINGLE };
    let setup = Setup::default();
    let mut runs = Vec::new();
    match scenario {
        Scenario::Single => runs.push(load(arguments, "Graph at 0 ms", setup, single).await?),
        Scenario::Latency => {
            let setup = Setup { graph_latency: 80, ..setup };
            runs.push(load(arguments, "Graph at 80 ms", setup, single).await?);
        }
        Scenario::Peers => {
            for (latency, name) in [(0, "Graph at 0 ms"), (80, "Graph at 80 ms")] {
                for (peer, messages) in [(Peer::Node, 12_000), (Peer::Taskiq, 5_000)] {
                    let messages = messages / arguments.divide;
                    runs.push(peer_run(arguments, name, peer, latency, Work { messages, ..single }).await?);
                }
            }
        }
        Scenario::Batches => {
            let work = Work { batch: 1_000, connections: 4, ..single };
            for (graph_latency, name) in [(0, "batches, Graph at 0 ms"), (80, "batches, Graph at 80 ms")] {
                runs.push(load(arguments, name, Setup { graph_latency, ..setup }, work).await?);
            }
        }
        Scenario::Intake => {
            let setup = Setup { workers: 0, ..setup };
            let messages = 300_000 / arguments.divide;
            let work = Work { messages, batch: 10_000, connections: 2, ..single };
            runs.push(
                on_ground(arguments, async |ground| {
                    let mut system = product::start(ground, setup).await?;
                    let measured = system.take_in("batches into the log", work).await?;
                    Ok((system, measured))
                })
                .await?,
            );
        }
        Scenario::Paced => {
            let work = Work { messages: 5_000 / arguments.divide, rate: 500, ..single };
            runs.push(load(arguments, "500 a second", setup, work).await?);
        }
        Scenario::Lines => {
            let setup = Setup { lines: 2000, line_rate: 40, ..setup };
            let work = Work { lines: 2000, ..single };
            runs.push(load(arguments, "2,000 lines", setup, work).await?);
        }
        Scenario::Waiting => {
            for waiting_rows in [10_000, 100_000, 1_000_000] {
                let waiting_rows = waiting_rows / arguments.divide;
                let setup = Setup { waiting_lines: 8, waiting_rows, ..setup };
                let name = format!("{waiting_rows} rows waiting");
                runs.push(load(arguments, &name, setup, single).await?);
            }
        }
        Scenario::Fairness => {
            let setup =
                Setup { graph_latency: 50, line_rate: 300, waiting_lines: 1, waiting_rate: 300, ..setup };
            let bulk = Setup { waiting_rows: 1_000_000 / arguments.divide, ..setup };
            let work = Work { messages: 1_000 / arguments.divide, rate: 50, ..single };
            let on_the_same = Work { first_line: setup.lines + 1, lines: 1, ..work };
            runs.push(load(arguments, "high on the line with the backlog", bulk, on_the_same).await?);
            runs.push(load(arguments, "high on other lines", bulk, work).await?);
            let hanging =
                Setup { waiting_rows: 100_000 / arguments.divide, waiting_prefix: "hang-", ..setup };
            let work = Work { messages: 5_000 / arguments.divide, rate: 500, ..single };
            runs.push(load(arguments, "beside a line whose calls hang", hanging, work).await?);
        }
        Scenario::Drain => {
            for waiting_rows in [100_000, 1_000_000] {
                let waiting_rows = waiting_rows / arguments.divide;
                let setup = Setup { waiting_lines: 8, waiting_rate: 2000, waiting_rows, ..setup };
                let name = format!("sending the first of {waiting_rows} rows");
                let messages = 80_000 / arguments.divide;
                runs.push(
                    on_ground(arguments, async |ground| {
                        let mut system = product::start(ground, setup).await?;
                        let measured = system.drain(&name, messages).await?;
                        Ok((system, measured))
                    })
                    .await?,
                );
            }
        }
        Scenario::Status | Scenario::Campaign => {}
    }
    Ok(runs)
}

async fn load(arguments: &RunArguments, name: &str, setup: Setup, work: Work) -> anyhow::Result<Measured> {
    on_ground(arguments, async |ground| {
        let mut system = product::start(ground, setup).await?;
        let measured = system.run(name, work).await?;
        Ok((system, measured))
    })
    .await
}

async fn peer_run(
    arguments: &RunArguments,
    name: &str,
    peer: Peer,
    latency: u64,
    work: Work,
) -> anyhow::Result<Measured> {
    let folder = arguments.peers.as_ref().context("--peers names the folder of the peers")?.canonicalize()?;
    on_ground(arguments, async |ground| {
        let mut system = peers::start(ground, &folder, peer, latency).await?;
        let measured = system.run(name, work).await?;
        Ok((system, measured))
    })
    .await
}
