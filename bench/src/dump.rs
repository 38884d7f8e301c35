//! The effect of an old snapshot, such as that of a dump which runs for the night: PostgreSQL forgets no
//! version of a row while the snapshot is held. The same messages pass with it and without; scheduled ones
//! show how late they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinHandle;

use crate::arguments::RunArguments;
use crate::database::Statements;
use crate::graph::Lateness;
use crate::ground::{Ground, on_ground};
use crate::load::{self, now_micros};
use crate::measure::{Measured, SINGLE, System, Work};
use crate::peers::{self, Peer};
use crate::product::{self, Setup};

/// The time between scheduled messages, and how far ahead they are scheduled.
const SCHEDULE_EVERY: Duration = Duration::from_millis(50);
const SCHEDULE_AHEAD: Duration = Duration::from_secs(5);
/// The beginning of the recipients of scheduled messages.
const SCHEDULED: &str = "due";

/// Tables of the queue that change with each message or each batch of messages.
const QUEUE: [&str; 7] =
    ["work", "claim", "cdls_open", "worker_lease", "campaign", "campaign_delta", "campaign_total"];
/// The first statements of `pg_dump`, in the transaction that holds its snapshot.
const HOLD: &str = "
    begin isolation level repeatable read;
    do $$ declare name text; begin
        for name in select tablename from pg_tables where schemaname = 'public' loop
            execute format('lock table %I in access share mode', name);
        end loop;
    end $$";

/// The messages that passed, with a snapshot held or without.
#[derive(Debug, Clone, Serialize)]
pub struct Dump {
    pub snapshot: bool,
    pub measured: Measured,
    /// Rates of the first and of the last tenth of the messages.
    pub first_per_second: f64,
    pub last_per_second: f64,
    /// The lateness of the calls for messages with `send_at`, against that time.
    pub scheduled: Option<Lateness>,
    /// Dead versions of rows at the end, by table; the snapshot is still held.
    pub dead: BTreeMap<String, i64>,
    /// Warnings of workers about leases.
    pub lease_warnings: usize,
}

/// Measure with a snapshot held and without. Half of the messages have a campaign. The Node version has a
/// quarter of the messages, and no schedule.
pub async fn measure(arguments: &RunArguments) -> anyhow::Result<Vec<Dump>> {
    let messages = arguments.messages / arguments.divide;
    let work = Work { messages, campaign: Some("night"), ..SINGLE };
    let mut figures = Vec::new();
    for snapshot in [false, true] {
        let passing = on_ground(arguments, Statements::Uncounted, async |ground| {
            let system = product::start(ground, Setup::default()).await?;
            let schedule = Schedule::start(&system)?;
            pass(ground, system, work, snapshot, Some(schedule)).await
        });
        figures.push(passing.await?);
    }
    if let Some(folder) = arguments.peers_folder()? {
        for snapshot in [false, true] {
            let passing = on_ground(arguments, Statements::Uncounted, async |ground| {
                let system = peers::start(ground, &folder, Peer::Node, 0).await?;
                pass(ground, system, Work { messages: messages / 4, ..SINGLE }, snapshot, None).await
            });
            figures.push(passing.await?);
        }
    }
    Ok(figures)
}

async fn pass(
    ground: &Ground,
    mut system: System,
    work: Work,
    snapshot: bool,
    schedule: Option<Schedule>,
) -> anyhow::Result<(System, Dump)> {
    let held = if snapshot { Some(hold(ground).await?) } else { None };
    let name =
        format!("{} messages, {}", work.messages, if snapshot { "a snapshot held" } else { "no snapshot" });
    let measured = system.run(&name, work).await?;
    let scheduled = match schedule {
        Some(schedule) => Some(schedule.end(&mut system).await?),
        None => None,
    };
    let dead = dead(&system).await?;
    let (first_per_second, last_per_second) = tenths(&system, measured.messages).await?;
    let lease_warnings = system.processes.iter().map(|process| process.warned_of("lease")).sum();
    if let Some(held) = held {
        held.close().await?;
    }
    Ok((
        system,
        Dump { snapshot, measured, first_per_second, last_per_second, scheduled, dead, lease_warnings },
    ))
}

/// Open a connection that holds a snapshot until it is closed.
async fn hold(ground: &Ground) -> anyhow::Result<PgConnection> {
    let mut connection = PgConnection::connect(&ground.database_url).await?;
    sqlx::raw_sql(HOLD).execute(&mut connection).await?;
    Ok(connection)
}

/// Count dead rows one by one, since the estimates of the statistics are some seconds old.
async fn dead(system: &System) -> anyhow::Result<BTreeMap<String, i64>> {
    sqlx::query("create extension if not exists pgstattuple").execute(&system.database).await?;
    let tables: &[&str] = if system.table == "cdls" { &QUEUE } else { &[system.table] };
    let mut dead = BTreeMap::new();
    for table in tables {
        let count = sqlx::query_scalar("select dead_tuple_count from pgstattuple($1::regclass)");
        dead.insert((*table).to_owned(), count.bind(table).fetch_one(&system.database).await?);
    }
    Ok(dead)
}

async fn tenths(system: &System, messages: u64) -> anyhow::Result<(f64, f64)> {
    let query = format!(
        "select percentile_disc(array[0, 0.1, 0.9, 1]) within group (order by extract(epoch from done_at)::float8) \
         from {} where dest like 'm-%' and status = $1",
        system.table
    );
    let at: Vec<f64> = sqlx::query_scalar(&query).bind(system.sent).fetch_one(&system.database).await?;
    let tenth = messages as f64 / 10.0;
    Ok((tenth / (at[1] - at[0]), tenth / (at[3] - at[2])))
}

/// Messages that are scheduled one after the other, until the schedule ends.
struct Schedule {
    scheduling: JoinHandle<anyhow::Result<u64>>,
    has_ended: Arc<AtomicBool>,
}

impl Schedule {
    fn start(system: &System) -> anyhow::Result<Schedule> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}{}", system.host, system.path);
        let tsid = system.tsid.clone();
        let has_ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&has_ended);
        let scheduling = tokio::spawn(async move {
            let mut tick = tokio::time::interval(SCHEDULE_EVERY);
            let mut scheduled = 0;
            while !end.load(Relaxed) {
                tick.tick().await;
                let message = scheduled_message(scheduled)?;
                client.post(&url).bearer_auth(&tsid).json(&message).send().await?.error_for_status()?;
                scheduled += 1;
            }
            Ok(scheduled)
        });
        Ok(Schedule { scheduling, has_ended })
    }

    /// End the schedule, and wait until all of its messages were sent.
    async fn end(self, system: &mut System) -> anyhow::Result<Lateness> {
        self.has_ended.store(true, Relaxed);
        let scheduled = self.scheduling.await??;
        let asked = Instant::now();
        loop {
            let seen = system.deliveries().await?.late.remove(SCHEDULED).unwrap_or_default();
            if seen.calls >= scheduled {
                return Ok(seen);
            }
            system.alive()?;
            let waited = asked.elapsed();
            ensure!(
                waited < Duration::from_secs(120),
                "{} of {scheduled} scheduled messages were sent",
                seen.calls
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn scheduled_message(number: u64) -> anyhow::Result<serde_json::Value> {
    let due = now_micros() + SCHEDULE_AHEAD.as_micros() as u64;
    let send_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(due) * 1_000)?.format(&Rfc3339)?;
    Ok(serde_json::json!({
        "app_id": 1 + number % SINGLE.lines,
        "dest": format!("{SCHEDULED}-{number}-{due}"),
        "mdata": load::text(number),
        "send_at": send_at,
    }))
}
