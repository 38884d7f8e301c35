//! The permissions that `broker grants` prints, for this program's users and for others: enough, and no more.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use meta_dispatch::broker::grants::Rights;
use meta_dispatch::broker::rabbitmq::RabbitBroker;
use meta_dispatch::broker::{Arrivals, Broker, BrokerState, IntakeState, Rejected};
use meta_dispatch::domain::{AccountId, LineId, Partition, ReplyTo, RowId};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::support::broker::{DEADLINE, job, outcome};
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Inbox, Producer};
use crate::support::rabbitmq::{User, Vhost, settings};

/// The rights of a producer on the shared exchange.
fn producer_rights(user: &str) -> Rights {
    Rights::of_producer(user, false)
}

/// A listener that hears all accounts: an operator's.
fn listener_rights(_user: &str) -> Rights {
    let own = r"^listener\..*$".to_owned();
    let read = r"^(cdls\.events|listener\..*)$".to_owned();
    Rights { configure: own.clone(), write: own, read, topics: Vec::new() }
}

#[test]
fn page_shows_the_commands_of_the_program() {
    let page = include_str!("../../docs/amqp.md");
    for (user, rights) in [
        ("meta-dispatch-ingest", Rights::of_ingest()),
        ("meta-dispatch-worker", Rights::of_worker()),
        ("listener-inbound", Rights::of_inbound_listener("listener-inbound")),
        ("shop", Rights::of_producer("shop", true)),
        ("clinic", Rights::of_producer("clinic", false)),
        ("listener-1", Rights::of_listener("listener-1", AccountId(1))),
        ("listener", listener_rights("listener")),
    ] {
        for command in rights.commands("VHOST", user) {
            assert!(page.contains(&command), "{command}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_submits_and_hears_its_outcome() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let user = pipeline.vhost().user(producer_rights);
    let tsid = pipeline.tsid.expose_secret();
    Producer::connect(&pipeline).await;
    let producer = Producer::over(user.connect().await, tsid).await;

    let mut inbox = producer.reply_queue().await;
    let to = |queue: &str, id: &'static str| {
        producer.properties().with_reply_to(queue.into()).with_correlation_id(id.into())
    };
    producer.submit_text(pipeline.messenger, "ann", "hi", to(&inbox.queue, "named")).await;
    let (id, answer) = inbox.next_json().await;
    assert_eq!((id.as_str(), &answer["return"]["status"]), ("named", &json!("OK")));

    // A queue of its own that outlives it.
    let options = QueueDeclareOptions { durable: true, exclusive: true, ..Default::default() };
    let name = format!("{}.answers", user.name);
    let own = producer.channel.queue_declare(name.into(), options, FieldTable::default()).await;
    own.expect("a queue of the producer's own");

    // Direct reply-to needs no permission at all.
    let mut direct = producer.direct_replies().await;
    producer.submit_text(pipeline.messenger, "bob", "hi", to(&direct.queue, "direct")).await;
    let (id, answer) = direct.next_json().await;
    assert_eq!((id.as_str(), &answer["return"]["status"]), ("direct", &json!("OK")));

    // Mapped to an account, the user needs no token.
    pipeline.store.map_broker_user(pipeline.account, &user.name, false).await.expect("users can be mapped");
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_user_id(user.name.as_str().into())
        .with_reply_to(inbox.queue.as_str().into())
        .with_correlation_id("vouched".into());
    producer.submit_text(pipeline.messenger, "cleo", "hi", properties).await;
    let (id, answer) = inbox.next_json().await;
    assert_eq!((id.as_str(), &answer["return"]["status"]), ("vouched", &json!("OK")));
    pipeline.stop().await;
}

/// What a user tries; `Ok` if the broker lets it.
async fn attempt(channel: &Channel, what: &str, name: &str) -> lapin::Result<()> {
    let none = FieldTable::default;
    match what {
        "consume" => {
            let options = BasicConsumeOptions::default();
            channel.basic_consume(name.into(), "".into(), options, none()).await.map(drop)
        }
        "get" => channel.basic_get(name.into(), BasicGetOptions::default()).await.map(drop),
        "purge" => channel.queue_purge(name.into(), QueuePurgeOptions::default()).await.map(drop),
        "delete" => channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.map(drop),
        "delete exchange" => channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await,
        "declare" => {
            channel.queue_declare(name.into(), QueueDeclareOptions::default(), none()).await.map(drop)
        }
        "declare exchange" => {
            let options = ExchangeDeclareOptions::default();
            channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, none()).await
        }
        "bind to" => {
            let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
            let queue = channel.queue_declare("".into(), options, none()).await.expect("a queue of its own");
            let queue = queue.name().clone();
            let options = QueueBindOptions::default();
            channel.queue_bind(queue, name.into(), "messenger".into(), options, none()).await
        }
        "unbind" => channel.queue_unbind(name.into(), name.into(), "messenger".into(), none()).await,
        "publish to" | "publish to the queue" => {
            let (exchange, key) = if what == "publish to" { (name, "messenger") } else { ("", name) };
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            channel
                .basic_publish(exchange.into(), key.into(), options, b"{}", properties)
                .await?
                .await
                .map(drop)
        }
        other => panic!("no such attempt: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_is_refused_everything_else() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let user = pipeline.vhost().user(producer_rights);
    let tsid = pipeline.tsid.expose_secret();
    Producer::connect(&pipeline).await;
    let producer = Producer::over(user.connect().await, tsid).await;
    let queues = ["cdls.submit", "cdls.rejected", "cdls.unreadable", "cdls.work.07"];
    let of_queues = ["consume", "get", "purge", "delete", "declare", "publish to the queue"];
    let on_queues = of_queues.iter().flat_map(|what| queues.map(|name| (*what, name)));
    let exchanges = ["cdls.submit", "cdls.unrouted", "cdls.events"];
    let of_exchanges = ["bind to", "delete exchange", "declare exchange"];
    let on_exchanges = of_exchanges.iter().flat_map(|what| exchanges.map(|name| (*what, name)));
    let others = [
        ("publish to", "cdls.unrouted"),
        ("publish to", "cdls.events"),
        ("unbind", "cdls.submit"),
        ("declare", "cdls.work.77"),
        ("declare exchange", "cdls.other"),
        ("declare", "another.program"),
    ];
    for (what, name) in on_queues.chain(on_exchanges).chain(others) {
        let tried = attempt(&producer.channel().await, what, name).await;
        let refused = tried.expect_err(&format!("{what} {name}")).to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{what} {name}: {refused}");
    }
    // All of it left the way in as it was.
    let mut inbox = producer.reply_queue().await;
    let properties = producer.properties().with_reply_to(inbox.queue.as_str().into());
    producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
    let (_, answer) = inbox.next_json().await;
    let id = RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    pipeline.expect_ok(id).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn listener_hears_events_and_cannot_submit() {
    let pipeline = Pipeline::start_with(Backend::Servers, &[("events.publish", "outcomes")]).await;
    let user = pipeline.vhost().user(listener_rights);
    Producer::connect(&pipeline).await;
    let listener = Producer::over(user.connect().await, "").await;
    let mut events = listener.events_in("listener.of-the-shop", "messenger.ok.*").await;
    pipeline.expect_ok(pipeline.submit("ann", "hi").await).await;
    assert_eq!(events.next_json().await.0, format!("messenger.ok.{}", pipeline.messenger));
    let attempts = [
        ("publish to", "cdls.submit"),
        ("publish to", "cdls.events"),
        ("consume", "cdls.submit"),
        ("consume", "cdls.work.07"),
        ("delete exchange", "cdls.events"),
    ];
    for (what, name) in attempts {
        let tried = attempt(&listener.channel().await, what, name).await;
        let refused = tried.expect_err(&format!("{what} {name}")).to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{what} {name}: {refused}");
    }
    pipeline.stop().await;
}

/// A process of the program that signs in as this user.
fn process(user: &User) -> (Arc<RabbitBroker>, Arrivals) {
    RabbitBroker::open(&settings(&user.url())).expect("a good URL")
}

async fn is_up(broker: &RabbitBroker) {
    eventually("its connections", || async {
        match broker.state() {
            BrokerState::Up => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ: run tests/run"]
async fn program_works_with_its_rights_alone() {
    let vhost = Vhost::lease().await;
    let shop = vhost.user(|user| Rights::of_producer(user, true));
    let users = (vhost.user(|_| Rights::of_ingest()), vhost.user(|_| Rights::of_worker()));
    let (ingest, mut heard) = process(&users.0);
    let (worker, mut arrivals) = process(&users.1);
    let mut batches = ingest.take_in(1_000).expect("RabbitMQ has producers");
    ingest.take_in_from(std::slice::from_ref(&shop.name));
    is_up(&ingest).await;
    is_up(&worker).await;
    let operator = Producer::connect_to(&vhost, "").await;
    let exchange = format!("cdls.submit.{}", shop.name);
    operator.intake_is_up().await;
    operator.queue_is_consumed(&exchange).await;
    assert_eq!(ingest.intake(), IntakeState::Open);

    // Submissions over both ways in, with a key that fits and one that does not.
    let producer = Producer::over(shop.connect().await, "").await.to(&exchange);
    producer.submit("messenger", b"{}", BasicProperties::default()).await;
    producer.submit("nonsense", b"{}", BasicProperties::default()).await;
    operator.submit("messenger", b"{}", BasicProperties::default()).await;
    for _ in 0..3 {
        let batch = tokio::time::timeout(DEADLINE, batches.recv()).await.expect("in time").expect("open");
        assert_eq!(batch.submitted.len(), 1, "sessions begin with one");
        batch.settle();
    }

    // Jobs, replies, answers, refused submissions and events.
    worker.consume(&[Partition(3)]);
    ingest.publish(LineId(3).partition(), job(3, 30));
    let delivery =
        tokio::time::timeout(DEADLINE, arrivals.jobs.recv()).await.expect("in time").expect("open");
    delivery.ack();
    for is_unauthenticated in [false, true] {
        assert!(ingest.reject(refused(is_unauthenticated)).await);
    }
    operator.rejected().await;
    operator.unauthenticated().await;
    let mut inbox = producer.reply_queue().await;
    let to = ReplyTo { queue: inbox.queue.clone(), correlation_id: Some("7".into()), account: None };
    let mut events = operator.events("#").await;
    for broker in [&ingest, &worker] {
        broker.answer(&to, b"{}".to_vec());
        assert_eq!(inbox.next_json().await.0, "7");
        broker.event(AccountId(1), "messenger.ok.3", b"{}".to_vec());
        assert_eq!(events.next_json().await.0, "messenger.ok.3");
    }
    let mut of_account = operator.events_of("cdls.events.1", "", "#").await;
    worker.event(AccountId(1), "messenger.ok.3", b"{}".to_vec());
    of_account.next().await;
    let replied = tokio::time::timeout(DEADLINE, async {
        loop {
            worker.reply(ingest.reply_address(), outcome("t"));
            if tokio::time::timeout(Duration::from_millis(100), heard.replies.recv()).await.is_ok() {
                break;
            }
        }
    });
    replied.await.expect("a reply in time");
    for broker in [ingest, worker] {
        broker.close(DEADLINE).await;
    }
    vhost.forget(&shop).await;
}

fn refused(is_unauthenticated: bool) -> Rejected {
    Rejected {
        status_code: 220,
        status: "No dest".into(),
        detail: "`dest` is missing.".into(),
        body: Vec::new(),
        body_bytes: 0,
        routing_key: "messenger".into(),
        message_id: None,
        correlation_id: None,
        user_id: None,
        is_unauthenticated,
        at: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_with_a_queue_reaches_no_other() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let vhost = pipeline.vhost();
    let user = vhost.user(|user| Rights::of_producer(user, true));
    pipeline.store.map_broker_user(pipeline.account, &user.name, true).await.expect("users can be mapped");
    let operator = Producer::connect(&pipeline).await;
    let exchange = format!("cdls.submit.{}", user.name);
    operator.queue_is_consumed(&exchange).await;
    let producer = Producer::over(user.connect().await, pipeline.tsid.expose_secret()).await.to(&exchange);
    for (what, name) in [
        ("publish to", "cdls.submit"),
        ("publish to", "cdls.unrouted"),
        ("consume", exchange.as_str()),
        ("purge", exchange.as_str()),
        ("delete", exchange.as_str()),
        ("delete exchange", exchange.as_str()),
        ("declare exchange", exchange.as_str()),
    ] {
        let tried = attempt(&producer.channel().await, what, name).await;
        let refused = tried.expect_err(&format!("{what} {name}")).to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{what} {name}: {refused}");
    }
    let mut inbox = producer.reply_queue().await;
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_user_id(user.name.as_str().into())
        .with_reply_to(inbox.queue.as_str().into());
    producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
    assert_eq!(inbox.next_json().await.1["return"]["status"], json!("OK"));
    vhost.forget(&user).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn listener_of_an_account_hears_no_other() {
    let pipeline = Pipeline::start_with(Backend::Servers, &[("events.publish", "outcomes")]).await;
    let other = pipeline.add_sender("Other").await;
    let user = pipeline.vhost().user(|user| Rights::of_listener(user, pipeline.account));
    let operator = Producer::connect(&pipeline).await;
    let mut all = operator.events("#").await;
    // The first event of an account declares its exchange.
    pipeline.expect_ok(pipeline.submit("ann", "hi").await).await;
    all.next().await;
    let listener = Producer::over(user.connect().await, "").await;
    let (own, queue) = (format!("cdls.events.{}", pipeline.account), format!("{}.all", user.name));
    let mut heard: Inbox = listener.events_of(&own, &queue, "#").await;
    for exchange in ["cdls.events".to_owned(), format!("cdls.events.{}", other.account)] {
        let channel = listener.channel().await;
        let options = QueueBindOptions::default();
        let bound = channel.queue_bind(
            queue.as_str().into(),
            exchange.as_str().into(),
            "#".into(),
            options,
            FieldTable::default(),
        );
        let refused = bound.await.expect_err("not its own").to_string();
        assert!(refused.contains("ACCESS_REFUSED"), "{exchange}: {refused}");
    }
    let sender = Producer::connect_to(pipeline.vhost(), other.tsid.expose_secret()).await;
    sender.submit_text(other.line, "eve", "hi", sender.properties()).await;
    let (key, event) = all.next_json().await;
    assert_eq!((key, &event["cdcs_id"]), (format!("messenger.ok.{}", other.line), &json!(other.account)));
    pipeline.expect_ok(pipeline.submit("bob", "hi").await).await;
    let (key, event) = heard.next_json().await;
    assert_eq!((key, &event["dest"]), (format!("messenger.ok.{}", pipeline.messenger), &json!("bob")));
    assert!(heard.is_empty().await);
    pipeline.stop().await;
}
