//! A refusal that may be about one message: the line goes on with another one, and the refused one ends.

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{ErrorKind, Status};
use rstest::rstest;

use crate::support::pipeline::{Backend, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn refused_message_ends_when_another_is_sent(
    #[case] backend: Backend,
    #[values(
        ("code368_1346003-ann", 368, Some(1346003)),
        ("code2022-ann", 2022, None),
        ("code200-ann", 200, None),
        ("code803-ann", 803, None)
    )]
    refusal: (&str, i32, Option<i32>),
) {
    let (dest, code, subcode) = refusal;
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger;
    let refused = pipeline.submit(dest, "hello").await;
    let row = pipeline.until(refused, "the refusal", |row| row.error_code.is_some()).await;
    assert_eq!((row.status, row.attempts), (Status::Retry, 1), "{row:?}");
    assert!(row.next_at.is_some(), "{row:?}");
    pipeline.until_paused(line, &code.to_string()).await;
    let other = pipeline.submit("bob", "hello").await;
    pipeline.resume(line).await;
    pipeline.expect_ok(other).await;

    let row = pipeline.outcome(refused).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)), "{row:?}");
    assert_eq!((row.error_code, row.error_subcode), (Some(code), subcode));
    assert!(row.error_message.is_some() && row.done_at.is_some() && row.next_at.is_none(), "{row:?}");
    assert_eq!((row.attempts, pipeline.calls_to(dest)), (1, 1), "without another call");
    // The line and the recipient go on.
    pipeline.expect_ok(pipeline.submit("cleo", "hello").await).await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_message_ends_after_its_trials() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("dispatch.line_trials", "1")]).await;
    let row = pipeline.outcome(pipeline.submit("code368-ann", "hello").await).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)), "{row:?}");
    assert_eq!((row.error_code, row.attempts), (Some(368), 1));
    pipeline.until_paused(pipeline.messenger, "368").await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_line_tries_one_call_after_its_pause() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let line = pipeline.add_line(Class::MESSENGER, "EXPIREDtoken").await;
    for n in 0..30 {
        pipeline.submit_on(line, &format!("r{n}"), "hello").await;
    }
    pipeline.until_paused(line, "190").await;
    let before = pipeline.simulator.calls().len();
    pipeline.resume(line).await;
    eventually("another refusal", || async {
        let calls = pipeline.simulator.calls().len();
        if calls > before { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    pipeline.until_paused(line, "190").await;
    assert_eq!(pipeline.simulator.calls().len(), before + 1);
    // All of them wait, and are sent with a good token.
    assert!(pipeline.store.set_page_token(line, &"EAAnew".into()).await.expect("the store answers"));
    eventually("all messages", || async {
        let sent = pipeline.rows().await.iter().filter(|row| row.status == Status::Ok).count();
        if sent == 30 { Ok(()) } else { Err(format!("{sent} sent")) }
    })
    .await;
    pipeline.stop().await;
}
