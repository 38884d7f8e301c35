//! Worker processes on PostgreSQL and RabbitMQ, in front of a simulator that notes when each call arrived.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use meta_dispatch::simulator::{PlayedCall, Simulator, SimulatorOptions};
use secrecy::ExposeSecret;
use sqlx::PgPool;
use testkit::process::{Output, Running};
use testkit::program::Program;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::support::database::Database;
use crate::support::pipeline::eventually;
use crate::support::rabbitmq::Vhost;

/// `dispatch.lease` of the workers.
pub const LEASE: Duration = Duration::from_secs(2);

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub struct Cluster {
    pub simulator: Simulator,
    pub log: PgPool,
    pub workers: Vec<Worker>,
    /// How long the receiver was kept from running at most.
    stalled: watch::Receiver<Duration>,
    program: Program,
    _database: Database,
    _vhost: Vhost,
    _turn: MutexGuard<'static, ()>,
}

/// A worker process; killed when dropped.
pub struct Worker {
    /// As it calls itself in the database.
    pub name: String,
    process: Running,
}

/// A line: its id, and the texts a second it may send.
pub type LineLimit = (i64, u32);

impl Cluster {
    /// A log with these lines and no workers; the settings are those of the workers to come.
    pub async fn start(lines: &[LineLimit], settings: &[(&str, &str)]) -> Cluster {
        let turn = ONE_AT_A_TIME.lock().await;
        crate::support::install_crypto();
        let options = SimulatorOptions { keep: 1_000_000, ..SimulatorOptions::default() };
        let simulator = Simulator::start(options).expect("the simulator finds a port");
        let (database, vhost) = (Database::create().await, Vhost::lease().await);
        let log = PgPool::connect(database.url()).await.expect("PostgreSQL answers");
        let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
            .database(database.url())
            .broker(vhost.url().expose_secret())
            .graph(&simulator.base_url())
            .with("graph.timeout", "30s")
            .admin("127.0.0.1:0")
            .with("dispatch.lease", &format!("{}s", LEASE.as_secs()))
            .with("retry.base", "500ms")
            .with("retry.cap", "1s")
            .with("log.filter", "warn");
        let program = settings.iter().fold(program, |program, (key, value)| program.with(key, value));
        program.run(&["migrate"], None).await.expect("a fresh database can be migrated");
        let cluster = Cluster {
            simulator,
            log,
            workers: Vec::new(),
            stalled: watch_stalls(),
            program,
            _database: database,
            _vhost: vhost,
            _turn: turn,
        };
        cluster.execute("insert into account (cdcs_name) values ('Acme')").await;
        for (id, limit) in lines {
            sqlx::query(
                "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id, v8l_rate_text)
                 values ($1, 1, 'messenger', 'EAA-line-' || $1, '1', $2)",
            )
            .bind(id)
            .bind(*limit as i32)
            .execute(&cluster.log)
            .await
            .expect("lines can be added");
        }
        cluster
    }

    pub async fn execute(&self, statement: &str) {
        sqlx::raw_sql(statement).execute(&self.log).await.expect("the statement works");
    }

    /// Logs `rows` messages of a line to recipients of their own, as a broker that lost its jobs leaves them.
    pub async fn backlog(&self, line: i64, rows: i64, prefix: &str, lane: &str) {
        let rows = format!(
            "select {line}, '{prefix}-{line}-' || n, 'hello', '{lane}', null from generate_series(1, {rows}) n"
        );
        self.log_rows(&rows).await;
    }

    /// The same for a campaign.
    pub async fn campaign(&self, line: i64, rows: i64, name: &str) {
        let rows = format!(
            "select {line}, '{name}-{line}-' || n, 'hello', 'bulk', '{name}' from generate_series(1, {rows}) n"
        );
        self.log_rows(&rows).await;
    }

    /// Logs what a query finds (line, recipient, text, lane, campaign) in its order, with its work, and tells nobody.
    pub async fn log_rows(&self, query: &str) {
        let statement = format!(
            "with logged as (
                 insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, priority, cp_id, expires_at)
                 select 1, r.line, 'messenger', r.dest, 'text', r.text, r.lane, r.campaign, now() + interval '1 day'
                 from ({query}) as r (line, dest, text, lane, campaign)
                 returning cdls_id, v8l_id, priority, coalesce(cp_id, '') as campaign, expires_at)
             insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, expires_at)
             select v8l_id % 64, 1, v8l_id, priority, false, campaign, min(cdls_id),
                    array_agg(cdls_id order by cdls_id), min(expires_at)
             from (select *, (row_number() over (partition by v8l_id, priority, campaign order by cdls_id) - 1) / 64
                          as part from logged) as l
             group by v8l_id, priority, campaign, part order by min(cdls_id)"
        );
        self.execute(&statement).await;
    }

    /// Starts a worker, and waits until it has made itself known.
    pub async fn start_worker(&mut self) {
        let known = self.names().await;
        let process = self.program.start("worker", Output::Inherited).expect("the program runs");
        let name = eventually("the worker to register", || async {
            let names = self.names().await;
            names.difference(&known).next().cloned().ok_or_else(|| format!("{names:?}"))
        })
        .await;
        self.workers.push(Worker { name, process });
    }

    /// Starts this many workers, and waits until they share the partitions evenly.
    pub async fn start_workers(&mut self, count: usize) {
        for _ in 0..count {
            self.start_worker().await;
        }
        self.shared_evenly().await;
    }

    /// Waits until each running worker holds its share of the 64 partitions; the contract allows 15 s.
    pub async fn shared_evenly(&self) {
        let workers = self.workers.len() as i64;
        let begun = Instant::now();
        eventually("even shares", || async {
            let shares: Vec<i64> = sqlx::query_scalar(
                "select cardinality(partitions)::bigint from worker_lease
                 where expires_at > now() and partitions <> '{}'",
            )
            .fetch_all(&self.log)
            .await
            .expect("the leases can be read");
            let most = (64 + workers - 1) / workers;
            let even = shares.len() as i64 == workers
                && shares.iter().sum::<i64>() == 64
                && shares.iter().all(|share| *share <= most);
            if even { Ok(()) } else { Err(format!("{shares:?}")) }
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(15), "shared after {:?}", begun.elapsed());
    }

    /// Takes the worker that owns this line out of the list.
    pub async fn owner_of(&mut self, line: i64) -> Worker {
        let name: String =
            sqlx::query_scalar("select worker from worker_lease where ($1 % 64)::smallint = any(partitions)")
                .bind(line)
                .fetch_one(&self.log)
                .await
                .expect("somebody owns the line");
        let place = self.workers.iter().position(|worker| worker.name == name);
        self.workers.remove(place.expect("it is one of ours"))
    }

    /// Calls of a line so far, in order of arrival.
    pub fn calls(&self, line: i64) -> Vec<PlayedCall> {
        let tag = tag(line);
        self.simulator.calls().into_iter().filter(|call| call.token == tag).collect()
    }

    pub fn arrivals(&self, line: i64) -> Vec<Instant> {
        self.simulator.arrivals(&tag(line))
    }

    /// How long the simulator, in this process, did not get to run at most. Calls that arrive meanwhile are all seen at
    /// its end, closer together than they were sent.
    pub fn stalled(&self) -> Duration {
        *self.stalled.borrow()
    }

    /// Waits until the line has had this many calls more than now.
    pub async fn goes_on(&self, line: i64, more: usize) {
        let before = self.arrivals(line).len();
        eventually("further calls of the line", || async {
            let now = self.arrivals(line).len();
            if now >= before + more { Ok(()) } else { Err(format!("{} of {more}", now - before)) }
        })
        .await;
    }

    /// Waits until this many rows are final.
    pub async fn finished(&self, rows: i64) {
        eventually("final rows", || async {
            let counts: Vec<(String, i64)> =
                sqlx::query_as("select status, count(*) from cdls group by status order by status")
                    .fetch_all(&self.log)
                    .await
                    .expect("the log can be read");
            let is_final = |status: &str| ["OK", "ERROR", "UNKNOWN", "CANCELLED"].contains(&status);
            let done: i64 = counts.iter().filter(|(status, _)| is_final(status)).map(|(_, n)| n).sum();
            if done >= rows { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    async fn names(&self) -> BTreeSet<String> {
        let names: Vec<String> = sqlx::query_scalar("select worker from worker_lease")
            .fetch_all(&self.log)
            .await
            .expect("the workers can be read");
        names.into_iter().collect()
    }
}

impl Worker {
    /// Ends the process without any warning.
    pub async fn kill(mut self) {
        self.process.kill().await.expect("it can be killed");
    }

    /// Asks the process to end.
    pub fn stop(&self) {
        assert!(self.process.signal("TERM").expect("kill runs"));
    }

    /// Waits for the end that was asked for.
    pub async fn ended(&mut self) {
        eventually("the worker to end", || {
            let status = self.process.ended().expect("it can be waited for");
            async move {
                match status {
                    Some(status) if status.success() => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
    }
}

/// Notes by how much a timer of this runtime fired late at most, until nobody looks any more.
fn watch_stalls() -> watch::Receiver<Duration> {
    let (worst, stalled) = watch::channel(Duration::ZERO);
    tokio::spawn(async move {
        while !worst.is_closed() {
            let due = Instant::now() + Duration::from_millis(5);
            tokio::time::sleep_until(due.into()).await;
            worst.send_if_modified(|known| {
                let late = due.elapsed();
                let is_worse = late > *known;
                *known = late.max(*known);
                is_worse
            });
        }
    });
    stalled
}

/// How the simulator shows the page token of a line.
fn tag(line: i64) -> String {
    meta_dispatch::simulator::token_tag(&format!("EAA-line-{line}"))
}

/// The most calls in any window of this length.
pub fn fullest(arrivals: &[Instant], window: Duration) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in arrivals.iter().enumerate() {
        while *at - arrivals[first] >= window {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

/// The longest time without a call, from the first to the last.
pub fn longest_gap(arrivals: &[Instant]) -> Duration {
    arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
