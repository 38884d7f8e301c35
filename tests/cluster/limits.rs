//! Limits over three workers, whatever happens to them; and lines that are changed while they send.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, LEASE, LineLimit, fullest, longest_gap};

const SECOND: Duration = Duration::from_secs(1);

/// One line in each quarter of the partitions, so that the workers share them.
const LINES: [LineLimit; 4] = [(1, 20), (20, 50), (40, 100), (60, 300)];

/// What a receiver on the same machine may see of a limit: calls arrive a little closer than they were sent, by as
/// much as the receiver was kept from running.
fn assert_limits_kept(cluster: &Cluster) {
    let stalled = cluster.stalled().as_secs_f64();
    for (line, limit) in LINES {
        let arrivals = cluster.arrivals(line);
        let limit = f64::from(limit);
        let (second, ten) = (fullest(&arrivals, SECOND), fullest(&arrivals, 10 * SECOND));
        let most = limit * (1.03 + stalled) + 2.0;
        assert!(second as f64 <= most, "{second} in a second at a limit of {limit}, stalled for {stalled} s");
        let most = limit * (10.0 + stalled) + 10.0;
        assert!(ten as f64 <= most, "{ten} in ten seconds at a limit of {limit}, stalled for {stalled} s");
    }
}

/// Watches the lines for some seconds in which nothing happens to the workers: each gets 95 % of its limit.
async fn assert_limits_used(cluster: &Cluster) {
    let watched = Duration::from_secs(5);
    for (line, limit) in LINES {
        cluster.goes_on(line, limit as usize / 5).await;
    }
    let begun = Instant::now();
    tokio::time::sleep(watched).await;
    for (line, limit) in LINES {
        let arrivals = cluster.arrivals(line);
        let calls = arrivals.iter().filter(|at| **at > begun && **at <= begun + watched).count();
        let due = f64::from(limit) * watched.as_secs_f64();
        assert!(calls as f64 >= 0.95 * due, "line {line} had {calls} of {due} calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn are_kept_and_used_while_workers_come_and_go() {
    let mut cluster = Cluster::start(&LINES, &[]).await;
    for (line, limit) in LINES {
        cluster.backlog(line, i64::from(limit) * 60, "r", "bulk").await;
    }
    cluster.start_workers(3).await;
    assert_limits_used(&cluster).await;

    // A kill stops its lines for the lease and a second at most.
    cluster.owner_of(60).await.kill().await;
    cluster.goes_on(60, 300).await;
    let gap = longest_gap(&cluster.arrivals(60));
    assert!(gap <= LEASE + SECOND, "a kill stopped the line for {gap:?}");
    cluster.start_worker().await;
    cluster.shared_evenly().await;

    // A stop hands over at once.
    let mut stopped = cluster.owner_of(40).await;
    let asked = Instant::now();
    stopped.stop();
    stopped.ended().await;
    cluster.goes_on(40, 100).await;
    let since: Vec<Instant> = cluster.arrivals(40).into_iter().filter(|at| *at + SECOND > asked).collect();
    let gap = longest_gap(&since);
    assert!(gap <= SECOND, "a stop paused the line for {gap:?}");
    cluster.shared_evenly().await;
    assert_limits_used(&cluster).await;

    assert_limits_kept(&cluster);
    let counts = cluster.simulator.counts();
    assert_eq!(counts.delivered, counts.reached, "nothing was sent twice");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn stop_hands_lines_over_with_calls_in_flight() {
    let mut cluster = Cluster::start(&[(1, 40)], &[]).await;
    cluster.start_workers(1).await;
    // Ten calls that are not answered for as long as the test lasts.
    cluster.backlog(1, 10, "timeout", "high").await;
    cluster.goes_on(1, 10).await;
    cluster.start_workers(1).await;
    cluster.backlog(1, 400, "r", "high").await;

    let stopping = cluster.owner_of(1).await;
    let asked = Instant::now();
    stopping.stop();
    cluster.goes_on(1, 80).await;
    let since: Vec<Instant> = cluster.arrivals(1).into_iter().filter(|at| *at > asked).collect();
    let gap = longest_gap(&since);
    assert!(gap <= SECOND, "the hand-over took {gap:?}");
    let counts = cluster.simulator.counts();
    assert_eq!(counts.calls, counts.recipients, "no call was repeated");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn sql_changes_apply_in_ten_seconds_without_burst() {
    let mut cluster = Cluster::start(&[(1, 20)], &[]).await;
    cluster.backlog(1, 10_000, "r", "bulk").await;
    cluster.start_workers(1).await;
    cluster.goes_on(1, 40).await;

    cluster.execute("update cd_v8_line set v8l_rate_text = 100").await;
    let changed = Instant::now();
    until(changed, "the new limit to be used", || {
        let arrivals = cluster.arrivals(1);
        fullest(&arrivals, SECOND) >= 95
    })
    .await;
    let most = fullest(&cluster.arrivals(1), SECOND);
    assert!(most <= 105, "{most} calls in a second at a limit of 100");

    // A pause by SQL is obeyed, spends no attempts, and ends by itself.
    cluster
        .execute("update cd_v8_line set v8l_paused_until = now() + interval '8 s', v8l_pause_reason = 'stock-taking'")
        .await;
    let paused = Instant::now();
    until(paused, "the pause", || cluster.arrivals(1).last().is_some_and(|last| last.elapsed() > 2 * SECOND))
        .await;
    let attempts: i64 =
        sqlx::query_scalar("select sum(attempts) from cdls").fetch_one(&cluster.log).await.unwrap();
    assert_eq!(attempts as usize, cluster.arrivals(1).len());
    cluster.goes_on(1, 100).await;
    let arrivals = cluster.arrivals(1);
    let resumed = arrivals.iter().find(|at| **at > paused + 5 * SECOND).expect("it went on");
    assert!(*resumed >= paused + Duration::from_millis(7_900), "it went on before the end of its pause");
    let most = fullest(&arrivals, SECOND);
    assert!(most <= 105, "{most} calls in a second at a limit of 100");
}

/// Waits for something that has to happen within ten seconds.
async fn until(since: Instant, what: &str, mut holds: impl FnMut() -> bool) {
    crate::support::pipeline::eventually(what, || {
        let holds = holds();
        async move { if holds { Ok(()) } else { Err("not yet".to_owned()) } }
    })
    .await;
    assert!(since.elapsed() <= 10 * SECOND, "{what} took {:?}", since.elapsed());
}
