//! Who goes first: high before bulk, lines beside lines, campaigns in turn; a line that hangs slows nobody.

use std::collections::HashSet;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::support::pipeline::eventually;

/// How long after they were accepted the messages to these recipients were sent, sorted.
async fn delays(cluster: &Cluster, prefix: &str) -> Vec<Duration> {
    let delays: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from sent_at - created_at)::float8 as delay from cdls
         where dest like $1 || '%' and sent_at is not null order by delay",
    )
    .bind(prefix)
    .fetch_all(&cluster.log)
    .await
    .expect("the log is there to read");
    delays.into_iter().map(|delay| Duration::from_secs_f64(delay.max(0.0))).collect()
}

/// Accepts messages one after the other, each once the last was sent, announced as ingest does.
async fn send_one_by_one(cluster: &Cluster, line: i64, count: i64, prefix: &str) {
    for n in 1..=count {
        cluster.backlog(line, 1, &format!("{prefix}{n}"), "high").await;
        eventually("a message to be sent", || async {
            let sent = delays(cluster, &format!("{prefix}{n}-")).await.len();
            if sent == 1 { Ok(()) } else { Err("it waits".to_owned()) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn high_lane_overtakes_a_long_bulk_backlog() {
    let mut cluster = Cluster::start(&[(1, 100), (2, 100)], &[]).await;
    cluster.backlog(1, 50_000, "bulk", "bulk").await;
    cluster.start_workers(1).await;
    cluster.goes_on(1, 50).await;
    send_one_by_one(&cluster, 1, 5, "same").await;
    send_one_by_one(&cluster, 2, 5, "other").await;
    // No job names these rows: a scan finds them within two seconds, and then they go first.
    for prefix in ["same", "other"] {
        let slowest = *delays(&cluster, prefix).await.last().unwrap();
        assert!(slowest < Duration::from_millis(2_500), "{prefix}: {slowest:?}");
    }
    assert!(cluster.arrivals(1).len() < 5_000, "the backlog still waits");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn bulk_keeps_one_send_in_ten_beside_high() {
    let mut cluster = Cluster::start(&[(1, 50)], &[]).await;
    cluster.backlog(1, 2_000, "bulk", "bulk").await;
    cluster.backlog(1, 2_000, "high", "high").await;
    cluster.start_workers(1).await;
    cluster.goes_on(1, 300).await;
    let calls = cluster.calls(1);
    let bulk = calls[..300].iter().filter(|call| call.dest.starts_with("bulk")).count();
    assert!((20..=60).contains(&bulk), "{bulk} of 300 calls were bulk");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn campaigns_on_one_line_take_turns() {
    let mut cluster = Cluster::start(&[(1, 50)], &[]).await;
    cluster.campaign(1, 1_000, "early").await;
    cluster.campaign(1, 1_000, "late").await;
    cluster.start_workers(1).await;
    cluster.goes_on(1, 200).await;
    let late = cluster.calls(1)[..200].iter().filter(|call| call.dest.starts_with("late")).count();
    assert!((80..=120).contains(&late), "{late} of 200 calls were of the second campaign");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn small_backlogs_of_many_lines_progress_together() {
    let lines: Vec<(i64, u32)> = (1..=500).map(|line| (line, 1)).collect();
    let mut cluster = Cluster::start(&lines, &[]).await;
    cluster
        .log_rows(
            "select line, 'r' || line || '-' || n, 'hello', 'bulk', null
             from generate_series(1, 500) line, generate_series(1, 3) n order by line, n",
        )
        .await;
    cluster.start_workers(2).await;
    eventually("a call of each line", || async {
        let lines: HashSet<String> = cluster.simulator.calls().into_iter().map(|call| call.token).collect();
        if lines.len() == 500 { Ok(()) } else { Err(format!("{} lines", lines.len())) }
    })
    .await;
    // None was served to its end before the others had their turn.
    assert!(cluster.simulator.counts().calls < 1_400);
    cluster.finished(1_500).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn hanging_line_slows_no_other_line() {
    let mut cluster = Cluster::start(&[(1, 300), (2, 50)], &[("dispatch.concurrency", "64")]).await;
    cluster.backlog(1, 3_000, "timeout", "bulk").await;
    cluster.start_workers(1).await;
    eventually("the permits that one line may hold", || async {
        let calls = cluster.simulator.counts().in_flight;
        if calls >= 48 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    cluster.backlog(2, 100, "r", "high").await;
    eventually("the other line's messages", || async {
        let sent = cluster.arrivals(2).len();
        if sent == 100 { Ok(()) } else { Err(format!("{sent} calls")) }
    })
    .await;
    // A hundred at fifty a second: none waited for a permit.
    let slowest = *delays(&cluster, "r-").await.last().unwrap();
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    assert!(cluster.simulator.counts().in_flight < 64);
}
