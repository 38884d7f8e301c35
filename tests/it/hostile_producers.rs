//! Producers that break their messages, forge addresses or send without a token: the others do not notice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use meta_dispatch::broker::grants::Rights;
use meta_dispatch::domain::LineId;
use meta_dispatch::metrics::METRICS;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Inbox, Producer, foreign_direct_reply_to, header};
use crate::support::rabbitmq::User;
use crate::support::unreadable;

/// Submissions of the honest producer, and how many of them may be without an answer.
const HONEST: usize = 300;
const AT_ONCE: usize = 10;
/// The settings of a pipeline whose lines hold no producer up.
const FAST: [(&str, &str); 1] = [("limits.messenger.text", "300")];

/// A producer with a queue of its own, and its user.
struct OwnQueue {
    user: User,
    exchange: String,
    producer: Producer,
}

impl OwnQueue {
    /// Map a new user to the account, and wait until its queue is consumed.
    async fn open(pipeline: &Pipeline) -> OwnQueue {
        let user = pipeline.vhost().user(|user| Rights::of_producer(user, true));
        let mapped = pipeline.store.map_broker_user(pipeline.account, &user.name, true).await;
        mapped.expect("users can be mapped");
        let exchange = format!("cdls.submit.{}", user.name);
        Producer::connect(pipeline).await.queue_is_consumed(&exchange).await;
        let producer = Producer::over(user.connect().await, pipeline.tsid.expose_secret()).await;
        OwnQueue { producer: producer.to(&exchange), user, exchange }
    }
}

/// Publish many submissions, a few at a time; return how long each answer took.
async fn answered(producer: &Producer, inbox: &mut Inbox, line: LineId) -> Vec<Duration> {
    let places = Semaphore::new(AT_ONCE);
    let (began_out, mut began) = tokio::sync::mpsc::unbounded_channel();
    let to = inbox.queue.clone();
    let publish = async {
        for n in 0..HONEST {
            places.acquire().await.expect("it is never closed").forget();
            began_out.send((n.to_string(), Instant::now())).expect("it is read");
            let properties = producer
                .properties()
                .with_reply_to(to.as_str().into())
                .with_correlation_id(n.to_string().into());
            producer.submit_text(line, &format!("r{n}"), "hi", properties).await;
        }
    };
    let listen = async {
        let mut waiting = HashMap::new();
        let mut lengths = Vec::new();
        while lengths.len() < HONEST {
            let (id, answer): (String, Value) = inbox.next_json().await;
            while let Ok((id, at)) = began.try_recv() {
                waiting.insert(id, at);
            }
            // An answer that was written again may have arrived before.
            if let Some(at) = waiting.remove(&id) {
                assert_eq!(answer["return"]["status"], "OK", "{answer}");
                lengths.push(at.elapsed());
                places.add_permits(1);
            }
        }
        lengths.sort_unstable();
        lengths
    };
    let ((), lengths) = tokio::join!(publish, listen);
    lengths
}

fn p99(lengths: &[Duration]) -> Duration {
    lengths[lengths.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn unreadable_submissions_stop_their_own_queue_alone() {
    let pipeline = Pipeline::start_with(Backend::Servers, &FAST).await;
    let (honest, hostile) = (OwnQueue::open(&pipeline).await, OwnQueue::open(&pipeline).await);
    let stop = CancellationToken::new();
    let breaking = {
        let (url, exchange, line) = (hostile.user.url(), hostile.exchange.clone(), pipeline.messenger.0);
        let stop = stop.clone();
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                unreadable::publish(url.expose_secret(), &exchange, line).await;
            }
        })
    };
    let mut inbox = honest.producer.reply_queue().await;
    let lengths = answered(&honest.producer, &mut inbox, pipeline.messenger).await;
    stop.cancel();
    breaking.await.expect("it went on to the end");
    assert_eq!(lengths.len(), HONEST);
    assert!(p99(&lengths) < Duration::from_secs(1), "{:?}", p99(&lengths));
    for owner in [&honest, &hostile] {
        pipeline.vhost().forget(&owner.user).await;
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn wrong_routing_key_stays_in_the_own_queue() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let own = OwnQueue::open(&pipeline).await;
    let mut inbox = own.producer.reply_queue().await;
    let properties = own
        .producer
        .properties()
        .with_reply_to(inbox.queue.as_str().into())
        .with_correlation_id("wrong".into());
    own.producer.submit("nonsense", b"{}", properties).await;
    let (id, answer) = inbox.next_json().await;
    assert_eq!((id.as_str(), &answer["return"]["status"]), ("wrong", &json!("Invalid parameter: class")));
    pipeline.vhost().forget(&own.user).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn shared_queue_goes_on_soon_after_an_unreadable_submission() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.reply_queue().await;
    let url = pipeline.vhost().url();
    unreadable::publish(url.expose_secret(), "cdls.submit", pipeline.messenger.0).await;
    let began = Instant::now();
    let properties = producer.properties().with_reply_to(inbox.queue.as_str().into());
    producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
    assert_eq!(inbox.next_json().await.1["return"]["status"], json!("OK"));
    // Twenty connections; with a pause before each they take nine seconds.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn unmapped_users_queue_is_left_alone() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let own = OwnQueue::open(&pipeline).await;
    let purpose = format!("submissions of {}", own.user.name);
    assert_eq!(pipeline.vhost().connections(&purpose).len(), 1);
    assert!(pipeline.store.unmap_broker_user(&own.user.name).await.expect("the store answers"));
    eventually("the end of its connection", || async {
        let open = pipeline.vhost().connections(&purpose);
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    own.producer.submit_text(pipeline.messenger, "ann", "hi", own.producer.properties()).await;
    let (shared, mut inbox) = (Producer::connect(&pipeline).await, own.producer.reply_queue().await);
    let properties = shared.properties().with_reply_to(inbox.queue.as_str().into());
    shared.submit_text(pipeline.messenger, "bob", "hi", properties).await;
    inbox.next().await;
    assert_eq!(pipeline.simulator.delivered_to("ann"), 0);
    pipeline.vhost().forget(&own.user).await;
    pipeline.stop().await;
}

fn withheld() -> u64 {
    let text = METRICS.render();
    let shown = text.lines().find_map(|line| line.strip_prefix("meta_dispatch_answers_withheld_total "));
    shown.expect("it is shown").parse().expect("a number")
}

/// RabbitMQ ends the connection that publishes to such an address.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn harmful_addresses_cost_no_other_account_an_answer() {
    let pipeline = Pipeline::start_with(Backend::Servers, &FAST).await;
    let other = pipeline.add_sender("Hostile").await;
    let honest = Producer::connect(&pipeline).await;
    let before = withheld();
    let hostile = Producer::connect_to(pipeline.vhost(), other.tsid.expose_secret()).await;
    let stop = CancellationToken::new();
    let breaking = {
        let stop = stop.clone();
        tokio::spawn(async move {
            // Every second one is refused, which ingest answers; the worker answers the others.
            for n in 0_usize.. {
                if stop.is_cancelled() {
                    return;
                }
                let dest = if n % 2 == 0 { "eve" } else { "" };
                let properties = hostile.properties().with_reply_to(foreign_direct_reply_to().into());
                hostile.submit_text(other.line, dest, "hi", properties).await;
            }
        })
    };
    let mut inbox = honest.direct_replies().await;
    let lengths = answered(&honest, &mut inbox, pipeline.messenger).await;
    assert_eq!(lengths.len(), HONEST);
    eventually("answers that are withheld", || async {
        if withheld() > before { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    stop.cancel();
    breaking.await.expect("it went on to the end");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn queue_of_another_program_receives_no_answer() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let user = pipeline.vhost().user(|user| Rights::of_producer(user, false));
    let operator = Producer::connect(&pipeline).await;
    let mut commands = operator.queue("payments.commands").await;
    let producer = Producer::over(user.connect().await, pipeline.tsid.expose_secret()).await;
    let mut own = producer.queue(&format!("{}.answers", user.name)).await;
    let as_user = |reply_to: &str| {
        producer.properties().with_user_id(user.name.as_str().into()).with_reply_to(reply_to.into())
    };
    for properties in
        [as_user("payments.commands"), producer.properties().with_reply_to(own.queue.as_str().into())]
    {
        producer.submit_text(pipeline.messenger, "eve", "hi", properties).await;
        let rejected = operator.rejected().await;
        assert_eq!(header(&rejected.properties, "status"), "Invalid parameter: reply_to");
        assert!(header(&rejected.properties, "detail").contains("user_id"));
    }
    producer.submit_text(pipeline.messenger, "ann", "hi", as_user(&own.queue)).await;
    assert_eq!(own.next_json().await.1["return"]["status"], json!("OK"));
    assert!(own.is_empty().await && commands.is_empty().await, "neither refusal is answered");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn any_queue_receives_answers_on_request() {
    let pipeline = Pipeline::start_with(Backend::Servers, &[("broker.reply_to", "any")]).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.queue("another.program").await;
    let properties = producer.properties().with_reply_to(inbox.queue.as_str().into());
    producer.submit_text(pipeline.messenger, "ann", "hi", properties).await;
    assert_eq!(inbox.next_json().await.1["return"]["status"], json!("OK"));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn unknown_sender_is_not_answered_and_kept_apart() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.reply_queue().await;
    let to = inbox.queue.clone();
    let with_reply = |properties: BasicProperties| properties.with_reply_to(to.as_str().into());
    let token = pipeline.tsid.expose_secret().to_owned();
    let good = json!({"app_id": pipeline.messenger, "dest": "ann", "mdata": "a text"}).to_string();
    for (body, properties, code) in [
        (good.as_str(), BasicProperties::default(), "100"),
        (good.as_str(), BasicProperties::default().with_message_id(token.as_str().into()), "100"),
        ("no JSON", BasicProperties::default(), "400"),
    ] {
        producer.submit("messenger", body.as_bytes(), with_reply(properties)).await;
        let kept = producer.unauthenticated().await;
        assert_eq!(header(&kept.properties, "status_code"), code);
        assert_eq!(header(&kept.properties, "body_bytes"), body.len().to_string());
        assert!(kept.data.is_empty() && !format!("{:?}", kept.properties).contains(&token));
    }
    // A disabled account is known: its submission is kept, and not answered either.
    pipeline.store.set_account_active(pipeline.account, false).await.expect("the store answers");
    producer.submit("messenger", good.as_bytes(), with_reply(producer.properties())).await;
    let kept = producer.rejected().await;
    assert_eq!((header(&kept.properties, "status_code").as_str(), kept.data.is_empty()), ("110", false));
    pipeline.store.set_account_active(pipeline.account, true).await.expect("the store answers");

    producer.submit("messenger", b"no JSON", with_reply(producer.properties())).await;
    assert_eq!(inbox.next_json().await.1["return"]["status_code"], json!(400), "its sender is known");
    producer.rejected().await;
    assert!(inbox.is_empty().await, "the others were not answered");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn token_in_a_property_is_not_kept() {
    let pipeline = Pipeline::start(Backend::Servers).await;
    let producer = Producer::connect(&pipeline).await;
    let token = pipeline.tsid.expose_secret().to_owned();
    let properties = producer
        .properties()
        .with_message_id(token.as_str().into())
        .with_correlation_id(format!("order-{token}").into());
    producer.submit_text(pipeline.messenger, "", "hi", properties).await;
    let kept = producer.rejected().await;
    assert_eq!(header(&kept.properties, "status"), "No dest");
    assert!(!format!("{:?}", kept.properties).contains(&token), "{:?}", kept.properties);
    pipeline.stop().await;
}
