//! A message's whole way: accepted, logged, queued, sent, and its row updated; on both pairs of servers.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{ErrorKind, Lane, LineId, RowId, Status, Submission};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::support::insert::Insert;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn accepted_message_is_sent_and_its_row_says_so(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let parameters = json!({
        "app_id": pipeline.messenger.0.to_string(), "dest": "ann", "mdata": "Olá, Ann!", "msg_id": "order-7", "mcaption": "seen only in the log",
    });
    let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    assert_eq!(status, StatusCode::OK);
    let id = answer["return"]["cdls_id"].as_i64().expect("an id");
    assert_eq!(answer, json!({"return": {"status": "OK", "status_code": 0, "messageId": "", "cdls_id": id}}));

    let row = pipeline.expect_ok(RowId(id)).await;
    assert_eq!(row.status_code, 200);
    assert_eq!((row.attempts, row.ambiguous_attempts), (1, 0));
    assert_eq!(row.msg_id.as_deref(), Some("order-7"));
    assert!(row.sent_at.is_some() && row.done_at.is_some() && row.error_code.is_none());
    let calls = pipeline.simulator.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        calls[0].body,
        json!({"recipient": {"id": "ann"}, "messaging_type": "RESPONSE", "message": {"text": "Olá, Ann!"}})
    );
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn closed_window_is_error_at_the_first_answer(
    #[case] backend: Backend,
    #[values(("code10-ann", 10, 2018278), ("igcode10-ann", 10, 2534022), ("code551-ann", 551, 1545041))]
    refusal: (&str, i32, i32),
) {
    let (dest, code, subcode) = refusal;
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.submit(dest, "too late").await;
    let row = pipeline.outcome(id).await;
    assert_eq!(row.status, Status::Error);
    assert_eq!(row.error_kind, Some(ErrorKind::Refused));
    assert_eq!((row.error_code, row.error_subcode), (Some(code), Some(subcode)));
    assert!(row.error_message.is_some_and(|text| !text.is_empty()));
    assert!(row.fbtrace_id.is_some_and(|id| !id.is_empty()));
    assert_eq!((row.attempts, row.ambiguous_attempts), (1, 0));
    // A later message proves that the line went on, and that nothing called Graph for this one again.
    let next = pipeline.submit("bob", "in time").await;
    pipeline.expect_ok(next).await;
    assert_eq!(pipeline.simulator.calls().len(), 2);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn retryable_answer_is_retried_until_sent(
    #[case] backend: Backend,
    // A temporary failure, the line's rate limit, an unknown error, a service error, a server error.
    #[values(
        ("code1200x2-ann", 3, 0),
        ("code613x1-ann", 2, 0),
        ("code1x1-ann", 2, 1),
        ("code2x2-ann", 3, 2),
        ("http500x1-ann", 2, 1)
    )]
    answer: (&str, i32, i32),
) {
    let (dest, attempts, ambiguous) = answer;
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.submit(dest, "hello").await;
    let row = pipeline.until(id, "OK", |row| row.status == Status::Ok).await;
    assert_eq!((row.attempts, row.ambiguous_attempts), (attempts, ambiguous), "{row:?}");
    assert_eq!(row.error_code, None, "an error that was overcome is not shown");
    assert_eq!(pipeline.simulator.delivered_to(dest), 1);
    pipeline.stop().await;
}

#[rstest]
#[case::timeout("timeout-ann")]
#[case::cut_before_the_answer("cut-ann")]
#[case::html("html-ann")]
#[case::empty_body("empty-ann")]
#[case::truncated_body("truncated-ann")]
#[case::no_message_id("noid-ann")]
#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_is_held(#[case] dest: &str) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let id = pipeline.submit(dest, "hello").await;
    let row = pipeline.outcome(id).await;
    assert_eq!(row.status, Status::Unknown, "{row:?}");
    assert_eq!((row.attempts, row.ambiguous_attempts), (1, 1));
    assert_eq!(pipeline.simulator.calls().len(), 1);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_is_retried_if_set_to() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("dispatch.on_ambiguous", "retry")]).await;
    let id = pipeline.submit("takencutx1-ann", "hello").await;
    let row = pipeline.until(id, "OK", |row| row.status == Status::Ok).await;
    assert_eq!((row.attempts, row.ambiguous_attempts), (2, 1));
    assert_eq!(pipeline.simulator.delivered_to("takencutx1-ann"), 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_message_with_http_500_is_held_if_set_to() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("dispatch.on_5xx", "hold")]).await;
    let id = pipeline.submit("taken500-ann", "hello").await;
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.ambiguous_attempts), (Status::Unknown, 1));
    assert_eq!(pipeline.simulator.delivered_to("taken500-ann"), 1);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_end_as_exhausted() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("dispatch.max_attempts", "3")]).await;
    let id = pipeline.submit("code1200-ann", "hello").await;
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Exhausted)));
    assert_eq!((row.attempts, row.error_code), (3, Some(1200)));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn wait_answers_with_the_outcome_across_processes(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger.0;
    let (status, answer) = pipeline
        .post(Class::MESSENGER, json!({"app_id": line, "dest": "ann", "mdata": "hi", "wait": 20}))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["return"]["status"], "OK");
    assert_eq!(answer["return"]["status_code"], 200);
    assert!(answer["return"]["messageId"].as_str().is_some_and(|id| id.starts_with("m_")), "{answer}");

    let (status, answer) = pipeline
        .post(Class::MESSENGER, json!({"app_id": line, "dest": "code10-ann", "mdata": "hi", "wait": "20"}))
        .await;
    let id = answer["return"]["cdls_id"].clone();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer,
        json!({"return": {
            "status": "ERROR", "status_code": 400, "messageId": "", "cdls_id": id,
            "detail": ErrorKind::Refused.sentence(), "error_code": 10, "error_subcode": 2018278,
            "error_kind": "refused", "error_message": answer["return"]["error_message"],
        }})
    );

    // UNKNOWN is answered at once, as logged and queued.
    let (status, answer) = pipeline
        .post(Class::MESSENGER, json!({"app_id": line, "dest": "cut-ann", "mdata": "hi", "wait": 20}))
        .await;
    assert_eq!((status, &answer["return"]["status_code"]), (StatusCode::OK, &json!(0)));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn retries_keep_the_order_of_one_recipient() {
    let pipeline = Pipeline::start(SERVERS).await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(pipeline.submit("code1200x2-ann", text).await);
    }
    for id in ids {
        pipeline.until(id, "OK", |row| row.status == Status::Ok).await;
    }
    let texts: Vec<String> =
        pipeline.simulator.calls().into_iter().map(|call| call.body["message"]["text"].to_string()).collect();
    assert_eq!(texts, [r#""one""#, r#""one""#, r#""one""#, r#""two""#, r#""three""#]);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn expired_page_token_pauses_until_replaced(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.add_line(Class::MESSENGER, "EXPIREDtoken").await;
    let id = pipeline.submit_on(line, "ann", "hello").await;
    let row = pipeline.until(id, "the refusal", |row| row.error_code == Some(190)).await;
    assert_eq!(row.status, Status::Pending, "it waits with its line");
    let record = eventually("the pause to be shown", || async {
        let record = pipeline.store.lines(&[line]).await.expect("the store answers").remove(0);
        if record.paused_until.is_some() { Ok(record) } else { Err(format!("{record:?}")) }
    })
    .await;
    assert!(record.pause_reason.is_some_and(|reason| reason.contains("190")));
    // Other lines go on.
    pipeline.expect_ok(pipeline.submit("bob", "hi").await).await;

    assert!(pipeline.store.set_page_token(line, &"EAAnew".into()).await.expect("the store answers"));
    let row = pipeline.until(id, "OK", |row| row.status == Status::Ok).await;
    assert_eq!(row.attempts, 2);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn demanded_pause_shows_its_reason_until_resumed(
    #[case] backend: Backend,
    // Of the line, and of every line.
    #[values(("code80006x1-ann", 80006), ("code4x1-ann", 4))] demand: (&str, i32),
) {
    let (dest, code) = demand;
    let pipeline = Pipeline::start(backend).await;
    let id = pipeline.submit(dest, "hello").await;
    // Due again after its backoff, it waits with its line.
    let row = pipeline.until(id, "the refusal", |row| row.error_code == Some(code)).await;
    assert_eq!((row.status, row.attempts), (Status::Retry, 1));
    let reason = pause_reason(&pipeline, pipeline.messenger).await;
    assert!(reason.contains(&code.to_string()), "{reason}");
    assert!(pipeline.store.resume_line(pipeline.messenger).await.expect("the store answers"));
    assert_eq!(pipeline.expect_ok(id).await.attempts, 2);
    pipeline.stop().await;
}

/// Waits until the line's record shows a pause, and says why.
async fn pause_reason(pipeline: &Pipeline, line: LineId) -> String {
    eventually("the pause to be shown", || async {
        let record = pipeline.store.lines(&[line]).await.expect("the store answers").remove(0);
        record.pause_reason.clone().ok_or_else(|| format!("{record:?}"))
    })
    .await
}

#[rstest]
#[case::forbidden("http403x1-ann", "HTTP 403")]
#[case::not_found("http404x1-ann", "HTTP 404")]
#[tokio::test(flavor = "multi_thread")]
async fn foreign_answer_leaves_the_message_waiting(#[case] dest: &str, #[case] status: &str) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let id = pipeline.submit(dest, "hello").await;
    let row = pipeline.until(id, "the answer", |row| row.error_message.is_some()).await;
    assert_eq!((row.status, row.attempts, row.ambiguous_attempts), (Status::Pending, 1, 1), "{row:?}");
    let reason = pause_reason(&pipeline, pipeline.messenger).await;
    assert!(reason.contains(status), "{reason}");
    assert!(pipeline.store.resume_line(pipeline.messenger).await.expect("the store answers"));
    assert_eq!(pipeline.expect_ok(id).await.attempts, 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_instead_of_answers_leaves_few_unknown() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(pipeline.submit(&format!("html-r{n}"), "hello").await);
    }
    let reason = pause_reason(&pipeline, pipeline.messenger).await;
    assert!(reason.contains("HTTP 200"), "{reason}");
    let last = pipeline.row(ids[39]).await;
    assert_eq!((last.status, last.attempts), (Status::Pending, 0), "{last:?}");
    // At 40 a second they would all be sent within a second.
    let calls = pipeline.simulator.calls().len();
    assert!(calls <= 10, "{calls} calls");
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn page_token_by_sql_ends_the_pause(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.execute("update cd_v8_line set v8l_wa_api_key = 'EXPIREDtoken'").await;
    let id = pipeline.submit("ann", "hello").await;
    pipeline.until(id, "the refusal", |row| row.error_code == Some(190)).await;
    pipeline.execute("update cd_v8_line set v8l_wa_api_key = 'EAAnew'").await;
    assert_eq!(pipeline.expect_ok(id).await.attempts, 2);
    eventually("the pause to be gone", || async {
        let record = pipeline.store.lines(&[pipeline.messenger]).await.expect("the store answers").remove(0);
        if record.paused_until.is_none() { Ok(()) } else { Err(format!("{record:?}")) }
    })
    .await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn paused_line_spends_no_attempts_until_resumed() {
    let pipeline = Pipeline::start(SERVERS).await;
    let line = pipeline.messenger;
    pipeline.expect_ok(pipeline.submit("first", "the worker knows the line").await).await;
    assert!(pipeline.store.pause_line(line, None, "for a test").await.expect("the store answers"));
    // Another line's messages tell when the worker has read the records again: some go out before, some after.
    let paused = eventually("a message that waits", || async {
        let id = pipeline.submit("ann", "hello").await;
        let other =
            pipeline.submit_on(pipeline.add_line(Class::MESSENGER, "EAAother").await, "bob", "hi").await;
        pipeline.expect_ok(other).await;
        let row = pipeline.row(id).await;
        if row.status == Status::Pending { Ok(id) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!(pipeline.row(paused).await.attempts, 0);
    assert!(pipeline.store.resume_line(line).await.expect("the store answers"));
    assert_eq!(pipeline.expect_ok(paused).await.attempts, 1);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsent_message_expires_with_its_validity() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "code1200-ann", "mdata": "hi", "valid_for": 1, "wait": 20});
    let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let id = meta_dispatch::domain::RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn scheduled_message_is_not_sent_before_its_time(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let at = time::OffsetDateTime::now_utc() + Duration::from_secs(3);
    let parameters = json!({
        "app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi", "send_at": meta_dispatch::text::timestamp(at),
    });
    let (_, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    let id = meta_dispatch::domain::RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let row = pipeline.expect_ok(id).await;
    assert!(row.sent_at.expect("it was sent") >= at - Duration::from_millis(50), "{row:?}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn two_workers_send_each_message_once() {
    let mut pipeline = Pipeline::start_with(
        SERVERS,
        &[("limits.enforce_ceilings", "false"), ("limits.messenger.text", "2000")],
    )
    .await;
    pipeline.start_worker().await;
    let mut lines = vec![pipeline.messenger];
    for _ in 0..15 {
        lines.push(pipeline.add_line(Class::MESSENGER, "EAAmany").await);
    }
    let mut ids = Vec::new();
    for n in 0..480 {
        ids.push(pipeline.submit_on(lines[n % lines.len()], &format!("r{n}"), "hello").await);
        if n == 240 {
            // A worker leaves in the middle; the other takes its lines over.
            pipeline.stop_last().await;
        }
    }
    for id in ids {
        pipeline.expect_ok(id).await;
    }
    assert_eq!(pipeline.simulator.calls().len(), 480);
    for n in 0..480 {
        assert_eq!(pipeline.simulator.delivered_to(&format!("r{n}")), 1);
    }
    pipeline.stop().await;
}

/// What expired was not ended by the answer it had before, and whoever waits is told so.
#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn expiry_between_tries_hides_graphs_code(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "code1200-ann", "mdata": "hi", "valid_for": 1, "wait": 20});
    let (status, answer) = pipeline.post(Class::MESSENGER, parameters).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((&answer["return"]["status"], &answer["return"]["status_code"]), (&json!("ERROR"), &json!(0)));
    let row = pipeline.row(RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))).await;
    assert_eq!(row.error_kind, Some(ErrorKind::Expired));
    assert!(row.attempts > 1);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn row_of_a_line_with_a_new_owner_is_never_sent(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    assert!(pipeline.store.pause_line(pipeline.messenger, None, "for a test").await.expect("it answers"));
    let id = pipeline.submit("ann", "hello").await;
    pipeline.store.add_account("Other").await.expect("accounts can be added");
    pipeline
        .execute("update cd_v8_line set cdcs_id = 2, v8l_wa_api_key = 'EAAother', v8l_paused_until = null")
        .await;
    let row = pipeline.until(id, "its end", |row| row.status == Status::Error).await;
    assert_eq!((row.error_kind, row.attempts), (Some(ErrorKind::Line), 0));
    assert_eq!(row.error_message.as_deref(), Some("its line belongs to another account"));
    assert!(pipeline.simulator.calls().is_empty());
    pipeline.stop().await;
}

/// Ann's first message waits for its next try, so her second is the oldest that is ready, and in hand.
#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn rows_back_from_a_pause_wait_for_no_backlog(#[case] backend: Backend) {
    const ROWS: usize = 2_000;
    let settings = [("retry.base", "120s"), ("retry.cap", "120s")];
    let pipeline = Pipeline::start_with(backend, &settings).await;
    let line = pipeline.add_limited_line(Class::MESSENGER, PAGE_TOKEN, Some(200)).await;
    let row = |dest: String| Submission {
        account: pipeline.account,
        line,
        class: Class::MESSENGER,
        dest,
        kind: MessageKind::Text,
        mdata: "hello".into(),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    };
    let ann = pipeline.submit_on(line, "http500x1-ann", "first").await;
    pipeline.until(ann, "its next try", |row| row.status == Status::Retry).await;
    let mut rows = vec![row("http500x1-ann".into())];
    // Each pauses the line when some rows are claimed and not sent.
    rows.extend((0..ROWS).map(|n| if n == 100 { row("code613x1-bob".into()) } else { row(format!("r{n}")) }));
    pipeline.store.insert(&rows).await.expect("rows can be logged");
    let sent = |dest: &str| pipeline.simulator.calls().iter().filter(|call| call.dest == dest).count();
    eventually("the backlog to be sent", || async {
        let calls = pipeline.simulator.calls().len();
        if sent(&format!("r{}", ROWS - 1)) == 1 { Ok(()) } else { Err(format!("{calls} calls")) }
    })
    .await;
    let order: Vec<String> = pipeline.simulator.calls().iter().map(|call| call.dest.clone()).collect();
    for n in (0..300).filter(|n| *n != 100) {
        let place = order.iter().position(|dest| *dest == format!("r{n}")).expect("it was sent");
        assert!(place < ROWS / 2 + 300, "r{n} was sent as number {place}");
    }
    pipeline.stop().await;
}

/// Messages that are announced while a worker takes partitions over wait for the scan that finds what is older.
#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn messages_at_start_do_not_overtake_older_ones(#[case] backend: Backend) {
    let mut pipeline = Pipeline::start(backend).await;
    pipeline.stop_processes().await;
    let older = |n| Submission {
        account: pipeline.account,
        line: pipeline.messenger,
        class: Class::MESSENGER,
        dest: "ann".into(),
        kind: MessageKind::Text,
        mdata: format!("older {n}"),
        mcaption: None,
        msg_id: None,
        cp_id: None,
        lane: Lane::High,
        send_at: None,
        valid_for: Duration::from_secs(3_600),
        waiter: None,
    };
    pipeline.store.insert(&(0..6).map(older).collect::<Vec<_>>()).await.expect("rows can be logged");

    pipeline.start_processes().await;
    let mut last = RowId(0);
    for n in 0..6 {
        last = pipeline.submit("ann", &format!("newer {n}")).await;
    }
    pipeline.expect_ok(last).await;
    let texts: Vec<String> = pipeline
        .simulator
        .calls()
        .iter()
        .map(|call| call.body["message"]["text"].as_str().expect("a text").to_owned())
        .collect();
    let expected: Vec<String> =
        ["older", "newer"].iter().flat_map(|of| (0..6).map(move |n| format!("{of} {n}"))).collect();
    assert_eq!(texts, expected);
    pipeline.stop().await;
}
