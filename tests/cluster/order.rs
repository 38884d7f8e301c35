//! Messages to one recipient are called one after the other, whatever happens to the first and to the workers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::Cluster;

const RECIPIENTS: i64 = 30;
const EACH: i64 = 8;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn survives_retries_kills_and_hand_overs() {
    let mut cluster = Cluster::start(&[(1, 40), (33, 40)], &[("graph.timeout", "4s")]).await;
    cluster.simulator.set_latency(Duration::from_millis(30), Duration::from_millis(40));
    // Before there is anything to send, so that most of it is left when the first worker is killed.
    cluster.start_workers(3).await;
    // The first two calls to every third recipient are answered with a code that is retried.
    let rows = format!(
        "select case when r % 2 = 0 then 1 else 33 end, case when r % 3 = 0 then 'code1200x2-' else 'r' end || r,
                n::text, 'high', null
         from generate_series(1, {EACH}) n, generate_series(1, {RECIPIENTS}) r order by n, r"
    );
    cluster.log_rows(&rows).await;
    cluster.goes_on(1, 20).await;
    cluster.owner_of(1).await.kill().await;
    cluster.goes_on(1, 10).await;
    let mut stopped = cluster.owner_of(33).await;
    stopped.stop();
    stopped.ended().await;
    cluster.start_worker().await;
    // What the killed worker was calling is settled when those calls must have ended.
    cluster.finished(RECIPIENTS * EACH).await;

    let mut sequences: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for call in cluster.simulator.calls() {
        let text = call.body["message"]["text"].as_str().expect("a text");
        sequences.entry(call.dest).or_default().push(text.parse().expect("a number"));
    }
    for (dest, sequence) in sequences {
        assert!(sequence.is_sorted(), "{dest} was called out of order: {sequence:?}");
    }
}
