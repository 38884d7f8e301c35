//! What every broker owes ingest and dispatch, run on both.

use std::collections::BTreeMap;

use meta_dispatch::broker::{BrokerState, open};
use meta_dispatch::domain::{MAX_JOB_WORK, Partition};
use meta_dispatch::settings::BrokerSettings;
use rstest::rstest;
use tokio::time::timeout;

use crate::support::broker::{Backend, DEADLINE, Process, job, named, outcome};
use crate::support::rabbitmq::settings;

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn job_reaches_only_the_consumer_of_its_partition(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume([3]);
    process.publish(4, 40);
    process.publish(3, 30);

    let delivery = process.delivery().await;
    assert_eq!((delivery.partition, &delivery.job), (Partition(3), &job(3, 30)));
    delivery.ack();
    assert!(process.arrivals.jobs.try_recv().is_err(), "partition 4 is not consumed");
    process.consume([4]);
    assert_eq!(process.delivery().await.job, job(4, 40));
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn early_jobs_wait_for_a_consumer(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    for id in 1..=20 {
        process.publish(5, id);
    }
    process.consume([5]);

    assert!(process.rows(20).await[&5].iter().copied().eq(1..=20));
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn unacknowledged_job_is_delivered_again(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume([6]);
    process.publish(6, 60);
    drop(process.delivery().await);

    let again = process.delivery().await;
    assert_eq!(again.job, job(6, 60));
    again.ack();
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn acknowledged_job_is_never_delivered_again(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume([6]);
    process.publish(6, 60);
    process.delivery().await.ack();
    process.consume([]);
    process.publish(6, 61);
    process.consume([6]);

    assert_eq!(process.delivery().await.job, job(6, 61));
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn jobs_of_a_partition_merge_while_one_is_unconfirmed(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume([7]);
    for id in 1..=250 {
        process.publish(7 + 64 * (id % 3), id);
    }

    let mut jobs = 0;
    let mut seen = Vec::new();
    while seen.len() < 250 {
        let delivery = process.delivery().await;
        jobs += 1;
        seen.extend(named(&delivery.job));
        assert!(!delivery.job.more, "everything is named: {:?}", delivery.job);
        delivery.ack();
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(1..=250));
    assert!(jobs <= 25, "{jobs} jobs");
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn job_is_bounded_and_says_that_more_follows(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.is(BrokerState::Up).await;
    for id in 1..=10_000 {
        process.publish(7, id);
    }
    process.consume([7]);

    let mut more = false;
    while !more {
        let delivery = process.delivery().await;
        assert!(delivery.job.work.len() <= MAX_JOB_WORK);
        more = delivery.job.more;
        delivery.ack();
    }
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn two_thousand_jobs_count_each_row_once(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume(0..64);
    process.is(BrokerState::Up).await;
    let mut expected: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for id in 1..=2_000 {
        let line = 1 + id * 7 % 192;
        process.publish(line, id);
        expected.entry(line).or_default().push(id);
        if id % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }

    assert_eq!(process.rows(2_000).await, expected);
    assert!(process.arrivals.jobs.try_recv().is_err());
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn consuming_changes_with_the_set_of_partitions(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume([1, 2]);
    process.publish(1, 10);
    process.publish(2, 20);
    process.rows(2).await;

    process.consume([2, 3]);
    process.publish(3, 30);
    process.rows(1).await;
    process.publish(1, 11);
    process.publish(2, 21);
    let delivery = process.delivery().await;
    assert_eq!(delivery.job, job(2, 21));
    delivery.ack();
    process.consume([1]);
    assert_eq!(process.delivery().await.job, job(1, 11));
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn reply_reaches_only_its_address(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.is(BrokerState::Up).await;
    let own = process.broker.reply_address().to_owned();
    assert!(!own.contains('/'), "a slash separates the address from the ticket: {own}");
    process.broker.reply("cdls.reply.somebody-else", outcome("t1"));
    process.broker.reply("nonsense", outcome("t2"));
    process.broker.reply(&own, outcome("t3"));

    assert_eq!(process.reply().await, outcome("t3"));
    assert!(process.arrivals.replies.try_recv().is_err());
}

#[rstest]
#[case::embedded(Backend::Embedded)]
#[ignore = "needs RabbitMQ: run tests/run"]
#[case::rabbitmq(Backend::RabbitMq)]
#[tokio::test]
async fn closed_broker_is_down_and_ends_its_arrivals(#[case] backend: Backend) {
    let mut process = Process::start(backend).await;
    process.consume([1]);
    process.is(BrokerState::Up).await;
    process.broker.close(DEADLINE).await;

    assert_eq!(process.broker.state(), BrokerState::Down);
    process.publish(1, 10);
    assert!(timeout(DEADLINE, process.arrivals.jobs.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn malformed_url_error_hides_the_password() {
    let url = "amqp://guest:s3cret@host:port/".into();
    let settings = BrokerSettings { url, ..settings(&"embedded".into()) };
    let error = open(&settings).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("broker.url") && !error.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn embedded_broker_is_opened_by_name() {
    let (broker, _arrivals) = open(&settings(&"embedded".into())).await.unwrap();
    assert_eq!(broker.state(), BrokerState::Up);
}
