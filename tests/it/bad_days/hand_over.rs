//! A worker comes while calls of others are under way: their lines go to it, and Graph then asks for the messages to be
//! sent again.

use std::time::Duration;

use super::Worker;
use crate::support::pipeline::{Backend, Pipeline, eventually};

const LINES: i64 = 64;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn new_owner_sends_messages_refused_meanwhile() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    pipeline
        .execute(&format!(
            "insert into cd_v8_line (cdcs_id, v8l_class, v8l_wa_api_key, v8l_fb_page_id)
             select {}, 'messenger', 'EAAmany', '1001' from generate_series(1, {LINES})",
            pipeline.account
        ))
        .await;
    pipeline.simulator.set_latency(Duration::from_secs(2), Duration::ZERO);
    let first = pipeline.instagram.0 + 1;
    let mut ids = Vec::new();
    for line in first..first + LINES {
        let line = meta_dispatch::domain::LineId(line);
        ids.push(pipeline.submit_on(line, &format!("code1200x1-{line}"), "hello").await);
    }
    let worker = Worker::start(&pipeline, &[]).await;
    worker.holds(32).await;
    eventually("the calls", || async {
        let calls = pipeline.simulator.counts().calls;
        if calls >= LINES as u64 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    pipeline.simulator.set_latency(Duration::ZERO, Duration::ZERO);
    for id in ids {
        let row = pipeline.expect_ok(id).await;
        assert_eq!((row.attempts, pipeline.simulator.delivered_to(&row.dest)), (2, 1), "{row:?}");
    }
    pipeline.stop().await;
}
