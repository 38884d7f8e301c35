//! The figures, as Markdown tables on standard output and lines of JSON in a file.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use procfs::Current;
use sqlx::{Connection, PgConnection};

use crate::arguments::RunArguments;
use crate::database::{Statement, calls, milliseconds};
use crate::dump::Dump;
use crate::enquiry::Asked;
use crate::idle::Idle;
use crate::measure::Measured;
use crate::noisy::Noisy;
use crate::receipts::Receipts;

/// The figures of all rounds.
#[derive(Default)]
pub struct Figures {
    pub runs: Vec<Measured>,
    pub asked: Vec<Asked>,
    pub idle: Vec<Idle>,
    pub dumps: Vec<Dump>,
    pub noisy: Vec<Noisy>,
    pub receipts: Vec<Receipts>,
}

/// Print the machine and the servers, so that figures can be read.
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

/// Print every table that has rows.
pub fn tables(figures: &Figures) {
    let medians = medians(&figures.runs);
    if !medians.is_empty() {
        println!("{}\n\nCPU ms a message, by process:\n\n{}", speed(&medians), costs(&medians));
        println!("\nPostgreSQL, a message:\n\n{}", database(&medians));
    }
    let counted = medians.iter().filter_map(|run| Some((run, run.database.as_ref()?)));
    let counted =
        counted.map(|(run, costs)| (format!("{}, {}", run.scenario, run.system), &*costs.statements));
    let resting = figures.idle.iter().map(|idle| (format!("{}, a second", idle.system), &*idle.statements));
    let counted: Vec<_> = counted.chain(resting).filter(|(_, statements)| !statements.is_empty()).collect();
    if !counted.is_empty() {
        println!("\nStatements, a message:\n\n{}", statements(&counted));
    }
    for (rows, table) in [
        (figures.idle.len(), idle(&figures.idle)),
        (figures.dumps.len(), dumps(&figures.dumps)),
        (figures.asked.len(), asked(&figures.asked)),
        (figures.noisy.len(), noisy(&figures.noisy)),
        (figures.receipts.len(), receipts(&figures.receipts)),
    ] {
        if rows > 0 {
            println!("\n{table}");
        }
    }
}

fn speed(runs: &[Measured]) -> Table {
    let mut table = table(&[
        "scenario",
        "system",
        "messages",
        "messages/s",
        "CPU ms a message",
        "ingest p50, p99 ms",
        "request to call p50, p99 ms",
        "created to done p50, p95, p99 ms",
        "calls in flight",
        "repeated",
    ]);
    for run in runs {
        table.add_row([
            run.scenario.clone(),
            run.system.clone(),
            run.messages.to_string(),
            format!("{:.0}", run.per_second),
            format!("{:.3}", run.cpu_total),
            format!("{:.1}, {:.1}", run.ingest_p50_ms, run.ingest_p99_ms),
            format!("{:.1}, {:.1}", run.to_call_p50_ms, run.to_call_p99_ms),
            format!(
                "{:.1}, {:.1}, {:.1}",
                run.end_to_end_p50_ms, run.end_to_end_p95_ms, run.end_to_end_p99_ms
            ),
            run.most_in_flight.to_string(),
            run.repeated.to_string(),
        ]);
    }
    table
}

fn costs(runs: &[Measured]) -> Table {
    let mut table = table(&[
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
    for run in runs {
        let cpu = |name| format!("{:.3}", run.cpu.get(name).copied().unwrap_or_default());
        let memory = |name| format!("{:.0}", run.memory.get(name).copied().unwrap_or_default());
        table.add_row([
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
    table
}

fn database(runs: &[Measured]) -> Table {
    let mut table = table(&[
        "scenario",
        "system",
        "WAL bytes",
        "and page images",
        "index entries",
        "HOT % of updates",
        "writing commits",
        "statements",
        "their ms",
    ]);
    for run in runs {
        let Some(costs) = &run.database else { continue };
        let counted = |figure: String| if costs.statements.is_empty() { "–".to_owned() } else { figure };
        table.add_row([
            run.scenario.clone(),
            run.system.clone(),
            format!("{:.0}", costs.wal_bytes),
            format!("{:.0}", costs.image_bytes),
            format!("{:.2}", costs.index_entries),
            format!("{:.1}", costs.hot_share * 100.0),
            format!("{:.3}", costs.commits),
            counted(format!("{:.2}", calls(&costs.statements))),
            counted(format!("{:.3}", milliseconds(&costs.statements))),
        ]);
    }
    table
}

/// Return the table of the most frequent statements of each run.
fn statements(runs: &[(String, &[Statement])]) -> Table {
    const MOST: usize = 12;
    let mut table = table(&["run", "calls", "ms each", "statement"]);
    for (run, statements) in runs {
        for statement in statements.iter().take(MOST) {
            table.add_row([
                run.clone(),
                format!("{:.3}", statement.calls),
                format!("{:.3}", statement.ms),
                statement.text.replace('|', " "),
            ]);
        }
    }
    table
}

/// Return the table of every round.
fn idle(idle: &[Idle]) -> Table {
    let mut table = table(&[
        "at rest",
        "statements/s",
        "bytes written/s",
        "CPU % of a core: ingest or serve",
        "worker",
        "postgresql",
        "rabbitmq",
    ]);
    for figures in idle {
        let cpu = |name| figures.cpu.get(name).map_or("–".to_owned(), |share| format!("{share:.2}"));
        let number =
            |value: Option<f64>, digits| value.map_or("–".to_owned(), |value| format!("{value:.digits$}"));
        table.add_row([
            figures.system.clone(),
            number(figures.statements_per_second, 2),
            number(figures.bytes_written_per_second, 0),
            if figures.cpu.contains_key("serve") { cpu("serve") } else { cpu("ingest") },
            cpu("worker"),
            cpu("postgresql"),
            cpu("rabbitmq"),
        ]);
    }
    table
}

/// Return the table of every round.
fn dumps(dumps: &[Dump]) -> Table {
    let mut table = table(&[
        "scenario",
        "system",
        "messages/s",
        "first and last tenth",
        "CPU ms a message",
        "scheduled: p50, p99, most ms late",
        "dead versions of rows",
        "warnings of leases",
    ]);
    for dump in dumps {
        let scheduled = dump.scheduled.map_or("–".to_owned(), |late| {
            format!("{:.0}, {:.0}, {:.0}", late.p50_ms, late.p99_ms, late.max_ms)
        });
        let dead: Vec<String> = dump.dead.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
        table.add_row([
            dump.measured.scenario.clone(),
            dump.measured.system.clone(),
            format!("{:.0}", dump.measured.per_second),
            format!("{:.0}, {:.0}", dump.first_per_second, dump.last_per_second),
            format!("{:.3}", dump.measured.cpu_total),
            scheduled,
            dead.join(", "),
            dump.lease_warnings.to_string(),
        ]);
    }
    table
}

/// Return the table of every request of every round.
fn asked(asked: &[Asked]) -> Table {
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
    table
}

/// Return the table of every request of every round.
fn noisy(noisy: &[Noisy]) -> Table {
    let mut table = table(&[
        "beside a flood of",
        "request",
        "idle p50, p99 ms",
        "beside p50, p99 ms",
        "p99 beside to idle",
        "refused",
    ]);
    for figures in noisy {
        table.add_row([
            figures.flood.clone(),
            figures.request.clone(),
            format!("{:.1}, {:.1}", figures.idle_p50_ms, figures.idle_p99_ms),
            format!("{:.1}, {:.1}", figures.beside_p50_ms, figures.beside_p99_ms),
            format!("{:.2}", figures.ratio()),
            figures.refused.to_string(),
        ]);
    }
    table
}

/// Return the table of sending beside receipts.
fn receipts(receipts: &[Receipts]) -> Table {
    let mut table = table(&[
        "sending at",
        "messages/s alone",
        "beside receipts",
        "receipts/s",
        "POST p50, p99, most ms",
        "all written s after the last",
    ]);
    for figures in receipts {
        table.add_row([
            figures.sending.clone(),
            format!("{:.0}", figures.alone_per_second),
            format!("{:.0}", figures.beside_per_second),
            format!("{:.0}", figures.events_per_second),
            format!("{:.1}, {:.1}, {:.1}", figures.post_p50_ms, figures.post_p99_ms, figures.post_most_ms),
            format!("{:.1}", figures.written_after),
        ]);
    }
    table
}

/// Return, for each scenario and system, the run with the median rate; of runs at a fixed rate, the one with
/// the median cost.
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
            let figure = |run: &Measured| if run.is_paced { run.cpu_total } else { run.per_second };
            same.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
            same[same.len() / 2].clone()
        })
        .collect()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header.to_vec());
    table
}
