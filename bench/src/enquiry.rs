//! The questions of senders: pages of the log by each filter, and how fast a large campaign is paused,
//! resumed and cancelled, just after it was logged and while it is being sent.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use reqwest::{Client, Method};
use serde_json::Value;

use crate::measure::System;

/// How long one kind of request took.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Asked {
    pub scenario: String,
    pub request: String,
    /// The last answer, in short.
    pub answer: String,
    pub times: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Pages of each filter that are read from the newest on, and as many after [`SKIPPED`] long ones.
const PAGES: usize = 50;
const SKIPPED: usize = 50;

/// Rows of ten million: eight in ten are the bench account's, on eight lines; of every 1,000 rows 20 were
/// refused, two are UNKNOWN, one is CANCELLED. Half carry a `msg_id` and a campaign of a million rows; one
/// recipient has one row in a hundred, the others about fifty each.
const ROWS: &str = "
    with logged as (
        insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, msg_id, cp_id, priority, status, status_code, message_id,
                          error_kind, attempts, expires_at, created_at, sent_at, done_at)
        select case when n % 10 < 8 then 1 else 2 end, 1 + n % 8 + case when n % 10 < 8 then 0 else 8 end, 'messenger',
               case when n % 100 = 7 then 'often' else 'r' || hashint8(n) % 200000 end, 'text',
               'Our winter sale begins on Monday. Reply STOP to hear no more from us.',
               case when n % 2 = 0 then 'order-' || n end, case when n % 2 = 0 then 'campaign-' || n / 2000000 end, 'bulk',
               s.status, case s.status when 'OK' then 200 when 'ERROR' then 400 else 0 end,
               case s.status when 'OK' then 'm_' || n end, case s.status when 'ERROR' then 'refused' end, 1,
               now() + interval '1 day', now() - interval '1 hour', now(), now()
        from generate_series($1, $2) as n
        cross join lateral (select case when n % 1000 < 20 then 'ERROR' when n % 1000 < 22 then 'UNKNOWN'
                                        when n % 1000 = 22 then 'CANCELLED' else 'OK' end as status) as s
        returning cdls_id, cdcs_id, v8l_id, cp_id, dest, status)
    insert into cdls_open (cdls_id, kind, partition_no, cdcs_id, v8l_id, priority, media, campaign, dest)
    select cdls_id, 'unknown', v8l_id % 64, cdcs_id, v8l_id, 'bulk', false, coalesce(cp_id, ''), dest
    from logged where status = 'UNKNOWN'";

const FILTERS: [(&str, &str); 13] = [
    ("all", ""),
    ("status=OK", "status=OK"),
    ("status=ERROR", "status=ERROR"),
    ("status=CANCELLED", "status=CANCELLED"),
    ("status=PENDING (none)", "status=PENDING"),
    ("app_id", "app_id=3"),
    ("app_id, status=ERROR", "app_id=4&status=ERROR"),
    ("cp_id", "cp_id=campaign-2"),
    ("cp_id, status=ERROR", "cp_id=campaign-2&status=ERROR"),
    ("msg_id", "msg_id=order-4000002"),
    ("dest", "dest=r4711"),
    ("dest with one row in a hundred", "dest=often"),
    ("1,000 of all", "limit=1000"),
];

/// Fill the log and read pages of it by every filter.
pub async fn pages(system: &System, rows: u64) -> anyhow::Result<Vec<Asked>> {
    fill(system, rows).await?;
    let scenario = format!("{rows} rows in the log");
    let mut asked = Vec::new();
    for (name, filter) in FILTERS {
        let mut asking = Asking::of(system)?;
        let (newest, _) = asking.pages(filter, None, PAGES).await?;
        let (_, cursor) = Asking::of(system)?.pages(&format!("limit=1000&{filter}"), None, SKIPPED).await?;
        let older = match cursor {
            Some(cursor) => asking.pages(filter, Some(cursor), PAGES).await?.0,
            None => 0,
        };
        asked.push(asking.summary(&scenario, name, format!("{} rows", newest + older)));
    }
    let mut asking = Asking::of(system)?;
    for n in 0..200 {
        // Every tenth row from the first on is the account's.
        asking.ask(Method::GET, &format!("messages/{}", n * (rows / 2000) * 10 + 1)).await?;
    }
    asked.push(asking.summary(&scenario, "one row by its id", String::new()));
    Ok(asked)
}

async fn fill(system: &System, rows: u64) -> anyhow::Result<()> {
    const PART: u64 = 500_000;
    sqlx::query("insert into account (cdcs_id, cdcs_name) values (2, 'other')")
        .execute(&system.database)
        .await?;
    for first in (1..=rows).step_by(PART as usize) {
        let last = (first + PART - 1).min(rows);
        sqlx::query(ROWS).bind(first as i64).bind(last as i64).execute(&system.database).await?;
        sqlx::query("select cdls_ensure_partitions()").execute(&system.database).await?;
    }
    sqlx::query("vacuum (analyze) cdls").execute(&system.database).await?;
    sqlx::query("checkpoint").execute(&system.database).await?;
    Ok(())
}

/// Command campaigns that were logged a moment ago, and half-sent ones: at Meta's ceiling on eight lines, and
/// as fast as possible.
pub async fn commands(system: &mut System, rows: u64) -> anyhow::Result<Vec<Asked>> {
    let mut asked = command(system, "logged a moment ago", "spring", rows, 0).await?;
    asked.extend(command(system, "half sent at 2,400 a second", "summer", rows, rows / 2).await?);
    let as_fast_as_it_goes = "update cd_v8_line set v8l_rate_text = 2000";
    sqlx::query(as_fast_as_it_goes).execute(&system.database).await?;
    asked.extend(command(system, "half sent as fast as it goes", "autumn", rows, rows / 2).await?);
    Ok(asked)
}

/// Log a campaign over HTTP, wait until `sent` rows of it were sent, ask for its progress, and command it,
/// each once; also show whether any row of it is sent a second after a pause or a cancel was answered.
async fn command(
    system: &mut System,
    when: &str,
    cp_id: &str,
    rows: u64,
    sent: u64,
) -> anyhow::Result<Vec<Asked>> {
    let scenario = format!("{rows} rows, {when}");
    let mut asked = Vec::new();
    let first = system.deliveries().await?.total;
    log(system, cp_id, rows).await?;
    sending(system, first + sent.max(1)).await?;
    for (method, request) in
        [(Method::GET, ""), (Method::POST, "/pause"), (Method::POST, "/resume"), (Method::POST, "/cancel")]
    {
        let mut asking = Asking::of(system)?;
        let answer = asking.ask(method, &format!("campaigns/{cp_id}{request}")).await?;
        let mut summary = match &answer["touched"] {
            Value::Null => format!("counts {}", answer["counts"]),
            touched => format!("touched {touched}"),
        };
        if matches!(request, "/pause" | "/cancel") {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after_a_second = system.deliveries().await?.total;
            tokio::time::sleep(Duration::from_secs(3)).await;
            let more = system.deliveries().await?.total - after_a_second;
            summary += &format!("; calls later than a second after: {more}");
        }
        if request == "/resume" {
            let first = system.deliveries().await?.total;
            sending(system, first + 1_000).await?;
        }
        let name = if request.is_empty() { "GET" } else { &request[1..] };
        asked.push(asking.summary(&scenario, name, summary));
    }
    let cancelled = Instant::now();
    while waiting(system).await? > 0 {
        ensure!(
            cancelled.elapsed() < Duration::from_secs(300),
            "rows still wait five minutes after the cancel"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = format!("all rows CANCELLED within {:.0} s", 4.0 + cancelled.elapsed().as_secs_f64());
    if let Some(cancel) = asked.last_mut() {
        cancel.answer = format!("{}; {shown}", cancel.answer);
    }
    Ok(asked)
}

/// Log a campaign on the lines 1 to 8 in batches of 10,000, two at a time.
async fn log(system: &System, cp_id: &str, rows: u64) -> anyhow::Result<()> {
    const BATCH: u64 = 10_000;
    let client = Client::builder().no_proxy().build()?;
    let url = format!("http://{}/api/v2/messages/batch?class=messenger&cp_id={cp_id}", system.host);
    let batch = async |first: u64| {
        let line = |n| {
            format!(
                r#"{{"app_id":{},"dest":"{cp_id}-{n}","mdata":"Our winter sale begins on Monday. Reply STOP to hear no more from us."}}"#,
                1 + n % 8
            ) + "\n"
        };
        let last = (first + BATCH).min(rows);
        let body: String = (first..last).map(line).collect();
        let request =
            client.post(&url).bearer_auth(&system.tsid).header("content-type", "application/x-ndjson");
        let answer = request.body(body).send().await?.error_for_status()?.text().await?;
        let logged = answer.matches("\"cdls_id\"").count() as u64;
        ensure!(logged == last - first, "logged {logged} of {}: {answer:.300}", last - first);
        anyhow::Ok(())
    };
    for first in (0..rows).step_by(2 * BATCH as usize) {
        let second = first + BATCH;
        tokio::try_join!(batch(first), async { if second < rows { batch(second).await } else { Ok(()) } })?;
    }
    Ok(())
}

/// Wait until so many calls were made in all.
async fn sending(system: &mut System, calls: u64) -> anyhow::Result<()> {
    let asked = Instant::now();
    while system.deliveries().await?.total < calls {
        system.alive()?;
        ensure!(asked.elapsed() < Duration::from_secs(600), "the campaign is not being sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn waiting(system: &System) -> anyhow::Result<i64> {
    let count = "select count(*) from (select unnest(ids) as cdls_id from work) as w join cdls using (cdls_id) \
                 where status in ('PENDING', 'RETRY')";
    Ok(sqlx::query_scalar(count).fetch_one(&system.database).await?)
}

/// Requests of one kind, with the time of each.
struct Asking {
    client: Client,
    url: String,
    tsid: String,
    times: Histogram<u64>,
}

impl Asking {
    fn of(system: &System) -> anyhow::Result<Asking> {
        Ok(Asking {
            client: Client::builder().no_proxy().build()?,
            url: format!("http://{}/api/v2/", system.host),
            tsid: system.tsid.clone(),
            times: Histogram::new(3)?,
        })
    }

    async fn ask(&mut self, method: Method, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url);
        let asked = Instant::now();
        let answer = self.client.request(method, &url).bearer_auth(&self.tsid).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        self.times.record(asked.elapsed().as_micros() as u64)?;
        ensure!(status.is_success(), "{path}: {status} {body:.300}");
        serde_json::from_str(&body).with_context(|| format!("the answer to {path}"))
    }

    /// Read pages from a cursor on; return their number of rows, and the next cursor.
    async fn pages(
        &mut self,
        filter: &str,
        from: Option<String>,
        most: usize,
    ) -> anyhow::Result<(usize, Option<String>)> {
        let (mut rows, mut cursor) = (0, from);
        for _ in 0..most {
            let after = cursor.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
            let page = self.ask(Method::GET, &format!("messages?{filter}{after}")).await?;
            rows += page["messages"].as_array().map_or(0, Vec::len);
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        Ok((rows, cursor))
    }

    fn summary(&self, scenario: &str, request: &str, answer: String) -> Asked {
        let at = |quantile| self.times.value_at_quantile(quantile) as f64 / 1e3;
        Asked {
            scenario: scenario.to_owned(),
            request: request.to_owned(),
            answer,
            times: self.times.len() as usize,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }
}
