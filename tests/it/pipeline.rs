//! A message's whole way: accepted, logged, queued, sent, and its row updated; on both pairs of servers.

use std::time::Duration;

use meta_dispatch::message::{Class, ErrorKind, Lane, LineId, MessageId, MessageKind, Status, Submission};
use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_accepted_logged_queued_and_sent_and_its_row_says_so(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let parameters = json!({
        "app_id": pipeline.messenger.0.to_string(), "dest": "ann", "mdata": "Olá, Ann!", "msg_id": "order-7", "mcaption": "seen only in the log",
    });
    let (status, answer) = pipeline.post(Class::Messenger, parameters).await;
    assert_eq!(status, StatusCode::OK);
    let id = answer["return"]["cdls_id"].as_i64().expect("an id");
    assert_eq!(answer, json!({"return": {"status": "OK", "status_code": 0, "messageId": "", "cdls_id": id}}));

    let row = pipeline.expect_ok(MessageId(id)).await;
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
#[case::code_10_on_messenger("code10-ann", 10, 2018278)]
#[case::code_10_on_instagram("igcode10-ann", 10, 2534022)]
#[case::code_551("code551-ann", 551, 1545041)]
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_window_is_error_at_the_first_answer(
    #[values(EMBEDDED, SERVERS)] backend: Backend,
    #[case] dest: &str,
    #[case] code: i32,
    #[case] subcode: i32,
) {
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
#[case::temporary_failure("code1200x2-ann", 3, 0)]
#[case::line_rate_limit("code613x1-ann", 2, 0)]
#[case::unknown_error("code1x1-ann", 2, 1)]
#[case::service_error("code2x2-ann", 3, 2)]
#[case::server_error("http500x1-ann", 2, 1)]
#[tokio::test(flavor = "multi_thread")]
async fn a_retried_answer_is_tried_again_until_it_is_sent(
    #[values(EMBEDDED, SERVERS)] backend: Backend,
    #[case] dest: &str,
    #[case] attempts: i32,
    #[case] ambiguous: i32,
) {
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
async fn an_outcome_that_is_not_known_is_held_as_unknown(#[case] dest: &str) {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let id = pipeline.submit(dest, "hello").await;
    let row = pipeline.outcome(id).await;
    assert_eq!(row.status, Status::Unknown, "{row:?}");
    assert_eq!((row.attempts, row.ambiguous_attempts), (1, 1));
    assert_eq!(pipeline.simulator.calls().len(), 1);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_is_not_known_is_tried_again_if_the_operator_says_so() {
    let pipeline = Pipeline::start_with(EMBEDDED, &[("dispatch.on_ambiguous", "retry")]).await;
    let id = pipeline.submit("takencutx1-ann", "hello").await;
    let row = pipeline.until(id, "OK", |row| row.status == Status::Ok).await;
    assert_eq!((row.attempts, row.ambiguous_attempts), (2, 1));
    assert_eq!(pipeline.simulator.delivered_to("takencutx1-ann"), 2);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_taken_but_answered_with_500_is_held_if_the_operator_says_so() {
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
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn wait_answers_with_the_outcome_across_processes(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger.0;
    let (status, answer) = pipeline
        .post(Class::Messenger, json!({"app_id": line, "dest": "ann", "mdata": "hi", "wait": 20}))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["return"]["status"], "OK");
    assert_eq!(answer["return"]["status_code"], 200);
    assert!(answer["return"]["messageId"].as_str().is_some_and(|id| id.starts_with("m_")), "{answer}");

    let (status, answer) = pipeline
        .post(Class::Messenger, json!({"app_id": line, "dest": "code10-ann", "mdata": "hi", "wait": "20"}))
        .await;
    let id = answer["return"]["cdls_id"].clone();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer,
        json!({"return": {"status": "ERROR", "status_code": 400, "messageId": "", "cdls_id": id}})
    );

    // UNKNOWN is answered at once, as logged and queued.
    let (status, answer) = pipeline
        .post(Class::Messenger, json!({"app_id": line, "dest": "cut-ann", "mdata": "hi", "wait": 20}))
        .await;
    assert_eq!((status, &answer["return"]["status_code"]), (StatusCode::OK, &json!(0)));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_one_recipient_arrive_in_order_through_retries_of_the_first() {
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
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_page_token_pauses_the_line_and_a_new_one_sends_what_waited(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.add_line(Class::Messenger, "EXPIREDtoken").await;
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
#[case::of_the_line("code80006x1-ann", 80006)]
#[case::of_every_line("code4x1-ann", 4)]
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_graph_demanded_shows_its_reason_and_ends_when_the_line_is_resumed(
    #[values(EMBEDDED, SERVERS)] backend: Backend,
    #[case] dest: &str,
    #[case] code: i32,
) {
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
async fn an_answer_that_is_not_graphs_leaves_its_message_waiting_with_its_line(
    #[case] dest: &str,
    #[case] status: &str,
) {
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
async fn a_page_in_the_place_of_answers_costs_few_unknown_outcomes() {
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
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_written_by_sql_ends_the_pause_of_its_predecessor(#[case] backend: Backend) {
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
async fn a_paused_line_spends_no_attempts_and_goes_on_when_it_is_resumed() {
    let pipeline = Pipeline::start(SERVERS).await;
    let line = pipeline.messenger;
    pipeline.expect_ok(pipeline.submit("first", "the worker knows the line").await).await;
    assert!(pipeline.store.pause_line(line, None, "for a test").await.expect("the store answers"));
    // Another line's messages tell when the worker has read the records again: some go out before, some after.
    let paused = eventually("a message that waits", || async {
        let id = pipeline.submit("ann", "hello").await;
        let other =
            pipeline.submit_on(pipeline.add_line(Class::Messenger, "EAAother").await, "bob", "hi").await;
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
async fn a_message_whose_validity_ends_before_it_can_be_sent_is_expired() {
    let pipeline = Pipeline::start(EMBEDDED).await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "code1200-ann", "mdata": "hi", "valid_for": 1, "wait": 20});
    let (status, answer) = pipeline.post(Class::Messenger, parameters).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let id = meta_dispatch::message::MessageId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let row = pipeline.outcome(id).await;
    assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Expired)));
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_message_is_not_sent_before_its_time(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let at = time::OffsetDateTime::now_utc() + Duration::from_secs(3);
    let parameters = json!({
        "app_id": pipeline.messenger.0, "dest": "ann", "mdata": "hi", "send_at": meta_dispatch::message::timestamp(at),
    });
    let (_, answer) = pipeline.post(Class::Messenger, parameters).await;
    let id = meta_dispatch::message::MessageId(answer["return"]["cdls_id"].as_i64().expect("an id"));
    let row = pipeline.expect_ok(id).await;
    assert!(row.sent_at.expect("it was sent") >= at - Duration::from_millis(50), "{row:?}");
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_over_two_workers_are_each_sent_once() {
    let mut pipeline = Pipeline::start_with(
        SERVERS,
        &[("limits.enforce_ceilings", "false"), ("limits.messenger.text", "2000")],
    )
    .await;
    pipeline.start_worker().await;
    let mut lines = vec![pipeline.messenger];
    for _ in 0..15 {
        lines.push(pipeline.add_line(Class::Messenger, "EAAmany").await);
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
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_expires_between_its_tries_is_answered_without_graphs_code(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let parameters = json!({"app_id": pipeline.messenger.0, "dest": "code1200-ann", "mdata": "hi", "valid_for": 1, "wait": 20});
    let (status, answer) = pipeline.post(Class::Messenger, parameters).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!((&answer["return"]["status"], &answer["return"]["status_code"]), (&json!("ERROR"), &json!(0)));
    let row = pipeline.row(MessageId(answer["return"]["cdls_id"].as_i64().expect("an id"))).await;
    assert_eq!(row.error_kind, Some(ErrorKind::Expired));
    assert!(row.attempts > 1);
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(EMBEDDED)]
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_logged_for_a_line_that_has_another_owner_by_now_is_never_sent(#[case] backend: Backend) {
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
#[case::postgres_with_rabbitmq(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn rows_given_back_in_a_pause_do_not_wait_for_the_end_of_a_backlog(#[case] backend: Backend) {
    const ROWS: usize = 2_000;
    let settings = [("retry.base", "120s"), ("retry.cap", "120s")];
    let pipeline = Pipeline::start_with(backend, &settings).await;
    let line = pipeline.add_limited_line(Class::Messenger, PAGE_TOKEN, Some(200)).await;
    let row = |dest: String| Submission {
        account: pipeline.account,
        line,
        class: Class::Messenger,
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
#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_while_a_process_starts_does_not_go_before_older_messages(
    #[values(Backend::Embedded, Backend::Servers)] backend: Backend,
) {
    let mut pipeline = Pipeline::start(backend).await;
    pipeline.stop_processes().await;
    let older = |n| Submission {
        account: pipeline.account,
        line: pipeline.messenger,
        class: Class::Messenger,
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
    let mut last = MessageId(0);
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
