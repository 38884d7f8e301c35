//! The scenarios: each sets a system up, loads it, and adds its figures.

#![allow(clippy::print_stderr)]

use anyhow::Context;

use crate::arguments::{RunArguments, Scenario};
use crate::database::Statements;
use crate::enquiry::{self, Asked};
use crate::ground::on_ground;
use crate::measure::{Measured, SINGLE, Work};
use crate::peers::{self, Peer};
use crate::product::{self, Setup};
use crate::report::{self, Figures};
use crate::{dump, floor, idle, noisy, receipts};

/// Messages a second, and how many: half a minute of 50 a second, ten seconds of 500.
const PACES: [(u64, u64); 2] = [(50, 1_500), (500, 5_000)];

#[tokio::main]
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let scenarios: &[Scenario] = if arguments.scenarios.is_empty() {
        <Scenario as clap::ValueEnum>::value_variants()
    } else {
        &arguments.scenarios
    };
    report::machine(&arguments).await?;
    let mut figures = Figures::default();
    for round in 1..=arguments.rounds {
        for scenario in scenarios {
            eprintln!("round {round} of {}: {scenario:?}", arguments.rounds);
            match scenario {
                Scenario::Idle => add(&arguments, &mut figures.idle, idle::measure(&arguments).await?)?,
                Scenario::Dump => add(&arguments, &mut figures.dumps, dump::measure(&arguments).await?)?,
                Scenario::Receipts => {
                    add(&arguments, &mut figures.receipts, receipts::measure(&arguments).await?)?;
                }
                Scenario::Noisy => add(&arguments, &mut figures.noisy, noisy::measure(&arguments).await?)?,
                Scenario::Status | Scenario::Campaign => {
                    add(&arguments, &mut figures.asked, ask(&arguments, *scenario).await?)?;
                }
                _ => add(&arguments, &mut figures.runs, measure(&arguments, *scenario).await?)?,
            }
        }
    }
    report::tables(&figures);
    Ok(())
}

fn add<F: serde::Serialize>(arguments: &RunArguments, all: &mut Vec<F>, new: Vec<F>) -> anyhow::Result<()> {
    new.iter().try_for_each(|figures| report::record(arguments, figures))?;
    all.extend(new);
    Ok(())
}

/// Run the scenarios of the questions of senders.
async fn ask(arguments: &RunArguments, scenario: Scenario) -> anyhow::Result<Vec<Asked>> {
    match scenario {
        Scenario::Status => {
            let setup = Setup { workers: 0, lines: 16, ..Setup::default() };
            on_ground(arguments, Statements::Uncounted, async |ground| {
                let system = product::start(ground, setup).await?;
                let asked = enquiry::pages(&system, 10_000_000 / arguments.divide).await?;
                Ok((system, asked))
            })
            .await
        }
        Scenario::Campaign => {
            let setup = Setup { line_rate: 300, ..Setup::default() };
            on_ground(arguments, Statements::Uncounted, async |ground| {
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
                    let work = Work { messages: messages / arguments.divide, ..single };
                    runs.push(peer_run(arguments, name, peer, latency, work, Statements::Uncounted).await?);
                }
            }
        }
        Scenario::Batches => {
            let work = Work { batch: 1_000, connections: 4, ..single };
            for (graph_latency, name) in [(0, "batches, Graph at 0 ms"), (80, "batches, Graph at 80 ms")] {
                runs.push(load(arguments, name, Setup { graph_latency, ..setup }, work).await?);
            }
        }
        Scenario::Intake => runs.push(intake(arguments, setup, single).await?),
        Scenario::Paced => runs = paced(arguments, setup, single).await?,
        Scenario::Floor => runs = parts_alone(arguments, single).await?,
        Scenario::PacedBulk => runs.push(paced_bulk(arguments, setup, single).await?),
        Scenario::Ranges => {
            for ranges in [2, 100] {
                let setup = Setup { ranges, ..setup };
                let name = format!("{ranges} ranges");
                runs.push(counted(arguments, &name, setup, single).await?);
            }
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
        Scenario::Fairness => runs = fairness(arguments, setup, single).await?,
        Scenario::Drain => runs = drain(arguments, setup).await?,
        Scenario::Idle
        | Scenario::Dump
        | Scenario::Noisy
        | Scenario::Receipts
        | Scenario::Status
        | Scenario::Campaign => {}
    }
    Ok(runs)
}

async fn intake(arguments: &RunArguments, setup: Setup, single: Work) -> anyhow::Result<Measured> {
    let messages = 300_000 / arguments.divide;
    let work = Work { messages, batch: 10_000, connections: 2, ..single };
    on_ground(arguments, Statements::Uncounted, async |ground| {
        let mut system = product::start(ground, Setup { workers: 0, ..setup }).await?;
        let measured = system.take_in("batches into the log", work).await?;
        Ok((system, measured))
    })
    .await
}

async fn paced(arguments: &RunArguments, setup: Setup, single: Work) -> anyhow::Result<Vec<Measured>> {
    let mut runs = Vec::new();
    for (rate, messages) in PACES {
        let work = Work { messages: messages / arguments.divide, rate, ..single };
        let name = format!("{rate} a second");
        runs.push(counted(arguments, &name, setup, work).await?);
        if arguments.peers.is_some() {
            runs.push(peer_run(arguments, &name, Peer::Node, 0, work, Statements::Counted).await?);
        }
    }
    Ok(runs)
}

/// Run the paces of `paced`, and the closed loop of `single` and `peers`, under their names.
async fn parts_alone(arguments: &RunArguments, single: Work) -> anyhow::Result<Vec<Measured>> {
    let paced = PACES.map(|(rate, messages)| {
        let work = Work { messages: messages / arguments.divide, rate, ..single };
        (format!("{rate} a second"), work, Statements::Counted)
    });
    let fastest = Work { messages: 30_000 / arguments.divide, ..single };
    let fastest = ("Graph at 0 ms".to_owned(), fastest, Statements::Uncounted);
    let mut runs = Vec::new();
    for (name, work, statements) in paced.into_iter().chain([fastest]) {
        for claims in [true, false] {
            let run = on_ground(arguments, statements, async |ground| {
                let mut system = floor::start(ground, claims).await?;
                let measured = system.run(&name, work).await?;
                Ok((system, measured))
            });
            runs.push(run.await?);
        }
    }
    Ok(runs)
}

/// Run ten lines of 50 a second, whose campaign waits for them.
async fn paced_bulk(arguments: &RunArguments, setup: Setup, single: Work) -> anyhow::Result<Measured> {
    let setup = Setup { lines: 10, line_rate: 50, ..setup };
    let messages = 10_000 / arguments.divide;
    let work = Work { messages, batch: 1_000, connections: 1, lines: 10, campaign: Some("summer"), ..single };
    counted(arguments, "a campaign at 500 a second", setup, work).await
}

async fn fairness(arguments: &RunArguments, setup: Setup, single: Work) -> anyhow::Result<Vec<Measured>> {
    let setup = Setup { graph_latency: 50, line_rate: 300, waiting_lines: 1, waiting_rate: 300, ..setup };
    let bulk = Setup { waiting_rows: 1_000_000 / arguments.divide, ..setup };
    let hanging = Setup { waiting_rows: 100_000 / arguments.divide, waiting_prefix: "hang-", ..setup };
    let work = Work { messages: 1_000 / arguments.divide, rate: 50, ..single };
    let on_the_same = Work { first_line: setup.lines + 1, lines: 1, ..work };
    let faster = Work { messages: 5_000 / arguments.divide, rate: 500, ..single };
    Ok(vec![
        load(arguments, "high on the line with the backlog", bulk, on_the_same).await?,
        load(arguments, "high on other lines", bulk, work).await?,
        load(arguments, "beside a line whose calls hang", hanging, faster).await?,
    ])
}

async fn drain(arguments: &RunArguments, setup: Setup) -> anyhow::Result<Vec<Measured>> {
    let mut runs = Vec::new();
    for waiting_rows in [100_000, 1_000_000] {
        let waiting_rows = waiting_rows / arguments.divide;
        let setup = Setup { waiting_lines: 8, waiting_rate: 2000, waiting_rows, ..setup };
        let name = format!("sending the first of {waiting_rows} rows");
        let messages = 80_000 / arguments.divide;
        let draining = on_ground(arguments, Statements::Uncounted, async |ground| {
            let mut system = product::start(ground, setup).await?;
            let measured = system.drain(&name, messages).await?;
            Ok((system, measured))
        });
        runs.push(draining.await?);
    }
    Ok(runs)
}

async fn load(arguments: &RunArguments, name: &str, setup: Setup, work: Work) -> anyhow::Result<Measured> {
    product_run(arguments, name, setup, work, Statements::Uncounted).await
}

/// Run the same, with statements counted.
async fn counted(arguments: &RunArguments, name: &str, setup: Setup, work: Work) -> anyhow::Result<Measured> {
    product_run(arguments, name, setup, work, Statements::Counted).await
}

async fn product_run(
    arguments: &RunArguments,
    name: &str,
    setup: Setup,
    work: Work,
    statements: Statements,
) -> anyhow::Result<Measured> {
    on_ground(arguments, statements, async |ground| {
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
    statements: Statements,
) -> anyhow::Result<Measured> {
    let folder = arguments.peers_folder()?.context("--peers names the folder of the peers")?;
    on_ground(arguments, statements, async |ground| {
        let mut system = peers::start(ground, &folder, peer, latency).await?;
        let measured = system.run(name, work).await?;
        Ok((system, measured))
    })
    .await
}
