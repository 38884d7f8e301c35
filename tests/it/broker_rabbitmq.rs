//! What RabbitMQ owes besides the contract of brokers: that processes share it, and that everything comes back
//! after whatever can happen to a connection or a queue.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use meta_dispatch::broker::rabbitmq::RabbitBroker;
use meta_dispatch::broker::{Broker, BrokerState, open};
use meta_dispatch::domain::Partition;
use rstest::rstest;
use tokio::time::timeout;

use crate::support::amqp_forwarder::{ClosedDoor, Fault, Forwarder};
use crate::support::broker::{DEADLINE, Process, eventually, job, named, outcome};
use crate::support::rabbitmq::{Vhost, settings};

// ---- several processes -----------------------------------------------------------------------------------------

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn processes_get_jobs_of_their_own_partitions() {
    let vhost = Vhost::lease().await;
    let ingest = Process::on(&vhost);
    let (mut one, mut other) = (Process::on(&vhost), Process::on(&vhost));
    one.consume(0..32);
    other.consume(32..64);
    for line in 0..64 {
        ingest.publish(line, 1_000 + line);
    }

    assert!(one.rows(32).await.into_keys().eq(0..32));
    assert!(other.rows(32).await.into_keys().eq(32..64));
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn reply_reaches_the_process_that_waits() {
    let vhost = Vhost::lease().await;
    let (mut ingest, mut bystander, worker) = (Process::on(&vhost), Process::on(&vhost), Process::on(&vhost));
    wait_for_queue(&vhost, ingest.broker.reply_address()).await;
    wait_for_queue(&vhost, bystander.broker.reply_address()).await;
    for ticket in 0..300 {
        worker.broker.reply(ingest.broker.reply_address(), outcome(&ticket.to_string()));
    }
    worker.broker.reply(bystander.broker.reply_address(), outcome("other"));

    for ticket in 0..300 {
        assert_eq!(ingest.reply().await, outcome(&ticket.to_string()));
    }
    assert_eq!(bystander.reply().await, outcome("other"));
    assert!(bystander.arrivals.replies.try_recv().is_err());
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn unacknowledged_job_moves_when_its_holder_is_gone() {
    let vhost = Vhost::lease().await;
    let mut holder = Process::on(&vhost);
    holder.consume([9]);
    holder.publish(9, 90);
    let held = holder.delivery().await;
    let mut successor = Process::on(&vhost);
    successor.consume([9]);
    successor.is(BrokerState::Up).await;
    drop(holder);

    assert_eq!(successor.delivery().await.job, job(9, 90));
    held.ack();
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn acknowledging_out_of_order_spares_other_jobs() {
    let vhost = Vhost::lease().await;
    let (_connection, channel) = vhost.connect().await;
    let mut holder = Process::on(&vhost);
    holder.consume(0..8);
    for line in 0..8 {
        holder.publish(line, line);
    }
    holder.rows(8).await;
    holder.consume([]);
    for id in 1_000..1_320 {
        let body = serde_json::to_vec(&job(id % 8, id)).unwrap();
        publish_raw(&channel, (id % 8) as i16, &body).await;
    }

    holder.consume(0..8);
    let mut held = BTreeMap::new();
    for _ in 0..320 {
        let delivery = holder.delivery().await;
        let id = named(&delivery.job)[0];
        // Five of each partition: fewer than the broker lets a consumer hold.
        if id / 8 % 8 == 0 {
            held.insert(id, delivery);
        } else {
            delivery.ack();
        }
    }
    holder.broker.close(DEADLINE).await;
    let mut successor = Process::on(&vhost);
    successor.consume(0..8);
    let mut given_back = Vec::new();
    for _ in 0..held.len() {
        let delivery = successor.delivery().await;
        given_back.extend(named(&delivery.job));
        delivery.ack();
    }
    given_back.sort_unstable();
    assert!(given_back.iter().eq(held.keys()), "held {:?}, given back {given_back:?}", held.keys());
    assert!(successor.arrivals.jobs.try_recv().is_err());
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn jobs_follow_their_partition_to_its_new_owner() {
    let vhost = Vhost::lease().await;
    let ingest = Process::on(&vhost);
    let mut old = Process::on(&vhost);
    old.consume([9, 10]);
    ingest.publish(9, 90);
    let first = old.delivery().await;
    for id in 91..=94 {
        ingest.publish(9, id);
    }
    ingest.publish(10, 100);
    ingest.broker.close(DEADLINE).await;
    old.consume([10]);
    drop(first);
    let mut new = Process::on(&vhost);
    new.consume([9]);

    let mut rows = 0;
    while rows < 5 {
        let job = tokio::select! {
            delivery = new.delivery() => {
                rows += delivery.job.rows();
                delivery
            }
            delivery = old.delivery() => {
                if delivery.partition == Partition(9) { continue }
                delivery
            }
        };
        job.ack();
    }
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn closing_publishes_pending_jobs() {
    let vhost = Vhost::lease().await;
    let ingest = Process::on(&vhost);
    for line in 0..64 {
        ingest.publish(line, line);
    }
    ingest.broker.close(DEADLINE).await;
    let mut worker = Process::on(&vhost);
    worker.consume(0..64);

    assert_eq!(worker.rows(64).await.len(), 64);
}

// ---- what can happen to a connection ---------------------------------------------------------------------------

#[rstest]
#[case::the_connection_is_cut(Fault::Cut)]
#[case::the_server_closes_the_connection(Fault::connection_closed())]
#[case::the_server_closes_the_channel(Fault::channel_closed(1))]
#[case::the_server_goes_silent(Fault::Silence)]
#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn publishing_and_consuming_go_on_after(#[case] fault: Fault) {
    let vhost = Vhost::lease().await;
    let forwarder = Forwarder::open(vhost.server());
    let mut process = Process::behind(&forwarder, &vhost);
    process.consume(0..64);
    process.publish(8, 1);
    process.row(8, 1).await;

    forwarder.inflict(fault);
    for id in 2..=100 {
        process.publish(id, id);
    }
    let mut missing: Vec<i64> = (2..=100).collect();
    while !missing.is_empty() {
        let delivery = process.delivery().await;
        named(&delivery.job).iter().for_each(|work| missing.retain(|id| id != work));
        delivery.ack();
    }
    process.is(BrokerState::Up).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn reply_address_survives_a_reconnect() {
    let vhost = Vhost::lease().await;
    let forwarder = Forwarder::open(vhost.server());
    let mut ingest = Process::behind(&forwarder, &vhost);
    let worker = Process::on(&vhost);
    worker.is(BrokerState::Up).await;
    let address = ingest.broker.reply_address().to_owned();
    wait_for_queue(&vhost, &address).await;
    forwarder.inflict(Fault::Cut);
    ingest.is(BrokerState::Down).await;
    ingest.is(BrokerState::Up).await;

    let ended = timeout(DEADLINE, async {
        while ingest.arrivals.replies.try_recv().is_err() {
            worker.broker.reply(&address, outcome("t"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ended.await.expect("a reply after the reconnect");
    assert_eq!(ingest.broker.reply_address(), address);
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn jobs_flow_while_the_old_reply_queue_is_held() {
    let vhost = Vhost::lease().await;
    let door = ClosedDoor::new();
    let (broker, mut arrivals) = RabbitBroker::open(&settings(&vhost.url_at(door.address()))).unwrap();
    let address = broker.reply_address().to_owned();
    let (lost, channel) = vhost.connect().await;
    let exclusive = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare(address.as_str().into(), exclusive, FieldTable::default()).await.unwrap();
    let _forwarder = door.open(vhost.server());
    broker.consume(&[Partition(3)]);
    let first = timeout(DEADLINE, async {
        broker.publish(Partition(3), job(3, 1));
        arrivals.jobs.recv().await.unwrap()
    });
    let held = first.await.expect("a job in time");
    // Long enough for the reply queue to be tried again, and refused again.
    for id in 2..=150 {
        broker.publish(Partition(3), job(3, id));
        let next = timeout(DEADLINE, arrivals.jobs.recv()).await.expect("a job in time").unwrap();
        assert_eq!(next.job, job(3, id), "the session goes on: what is held is not delivered again");
        next.ack();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    held.ack();

    lost.close(200, "OK".into()).await.unwrap();
    let worker = Process::on(&vhost);
    let replied = timeout(DEADLINE, async {
        while arrivals.replies.try_recv().is_err() {
            worker.broker.reply(&address, outcome("t"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    replied.await.expect("replies once the name is free");
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn connects_to_a_broker_that_starts_later() {
    let vhost = Vhost::lease().await;
    let door = ClosedDoor::new();
    let (broker, mut arrivals) =
        open(&settings(&vhost.url_at(door.address()))).await.expect("a broker that is down is no error");
    broker.consume(&[Partition(3)]);
    broker.publish(Partition(3), job(3, 30));
    assert_eq!(broker.state(), BrokerState::Down);

    let _forwarder = door.open(vhost.server());
    let delivery = timeout(DEADLINE, arrivals.jobs.recv()).await.expect("a job in time").unwrap();
    assert_eq!(delivery.job, job(3, 30));
    delivery.ack();
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn blocked_connection_merges_jobs_and_still_consumes() {
    let vhost = Vhost::lease().await;
    let forwarder = Forwarder::open(vhost.server());
    let mut process = Process::behind(&forwarder, &vhost);
    let other = Process::on(&vhost);
    process.consume([1, 2]);
    process.publish(1, 10);
    process.row(1, 10).await;

    forwarder.inflict(Fault::blocked());
    process.is(BrokerState::Blocked).await;
    for id in 11..=200 {
        process.publish(1, id);
    }
    other.publish(2, 20);
    process.row(2, 20).await;
    assert!(process.arrivals.jobs.try_recv().is_err(), "nothing is published while blocked");
    assert_eq!(process.broker.state(), BrokerState::Blocked);

    forwarder.inflict(Fault::unblocked());
    let merged = process.delivery().await;
    assert!(named(&merged.job).into_iter().eq(11..=200));
    merged.ack();
    process.is(BrokerState::Up).await;
}

// ---- what can happen to a queue --------------------------------------------------------------------------------

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn deleted_queue_is_declared_and_consumed_again() {
    let vhost = Vhost::lease().await;
    let (_connection, channel) = vhost.connect().await;
    let mut process = Process::on(&vhost);
    process.consume([5]);
    process.publish(5, 50);
    process.row(5, 50).await;
    channel.queue_delete("cdls.work.05".into(), QueueDeleteOptions::default()).await.unwrap();
    process.publish(5, 51);

    process.row(5, 51).await;
}

#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn jobs_of_a_deleted_queue_are_published_again() {
    let vhost = Vhost::lease().await;
    let (_connection, channel) = vhost.connect().await;
    let ingest = Process::on(&vhost);
    for line in 0..64 {
        ingest.publish(line, line);
    }
    for partition in Partition::all() {
        wait_for_queue(&vhost, &format!("cdls.work.{partition}")).await;
    }
    for partition in (0..64).step_by(3) {
        let queue = format!("cdls.work.{}", Partition(partition));
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    for line in 0..64 {
        ingest.publish(line, 1_000 + line);
    }

    let mut worker = Process::on(&vhost);
    worker.consume(0..64);
    let mut missing: Vec<i64> = (1_000..1_064).collect();
    while !missing.is_empty() {
        let delivery = worker.delivery().await;
        named(&delivery.job).iter().for_each(|work| missing.retain(|id| id != work));
        delivery.ack();
    }
}

#[rstest]
#[case::nonsense(b"nonsense")]
#[case::another_version(br#"{"v":99,"work":[]}"#)]
#[tokio::test]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn drops_a_poisoned_job_and_delivers_the_next(#[case] body: &[u8]) {
    let vhost = Vhost::lease().await;
    let (_connection, channel) = vhost.connect().await;
    let mut process = Process::on(&vhost);
    process.consume([5]);
    process.publish(5, 50);
    process.row(5, 50).await;
    // Confirmed, so that they lie in the queue before the job, which travels on a connection of its own.
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms are switched on");
    for _ in 0..20 {
        publish_raw(&channel, 5, body).await;
    }
    process.publish(5, 51);
    process.row(5, 51).await;
    process.broker.close(DEADLINE).await;

    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let left = channel.queue_declare("cdls.work.05".into(), passive, FieldTable::default()).await.unwrap();
    assert_eq!(left.message_count(), 0, "none is left to come back");
}

async fn wait_for_queue(vhost: &Vhost, queue: &str) {
    let (connection, _) = vhost.connect().await;
    eventually(queue, async || {
        // A passive declaration of an absent queue closes the channel; of another's exclusive one, too, with 405.
        let channel = connection.create_channel().await.expect("a channel");
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        match channel.queue_declare(queue.into(), passive, FieldTable::default()).await {
            Ok(_) => true,
            Err(error) => error.to_string().contains("RESOURCE_LOCKED"),
        }
    })
    .await;
}

async fn publish_raw(channel: &Channel, partition: i16, body: &[u8]) {
    let queue = format!("cdls.work.{}", Partition(partition));
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let written = channel.basic_publish("".into(), queue.into(), options, body, properties).await;
    written.expect("written").await.expect("published");
}
