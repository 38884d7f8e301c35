//! The program itself, as its users start it: a database and a virtual host of its own for each run, `ingest`
//! and `worker` apart, lines by SQL.

use sqlx::PgPool;
use testkit::process::{Output, free_address};
use testkit::program::Program;

use crate::ground::{Ground, start_graph};
use crate::load::Shape;
use crate::measure::System;

/// Waiting rows of a campaign, in the form that commits of 64 rows of a line give them.
const WAITING: &str = "
    with logged as (
        insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, cp_id, priority, expires_at)
        select 1, $1 + 1 + n % $2, 'messenger', $4 || n, 'text',
               'Our winter sale begins on Monday. Reply STOP to hear no more from us.', 'winter', 'bulk',
               now() + interval '1 day'
        from generate_series(1, $3) as n
        returning cdls_id, v8l_id, expires_at),
    counted as (
        insert into campaign_delta (cdcs_id, cp_id, v8l_id, media, status, rows)
        select 1, 'winter', v8l_id, false, 'PENDING', count(*) from logged group by v8l_id)
    insert into work (partition_no, cdcs_id, v8l_id, priority, media, campaign, first_id, ids, expires_at)
    select v8l_id % 64, 1, v8l_id, 'bulk', false, 'winter', min(cdls_id), array_agg(cdls_id order by cdls_id),
           min(expires_at)
    from (select *, (row_number() over (partition by v8l_id order by cdls_id) - 1) / 64 as part from logged) as l
    group by v8l_id, part order by min(cdls_id)";

/// A log with this many ranges that is about to fill the last but one.
const RANGES: &str = "
    do $$ begin
        for n in 0 .. {ranges} - 2 loop
            perform setval('cdls_id_seq', n * 10000000 + 8000000), cdls_ensure_partitions();
        end loop;
    end $$";

/// The secret of Meta's app, where webhooks are on.
pub const APP_SECRET: &str = "secret-of-the-app-of-the-benchmark";

/// The set-up of the program.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub graph_latency: u64,
    pub concurrency: u32,
    pub workers: usize,
    /// Lines with ids from 1, and the texts a second each may send.
    pub lines: u64,
    pub line_rate: u32,
    /// Lines with ids after the others, at `waiting_rate`, that share this many waiting rows.
    pub waiting_lines: u64,
    pub waiting_rate: u32,
    pub waiting_rows: u64,
    /// The prefix of the waiting rows' recipients; see the stand-in for `hang-`.
    pub waiting_prefix: &'static str,
    /// Ranges of ids in the log; 0 leaves the log as it is made.
    pub ranges: u64,
    /// Messages a second that an account may send; 0: any number.
    pub quota: u32,
    /// Whether Meta's webhooks are on, signed with [`APP_SECRET`].
    pub webhooks: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            graph_latency: 0,
            concurrency: 1024,
            workers: 1,
            lines: 8,
            line_rate: 2000,
            waiting_lines: 0,
            waiting_rate: 40,
            waiting_rows: 0,
            waiting_prefix: "waiting-",
            ranges: 0,
            quota: 0,
            webhooks: false,
        }
    }
}

pub async fn start(ground: &Ground, setup: Setup) -> anyhow::Result<System> {
    let (graph, graph_address) = start_graph(setup.graph_latency).await?;
    let listen = free_address()?;
    let program = Program::new(&ground.program)
        .in_groups()
        .database(&ground.database_url)
        .broker(&ground.amqp_url)
        .graph(&format!("http://{graph_address}/v25.0"))
        .http(&listen)
        .with("dispatch.concurrency", &setup.concurrency.to_string())
        .with("limits.enforce_ceilings", "false")
        .with("security.quota_rows_per_second", &setup.quota.to_string())
        .with("log.filter", "warn");
    let program = match setup.webhooks {
        true => program
            .with("graph.app_secret", APP_SECRET)
            .with("webhooks.verify_token", "benchmark-verify-token"),
        false => program,
    };
    program.run(&["migrate"], None).await?;
    let tsid = account(&program).await?;
    let database = ground.connect().await?;
    if setup.ranges > 0 {
        let ranges = RANGES.replace("{ranges}", &setup.ranges.to_string());
        sqlx::raw_sql(&ranges).execute(&database).await?;
    }
    if let Some(sql) = &ground.sql {
        sqlx::raw_sql(sql).execute(&database).await?;
    }
    add_lines(&database, setup).await?;

    let mut processes = vec![program.start_ready("ingest", Output::Shown).await?];
    for _ in 0..setup.workers {
        processes.push(program.start_ready("worker", Output::Shown).await?);
    }
    Ok(System {
        name: "meta-dispatch",
        host: listen,
        path: "/api/v2/MakeMessenger.php",
        shape: Shape::Product,
        tsid,
        processes,
        graph,
        graph_address,
        database,
        table: "cdls",
        sent: "OK",
        servers: ground.servers.clone(),
        statements: ground.statements,
    })
}

/// Add the account; return its token.
pub async fn account(program: &Program) -> anyhow::Result<String> {
    let account = program.run(&["account", "add", "--name", "bench", "--json"], None).await?;
    let account: serde_json::Value = serde_json::from_str(&account)?;
    Ok(account["tsid"].as_str().unwrap_or_default().to_owned())
}

async fn add_lines(database: &PgPool, setup: Setup) -> anyhow::Result<()> {
    sqlx::query(
        "insert into cd_v8_line (v8l_id, cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id, v8l_rate_text) \
         select n, 1, 'messenger', 'EAA-bench-' || n, n::text, case when n <= $1 then $2 else $3 end \
         from generate_series(1, $1 + $4) as n",
    )
    .bind(setup.lines as i64)
    .bind(setup.line_rate as i32)
    .bind(setup.waiting_rate as i32)
    .bind(setup.waiting_lines as i64)
    .execute(database)
    .await?;
    if setup.waiting_rows > 0 {
        sqlx::query(WAITING)
            .bind(setup.lines as i64)
            .bind(setup.waiting_lines as i64)
            .bind(setup.waiting_rows as i64)
            .bind(setup.waiting_prefix)
            .execute(database)
            .await?;
        sqlx::query("vacuum (analyze) cdls, work").execute(database).await?;
    }
    Ok(())
}
