//! The program as a process: how it stops, what it leaves when it is killed, and what it never prints.

use std::process::Command;
use std::time::Duration;

use meta_dispatch::domain::Status;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};
use crate::support::producer::Producer;
use crate::support::rabbitmq::Vhost;
use crate::support::serve::{PRINTED, Serve, database, free_port, spawn};
use crate::support::unreadable;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_calls_and_prints_no_secret() {
    let mut serve = Serve::start(Duration::from_millis(1_500)).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(serve.submit(&format!("d{n}")).await);
    }
    ids.push(serve.submit("code190-echo").await);
    serve.calls(6).await;
    serve.signal("TERM");
    let (status, printed) = serve.ended().await;
    assert!(status.success(), "{status}");
    for id in &ids[..5] {
        assert_eq!(serve.row(*id).await.status, Status::Ok);
    }
    assert_eq!(serve.row(ids[5]).await.status, Status::Pending, "it waits with its line");
    assert!(printed.contains("DEBUG"), "the finest filter was in force");
    for secret in [serve.tsid.as_str(), PAGE_TOKEN, "a private text"] {
        assert!(!printed.contains(secret), "{secret} was printed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_holds_no_words_of_rust() {
    let mut serve = Serve::start(Duration::ZERO).await;
    for n in 0..8 {
        serve.submit(&format!("http502-r{n}")).await;
    }
    eventually("an open breaker", || async {
        if serve.printed().contains("breaker open") { Ok(()) } else { Err("no line tells of it".to_owned()) }
    })
    .await;
    serve.signal("TERM");
    let (_, printed) = serve.ended().await;
    let is_own = |line: &&str| {
        let target = line.split_whitespace().nth(2);
        target.is_some_and(|target| target.starts_with("meta_dispatch"))
    };
    let own: Vec<&str> = printed.lines().filter(is_own).collect();
    assert!(own.len() > 10, "{printed}");
    for word in ["Some(", "=None", "Ok(", "Err(", "RowId(", "LineId("] {
        let with_it: Vec<&&str> = own.iter().filter(|line| line.contains(word)).collect();
        assert!(with_it.is_empty(), "{with_it:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_process_leaves_no_message_sent_twice() {
    let mut serve = Serve::start(Duration::from_secs(2)).await;
    let in_flight = serve.submit("ann").await;
    serve.calls(1).await;
    let waiting = serve.submit("ann").await;
    serve.signal("KILL");
    serve.ended().await;
    assert_eq!(serve.row(in_flight).await.status, Status::Sending);
    serve.restart();
    serve.is_up().await;
    let row = eventually("the call's outcome to be settled", || async {
        let row = serve.row(in_flight).await;
        if row.status.is_outcome() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Unknown, 1, 1));
    eventually("the waiting message to be sent", || async {
        let row = serve.row(waiting).await;
        if row.status == Status::Ok { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!(serve.simulator.counts().calls, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn second_serve_is_refused_and_commands_work() {
    let serve = Serve::start(Duration::ZERO).await;
    let mut second = spawn(&serve.folder, &serve.simulator, free_port(), free_port());
    assert_eq!(second.wait().await.expect("it ended").code(), Some(1));
    let printed = std::fs::read_to_string(serve.folder.path().join(PRINTED)).expect("UTF-8");
    assert!(printed.lines().any(|line| line.starts_with("error: ") && line.contains("serve")), "{printed}");
    let listed = Command::new(env!("CARGO_BIN_EXE_meta-dispatch"))
        .args(["--json", "line", "list"])
        .env("META_DISPATCH__DATABASE__URL", database(&serve.folder))
        .output()
        .expect("the program runs");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed["lines"][0]["v8l_id"], 1);
    assert!(!listed.to_string().contains(PAGE_TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run tests/run"]
async fn accepted_message_is_sent_without_a_broker() {
    let nowhere = format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port());
    let pipeline = Pipeline::start_with(Backend::Servers, &[("broker.url", &nowhere)]).await;
    let id = pipeline.submit("ann", "hello").await;
    pipeline.expect_ok(id).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_messages_are_in_metrics_and_the_log() {
    let mut serve = Serve::start(Duration::ZERO).await;
    let id = serve.submit("cut-ann").await;
    eventually("the gauges to show it", || async {
        let text = metrics(&serve).await?;
        let shows = |line: &str| text.lines().any(|shown| shown == line);
        let shown = shows("meta_dispatch_unknown_rows 1")
            && shows("meta_dispatch_rows{status=\"UNKNOWN\"} 1")
            && shows("meta_dispatch_database_up 1")
            && shows("meta_dispatch_broker_up 1")
            && shows("meta_dispatch_leases_held 64")
            && !shows("meta_dispatch_unknown_oldest_seconds 0");
        if shown { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(serve.row(id).await.status, Status::Unknown);
    eventually("the log to tell of it", || async {
        let printed = serve.printed();
        if printed.contains("messages are UNKNOWN") { Ok(()) } else { Err("no line tells of it".to_owned()) }
    })
    .await;
    serve.signal("TERM");
    let (status, printed) = serve.ended().await;
    assert!(status.success());
    assert!(!printed.contains("a private text"), "{printed}");
}

/// Return the metrics; an error while the process cannot be asked.
async fn metrics(serve: &Serve) -> Result<String, String> {
    let answer = reqwest::get(format!("http://127.0.0.1:{}/metrics", serve.admin)).await;
    answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn survives_headers_nested_to_the_frame_limit() {
    let vhost = Vhost::lease().await;
    let mut serve = Serve::start(Duration::ZERO).await;
    serve.restart_on(&vhost).await;
    let producer = Producer::connect_to(&vhost, &serve.tsid).await;
    producer.intake_is_up().await;
    unreadable::publish_deep(vhost.url().expose_secret(), 1).await;
    // It named no account, and is refused like any other.
    producer.unauthenticated().await;
    assert!(serve.is_running());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn shallow_stacks_of_the_environment_are_deepened() {
    let vhost = Vhost::lease().await;
    let mut serve = Serve::start(Duration::ZERO).await;
    let url = vhost.url();
    let variables = [("META_DISPATCH__BROKER__URL", url.expose_secret()), ("RUST_MIN_STACK", "2097152")];
    serve.restart_with(&variables).await;
    let producer = Producer::connect_to(&vhost, &serve.tsid).await;
    producer.intake_is_up().await;
    unreadable::publish_deep(url.expose_secret(), 1).await;
    producer.unauthenticated().await;
    assert!(serve.is_running());
}
