//! Bad days: states of the database, the log and Graph that stopped sending for minutes, or for good, while each
//! process looked healthy. Each file is about one of them. The tests are short forms. `BAD_DAYS=long` in the environment asks for the
//! long ones of `many_flows` and `one_moment`, and `bench/run dump --messages 1500000` for that of `old_snapshot`.

mod bounded_stop;
mod failing_scans;
mod hand_over;
mod locked_rows;
mod many_flows;
mod no_way_to_graph;
mod old_snapshot;
mod one_moment;
mod one_recipient;
mod ranges;
mod unreadable;

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{Lane, LineId, RowId, Submission};
use meta_dispatch::store::LogRow;
use meta_dispatch::text::timestamp;
use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};
use testkit::process::{Output, Running};
use testkit::program::Program;
use time::OffsetDateTime;

use crate::support::insert::Insert;
use crate::support::pipeline::{Pipeline, eventually, is_long};
use crate::support::serve::free_port;

/// Rows logged in one commit.
const COMMIT: usize = 2_000;

/// A number of rows, or of lines, in the short form and in the long one.
fn scaled(short: i64, long: i64) -> i64 {
    if is_long() { long } else { short }
}

/// A text as ingest logs it.
fn text(pipeline: &Pipeline, line: LineId, dest: &str) -> Submission {
    Submission {
        account: pipeline.account,
        line,
        class: Class::MESSENGER,
        dest: dest.into(),
        kind: MessageKind::Text,
        mdata: "hello".into(),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: Duration::from_secs(86_400),
        waiter: None,
    }
}

/// Logs rows without telling a worker, as after a broker has lost its jobs.
async fn log(pipeline: &Pipeline, rows: &[Submission]) -> Vec<RowId> {
    let mut ids = Vec::with_capacity(rows.len());
    for rows in rows.chunks(COMMIT) {
        ids.extend(pipeline.store.insert(rows).await.expect("rows can be logged"));
    }
    ids
}

/// Submits a message on the Messenger line that is to be sent at this time.
async fn schedule(pipeline: &Pipeline, dest: &str, at: OffsetDateTime) -> RowId {
    let line = pipeline.messenger.0;
    let parameters = json!({ "app_id": line, "dest": dest, "mdata": "hello", "send_at": timestamp(at) });
    let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))
}

/// The time from `at` to the message's last call, by the database's clock.
fn delay(row: &LogRow, at: OffsetDateTime) -> time::Duration {
    row.sent_at.expect("it was sent") - at
}

/// A session of another program in the pipeline's PostgreSQL.
async fn connect(pipeline: &Pipeline) -> PgConnection {
    PgConnection::connect(pipeline.database_url()).await.expect("PostgreSQL answers")
}

/// The one integer that a query of the pipeline's database finds.
async fn number(pipeline: &Pipeline, query: &str) -> i64 {
    let url = pipeline.database_url();
    if url.starts_with("sqlite:") {
        let mut connection = SqliteConnection::connect(url).await.expect("the file is there");
        return sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("the query works");
    }
    let mut connection = connect(pipeline).await;
    sqlx::query_scalar(query).fetch_one(&mut connection).await.expect("the query works")
}

/// Adds a line to each partition.
async fn add_lines(pipeline: &Pipeline) -> Vec<LineId> {
    let (first, account) = (pipeline.instagram.0 + 1, pipeline.account);
    pipeline
        .execute(&format!(
            "insert into cd_v8_line (cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id)
             select {account}, 'messenger', 'EAAmany', '1001' from generate_series(1, 64)"
        ))
        .await;
    (first..first + 64).map(LineId).collect()
}

async fn all_are_sent_once(pipeline: &Pipeline, ids: Vec<RowId>) {
    for id in ids {
        let row = pipeline.expect_ok(id).await;
        assert_eq!(pipeline.simulator.delivered_to(&row.dest), 1, "{row:?}");
    }
}

/// Waits until the pipeline's own worker holds so many partitions.
async fn own_worker_holds(pipeline: &Pipeline, leases: u64) {
    eventually(&format!("{leases} partitions"), || async {
        let held = pipeline.leases().await;
        if held == leases { Ok(()) } else { Err(format!("{held} partitions")) }
    })
    .await;
}

/// The answer of a process to `/readyz`; null while the process does not listen.
async fn readiness(client: &reqwest::Client, admin: SocketAddr) -> Value {
    let Ok(answer) = client.get(format!("http://{admin}/readyz")).send().await else { return Value::Null };
    answer.json().await.expect("answers are JSON")
}

/// A worker process beside those of a pipeline on servers: with settings, metrics and a death of its own. Killed
/// when dropped.
struct Worker {
    process: Running,
    admin: SocketAddr,
    client: reqwest::Client,
}

impl Worker {
    /// Starts a worker with the settings of the pipeline, some of them changed, and waits until it listens.
    async fn start(pipeline: &Pipeline, changed: &[(&str, &str)]) -> Worker {
        let worker = Worker::spawn(pipeline, changed);
        eventually("the worker to listen", || async {
            let answer = worker.client.get(format!("http://{}/healthz", worker.admin)).send().await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
        worker
    }

    /// Starts such a worker without waiting for it.
    fn spawn(pipeline: &Pipeline, changed: &[(&str, &str)]) -> Worker {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (graph, listen) = (pipeline.simulator.base_url(), admin.to_string());
        let settings = [
            ("database.url", pipeline.database_url()),
            ("broker.url", pipeline.settings.broker.url.expose_secret()),
            ("graph.base_url", graph.as_str()),
            ("graph.timeout", "3s"),
            ("graph.connect_timeout", "1s"),
            ("graph.media_timeout", "3s"),
            ("admin.listen", listen.as_str()),
            ("retry.base", "100ms"),
            ("retry.cap", "400ms"),
            ("dispatch.lease", "2s"),
            ("shutdown.grace", "10s"),
        ];
        let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"));
        let settings = settings.iter().chain(changed);
        let program = settings.fold(program, |program, (key, value)| program.with(key, value));
        let process = program.start("worker", Output::Dropped).expect("the program runs");
        Worker { process, admin, client: pipeline.client.clone() }
    }

    async fn readiness(&self) -> Value {
        readiness(&self.client, self.admin).await
    }

    /// Partitions held.
    async fn leases(&self) -> u64 {
        self.readiness().await["leases"].as_u64().expect("a number")
    }

    /// Waits until it holds so many partitions.
    async fn holds(&self, leases: u64) {
        eventually(&format!("{leases} partitions of the worker"), || async {
            let held = self.leases().await;
            if held == leases { Ok(()) } else { Err(format!("{held} partitions")) }
        })
        .await;
    }

    /// The value of a series without labels.
    async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://{}/metrics", self.admin);
        let answer = self.client.get(url).send().await.expect("it answers");
        let text = answer.text().await.expect("a text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect("the series is shown").parse().expect("a number")
    }

    /// Ends the process without any warning.
    fn kill(self) {
        drop(self);
    }

    /// Asks the process to end, and waits until it has.
    async fn stop(self) {
        self.stopped().await;
    }

    /// Asks the process to end, and says how it ended and after how long.
    async fn stopped(mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        assert!(self.process.signal("TERM").expect("kill runs"));
        let status = eventually("the worker to end", || {
            let status = self.process.ended().expect("it can be waited for");
            async move { status.ok_or_else(|| "it runs".to_owned()) }
        })
        .await;
        (status, asked.elapsed())
    }
}
