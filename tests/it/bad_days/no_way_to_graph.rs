//! A worker reaches the database and not Graph: its egress, its DNS or its proxy fails. Its lines go to workers that
//! reach Graph. Where no worker does, the lines are kept and the calls are tried on.

use std::time::{Duration, Instant};

use meta_dispatch::domain::{LineId, RowId};
use rstest::rstest;

use super::{Worker, add_lines, all_are_sent_once, number, own_worker_holds};
use crate::support::graph_host::{GraphHost, Mood};
use crate::support::pipeline::{Backend, Pipeline, eventually};

const LEASE: Duration = Duration::from_secs(1);
const SHORT_LEASE: (&str, &str) = ("dispatch.lease", "1s");
/// The time that a machine busy with other tests may add to two leases and a half.
const SLACK: Duration = Duration::from_secs(3);

/// Submits a message on each line, each to a recipient of its own.
async fn submit(pipeline: &Pipeline, lines: &[LineId], name: &str) -> Vec<RowId> {
    let mut ids = Vec::new();
    for line in lines {
        ids.push(pipeline.submit_on(*line, &format!("{name}{line}"), "hello").await);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn moves_lines_to_a_worker_that_reaches_graph() {
    let host = GraphHost::start(Mood::Refusing).await;
    let pipeline = Pipeline::start_with(Backend::Servers, &[SHORT_LEASE]).await;
    host.stands_for(pipeline.simulator.address());
    let lines = add_lines(&pipeline).await;
    let base_url = host.base_url();
    let cut_off = Worker::start(&pipeline, &[SHORT_LEASE, ("graph.base_url", base_url.as_str())]).await;
    cut_off.holds(32).await;
    own_worker_holds(&pipeline, 32).await;

    let ids = submit(&pipeline, &lines, "r").await;
    eventually("an open breaker", || async {
        let readiness = cut_off.readiness().await;
        if readiness["graph"] == "open" { Ok(()) } else { Err(readiness.to_string()) }
    })
    .await;
    let opened = Instant::now();
    own_worker_holds(&pipeline, 64).await;
    assert!(
        opened.elapsed() < LEASE * 5 / 2 + SLACK,
        "its lines were taken over after {:?}",
        opened.elapsed()
    );
    all_are_sent_once(&pipeline, ids).await;
    assert_eq!(cut_off.leases().await, 0, "it takes nothing while Graph is away");

    host.turn(Mood::Forwarding);
    cut_off.holds(32).await;
    let ids = submit(&pipeline, &lines, "back").await;
    all_are_sent_once(&pipeline, ids).await;
    cut_off.stop().await;
    pipeline.stop().await;
}

#[rstest]
#[case::one(1)]
#[case::two(2)]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn leaves_workers_trying_if_none_reaches_graph(#[case] count: usize) {
    let host = GraphHost::start(Mood::Refusing).await;
    let mut pipeline = Pipeline::start_with(Backend::Servers, &[SHORT_LEASE]).await;
    host.stands_for(pipeline.simulator.address());
    // This one reaches Graph.
    pipeline.stop_last().await;
    let lines = add_lines(&pipeline).await;
    let base_url = host.base_url();
    let mut workers = Vec::new();
    for _ in 0..count {
        workers.push(Worker::start(&pipeline, &[SHORT_LEASE, ("graph.base_url", base_url.as_str())]).await);
    }
    for worker in &workers {
        worker.holds(64 / count as u64).await;
    }

    let ids = submit(&pipeline, &lines, "r").await;
    eventually("all workers to know that Graph is away", || async {
        let away = number(&pipeline, "select count(*) from worker_lease where unable").await;
        if away == count as i64 { Ok(()) } else { Err(format!("{away} of {count}")) }
    })
    .await;
    if let [last] = &workers[..] {
        assert_eq!(last.leases().await, 64, "the last worker keeps its lines");
    }
    assert_eq!(pipeline.simulator.counts().calls, 0);
    host.turn(Mood::Forwarding);
    all_are_sent_once(&pipeline, ids).await;
    pipeline.stop().await;
}
