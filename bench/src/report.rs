//! What was measured, as Markdown tables on standard output and lines of JSON in a file.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use procfs::Current;
use sqlx::{Connection, PgConnection};

use crate::RunArguments;
use crate::enquiry::Asked;
use crate::measure::Measured;

/// The machine and the servers, so that figures can be read.
pub async fn machine(arguments: &RunArguments) -> anyhow::Result<()> {
    let cpu = procfs::CpuInfo::current()?;
    let memory = procfs::Meminfo::current()?;
    let mut database = PgConnection::connect(&arguments.database_url).await?;
    let (postgres, fsync, commit): (String, String, String) = sqlx::query_as(
        "select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')",
    )
    .fetch_one(&mut database)
    .await?;
    println!(
        "{} cores of {}, {} GiB; PostgreSQL {postgres}, fsync {fsync}, synchronous_commit {commit}; everything on \
         this machine.\n",
        cpu.num_cores(),
        cpu.model_name(0).unwrap_or("an unnamed CPU"),
        memory.mem_total >> 30,
    );
    Ok(())
}

pub fn record(arguments: &RunArguments, figures: &impl serde::Serialize) -> anyhow::Result<()> {
    eprintln!("{}", serde_json::to_string(figures)?);
    if let Some(path) = &arguments.json {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{}", serde_json::to_string(figures)?)?;
    }
    Ok(())
}

/// For each scenario and system, the run with the median rate.
pub fn tables(runs: &[Measured]) {
    if runs.is_empty() {
        return;
    }
    let medians = medians(runs);
    let mut speed = table(&[
        "scenario",
        "system",
        "messages",
        "messages/s",
        "CPU ms a message",
        "ingest p50, p99 ms",
        "end to end p50, p95, p99 ms",
        "calls in flight",
        "repeated",
    ]);
    let mut costs = table(&[
        "scenario",
        "system",
        "ingest",
        "worker",
        "postgresql",
        "rabbitmq",
        "load",
        "stand-in",
        "peak MB ingest",
        "peak MB worker",
    ]);
    for run in &medians {
        let cpu = |name| format!("{:.3}", run.cpu.get(name).copied().unwrap_or_default());
        let memory = |name| format!("{:.0}", run.memory.get(name).copied().unwrap_or_default());
        speed.add_row([
            run.scenario.clone(),
            run.system.clone(),
            run.messages.to_string(),
            format!("{:.0}", run.per_second),
            format!("{:.3}", run.cpu_total),
            format!("{:.1}, {:.1}", run.ingest_p50_ms, run.ingest_p99_ms),
            format!(
                "{:.0}, {:.0}, {:.0}",
                run.end_to_end_p50_ms, run.end_to_end_p95_ms, run.end_to_end_p99_ms
            ),
            run.most_in_flight.to_string(),
            run.repeated.to_string(),
        ]);
        costs.add_row([
            run.scenario.clone(),
            run.system.clone(),
            cpu("ingest"),
            cpu("worker"),
            cpu("postgresql"),
            cpu("rabbitmq"),
            format!("{:.3}", run.cpu_load),
            format!("{:.3}", run.cpu_graph),
            memory("ingest"),
            memory("worker"),
        ]);
    }
    println!("{speed}\n\nCPU ms a message, by process:\n\n{costs}");
}

/// Every request of every round.
pub fn asked(asked: &[Asked]) {
    if asked.is_empty() {
        return;
    }
    let mut table = table(&["scenario", "request", "times", "p50 ms", "p99 ms", "most ms", "answer"]);
    for figures in asked {
        let milliseconds = |value: f64| format!("{value:.1}");
        table.add_row([
            figures.scenario.clone(),
            figures.request.clone(),
            figures.times.to_string(),
            milliseconds(figures.p50_ms),
            milliseconds(figures.p99_ms),
            milliseconds(figures.max_ms),
            figures.answer.clone(),
        ]);
    }
    println!("\n{table}");
}

fn medians(runs: &[Measured]) -> Vec<Measured> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for run in runs {
        let name = (run.scenario.as_str(), run.system.as_str());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| {
            let mut same: Vec<&Measured> =
                runs.iter().filter(|run| (run.scenario.as_str(), run.system.as_str()) == name).collect();
            same.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
            same[same.len() / 2].clone()
        })
        .collect()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header.to_vec());
    table
}
