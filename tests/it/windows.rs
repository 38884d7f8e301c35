//! Windows and refusals of recipients: messages that end without a call, messages that go first, and what callers and
//! operators see of it.

use std::time::Duration;

use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{ErrorKind, Lane, LineId, RowId, Status, Submission};
use meta_dispatch::store::{LineRecipient, Unreachable};
use meta_dispatch::text::timestamp;
use reqwest::StatusCode;
use rstest::rstest;
use rstest_reuse::{apply, template};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::cli::program::Program;
use crate::cli::senders::Sender;
use crate::support::insert::Insert;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline, eventually};

const CHECKED: &[(&str, &str)] =
    &[("dispatch.window_check", "true"), ("dispatch.suppress_unreachable", "true")];

#[template]
#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn on_both(#[case] backend: Backend) {}

impl Pipeline {
    /// Let the window of a recipient of the Messenger line end at this time.
    async fn window(&self, dest: &str, until: OffsetDateTime) {
        self.window_of(self.messenger, &[dest.to_owned()], until).await;
    }

    async fn window_of(&self, line: LineId, dests: &[String], until: OffsetDateTime) {
        let until = timestamp(until);
        let rows: Vec<String> = dests.iter().map(|dest| format!("({line}, '{dest}', '{until}')")).collect();
        self.execute(&format!(
            "insert into cd_recipient (v8l_id, dest, window_until) values {}",
            rows.join(", ")
        ))
        .await;
    }

    /// Do what an inbound message does.
    async fn writes(&self, dest: &str) {
        let (now, until) = (timestamp(OffsetDateTime::now_utc()), timestamp(tomorrow()));
        self.execute(&format!(
            "update cd_recipient set last_inbound_at = '{now}', window_until = '{until}', unreachable_since = null
             where v8l_id = {} and dest = '{dest}'",
            self.messenger
        ))
        .await;
    }

    async fn recipient(&self, line: LineId, dest: &str) -> (StatusCode, Value) {
        let url = format!("http://{}/api/v2/recipients/{line}/{dest}", self.http);
        let request = self.client.get(url).bearer_auth(self.tsid.expose_secret());
        let answer = request.send().await.expect("ingest answers");
        (answer.status(), answer.json().await.expect("answers are JSON"))
    }

    fn bulk_on(&self, line: LineId, dest: &str) -> Submission {
        Submission {
            account: self.account,
            line,
            class: Class::MESSENGER,
            dest: dest.into(),
            kind: MessageKind::Text,
            mdata: "hello".into(),
            mcaption: None,
            msg_id: None,
            cp_id: Some("spring".into()),
            lane: Lane::Bulk,
            send_at: None,
            valid_for: Duration::from_secs(3_600),
            waiter: None,
        }
    }

    /// Return the recipients that were called, in order.
    fn called(&self) -> Vec<String> {
        self.simulator.calls().into_iter().map(|call| call.dest).collect()
    }
}

fn yesterday() -> OffsetDateTime {
    OffsetDateTime::now_utc() - Duration::from_secs(86_400)
}

fn tomorrow() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(86_400)
}

#[apply(on_both)]
async fn message_to_a_closed_window_ends_without_a_call(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, CHECKED).await;
    pipeline.window("closed", yesterday()).await;
    pipeline.window("open", tomorrow()).await;
    let line = pipeline.messenger.0;
    for more in [json!({}), json!({"cp_id": "spring"})] {
        let mut message = json!({"app_id": line, "dest": "closed", "mdata": "hello", "wait": 20});
        message["cp_id"] = more["cp_id"].clone();
        let (status, answer) = pipeline.post(Class::MESSENGER, message).await;
        let answer = &answer["return"];
        assert_eq!(
            (status, &answer["status"], &answer["status_code"]),
            (StatusCode::BAD_REQUEST, &json!("ERROR"), &json!(0))
        );
        assert_eq!(answer["error_kind"], "window", "{answer}");
        let row = pipeline.row(RowId(answer["cdls_id"].as_i64().expect("an id"))).await;
        assert_eq!((row.error_kind, row.attempts), (Some(ErrorKind::Window), 0));
        assert!(row.error_message.is_some_and(|message| message.contains("send again")));
    }
    for dest in ["open", "unknown"] {
        pipeline.expect_ok(pipeline.submit(dest, "hello").await).await;
    }
    assert_eq!(pipeline.called(), ["open", "unknown"]);
    pipeline.stop().await;
}

#[apply(on_both)]
async fn message_is_sent_once_the_recipient_has_written(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, CHECKED).await;
    pipeline.window("ann", yesterday()).await;
    let first = pipeline.outcome(pipeline.submit("ann", "hello").await).await;
    assert_eq!(first.error_kind, Some(ErrorKind::Window));
    pipeline.writes("ann").await;
    pipeline.expect_ok(pipeline.submit("ann", "hello").await).await;
    pipeline.stop().await;
}

#[apply(on_both)]
async fn window_that_closes_while_the_line_is_paused_counts(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, CHECKED).await;
    // The worker reads the record of a new line, with its pause, before any row.
    let line = pipeline.add_line(Class::MESSENGER, PAGE_TOKEN).await;
    assert!(pipeline.store.pause_line(line, None, "test").await.expect("lines can be paused"));
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(1);
    pipeline.window_of(line, &["ann".to_owned()], soon).await;
    let id = pipeline.submit_on(line, "ann", "hello").await;
    eventually("the end of the window", || async {
        let (_, facts) = pipeline.recipient(line, "ann").await;
        if facts["window"] == "closed" { Ok(()) } else { Err(facts.to_string()) }
    })
    .await;
    assert!(pipeline.store.resume_line(line).await.expect("lines can be resumed"));
    assert_eq!(pipeline.outcome(id).await.error_kind, Some(ErrorKind::Window));
    assert!(pipeline.called().is_empty());
    pipeline.stop().await;
}

#[apply(on_both)]
async fn nothing_ends_without_the_settings(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    pipeline.window("closed", yesterday()).await;
    pipeline.expect_ok(pipeline.submit("closed", "hello").await).await;
    for _ in 0..2 {
        let row = pipeline.outcome(pipeline.submit("code551-ann", "hello").await).await;
        assert_eq!((row.status, row.error_kind), (Status::Error, Some(ErrorKind::Refused)));
    }
    assert_eq!(pipeline.called(), ["closed", "code551-ann", "code551-ann"]);
    pipeline.stop().await;
}

#[apply(on_both)]
async fn unreachable_recipient_is_not_called_until_writing_again(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, CHECKED).await;
    let dest = "code551x1-ann";
    let refused = pipeline.outcome(pipeline.submit(dest, "hello").await).await;
    assert_eq!((refused.error_kind, refused.error_code), (Some(ErrorKind::Refused), Some(551)));
    let withheld = pipeline.outcome(pipeline.submit(dest, "hello").await).await;
    assert_eq!((withheld.error_kind, withheld.attempts), (Some(ErrorKind::Unreachable), 0));
    let (_, facts) = pipeline.recipient(pipeline.messenger, dest).await;
    assert!(facts["unreachable_since"].is_string() && facts["window"] == "unknown", "{facts}");
    pipeline.writes(dest).await;
    // A mark in the memory of the worker lasts for seconds, and gives way to the database.
    pipeline.expect_ok(pipeline.submit(dest, "hello").await).await;
    assert_eq!(pipeline.called(), [dest, dest]);
    pipeline.stop().await;
}

#[apply(on_both)]
async fn messages_behind_the_refused_one_end_too(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, CHECKED).await;
    assert!(pipeline.store.pause_line(pipeline.messenger, None, "test").await.expect("lines can be paused"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(pipeline.submit("code551-ann", "hello").await);
    }
    assert!(pipeline.store.resume_line(pipeline.messenger).await.expect("lines can be resumed"));
    let mut kinds = Vec::new();
    for id in ids {
        kinds.push(pipeline.outcome(id).await.error_kind);
    }
    assert_eq!(kinds[0], Some(ErrorKind::Refused));
    assert!(kinds[1..].iter().all(|kind| *kind == Some(ErrorKind::Unreachable)), "{kinds:?}");
    assert_eq!(pipeline.called().len(), 1);
    pipeline.stop().await;
}

/// A campaign that takes twenty seconds, with windows at its end that close after nine.
#[apply(on_both)]
async fn closing_windows_go_first(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.add_limited_line(Class::MESSENGER, PAGE_TOKEN, Some(20)).await;
    let dests: Vec<String> = (0..400).map(|n| format!("d{n}")).collect();
    let until = OffsetDateTime::now_utc() + Duration::from_secs(9);
    pipeline.window_of(line, &dests[380..], until).await;
    let campaign: Vec<Submission> = dests.iter().map(|dest| pipeline.bulk_on(line, dest)).collect();
    let ids = pipeline.store.insert(&campaign).await.expect("rows can be logged");
    for id in &ids[380..] {
        let row = pipeline.expect_ok(*id).await;
        assert!(row.sent_at.is_some_and(|sent_at| sent_at < until), "{row:?}");
    }
    let waits = pipeline.rows().await.iter().filter(|row| row.status == Status::Pending).count();
    assert!(waits > 100, "the others still wait: {waits}");
    assert_eq!(pipeline.called().iter().filter(|dest| **dest == dests[399]).count(), 1);
    pipeline.stop().await;
}

#[apply(on_both)]
async fn recipient_belongs_to_the_account_of_its_line(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let line = pipeline.messenger;
    pipeline.window("ann", tomorrow()).await;
    let (status, ann) = pipeline.recipient(line, "ann").await;
    assert_eq!(
        (status, &ann["app_id"], &ann["dest"], &ann["window"]),
        (StatusCode::OK, &json!(line.0), &json!("ann"), &json!("open"))
    );
    let (status, nobody) = pipeline.recipient(line, "nobody").await;
    let unknown = json!({
        "app_id": line.0, "dest": "nobody", "last_inbound_at": null, "window_until": null, "window": "unknown",
        "unreachable_since": null,
    });
    assert_eq!((status, nobody), (StatusCode::OK, unknown));
    let other = pipeline.add_sender("Other").await;
    assert_eq!(pipeline.recipient(other.line, "ann").await.0, StatusCode::NOT_FOUND);
    assert_eq!(pipeline.recipient(LineId(9_999), "ann").await.0, StatusCode::NOT_FOUND);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_counts_a_file_and_logs_nothing() {
    let pipeline = Pipeline::start(Backend::Embedded).await;
    let (sender, line) = (Sender::of(&pipeline), pipeline.messenger);
    pipeline.window("open", tomorrow()).await;
    pipeline.window("closed", yesterday()).await;
    let gone = LineRecipient { line, dest: "gone".into() };
    let gone = Unreachable { recipient: gone, called: std::time::Instant::now() };
    pipeline.store.mark_unreachable(&[gone]).await.expect("the store answers");
    let mut csv =
        String::from("dest;app_id;mdata\nopen;;a\nopen;;b\nclosed;;a\ngone;;a\nother;9999;a\n;;a\n");
    for n in 0..2_500 {
        csv.push_str(&format!("d{n};{};a\n", pipeline.instagram));
    }
    let file = sender.program.file("offers.csv", &csv);
    let command = format!("campaign send {} --app-id {line} --check", file.display());
    let counts = sender.run(&command).await.json();
    assert_eq!(
        counts,
        json!({
            "messages": 2_506, "recipients": 2_504, "open": 1, "closed": 1, "unknown": 2_500, "unreachable": 1,
            "not_found": 1, "unreadable": 1,
            "lines": [
                {"app_id": line.0, "open": 1, "closed": 1, "unknown": 0, "unreachable": 1},
                {"app_id": pipeline.instagram.0, "open": 0, "closed": 0, "unknown": 2_500, "unreachable": 0},
            ],
        })
    );
    let told = sender.run_as_text(&command).await;
    assert!(
        told.stdout.contains("UNREACHABLE") && told.stdout.contains("nothing was logged"),
        "{}",
        told.stdout
    );
    assert!(pipeline.rows().await.is_empty());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_sees_a_recipient() {
    let program = Program::new();
    let line = program.add_line("EAAtoken");
    let show = format!("recipient show {line} ann");
    let nobody = program.json(&show);
    assert_eq!((&nobody["window"], &nobody["unreachable_since"]), (&json!("unknown"), &Value::Null));
    let store = program.store().await;
    let recipient = LineRecipient { line: LineId(line), dest: "ann".into() };
    let gone = Unreachable { recipient, called: std::time::Instant::now() };
    store.mark_unreachable(&[gone]).await.expect("the store answers");
    store.close().await;
    assert!(program.json(&show)["unreachable_since"].is_string());
    let text = program.run(&show);
    assert!(text.stdout.contains("window ") && text.stdout.contains("unknown"), "{}", text.stdout);
    let missing = program.run("recipient show 99 ann");
    assert!(missing.stderr.contains("there is no line 99"), "{}", missing.stderr);
}
