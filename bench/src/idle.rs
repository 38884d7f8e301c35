//! The cost of an idle system: statements, CPU, and for SQLite bytes written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use testkit::process::{Output, free_address};
use testkit::program::Program;

use crate::arguments::RunArguments;
use crate::database::{Counters, Statement, Statements, calls};
use crate::graph::Deliveries;
use crate::ground::{on_ground, start_graph};
use crate::measure::{SINGLE, System};
use crate::peers::{self, Peer};
use crate::product::{self, Setup};
use crate::{load, process};

/// How long a system settles: scans that find nothing come less often after a while.
const SETTLE: Duration = Duration::from_secs(20);

/// The cost of a system at rest.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    pub system: String,
    pub seconds: f64,
    /// Per cent of a core, by process.
    pub cpu: BTreeMap<String, f64>,
    pub statements_per_second: Option<f64>,
    pub bytes_written_per_second: Option<f64>,
    /// Calls a second of each statement.
    pub statements: Vec<Statement>,
}

pub async fn measure(arguments: &RunArguments) -> anyhow::Result<Vec<Idle>> {
    let time = Duration::from_secs((60 / arguments.divide).max(5));
    let mut figures = Vec::new();
    for (name, workers) in [("ingest", 0), ("ingest and worker", 1)] {
        let resting = on_ground(arguments, Statements::Counted, async |ground| {
            let mut system = product::start(ground, Setup { workers, ..Setup::default() }).await?;
            if workers > 0 {
                system.warm_up(SINGLE).await?;
            }
            rest(system, name, time).await
        });
        figures.push(resting.await?);
    }
    if let Some(folder) = arguments.peers_folder()? {
        let resting = on_ground(arguments, Statements::Counted, async |ground| {
            let mut system = peers::start(ground, &folder, Peer::Node, 0).await?;
            system.warm_up(SINGLE).await?;
            rest(system, "Node", time).await
        });
        figures.push(resting.await?);
    }
    figures.push(serve(arguments, time).await?);
    Ok(figures)
}

/// Leave a system alone for `time`.
async fn rest(mut system: System, name: &str, time: Duration) -> anyhow::Result<(System, Idle)> {
    tokio::time::sleep(SETTLE).await;
    let counters = Counters::start(&system.database, system.table, system.statements).await?;
    let (before, begun) = (system.cpu()?, Instant::now());
    tokio::time::sleep(time).await;
    system.alive()?;
    let (after, seconds) = (system.cpu()?, begun.elapsed().as_secs_f64());
    let statements = counters.statements(&system.database, seconds).await?;
    let mut cpu = BTreeMap::new();
    for ((process, before), (_, after)) in before.into_iter().zip(after) {
        if process != system.graph.name {
            *cpu.entry(process.to_owned()).or_default() += (after - before) / seconds * 100.0;
        }
    }
    let idle = Idle {
        system: name.to_owned(),
        seconds,
        cpu,
        statements_per_second: statements.as_deref().map(calls),
        bytes_written_per_second: None,
        statements: statements.unwrap_or_default(),
    };
    Ok((system, idle))
}

/// Measure `serve` with SQLite and the embedded broker, after a few messages.
async fn serve(arguments: &RunArguments, time: Duration) -> anyhow::Result<Idle> {
    let executable = arguments.program.canonicalize().context("--program")?;
    // Beside the program: a folder for temporary files may be in memory, where nothing is written to storage.
    let folder = tempfile::tempdir_in(executable.parent().context("--program has no folder")?)?;
    let (graph, graph_address) = start_graph(0).await?;
    let listen = free_address()?;
    let program = Program::new(&executable)
        .in_groups()
        .database(&format!("sqlite:{}", folder.path().join("log.db").display()))
        .broker("embedded")
        .graph(&format!("http://{graph_address}/v25.0"))
        .http(&listen)
        .with("log.filter", "warn");
    program.run(&["migrate"], None).await?;
    let tsid = product::account(&program).await?;
    let line = ["line", "add", "--account", "1", "--class", "messenger", "--page-id", "1", "--pat-stdin"];
    program.run(&line, Some("EAA-bench\n")).await?;
    let mut serve = program.start_ready("serve", Output::Shown).await?;
    send_some(&listen, &tsid, &graph_address).await?;

    tokio::time::sleep(SETTLE).await;
    let pid = serve.pid();
    let (cpu, written, begun) = (process::cpu_seconds(pid)?, process::bytes_written(pid)?, Instant::now());
    tokio::time::sleep(time).await;
    serve.alive()?;
    let seconds = begun.elapsed().as_secs_f64();
    let idle = Idle {
        system: "serve, SQLite".to_owned(),
        seconds,
        cpu: BTreeMap::from([("serve".to_owned(), (process::cpu_seconds(pid)? - cpu) / seconds * 100.0)]),
        statements_per_second: None,
        bytes_written_per_second: Some((process::bytes_written(pid)? - written) as f64 / seconds),
        statements: Vec::new(),
    };
    serve.stop().await?;
    graph.stop().await?;
    Ok(idle)
}

/// Send twenty messages and wait for their calls.
async fn send_some(host: &str, tsid: &str, graph: &str) -> anyhow::Result<()> {
    const SOME: u64 = 20;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{host}/api/v2/MakeMessenger.php");
    for number in 0..SOME {
        let message =
            serde_json::json!({ "app_id": 1, "dest": format!("m-{number}"), "mdata": load::text(number) });
        client.post(&url).bearer_auth(tsid).json(&message).send().await?.error_for_status()?;
    }
    let asked = Instant::now();
    loop {
        let seen: Deliveries = reqwest::get(format!("http://{graph}/count")).await?.json().await?;
        if seen.unique >= SOME {
            return Ok(());
        }
        ensure!(asked.elapsed() < Duration::from_secs(60), "{} of {SOME} messages were sent", seen.unique);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
