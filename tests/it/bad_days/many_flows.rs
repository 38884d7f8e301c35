//! Thousands of lines are paused, each with messages of several campaigns. A worker that starts sends the messages of
//! the one free line at once, and reads none of the others into its memory.

use std::time::{Duration, Instant};

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{Lane, LineId, Submission};

use super::{Worker, log, number, scaled, text};
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const CAMPAIGNS: i64 = 10;
/// The longest time from a worker's leases to its first message, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(5);

/// Lines that are paused.
fn lines() -> i64 {
    scaled(2_000, 10_000)
}

/// Adds the paused lines and a free one behind them; the first of them and the free one.
async fn add_lines(pipeline: &Pipeline) -> (LineId, LineId) {
    let first = LineId(pipeline.instagram.0 + 1);
    let account = pipeline.account;
    pipeline
        .execute(&format!(
            "insert into cd_v8_line (cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id, v8l_paused_until)
             select {account}, 'messenger', 'EAApaused', '1001', now() + interval '1 day'
             from generate_series(1, {})",
            lines()
        ))
        .await;
    let free = pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
    assert_eq!(free.0, first.0 + lines(), "lines are numbered in order");
    (first, free)
}

/// A message of each campaign on each line.
fn flows(pipeline: &Pipeline, first: LineId, last: LineId) -> Vec<Submission> {
    (first.0..=last.0)
        .flat_map(|line| (0..CAMPAIGNS).map(move |campaign| (line, campaign)))
        .map(|(line, campaign)| Submission {
            cp_id: Some(format!("c{campaign}")),
            lane: Lane::Bulk,
            ..text(pipeline, LineId(line), &format!("{line}-{campaign}"))
        })
        .collect()
}

/// Rows of a table that were read so far, as far as the sessions have told.
async fn rows_read(pipeline: &Pipeline, table: &str) -> i64 {
    let query = format!(
        "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = '{table}'"
    );
    number(pipeline, &query).await
}

/// Waits until only sessions of the ingest are left. A session that has ended has told what it read.
async fn only_ingest_is_connected(pipeline: &Pipeline) {
    let processes = "select count(distinct right(application_name, 8)) from pg_stat_activity
        where datname = current_database() and application_name like 'meta-dispatch%'";
    eventually("the sessions of the worker to end", || async {
        let left = number(pipeline, processes).await;
        if left <= 1 { Ok(()) } else { Err(format!("{left} processes")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn of_paused_lines_delay_no_other_and_stay_unread() {
    let mut pipeline = Pipeline::start(Backend::Servers).await;
    pipeline.stop_last().await;
    let (first, free) = add_lines(&pipeline).await;
    log(&pipeline, &flows(&pipeline, first, free)).await;

    let worker = Worker::start(&pipeline, &[]).await;
    worker.holds(64).await;
    let held = Instant::now();
    let sent = || pipeline.simulator.counts().delivered;
    eventually("a message of the free line", || async {
        if sent() > 0 { Ok(()) } else { Err("none was sent".to_owned()) }
    })
    .await;
    assert!(held.elapsed() < SOON, "the first message was sent after {:?}", held.elapsed());
    eventually("all messages of the free line", || async {
        let sent = sent();
        if sent == CAMPAIGNS as u64 { Ok(()) } else { Err(format!("{sent} were sent")) }
    })
    .await;

    // The first look asks for each line whether it may send. The flows of paused lines have been found when the
    // worker has read the records of all lines, and has read them once more.
    eventually("the flows of the paused lines to be found", || async {
        let records = rows_read(&pipeline, "cd_v8_line").await;
        if records >= 3 * lines() { Ok(()) } else { Err(format!("{records} records were read")) }
    })
    .await;
    worker.stop().await;
    only_ingest_is_connected(&pipeline).await;
    let read = rows_read(&pipeline, "cdls_0").await;
    assert!(read < lines(), "{read} rows of the log were read for {CAMPAIGNS} messages");
    assert_eq!(sent(), CAMPAIGNS as u64);
    pipeline.stop().await;
}
