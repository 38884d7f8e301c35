//! One measured run: load on a running system, until its last message is final. The clock stops at the last
//! row's `done_at`, by PostgreSQL's clock, which is this machine's.

#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};
use testkit::process::{Running, output};

use crate::database::{Counters, DatabaseCosts, Statements};
use crate::graph::Deliveries;
use crate::load::{LoadReport, Shape};
use crate::process;

/// A running system: its front door, its processes, its log.
pub struct System {
    pub name: &'static str,
    /// Host and port of the endpoint, and its path.
    pub host: String,
    pub path: &'static str,
    pub shape: Shape,
    pub tsid: String,
    pub processes: Vec<Running>,
    pub graph: Running,
    pub graph_address: String,
    pub database: PgPool,
    /// Table of the log, and the status of sent messages; the table has `created_at`, `done_at`, `dest`.
    pub table: &'static str,
    pub sent: &'static str,
    /// The servers all systems share, by name and process id.
    pub servers: Vec<(&'static str, i32)>,
    pub statements: Statements,
}

/// The messages of a run.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub messages: u64,
    pub connections: u64,
    /// Messages a second; 0 is as fast as answers come.
    pub rate: u64,
    /// Messages a request, by the batch endpoint; 0 is one, by the send endpoint.
    pub batch: u64,
    pub first_line: u64,
    pub lines: u64,
    /// Campaign of batches, and of every second single message.
    pub campaign: Option<&'static str>,
}

/// One message a request.
pub const SINGLE: Work =
    Work { messages: 60_000, connections: 64, rate: 0, batch: 0, first_line: 1, lines: 8, campaign: None };

/// The cost and the length of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    pub scenario: String,
    pub system: String,
    pub messages: u64,
    /// First request to last final row.
    pub seconds: f64,
    pub per_second: f64,
    /// Milliseconds of CPU a message, by process; the load and the stand-in apart.
    pub cpu: BTreeMap<String, f64>,
    pub cpu_total: f64,
    pub cpu_load: f64,
    pub cpu_graph: f64,
    pub ingest_p50_ms: f64,
    pub ingest_p99_ms: f64,
    /// From the request to the call of the stand-in.
    pub to_call_p50_ms: f64,
    pub to_call_p99_ms: f64,
    /// From `created_at` to `done_at`, of the messages sent over HTTP.
    pub end_to_end_p50_ms: f64,
    pub end_to_end_p95_ms: f64,
    pub end_to_end_p99_ms: f64,
    /// Peak resident memory in MB, by process.
    pub memory: BTreeMap<String, f64>,
    pub most_in_flight: u64,
    /// Calls beyond the first for a message.
    pub repeated: u64,
    /// Whether messages were sent at a rate, so that rounds differ by their costs.
    pub is_paced: bool,
    pub database: Option<DatabaseCosts>,
}

impl System {
    /// Send the work and wait until all of it is final.
    pub async fn run(&mut self, scenario: &str, work: Work) -> anyhow::Result<Measured> {
        self.warm_up(work).await?;
        sqlx::query("checkpoint").execute(&self.database).await?;
        let calls_before = self.deliveries().await?;
        let counters = Counters::start(&self.database, self.table, self.statements).await?;
        let before = self.cpu()?;
        let load_before = children_cpu()?;
        let load = self.send("m-", work).await?;
        anyhow::ensure!(load.accepted == work.messages, "accepted {} of {}", load.accepted, work.messages);
        self.wait_for("m-", work.messages).await?;
        let after = self.cpu()?;
        let load_after = children_cpu()?;

        let mut measured = Measured {
            scenario: scenario.to_owned(),
            system: self.name.to_owned(),
            ingest_p50_ms: load.p50_ms,
            ingest_p99_ms: load.p99_ms,
            is_paced: work.rate > 0,
            ..Measured::default()
        };
        self.read_times(load.started, &mut measured).await?;
        self.read_costs(&before, &after, &mut measured)?;
        measured.cpu_load = (load_after - load_before) * 1e3 / measured.messages as f64;
        measured.database = shown(counters.read(&self.database, measured.messages).await);
        let calls = self.deliveries().await?;
        if let Some(late) = calls.late.get("m") {
            (measured.to_call_p50_ms, measured.to_call_p99_ms) = (late.p50_ms, late.p99_ms);
        }
        measured.most_in_flight = calls.most_in_flight;
        measured.repeated = (calls.total - calls_before.total) - (calls.unique - calls_before.unique);
        Ok(measured)
    }

    /// Send a thousand messages of the kind, as fast as they go, and wait until they are final.
    pub async fn warm_up(&mut self, work: Work) -> anyhow::Result<()> {
        let messages = work.messages.min(1000);
        self.send("warm-", Work { messages, rate: 0, ..work }).await?;
        self.wait_for("warm-", messages).await
    }

    /// Send the work and wait until all of it is logged; nothing is sent on.
    pub async fn take_in(&mut self, scenario: &str, work: Work) -> anyhow::Result<Measured> {
        self.send("warm-", Work { messages: work.messages.min(1000), ..work }).await?;
        sqlx::query("checkpoint").execute(&self.database).await?;
        let counters = Counters::start(&self.database, self.table, self.statements).await?;
        let before = self.cpu()?;
        let load_before = children_cpu()?;
        let load = self.send("m-", work).await?;
        let after = self.cpu()?;
        anyhow::ensure!(load.accepted == work.messages, "accepted {} of {}", load.accepted, work.messages);
        let mut measured = Measured {
            scenario: scenario.to_owned(),
            system: self.name.to_owned(),
            messages: load.accepted,
            seconds: load.seconds,
            per_second: load.accepted as f64 / load.seconds,
            ingest_p50_ms: load.p50_ms,
            ingest_p99_ms: load.p99_ms,
            cpu_load: (children_cpu()? - load_before) * 1e3 / load.accepted as f64,
            database: shown(counters.read(&self.database, load.accepted).await),
            ..Measured::default()
        };
        self.read_costs(&before, &after, &mut measured)?;
        Ok(measured)
    }

    /// Wait until `messages` rows of the log are final; nothing is sent over HTTP.
    pub async fn drain(&mut self, scenario: &str, messages: u64) -> anyhow::Result<Measured> {
        let begun: f64 = time::OffsetDateTime::now_utc().unix_timestamp_nanos() as f64 / 1e9;
        let before = self.cpu()?;
        let first = self.deliveries().await?.unique;
        while self.deliveries().await?.unique < first + messages {
            self.alive()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let after = self.cpu()?;
        let mut measured =
            Measured { scenario: scenario.to_owned(), system: self.name.to_owned(), ..Measured::default() };
        self.read_times(begun, &mut measured).await?;
        self.read_costs(&before, &after, &mut measured)?;
        Ok(measured)
    }

    async fn send(&self, prefix: &str, work: Work) -> anyhow::Result<LoadReport> {
        self.send_as(&self.tsid, prefix, work).await
    }

    /// Send the work with the token of an account. The load ends when the future is dropped.
    pub async fn send_as(&self, tsid: &str, prefix: &str, work: Work) -> anyhow::Result<LoadReport> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["load", "--host", &self.host, "--path", self.path, "--prefix", prefix]);
        command.args(["--shape", if self.shape == Shape::Product { "product" } else { "peer" }]);
        for (name, value) in [
            ("--count", work.messages),
            ("--connections", work.connections),
            ("--rate", work.rate),
            ("--batch", work.batch),
            ("--first-line", work.first_line),
            ("--lines", work.lines),
        ] {
            command.args([name, &value.to_string()]);
        }
        if let Some(campaign) = work.campaign {
            command.args(["--campaign", campaign]);
        }
        command.env("BENCH_TSID", tsid);
        let report = output(command, None).await?;
        serde_json::from_str(&report).context("the load's report")
    }

    /// Wait until the log has this many final rows with the prefix. While many are missing, the stand-in is
    /// asked, which costs the system nothing.
    async fn wait_for(&mut self, prefix: &str, rows: u64) -> anyhow::Result<()> {
        let query = format!("select count(*) from {} where dest like $1 and status = $2", self.table);
        let (mut seen, mut progress) = (0, Instant::now());
        loop {
            self.alive()?;
            let calls = self.deliveries().await?.unique;
            if calls >= rows {
                let done: i64 = sqlx::query_scalar(query.as_str())
                    .bind(format!("{prefix}%"))
                    .bind(self.sent)
                    .fetch_one(&self.database)
                    .await?;
                if done as u64 >= rows {
                    return Ok(());
                }
            }
            if calls > seen {
                (seen, progress) = (calls, Instant::now());
            } else if progress.elapsed() > Duration::from_secs(60) {
                bail!("{}: no call for a minute, after {calls}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn read_times(&self, started: f64, measured: &mut Measured) -> anyhow::Result<()> {
        let query = format!(
            "select count(*) as messages, extract(epoch from max(done_at))::float8 as last, \
             percentile_cont(array[0.5, 0.95, 0.99]) within group \
             (order by extract(epoch from done_at - created_at)::float8 * 1000) \
             filter (where dest like 'm-%') as latencies \
             from {} where status = $1 and done_at >= to_timestamp($2)",
            self.table
        );
        let row = sqlx::query(&query).bind(self.sent).bind(started).fetch_one(&self.database).await?;
        measured.messages = row.get::<i64, _>("messages") as u64;
        measured.seconds = row.get::<f64, _>("last") - started;
        measured.per_second = measured.messages as f64 / measured.seconds;
        if let Some(latencies) = row.get::<Option<Vec<f64>>, _>("latencies") {
            measured.end_to_end_p50_ms = latencies[0];
            measured.end_to_end_p95_ms = latencies[1];
            measured.end_to_end_p99_ms = latencies[2];
        }
        Ok(())
    }

    fn read_costs(
        &self,
        before: &[(&'static str, f64)],
        after: &[(&'static str, f64)],
        measured: &mut Measured,
    ) -> anyhow::Result<()> {
        for ((name, before), (_, after)) in before.iter().zip(after) {
            let cost = (after - before) * 1e3 / measured.messages as f64;
            if *name == self.graph.name {
                measured.cpu_graph = cost;
            } else {
                *measured.cpu.entry((*name).to_owned()).or_default() += cost;
                measured.cpu_total += cost;
            }
        }
        for running in &self.processes {
            let memory = process::peak_memory(running.pid())?;
            let most = measured.memory.entry(running.name.to_owned()).or_default();
            *most = most.max(memory);
        }
        Ok(())
    }

    /// Return the CPU seconds so far, of each process and server.
    pub fn cpu(&self) -> anyhow::Result<Vec<(&'static str, f64)>> {
        let own = self.processes.iter().chain([&self.graph]).map(|running| (running.name, running.pid()));
        own.chain(self.servers.iter().copied())
            .map(|(name, pid)| Ok((name, process::cpu_seconds(pid)?)))
            .collect()
    }

    pub fn alive(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().chain([&mut self.graph]).try_for_each(Running::alive)
    }

    pub async fn deliveries(&self) -> anyhow::Result<Deliveries> {
        Ok(reqwest::get(format!("http://{}/count", self.graph_address)).await?.json().await?)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        for running in self.processes {
            running.stop().await?;
        }
        self.graph.stop().await?;
        self.database.close().await;
        Ok(())
    }
}

/// Return the figures; unreadable ones are left out with a message.
fn shown<Figures>(figures: anyhow::Result<Figures>) -> Option<Figures> {
    figures.inspect_err(|error| eprintln!("PostgreSQL's own counters are left out: {error:#}")).ok()
}

/// Return the CPU seconds of the load generators that have ended: this process's children that were waited
/// for.
fn children_cpu() -> anyhow::Result<f64> {
    let stat = procfs::process::Process::myself()?.stat()?;
    Ok((stat.cutime + stat.cstime) as f64 / procfs::ticks_per_second() as f64)
}
