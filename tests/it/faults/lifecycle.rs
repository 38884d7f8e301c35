//! Processes that are told twice to stop, or freeze past their lease.

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::Status;
use rstest::rstest;
use secrecy::ExposeSecret;
use testkit::process::{Output, Running};
use testkit::program::Program;

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::rabbitmq::Vhost;
use crate::support::serve::Serve;

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_exits_at_once_and_holds_the_call() {
    let mut serve = Serve::start(Duration::from_secs(3)).await;
    let in_flight = serve.submit("ann").await;
    serve.calls(1).await;
    serve.signal("TERM");
    serve.signal("INT");
    let (status, _) = serve.ended().await;
    assert_eq!(status.code(), Some(130));
    assert_eq!(serve.row(in_flight).await.status, Status::Sending);
    serve.restart();
    serve.is_up().await;
    let row = eventually("the outcome to be settled", || async {
        let row = serve.row(in_flight).await;
        if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1));
    assert_eq!(serve.simulator.counts().calls, 1);
}

/// A `worker` process beside those of the pipeline.
struct Worker(Running);

impl Worker {
    fn start(pipeline: &Pipeline, broker: &str, policy: &str) -> Worker {
        let program = Program::new(env!("CARGO_BIN_EXE_meta-dispatch"))
            .database(pipeline.database_url())
            .broker(broker)
            .graph(&pipeline.simulator.base_url())
            .with("graph.timeout", "3s")
            .with("graph.connect_timeout", "1s")
            .with("dispatch.lease", "2s")
            .with("dispatch.on_ambiguous", policy)
            .admin("127.0.0.1:0");
        Worker(program.start("worker", Output::Dropped).expect("the program runs"))
    }

    fn signal(&self, signal: &str) {
        assert!(self.0.signal(signal).expect("kill runs"));
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn frozen_worker_repeats_only_ambiguous_attempts(#[values("hold", "retry")] policy: &str) {
    let vhost = Vhost::lease().await;
    let broker = vhost.url().expose_secret().to_owned();
    let settings = [("broker.url", broker.as_str()), ("dispatch.on_ambiguous", policy)];
    let pipeline = Pipeline::start_with(Backend::Servers, &settings).await;
    let mut lines = vec![pipeline.messenger];
    for _ in 0..15 {
        lines.push(pipeline.add_line(Class::MESSENGER, "EAAfreeze").await);
    }
    let worker = Worker::start(&pipeline, &broker, policy);
    eventually("the partitions to be shared", || async {
        let held = pipeline.leases().await;
        if held == 32 { Ok(()) } else { Err(format!("{held} here")) }
    })
    .await;
    pipeline.simulator.set_latency(Duration::from_secs(1), Duration::ZERO);
    let mut ids = Vec::new();
    for n in 0..64 {
        ids.push(pipeline.submit_on(lines[n % lines.len()], &format!("r{n}"), "hello").await);
    }
    eventually("calls of both", || async {
        let calls = pipeline.simulator.counts().calls;
        if calls >= 48 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    worker.signal("STOP");
    // The frozen worker's rows are settled and sent by the other one, as far as the policy lets them.
    let mut rows = Vec::new();
    for id in &ids {
        rows.push(pipeline.outcome(*id).await);
    }
    eventually("all partitions", || async {
        let held = pipeline.leases().await;
        if held == 64 { Ok(()) } else { Err(format!("{held} here")) }
    })
    .await;
    worker.signal("CONT");
    // It goes on: it takes its share again, and what is submitted now is sent by both.
    eventually("the partitions to be shared again", || async {
        let held = pipeline.leases().await;
        if held == 32 { Ok(()) } else { Err(format!("{held} here")) }
    })
    .await;
    for (n, line) in lines.iter().enumerate() {
        let row = pipeline.expect_ok(pipeline.submit_on(*line, &format!("after{n}"), "hello").await).await;
        assert_eq!((row.attempts, pipeline.simulator.delivered_to(&row.dest)), (1, 1));
    }
    for row in rows {
        let row = pipeline.row(row.cdls_id).await;
        let delivered = pipeline.simulator.delivered_to(&row.dest) as i32;
        assert!(delivered - 1 <= row.ambiguous_attempts, "delivered {delivered} times: {row:?}");
        let expected: &[Status] =
            if policy == "hold" { &[Status::Ok, Status::Unknown] } else { &[Status::Ok] };
        assert!(expected.contains(&row.status), "{row:?}");
        assert!(policy == "retry" || delivered == 1, "delivered {delivered} times: {row:?}");
    }
    pipeline.stop().await;
}
