//! The permissions that docs/amqp.md advises for other programs' users of the broker: enough, and no more.

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use meta_dispatch::domain::RowId;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::support::pipeline::{Backend, Pipeline};
use crate::support::producer::Producer;
use crate::support::rabbitmq::Permissions;

const PRODUCER: Permissions = Permissions {
    configure: r"^(amq\.gen.*|shop\..*)$",
    write: r"^cdls\.submit$",
    read: r"^(amq\.gen.*|shop\..*)$",
};
const LISTENER: Permissions = Permissions {
    configure: r"^listener\..*$",
    write: r"^listener\..*$",
    read: r"^(cdls\.events|listener\..*)$",
};

#[test]
fn tests_use_the_permissions_of_the_page() {
    let page = include_str!("../../docs/amqp.md");
    for (user, Permissions { configure, write, read }) in [("shop", PRODUCER), ("listener", LISTENER)] {
        let command = format!("rabbitmqctl set_permissions -p VHOST {user} '{configure}' '{write}' '{read}'");
        assert!(page.contains(&command), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn producer_submits_and_hears_its_outcome() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let user = pipeline.vhost().user(&PRODUCER);
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
    let own = producer.channel.queue_declare("shop.answers".into(), options, FieldTable::default()).await;
    own.expect("a queue of the producer's own");

    // Direct reply-to needs no permission at all.
    let mut direct = producer.direct_replies().await;
    producer.submit_text(pipeline.messenger, "bob", "hi", to(&direct.queue, "direct")).await;
    let (id, answer) = direct.next_json().await;
    assert_eq!((id.as_str(), &answer["return"]["status"]), ("direct", &json!("OK")));

    // Mapped to an account, the user needs no token.
    pipeline.store.map_broker_user(pipeline.account, &user.name).await.expect("users can be mapped");
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
    let user = pipeline.vhost().user(&PRODUCER);
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
    let user = pipeline.vhost().user(&LISTENER);
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
