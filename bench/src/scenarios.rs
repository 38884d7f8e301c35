//! What is measured: each scenario sets a system up, loads it, and adds its figures.

#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use crate::measure::{Measured, System, Work};
use crate::peers::Peer;
use crate::process::{self, Running};
use crate::product::Setup;
use crate::{RunArguments, peers, product, report};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// One message a request, 64 connections, 8 lines, Graph at 0 ms
    Single,
    /// The same with Graph at 80 ms
    Latency,
    /// The same work by the peers, at 0 and 80 ms
    Peers,
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
}

const SINGLE: Work = Work { messages: 60_000, connections: 64, rate: 0, first_line: 1, lines: 8 };

/// What a run stands on: servers, and a database and virtual host of its own.
pub struct Ground {
    pub program: PathBuf,
    pub database_url: String,
    pub amqp_url: String,
    pub servers: Vec<(&'static str, i32)>,
}

#[tokio::main]
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let scenarios: &[Scenario] = if arguments.scenarios.is_empty() {
        <Scenario as clap::ValueEnum>::value_variants()
    } else {
        &arguments.scenarios
    };
    report::machine(&arguments).await?;
    let mut runs = Vec::new();
    for round in 1..=arguments.rounds {
        for scenario in scenarios {
            eprintln!("round {round} of {}: {scenario:?}", arguments.rounds);
            for measured in measure(&arguments, *scenario).await? {
                report::record(&arguments, &measured)?;
                runs.push(measured);
            }
        }
    }
    report::tables(&runs);
    Ok(())
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

/// Makes a database and a virtual host, runs, and drops both.
async fn on_ground(
    arguments: &RunArguments,
    run: impl AsyncFnOnce(&Ground) -> anyhow::Result<(System, Measured)>,
) -> anyhow::Result<Measured> {
    let name = format!("bench_{}_{}", std::process::id(), time::OffsetDateTime::now_utc().unix_timestamp());
    let mut admin = PgConnection::connect(&arguments.database_url).await?;
    sqlx::raw_sql(&format!("create database {name}")).execute(&mut admin).await?;
    rabbitmqctl(arguments, &["add_vhost", &name]).await?;
    rabbitmqctl(arguments, &["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]).await?;

    let mut database_url = reqwest::Url::parse(&arguments.database_url)?;
    database_url.set_path(&name);
    let mut amqp_url = reqwest::Url::parse(&arguments.amqp_url)?;
    amqp_url.set_path(&name);
    let ground = Ground {
        program: arguments.program.canonicalize().context("--program")?,
        servers: vec![
            ("postgresql", process::listener(database_url.port().unwrap_or(5432))?),
            ("rabbitmq", process::listener(amqp_url.port().unwrap_or(5672))?),
        ],
        database_url: database_url.into(),
        amqp_url: amqp_url.into(),
    };
    let outcome = match run(&ground).await {
        Ok((system, measured)) => system.stop().await.map(|()| measured),
        Err(error) => Err(error),
    };
    sqlx::raw_sql(&format!("drop database {name} with (force)")).execute(&mut admin).await?;
    rabbitmqctl(arguments, &["delete_vhost", &name]).await?;
    outcome
}

async fn rabbitmqctl(arguments: &RunArguments, command: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(&arguments.rabbitmqctl)
        .arg("-q")
        .args(command)
        .stdout(Stdio::null())
        .status()
        .await
        .context("rabbitmqctl")?;
    anyhow::ensure!(status.success(), "rabbitmqctl {command:?} failed");
    Ok(())
}

impl Ground {
    pub async fn start_graph(&self, latency: u64) -> anyhow::Result<(Running, String)> {
        let address = process::free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["graph", "--listen", &address, "--latency", &latency.to_string()]);
        let mut graph = Running::start("graph", &mut command)?;
        process::listens(&address, &mut graph).await?;
        Ok((graph, address))
    }
}
