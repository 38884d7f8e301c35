//! The program itself, as its users start it: a database and a virtual host of its own for each run, `ingest` and
//! `worker` apart, lines by SQL.

use std::path::Path;

use sqlx::PgPool;
use tokio::process::Command;

use crate::ground::{Ground, start_graph};
use crate::load::Shape;
use crate::measure::System;
use crate::process::{self, Running};

/// Rows of a campaign that waits, as commits of 64 rows of a line leave them.
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

/// A log that has so many ranges, and is about to fill the last but one.
const RANGES: &str = "
    do $$ begin
        for n in 0 .. {ranges} - 2 loop
            perform setval('cdls_id_seq', n * 10000000 + 8000000), cdls_ensure_partitions();
        end loop;
    end $$";

/// How the program is set up.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub graph_latency: u64,
    pub concurrency: u32,
    pub workers: usize,
    /// Lines with ids from 1, and the texts a second each may send.
    pub lines: u64,
    pub line_rate: u32,
    /// Lines with ids after those, at `waiting_rate`, that share this many waiting rows.
    pub waiting_lines: u64,
    pub waiting_rate: u32,
    pub waiting_rows: u64,
    /// What the recipients of the waiting rows begin with; see the stand-in for `hang-`.
    pub waiting_prefix: &'static str,
    /// Ranges of ids that the log has; 0 is as it is made.
    pub ranges: u64,
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
        }
    }
}

pub async fn start(ground: &Ground, setup: Setup) -> anyhow::Result<System> {
    let (graph, graph_address) = start_graph(setup.graph_latency).await?;
    let listen = process::free_address()?;
    let program = |arguments: &[&str], admin: &str| {
        let mut command = Command::new(&ground.program);
        command
            .args(arguments)
            .env("META_DISPATCH__DATABASE__URL", &ground.database_url)
            .env("META_DISPATCH__BROKER__URL", &ground.amqp_url)
            .env("META_DISPATCH__GRAPH__BASE_URL", format!("http://{graph_address}/v25.0"))
            .env("META_DISPATCH__HTTP__LISTEN", &listen)
            .env("META_DISPATCH__ADMIN__LISTEN", admin)
            .env("META_DISPATCH__DISPATCH__CONCURRENCY", setup.concurrency.to_string())
            .env("META_DISPATCH__LIMITS__ENFORCE_CEILINGS", "false")
            .env("META_DISPATCH__LOG__FILTER", "warn");
        command
    };
    let none = "127.0.0.1:0";
    process::output(&ground.program, &mut program(&["migrate"], none), None).await?;
    let tsid = account(&ground.program, &mut program(&["account", "add", "--name", "bench", "--json"], none))
        .await?;
    let database = ground.connect().await?;
    if setup.ranges > 0 {
        let ranges = RANGES.replace("{ranges}", &setup.ranges.to_string());
        sqlx::raw_sql(&ranges).execute(&database).await?;
    }
    if let Some(sql) = &ground.sql {
        sqlx::raw_sql(sql).execute(&database).await?;
    }
    add_lines(&database, setup).await?;

    let mut ingest = Running::start("ingest", &mut program(&["ingest"], &process::free_address()?))?;
    process::listens(&listen, &mut ingest).await?;
    let mut processes = vec![ingest];
    for _ in 0..setup.workers {
        let admin = process::free_address()?;
        let mut worker = Running::start("worker", &mut program(&["worker"], &admin))?;
        process::listens(&admin, &mut worker).await?;
        processes.push(worker);
    }
    Ok(System {
        name: "meta-dispatch",
        host: listen.clone(),
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

/// Adds the account; its token.
pub async fn account(program: &Path, command: &mut Command) -> anyhow::Result<String> {
    let account: serde_json::Value = serde_json::from_str(&process::output(program, command, None).await?)?;
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
