//! Death at a named step of a message's way, and tasks that panic there. The steps are in debug builds only; the chaos
//! harness meets the same ones at random.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use meta_dispatch::domain::{RowId, Status};
use meta_dispatch::store::{LogRow, LogStore};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::pipeline::eventually;
use crate::support::rabbitmq::Vhost;
use crate::support::serve::Serve;

const SIGABRT: i32 = 6;

/// Starts the process so that it ends at a step, lets it take a message, waits for its end, starts it again, and repeats
/// the message with its key, as a client does who got no answer. Returns its row when it has an outcome.
async fn through(
    serve: &mut Serve,
    failpoint: &str,
    message: &Value,
    broker: &[(&str, &str)],
    is_end: impl Fn(ExitStatus, &str) -> bool,
) -> LogRow {
    let with_failpoint = [broker, &[("META_DISPATCH_FAILPOINT", failpoint)]].concat();
    serve.restart_with(&with_failpoint).await;
    let first = serve.submit_with_key("key", message).await;
    let (status, printed) = serve.ended().await;
    assert!(is_end(status, &printed), "{status}: {printed}");
    serve.start_again(broker);
    serve.is_up().await;
    let id = serve.submit_with_key("key", message).await.expect("it is accepted");
    assert!(first.is_none_or(|first| first == id), "{first:?} and {id}");
    let row = eventually("the outcome", || async {
        let row = serve.row(id).await;
        if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    let rows = serve.store.log_after(&Default::default(), RowId(0), 10).await.expect("the log answers");
    assert_eq!(rows.len(), 1, "{rows:?}");
    row
}

fn died(status: ExitStatus, _: &str) -> bool {
    status.signal() == Some(SIGABRT)
}

fn text() -> Value {
    json!({"app_id": 1, "dest": "ann", "mdata": "a private text"})
}

#[rstest]
#[case::in_the_transaction("after_insert")]
#[case::after_the_commit("after_commit")]
#[case::after_its_job_was_published("after_publish")]
#[case::after_the_broker_confirmed_its_job("after_confirm")]
#[case::before_its_job_was_acknowledged("before_job_ack")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn death_before_the_call_logs_and_sends_once(#[case] step: &str) {
    let vhost = Vhost::lease().await;
    let url = vhost.url().expose_secret().to_owned();
    let mut serve = Serve::start(Duration::ZERO).await;
    let broker = [("META_DISPATCH__BROKER__URL", url.as_str())];
    let row = through(&mut serve, step, &text(), &broker, died).await;
    let outcome = (row.status, row.attempts, row.ambiguous_attempts);
    // The job may be there, and the message in its call, before the broker's confirm.
    let is_there = matches!(step, "after_publish" | "after_confirm");
    let is_called_meanwhile = is_there && outcome == (Status::Unknown, 1, 1);
    assert!(outcome == (Status::Ok, 1, 0) || is_called_meanwhile, "{row:?}");
    assert!(serve.simulator.counts().calls <= 1);
    let (connection, _) = vhost.connect().await;
    let queue = format!("cdls.work.{}", row.v8l_id.partition());
    eventually("the job to be taken, if it was left", || async {
        // A queue that does not exist yet closes the channel.
        let channel = connection.create_channel().await.expect("a channel");
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        match channel.queue_declare(queue.as_str().into(), passive, FieldTable::default()).await {
            Ok(queue) if queue.message_count() == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[rstest]
#[case::when_its_claim_was_committed("after_claim_commit", Status::Unknown, 0)]
#[case::before_its_call("before_call", Status::Unknown, 0)]
#[case::when_graph_had_answered("after_call", Status::Unknown, 1)]
#[case::before_its_result_was_committed("before_result_commit", Status::Unknown, 1)]
#[case::when_its_result_was_committed("after_result_commit", Status::Ok, 1)]
#[tokio::test(flavor = "multi_thread")]
async fn death_after_the_claim_holds_unless_logged(
    #[case] step: &str,
    #[case] status: Status,
    #[case] calls: u64,
) {
    let mut serve = Serve::start(Duration::ZERO).await;
    let row = through(&mut serve, step, &text(), &[], died).await;
    let ambiguous = i32::from(status == Status::Unknown);
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (status, 1, ambiguous), "{row:?}");
    assert_eq!(serve.simulator.counts().calls, calls);
}

#[rstest]
#[case::the_recorder("before_result_commit", Status::Unknown)]
#[case::the_scanner("in_promote", Status::Ok)]
#[case::the_dispatcher("before_job_ack", Status::Ok)]
#[case::ingest("after_commit", Status::Ok)]
#[tokio::test(flavor = "multi_thread")]
async fn panicking_task_ends_the_process_without_loss(#[case] step: &str, #[case] status: Status) {
    let mut serve = Serve::start(Duration::ZERO).await;
    let mut message = text();
    if step == "in_promote" {
        message["send_at"] = (OffsetDateTime::now_utc().unix_timestamp() + 5).into();
    }
    let ended = |status: ExitStatus, printed: &str| {
        status.code() == Some(1) && printed.contains("ended unexpectedly; the process stops")
    };
    let row = through(&mut serve, &format!("{step}:1:panic"), &message, &[], ended).await;
    let ambiguous = i32::from(status == Status::Unknown);
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (status, 1, ambiguous), "{row:?}");
    assert_eq!(serve.simulator.counts().calls, 1);
}
