//! One run: a fresh database and virtual host, the product, load and faults; then quiet, and the ledgers
//! compared.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::{Mutex, watch};
use url::Url;

use crate::check::{Ledgers, Moment, Row, Verdict, check};
use crate::defects::Defect;
use crate::fleet::{Fleet, Record, Setup};
use crate::graph::{self, Calls};
use crate::inflict::{self, Ground, Journal};
use crate::load::{LINES, Load, Messages};
use crate::plan::{self, Failpoints, Step};
use crate::proxy::Proxy;
use crate::servers::Server;
use crate::{Arguments, report};

/// The share of started processes that get a failpoint.
const WITH_FAILPOINT: f64 = 0.6;
/// How long the ledgers must stay unchanged before rows that are not final count as stuck. A claim of a dead
/// worker takes up to 6 s (call deadline 4 s, looked for every 2 s), a line's pause a few seconds.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same for runs with a defect, where most end so; and where no claim is open.
const DEFECT_PATIENCE: Duration = Duration::from_secs(20);
const SETTLED_PATIENCE: Duration = Duration::from_secs(10);

/// The time between two comparisons of the ledgers during a run; longer when comparing takes more than this
/// share of the time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_SHARE: u32 = 20;

/// The conditions that all runs of a command share.
pub struct Conditions {
    program: PathBuf,
    defective_program: PathBuf,
    logs: PathBuf,
    database_url: Url,
    amqp_url: Url,
    seed: u64,
    rate: u32,
    on_ambiguous: String,
    postgres: Arc<Mutex<Server>>,
    rabbitmq: Arc<Mutex<Server>>,
}

/// The findings of a run.
pub struct Outcome {
    pub verdict: Verdict,
    record: Record,
    journal: Journal,
    ledgers: Ledgers,
    took: Duration,
    quiet_after: Duration,
}

impl Conditions {
    pub fn new(arguments: &Arguments, seed: u64) -> Conditions {
        let folder = &arguments.folder;
        let server = |url: &Url| format!("127.0.0.1:{}", url.port().unwrap_or_default());
        let postgres = Server::postgres(folder, server(&arguments.database_url));
        let rabbitmq = Server::rabbitmq(folder, server(&arguments.amqp_url));
        Conditions {
            program: arguments.program.clone(),
            defective_program: arguments.defective_program.clone(),
            logs: arguments.logs.clone(),
            database_url: arguments.database_url.clone(),
            amqp_url: arguments.amqp_url.clone(),
            seed,
            rate: arguments.rate,
            on_ambiguous: arguments.on_ambiguous.clone(),
            postgres: Arc::new(Mutex::new(postgres)),
            rabbitmq: Arc::new(Mutex::new(rabbitmq)),
        }
    }
}

/// Run the schedule of a tier.
pub async fn tier(conditions: &Conditions, kills: usize, longest: Duration) -> anyhow::Result<Outcome> {
    let steps = plan::tier(conditions.seed, kills, longest);
    let failpoints = Failpoints::new(conditions.seed, WITH_FAILPOINT);
    Run::prepare(conditions, "tier", "/", None, failpoints).await?.carry_out(steps, PATIENCE).await
}

/// Run the product with a defect, and faults that bring it to light; end at the first broken promise.
pub async fn defect(conditions: &Conditions, defect: Defect, run: u64) -> anyhow::Result<Outcome> {
    let vhost = format!("t{}", defect as usize % 8);
    let seed = conditions.seed.wrapping_add(run);
    let steps = plan::for_defect(seed, defect);
    let failpoints = Failpoints::new(seed, 0.0);
    let name = format!("{}_{run}", defect.name());
    Run::prepare(conditions, &name, &vhost, Some(defect), failpoints)
        .await?
        .carry_out(steps, DEFECT_PATIENCE)
        .await
}

struct Run {
    ground: Arc<Ground>,
    load: Option<Load>,
    messages: Messages,
    calls: Calls,
    /// Rows seen in a state that never changes, with that state.
    settled: std::sync::Mutex<HashMap<i64, String>>,
    hold: bool,
    has_defect: bool,
}

impl Run {
    async fn prepare(
        conditions: &Conditions,
        name: &str,
        vhost: &str,
        defect: Option<Defect>,
        failpoints: Failpoints,
    ) -> anyhow::Result<Run> {
        let database_name = format!("chaos_{name}");
        let (amqp_url, pool) = own_places(conditions, &database_name, vhost).await?;
        let amqp = Proxy::before(conditions.rabbitmq.lock().await.address.clone(), true).await?;
        let database = Proxy::before(conditions.postgres.lock().await.address.clone(), false).await?;
        let (graph_address, calls) = graph::start(conditions.seed)?;
        let graph = Proxy::before(graph_address, false).await?;
        let logs = conditions.logs.join(name);
        std::fs::create_dir_all(&logs)?;
        let mut database_url = conditions.database_url.clone();
        database_url.set_path(&database_name);
        let setup = Setup {
            program: if defect.is_some() { &conditions.defective_program } else { &conditions.program }
                .clone(),
            logs,
            database_url: through(&database_url, &database.address)? + "?sslmode=disable",
            amqp_url: through(&amqp_url, &amqp.address)?,
            graph_url: format!("http://{}/v25.0", graph.address),
            on_ambiguous: conditions.on_ambiguous.clone(),
            defect: defect.map(Defect::name),
        };
        let fleet = Fleet::new(setup, failpoints)?;
        let tsid = prepare_account(&fleet, &pool).await?;
        fleet.start_all().await?;
        let messages = Messages::default();
        let load =
            Load { ingests: fleet.ingests(), tsid, per_second: conditions.rate, messages: messages.clone() };
        let ground = Ground {
            fleet,
            postgres: Arc::clone(&conditions.postgres),
            rabbitmq: Arc::clone(&conditions.rabbitmq),
            amqp,
            database,
            graph,
            amqp_url: amqp_url.into(),
            pool,
            database_name,
        };
        Ok(Run {
            ground: Arc::new(ground),
            load: Some(load),
            messages,
            calls,
            settled: std::sync::Mutex::default(),
            hold: conditions.on_ambiguous == "hold",
            has_defect: defect.is_some(),
        })
    }

    async fn carry_out(mut self, steps: Vec<Step>, patience: Duration) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let journal = Journal::default();
        let stop = watch::Sender::new(false);
        let load = self.load.take().context("a run is carried out once")?;
        let load = tokio::spawn(load.run(stop.subscribe()));
        let watching = tokio::spawn(self.ground.fleet.clone().watch(!self.has_defect));
        let faults = inflict::run(Arc::clone(&self.ground), steps, journal.clone());
        let early = tokio::select! {
            done = faults => {
                done?;
                None
            }
            found = self.first_violation() => Some(found),
        };
        stop.send_replace(true);
        load.await??;
        let quiet_since = Instant::now();
        let (ledgers, verdict) = match early {
            Some(found) => found,
            None => {
                self.ground.heal().await?;
                self.wait_until_quiet(patience).await?;
                let ledgers = self.ledgers().await?;
                let verdict = check(&ledgers, Moment::Quiet, self.hold);
                (ledgers, verdict)
            }
        };
        watching.abort();
        let record = self.ground.fleet.record();
        self.ground.fleet.end().await;
        self.ground.pool.close().await;
        let quiet_after = quiet_since.elapsed();
        Ok(Outcome { verdict, record, journal, ledgers, took: started.elapsed(), quiet_after })
    }

    /// Look at the ledgers while the system runs, until a promise is broken.
    async fn first_violation(&self) -> (Ledgers, Verdict) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let started = Instant::now();
            // The database may be away; the next look is soon.
            let Ok(Ok(ledgers)) = tokio::time::timeout(Duration::from_secs(5), self.ledgers()).await else {
                continue;
            };
            let verdict = check(&ledgers, Moment::Running, self.hold);
            if !verdict.violations.is_empty() {
                return (ledgers, verdict);
            }
            pause = LOOK_EVERY.max(started.elapsed() * LOOK_SHARE);
        }
    }

    /// Read the ledgers, client and Graph first: the log already knows everything in the other two.
    async fn ledgers(&self) -> anyhow::Result<Ledgers> {
        let (messages, calls) = (self.messages.snapshot(), self.calls.snapshot());
        let rows = sqlx::query_as::<_, Row>(
            "select cdls_id, coalesce(msg_id, '') as msg_id, status, message_id, attempts, ambiguous_attempts, \
             error_kind, error_code from cdls order by cdls_id",
        )
        .fetch_all(&self.ground.pool)
        .await?;
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = HashMap::new();
        for row in &rows {
            match settled.get(&row.cdls_id) {
                Some(before) if *before != row.status => drop(changed.insert(row.cdls_id, before.clone())),
                None if row.is_settled() => drop(settled.insert(row.cdls_id, row.status.clone())),
                _ => {}
            }
        }
        drop(settled);
        Ok(Ledgers { messages, calls, rows, changed })
    }

    /// Wait until every row is final, or nothing has changed for `patience`.
    async fn wait_until_quiet(&self, patience: Duration) -> anyhow::Result<()> {
        let mut last = (Vec::new(), Instant::now());
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let open: Vec<(i64, String, i32)> = sqlx::query_as(
                "select c.cdls_id, case when s.cdls_id is null then c.status else 'SENDING' end, c.attempts \
                 from cdls c left join cdls_sending s on s.cdls_id = c.cdls_id and s.fence > c.fence \
                 where c.status not in ('OK', 'ERROR', 'UNKNOWN', 'CANCELLED') order by c.cdls_id",
            )
            .fetch_all(&self.ground.pool)
            .await?;
            if open.is_empty() {
                // The last answers may still be on their way into the log of a message that was late.
                return Ok(());
            }
            if open != last.0 {
                last = (open, Instant::now());
                continue;
            }
            let settled = self.has_defect && last.0.iter().all(|(_, status, _)| status != "SENDING");
            let patience = if settled { SETTLED_PATIENCE } else { patience };
            if last.1.elapsed() > patience {
                return Ok(());
            }
        }
    }
}

impl Outcome {
    /// Print everything; return whether all promises were kept.
    pub fn report(&self) -> bool {
        println!(
            "{:.0} s under faults, then quiet after {:.1} s\n",
            (self.took - self.quiet_after).as_secs_f64(),
            self.quiet_after.as_secs_f64()
        );
        let faults = self.journal.snapshot();
        let recovery = report::recovery(&faults, &self.ledgers.messages, &self.ledgers.calls);
        report::faults(&self.journal.counts(), &recovery);
        report::failpoints(&self.record);
        report::ledgers(&self.verdict);
        report::promises(&self.verdict);
        for unexpected in &self.record.unexpected {
            println!("{unexpected}");
        }
        let kills = faults.iter().filter(|(fault, _)| fault.is_kill()).count()
            + self.record.died_at.values().sum::<usize>();
        let is_good = self.verdict.violations.is_empty() && self.record.unexpected.is_empty();
        println!(
            "{kills} kills, {} messages accepted: {}\n",
            self.verdict.accepted,
            if is_good { "every promise kept" } else { "PROMISES BROKEN" }
        );
        is_good
    }

    /// Return the promises that gave a defect away.
    pub fn caught_by(&self) -> Vec<&'static str> {
        let mut by: Vec<_> =
            self.verdict.violations.iter().map(|violation| violation.invariant.name()).collect();
        by.dedup();
        by
    }
}

/// Make a database of its own, and the URL of a virtual host.
async fn own_places(conditions: &Conditions, database: &str, vhost: &str) -> anyhow::Result<(Url, PgPool)> {
    let mut amqp_url = conditions.amqp_url.clone();
    amqp_url.set_path(if vhost == "/" { "%2f" } else { vhost });
    let options: PgConnectOptions = conditions.database_url.as_str().parse()?;
    let options = options.application_name("chaos").ssl_mode(sqlx::postgres::PgSslMode::Disable);
    let server = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    sqlx::query(&format!("create database {database}")).execute(&server).await?;
    server.close().await;
    let pool = PgPoolOptions::new().max_connections(2).connect_with(options.database(database)).await?;
    Ok((amqp_url, pool))
}

/// Make the schema, an account and its lines; return the account's token.
async fn prepare_account(fleet: &Fleet, pool: &PgPool) -> anyhow::Result<String> {
    fleet.command(&["migrate"]).await?;
    let account = fleet.command(&["account", "add", "--name", "chaos", "--json"]).await?;
    let account: serde_json::Value = serde_json::from_str(&account)?;
    sqlx::query(
        "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id) \
         select n, $1, 'messenger', 'EAA-chaos-' || n, n::text from generate_series(1, $2) as n",
    )
    .bind(account["cdcs_id"].as_i64().context("an account has an id")?)
    .bind(LINES as i64)
    .execute(pool)
    .await?;
    Ok(account["tsid"].as_str().context("an account has a token")?.to_owned())
}

/// Return the URL with host and port of a proxy.
fn through(url: &Url, address: &str) -> anyhow::Result<String> {
    let mut url = url.clone();
    let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
    url.set_host(Some("127.0.0.1"))?;
    url.set_port(port).ok().context("a URL with a host takes a port")?;
    Ok(url.into())
}
