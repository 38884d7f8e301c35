//! Meta's receipts beside sending: 5,000 signed events a second for a minute, and the rate of sending meanwhile.
//!
//! The log holds 150,000 sent messages; each is told of as delivered, and then as read. Receipts beyond that repeat
//! earlier ones, as Meta does.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use ring::hmac;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::arguments::RunArguments;
use crate::database::Statements;
use crate::ground::on_ground;
use crate::measure::{SINGLE, System, Work};
use crate::product::{self, APP_SECRET, Setup};

/// Sent messages that receipts tell of, over the lines.
const MESSAGES: u64 = 150_000;
const LINES: u64 = 8;
/// Events in one request, and requests a second.
const EVENTS: u64 = 50;
const REQUESTS: u64 = 100;
const SECONDS: u64 = 60;
/// The time over which sending alone is measured, after a start.
const ALONE: Duration = Duration::from_secs(15);
const START: Duration = Duration::from_secs(3);
/// The longest time until all receipts are written.
const PATIENCE: Duration = Duration::from_secs(120);
/// A load ends with its part.
const ENDLESS: u64 = 1_000_000_000;

/// Rows as they are after a message was sent.
const SENT: &str = "
    insert into cdls (cdcs_id, v8l_id, class, dest, mtype, mdata, priority, status, status_code, message_id, attempts,
                      sent_at, done_at, expires_at)
    select 1, 1 + n % $1, 'messenger', 'told-' || n, 'text', 'Your order is on its way.', 'high', 'OK', 200,
           'm_told-' || n, 1, now(), now(), now() + interval '1 day'
    from generate_series(0, $2 - 1) as n";

/// Sending at one rate: alone, and beside receipts.
#[derive(Debug, Clone, Serialize)]
pub struct Receipts {
    pub sending: String,
    pub alone_per_second: f64,
    pub beside_per_second: f64,
    pub events_per_second: f64,
    pub post_p50_ms: f64,
    pub post_p99_ms: f64,
    pub post_most_ms: f64,
    /// From the last request until every receipt was in the log.
    pub written_after: f64,
}

pub async fn measure(arguments: &RunArguments) -> anyhow::Result<Vec<Receipts>> {
    let seconds = (SECONDS / arguments.divide).max(2);
    let mut figures = Vec::new();
    for (sending, rate) in [("500 a second", 500), ("full speed", 0)] {
        let measured = on_ground(arguments, Statements::Uncounted, async |ground| {
            let setup = Setup { webhooks: true, ..Setup::default() };
            let mut system = product::start(ground, setup).await?;
            sqlx::query(SENT).bind(LINES as i64).bind(MESSAGES as i64).execute(&system.database).await?;
            sqlx::query("vacuum (analyze) cdls").execute(&system.database).await?;
            let work = Work { messages: ENDLESS, rate, ..SINGLE };
            let (alone_per_second, ()) = rate_of(&system, "alone-", work, async {
                tokio::time::sleep(ALONE).await;
                Ok(())
            })
            .await?;
            let told = tell(&system, seconds);
            let (beside_per_second, (times, took)) = rate_of(&system, "beside-", work, told).await?;
            let written_after = written(&mut system, seconds).await?;
            let milliseconds = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
            let receipts = Receipts {
                sending: sending.to_owned(),
                alone_per_second,
                beside_per_second,
                events_per_second: (times.len() * EVENTS) as f64 / took.as_secs_f64(),
                post_p50_ms: milliseconds(0.5),
                post_p99_ms: milliseconds(0.99),
                post_most_ms: times.max() as f64 / 1e3,
                written_after,
            };
            Ok((system, receipts))
        })
        .await?;
        figures.push(measured);
    }
    Ok(figures)
}

/// Send endlessly while the other work is done; return the calls a second that reached Graph during it.
async fn rate_of<T>(
    system: &System,
    prefix: &str,
    work: Work,
    during: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(f64, T)> {
    let counted = async {
        tokio::time::sleep(START).await;
        let (before, begun) = (system.deliveries().await?.total, Instant::now());
        let done = during.await?;
        let calls = system.deliveries().await?.total - before;
        anyhow::Ok((calls as f64 / begun.elapsed().as_secs_f64(), done))
    };
    tokio::select! {
        counted = counted => counted,
        ended = system.send_as(&system.tsid, prefix, work) => {
            ended?;
            bail!("the load ended before its time")
        }
    }
}

/// POST events at the rate; return the times of the requests and how long all of them took.
async fn tell(system: &System, seconds: u64) -> anyhow::Result<(Histogram<u64>, Duration)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/webhooks/meta", system.host);
    let key = hmac::Key::new(hmac::HMAC_SHA256, APP_SECRET.as_bytes());
    let mut tick = tokio::time::interval(Duration::from_secs(1) / REQUESTS as u32);
    let (mut times, mut posts) = (Histogram::new(3)?, JoinSet::new());
    let begun = Instant::now();
    for number in 0..seconds * REQUESTS {
        tick.tick().await;
        let body = serde_json::to_vec(&body(number))?;
        let signature = format!("sha256={}", hex::encode(hmac::sign(&key, &body)));
        let request = client.post(&url).header("x-hub-signature-256", signature).body(body);
        posts.spawn(async move {
            let asked = Instant::now();
            let status = request.send().await?.status();
            ensure!(status.is_success(), "a request with events was answered {status}");
            anyhow::Ok(asked.elapsed())
        });
        while let Some(answered) = posts.try_join_next() {
            times.record(answered??.as_micros() as u64)?;
        }
    }
    while let Some(answered) = posts.join_next().await {
        times.record(answered??.as_micros() as u64)?;
    }
    Ok((times, begun.elapsed()))
}

/// Return a body of one line's Page: first each message is delivered, later each is read.
fn body(number: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let line = number % LINES;
    let first = number / LINES * EVENTS;
    let told = |n: u64| {
        let place = first + n;
        let message = place * LINES + line;
        let dest = format!("told-{}", message % MESSAGES);
        let people = (json!({ "id": dest }), json!({ "id": (1 + line).to_string() }));
        let mut event = json!({ "sender": people.0, "recipient": people.1, "timestamp": now });
        if (message / MESSAGES).is_multiple_of(2) {
            event["delivery"] = json!({ "mids": [format!("m_{dest}")], "watermark": now });
        } else {
            event["read"] = json!({ "watermark": now });
        }
        event
    };
    let messaging: Vec<Value> = (0..EVENTS).map(told).collect();
    json!({ "object": "page", "entry": [{ "id": (1 + line).to_string(), "time": now, "messaging": messaging }] })
}

/// Wait until the log has every receipt; return how long that took.
async fn written(system: &mut System, seconds: u64) -> anyhow::Result<f64> {
    let events = seconds * REQUESTS * EVENTS;
    let delivered = events.min(MESSAGES);
    let read = events.saturating_sub(MESSAGES).min(MESSAGES);
    let begun = Instant::now();
    loop {
        system.alive()?;
        let (now_delivered, now_read): (i64, i64) = sqlx::query_as(
            "select count(delivered_at), count(read_at) from cdls where dest like 'told-%' and delivered_at is not null",
        )
        .fetch_one(&system.database)
        .await?;
        if now_delivered as u64 >= delivered && now_read as u64 >= read {
            return Ok(begun.elapsed().as_secs_f64());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{now_delivered} of {delivered} delivered and {now_read} of {read} read after {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
