//! Outages of Graph: few calls while it lasts, no storm when it ends, and no attempts spent on waiting.

use std::time::Duration;

use futures::future::join_all;
use meta_dispatch::channel::Class;
use meta_dispatch::domain::{RowId, Status};
use meta_dispatch::store::LogRow;
use rstest::rstest;

use crate::support::graph_host::{GraphHost, Mood};
use crate::support::pipeline::{Backend, Pipeline, eventually};

/// Calls in flight at most.
const CONCURRENCY: usize = 8;

async fn start(backend: Backend, host: &GraphHost) -> Pipeline {
    let settings = [
        ("graph.base_url", host.base_url()),
        ("graph.timeout", "1s".to_owned()),
        ("graph.connect_timeout", "500ms".to_owned()),
        ("dispatch.concurrency", CONCURRENCY.to_string()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    Pipeline::start_with(backend, &settings).await
}

/// Submits messages to as many recipients over three lines.
async fn submit_many(pipeline: &Pipeline, count: usize) -> Vec<RowId> {
    let mut lines = vec![pipeline.messenger];
    for _ in 0..2 {
        lines.push(pipeline.add_line(Class::MESSENGER, "EAAoutage").await);
    }
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(pipeline.submit_on(lines[n % lines.len()], &format!("r{n}"), "hello").await);
    }
    ids
}

async fn graph_is(pipeline: &Pipeline, state: &str) {
    eventually(&format!("the breaker to be {state}"), || async {
        let seen = pipeline.breaker_state().await;
        if seen == state { Ok(()) } else { Err(seen) }
    })
    .await;
}

async fn outcomes(pipeline: &Pipeline, ids: Vec<RowId>) -> Vec<LogRow> {
    let mut rows = Vec::new();
    for id in ids {
        rows.push(pipeline.outcome(id).await);
    }
    rows
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn timeouts_leave_few_unknown_and_send_the_rest(#[case] backend: Backend) {
    let host = GraphHost::start(Mood::Silent).await;
    let pipeline = start(backend, &host).await;
    host.stands_for(pipeline.simulator.address());
    let ids = submit_many(&pipeline, 60).await;
    graph_is(&pipeline, "open").await;
    // Trials go on while it lasts, each a single call.
    let first = host.requests();
    eventually("two further trials", || async {
        if host.requests() >= first + 2 { Ok(()) } else { Err(format!("{} calls", host.requests())) }
    })
    .await;
    host.turn(Mood::Forwarding);
    let rows = outcomes(&pipeline, ids).await;
    graph_is(&pipeline, "closed").await;
    let unknown = rows.iter().filter(|row| row.status == Status::Unknown).count();
    // Those in flight, those begun while the first five failed, and the trials.
    assert!(unknown <= CONCURRENCY + 10, "{unknown} messages with an unknown outcome");
    for row in rows {
        assert!(matches!(row.status, Status::Ok | Status::Unknown), "{row:?}");
        assert_eq!(row.attempts, 1, "waiting spends no attempts: {row:?}");
        let delivered = pipeline.simulator.delivered_to(&row.dest);
        assert_eq!(delivered, usize::from(row.status == Status::Ok), "{row:?}");
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swallowed_requests_cost_only_the_first_calls() {
    let host = GraphHost::start(Mood::Silent).await;
    let base_url = host.base_url();
    let settings = [("graph.base_url", base_url.as_str()), ("graph.timeout", "4s")];
    let pipeline = Pipeline::start_with(Backend::Embedded, &settings).await;
    host.stands_for(pipeline.simulator.address());
    // Fast enough to have 400 calls in flight until the first of them is given up.
    let line = pipeline.add_limited_line(Class::MESSENGER, "EAAswallowed", Some(100)).await;
    let recipients: Vec<String> = (0..450).map(|n| format!("r{n}")).collect();
    let ids = join_all(recipients.iter().map(|dest| pipeline.submit_on(line, dest, "hello"))).await;
    graph_is(&pipeline, "stalled").await;
    graph_is(&pipeline, "open").await;
    host.turn(Mood::Forwarding);
    let rows = outcomes(&pipeline, ids).await;
    let unknown = rows.iter().filter(|row| row.status == Status::Unknown).count();
    assert!(unknown <= 200, "{unknown} messages with an unknown outcome");
    for row in rows {
        assert!(matches!(row.status, Status::Ok | Status::Unknown), "{row:?}");
        assert_eq!(row.attempts, 1, "waiting spends no attempts: {row:?}");
        assert_eq!(
            pipeline.simulator.delivered_to(&row.dest),
            usize::from(row.status == Status::Ok),
            "{row:?}"
        );
    }
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_cost_few_calls_and_no_message(#[case] backend: Backend) {
    let host = GraphHost::start(Mood::Refusing).await;
    let pipeline = start(backend, &host).await;
    host.stands_for(pipeline.simulator.address());
    let ids = submit_many(&pipeline, 60).await;
    graph_is(&pipeline, "open").await;
    host.turn(Mood::Forwarding);
    let rows = outcomes(&pipeline, ids).await;
    let in_vain: i32 = rows.iter().map(|row| row.attempts - 1).sum();
    assert!(in_vain <= CONCURRENCY as i32 + 4, "{in_vain} calls in vain");
    for row in rows {
        assert_eq!((row.status, row.ambiguous_attempts), (Status::Ok, 0), "{row:?}");
        assert_eq!(pipeline.simulator.delivered_to(&row.dest), 1);
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_line_stops_no_other_line() {
    let pipeline = Pipeline::start_with(
        Backend::Embedded,
        &[("graph.timeout", "1s"), ("graph.connect_timeout", "500ms")],
    )
    .await;
    let mut hanging = Vec::new();
    for n in 0..20 {
        hanging.push(pipeline.submit(&format!("timeout-{n}"), "hello").await);
    }
    let good = pipeline.add_line(Class::MESSENGER, "EAAgood").await;
    let mut sent = 0;
    while pipeline.row(*hanging.last().expect("twenty")).await.status != Status::Unknown {
        let id = pipeline.submit_on(good, &format!("g{sent}"), "hello").await;
        let row = tokio::time::timeout(Duration::from_secs(5), pipeline.expect_ok(id)).await;
        assert_eq!(row.expect("it is sent at once").attempts, 1);
        sent += 1;
    }
    assert_eq!(pipeline.breaker_state().await, "closed");
    pipeline.stop().await;
}
