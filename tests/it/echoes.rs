//! Echoes and conversations settle messages of unknown outcome: what Meta has is `OK` without a person (docs/webhooks.md).

use std::time::Duration;

use meta_dispatch::channel::Class;
use meta_dispatch::domain::{LineId, RowId, Status};
use meta_dispatch::store::LogRow;
use reqwest::StatusCode;
use ring::hmac;
use rstest::rstest;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::cli::program::Program;
use crate::support::pipeline::{Backend, PAGE_TOKEN, Pipeline};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

const APP_SECRET: &str = "app-secret-of-the-echoes";
const VERIFY_TOKEN: &str = "verify-token-of-the-echoes";
/// The Page of the pipeline's lines.
const PAGE: &str = "1001";
const INSTAGRAM_ACCOUNT: &str = "2002";
const INSTAGRAM_TOKEN: &str = "EAAinstagramtokenofthetestoftheechoes";

/// A pipeline whose webhooks are on, and a simulator that knows its Page.
struct Scene {
    pipeline: Pipeline,
}

impl Scene {
    async fn start(backend: Backend, changed: &[(&str, &str)]) -> Scene {
        let mut settings = vec![("webhooks.verify_token", VERIFY_TOKEN), ("graph.app_secret", APP_SECRET)];
        settings.extend_from_slice(changed);
        let scene = Scene { pipeline: Pipeline::start_with(backend, &settings).await };
        let pages = json!({
            PAGE_TOKEN: {"page_id": PAGE},
            INSTAGRAM_TOKEN: {"ig_id": INSTAGRAM_ACCOUNT, "object": "instagram"},
        });
        scene.control("pages", pages).await;
        scene
    }

    /// Give the simulator a part of its play.
    async fn control(&self, part: &str, rules: Value) {
        let url = format!("{}/simulator/{part}", self.pipeline.simulator.origin());
        let answer = self.pipeline.client.put(url).json(&rules).send().await.expect("the simulator answers");
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap_or_default());
    }

    /// Have the simulator send echoes, so long after their message.
    async fn echo(&self, delay: Duration) {
        let rules = json!({
            "url": format!("http://{}/webhooks/meta", self.pipeline.http),
            "app_secret": APP_SECRET,
            "verify_token": VERIFY_TOKEN,
            "events": ["echo"],
            "delay_ms": delay.as_millis() as u64,
        });
        self.control("webhooks", rules).await;
    }

    /// Post an echo as Meta does.
    async fn heard(&self, object: &str, account: &str, dest: &str, message: Value) {
        let at = OffsetDateTime::now_utc().unix_timestamp() * 1_000;
        let mut message = message;
        message["is_echo"] = json!(true);
        message["app_id"] = json!(1);
        let event = json!({
            "sender": {"id": account}, "recipient": {"id": dest}, "timestamp": at, "message": message,
        });
        let body = json!({"object": object, "entry": [{"id": account, "time": at, "messaging": [event]}]});
        let body = body.to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, APP_SECRET.as_bytes());
        let signature = hex::encode(hmac::sign(&key, body.as_bytes()));
        let answer = self
            .pipeline
            .client
            .post(format!("http://{}/webhooks/meta", self.pipeline.http))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", format!("sha256={signature}"))
            .body(body)
            .send()
            .await
            .expect("the door answers");
        assert_eq!(answer.status(), StatusCode::OK);
    }

    /// Submit a message whose call is cut after Graph has taken it; wait until its outcome is not known.
    async fn cut(&self, dest: &str, text: &str) -> RowId {
        let id = self.pipeline.submit(dest, text).await;
        self.unknown(id).await;
        id
    }

    async fn unknown(&self, id: RowId) {
        let row = self.pipeline.outcome(id).await;
        assert_eq!(row.status, Status::Unknown, "{row:?}");
    }

    async fn ok(&self, id: RowId) -> LogRow {
        self.pipeline.until(id, "an echo that settles it", |row| row.status == Status::Ok).await
    }

    async fn is_unknown(&self, id: RowId) -> bool {
        self.pipeline.row(id).await.status == Status::Unknown
    }

    /// The metadata of the call for a recipient.
    fn metadata(&self, dest: &str) -> String {
        let calls = self.pipeline.simulator.calls();
        let call = calls.iter().find(|call| call.dest == dest).expect("it was called");
        call.body["message"]["metadata"].as_str().expect("messages carry metadata").to_owned()
    }

    /// Wait until all echoes that were heard before are applied: one of a further message is.
    async fn settle_another(&self) {
        let dest = "cut-applied-marker";
        let id = self.cut(dest, "the marker").await;
        let message = json!({"mid": "m_marker", "text": "the marker", "metadata": self.metadata(dest)});
        self.heard("page", PAGE, dest, message).await;
        self.ok(id).await;
    }

    /// Return the program on the same database and the same Graph.
    fn program(&self) -> Program {
        Program::new()
            .with("DATABASE__URL", self.pipeline.database_url())
            .with("GRAPH__BASE_URL", &self.pipeline.simulator.base_url())
            .with("GRAPH__APP_SECRET", APP_SECRET)
    }

    async fn command(&self, arguments: &str) -> Value {
        let (program, arguments) = (self.program(), arguments.to_owned());
        tokio::task::spawn_blocking(move || program.json(&arguments)).await.expect("the command runs")
    }
}

#[rstest]
#[case::embedded(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::servers(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn cut_call_is_settled_without_a_person(
    #[case] backend: Backend,
    #[values(Duration::ZERO, Duration::from_millis(1_500))] delay: Duration,
) {
    let scene = Scene::start(backend, &[]).await;
    scene.echo(delay).await;
    let id = scene.pipeline.submit("cut-applied-ana", "hello").await;
    let row = scene.ok(id).await;
    assert!(row.message_id.is_some_and(|message_id| !message_id.is_empty()));
    assert_eq!((row.attempts, row.ambiguous_attempts, row.error_code), (1, 1, None));
    assert!(row.done_at.is_some() && row.sent_at.is_some());
    assert_eq!(scene.pipeline.simulator.delivered_to("cut-applied-ana"), 1);
    scene.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_spares_a_retry_that_would_deliver_twice() {
    let settings = [("dispatch.on_ambiguous", "retry"), ("retry.base", "20s"), ("retry.cap", "20s")];
    let scene = Scene::start(EMBEDDED, &settings).await;
    scene.echo(Duration::ZERO).await;
    let id = scene.pipeline.submit("cut-applied-ana", "hello").await;
    let row = scene.ok(id).await;
    assert_eq!((row.attempts, row.ambiguous_attempts), (1, 1), "{row:?}");
    assert_eq!(scene.pipeline.simulator.delivered_to("cut-applied-ana"), 1);
    scene.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_messenger_messages_carry_metadata_and_only_with_webhooks() {
    let scene = Scene::start(EMBEDDED, &[]).await;
    let (messenger, instagram) = (scene.pipeline.messenger, scene.pipeline.instagram);
    for (class, line, dest) in [(Class::MESSENGER, messenger, "ana"), (Class::INSTAGRAM, instagram, "bea")] {
        let parameters = json!({"app_id": line.0, "dest": dest, "mdata": "hi"});
        let (_, answer) = scene.pipeline.post(class, parameters).await;
        scene.pipeline.expect_ok(RowId(answer["return"]["cdls_id"].as_i64().expect("an id"))).await;
    }
    assert!(scene.metadata("ana").starts_with("md1."));
    let calls = scene.pipeline.simulator.calls();
    let of = |dest: &str| calls.iter().find(|call| call.dest == dest).expect("it was called").body.clone();
    assert_eq!(of("bea")["message"], json!({"text": "hi"}));
    scene.pipeline.stop().await;

    let pipeline = Pipeline::start(EMBEDDED).await;
    let id = pipeline.submit("ana", "hi").await;
    pipeline.expect_ok(id).await;
    assert_eq!(pipeline.simulator.calls()[0].body["message"], json!({"text": "hi"}));
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_or_foreign_echo_settles_nothing() {
    let scene = Scene::start(EMBEDDED, &[]).await;
    let dest = "cut-applied-ana";
    let id = scene.cut(dest, "hello").await;
    let genuine = scene.metadata(dest);
    let forged = format!("md1.{id}.1.00112233445566778899aabbccddeeff");
    let other = scene.pipeline.add_sender("Other").await;
    let page = format!("update cd_v8_line set v8l_fb_page_id = '7007' where v8l_id = {}", other.line);
    scene.pipeline.execute(&page).await;
    let message = |metadata: &str| json!({"mid": "m_forged", "text": "hello", "metadata": metadata});
    scene.heard("page", PAGE, dest, message(&forged)).await;
    scene.heard("page", PAGE, dest, message(&genuine.replace("md1.", "md2."))).await;
    scene.heard("page", PAGE, dest, json!({"mid": "m_forged", "text": "hello"})).await;
    // Metadata of another's row, from a Page of this account and to another recipient.
    scene.heard("page", "7007", dest, message(&genuine)).await;
    scene.heard("page", PAGE, "somebody-else", message(&genuine)).await;
    scene.heard("instagram", PAGE, dest, message(&genuine)).await;
    scene.settle_another().await;
    assert!(scene.is_unknown(id).await);
    scene.heard("page", PAGE, dest, json!({"mid": "m_true", "text": "hello", "metadata": genuine})).await;
    assert_eq!(scene.ok(id).await.message_id.as_deref(), Some("m_true"));
    scene.pipeline.stop().await;
}

#[rstest]
#[case::on("true", true)]
#[case::off("false", false)]
#[tokio::test(flavor = "multi_thread")]
async fn echo_of_instagram_is_matched_by_setting(#[case] setting: &str, #[case] is_settled: bool) {
    let scene = Scene::start(EMBEDDED, &[("webhooks.match_instagram_echoes", setting)]).await;
    let line = scene.instagram_line().await;
    let id = scene.cut_on(line, "cut-applied-bea", "hello").await;
    let twin = scene.cut_on(line, "cut-applied-cleo", "same").await;
    let second = scene.cut_on(line, "cut-applied-cleo", "same").await;
    scene
        .heard("instagram", INSTAGRAM_ACCOUNT, "cut-applied-cleo", json!({"mid": "m_x", "text": "same"}))
        .await;
    scene
        .heard("instagram", INSTAGRAM_ACCOUNT, "cut-applied-bea", json!({"mid": "m_other", "text": "bye"}))
        .await;
    scene
        .heard("instagram", INSTAGRAM_ACCOUNT, "cut-applied-bea", json!({"mid": "m_bea", "text": "hello"}))
        .await;
    if is_settled {
        assert_eq!(scene.ok(id).await.message_id.as_deref(), Some("m_bea"));
    }
    scene.settle_another().await;
    assert_eq!(scene.is_unknown(id).await, !is_settled);
    assert!(scene.is_unknown(twin).await && scene.is_unknown(second).await, "two rows fit the echo");
    scene.pipeline.stop().await;
}

impl Scene {
    async fn instagram_line(&self) -> LineId {
        let line = self.pipeline.add_line(Class::INSTAGRAM, INSTAGRAM_TOKEN).await;
        let account =
            format!("update cd_v8_line set v8l_ig_account_id = '{INSTAGRAM_ACCOUNT}' where v8l_id = {line}");
        self.pipeline.execute(&account).await;
        line
    }

    async fn cut_on(&self, line: LineId, dest: &str, text: &str) -> RowId {
        let parameters = json!({"app_id": line.0, "dest": dest, "mdata": text});
        let (status, answer) = self.pipeline.post(Class::INSTAGRAM, parameters).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let id = RowId(answer["return"]["cdls_id"].as_i64().expect("an id"));
        self.unknown(id).await;
        id
    }
}

#[rstest]
#[case::embedded(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::servers(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn command_settles_what_the_conversation_shows(#[case] backend: Backend) {
    let scene = Scene::start(backend, &[]).await;
    let found = scene.cut("cut-applied-ana", "hello").await;
    let lost = scene.cut("cut-ana", "hello").await;
    let dry = scene.command("log reconcile --dry-run").await;
    assert_eq!((&dry["ok"], &dry["dry_run"]), (&json!(1), &json!(true)), "{dry}");
    assert!(scene.is_unknown(found).await);
    let answer = scene.command("log reconcile").await;
    assert_eq!((&answer["ok"], &answer["failed"]), (&json!(1), &json!(0)), "{answer}");
    let row = scene.ok(found).await;
    assert!(row.message_id.is_some());
    // The call may have been answered a moment ago.
    assert_eq!((&answer["too_early"], &answer["not_found"]), (&json!(1), &json!(0)), "{answer}");
    let long_ago = match backend {
        Backend::Embedded => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-10 minutes')",
        Backend::Servers => "now() - interval '10 minutes'",
    };
    let earlier = format!("update cdls set sent_at = {long_ago} where cdls_id = {lost}");
    scene.pipeline.execute(&earlier).await;
    let answer = scene.command(&format!("log reconcile {lost}")).await;
    assert_eq!((&answer["not_found"], &answer["resolved"]), (&json!(1), &json!(0)), "{answer}");
    assert!(scene.is_unknown(lost).await);
    let answer = scene.command(&format!("log reconcile {lost} --not-found error --yes")).await;
    assert_eq!(answer["resolved"], 1, "{answer}");
    assert_eq!(scene.pipeline.row(lost).await.status, Status::Error);
    scene.pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_settles_what_the_conversation_shows() {
    let scene = Scene::start(EMBEDDED, &[("dispatch.reconcile", "true")]).await;
    let id = scene.cut("cut-applied-ana", "hello").await;
    let row = scene.pipeline.until(id, "a look at Meta", |row| row.status == Status::Ok).await;
    assert!(row.message_id.is_some());
    assert_eq!(scene.pipeline.simulator.delivered_to("cut-applied-ana"), 1);
    scene.pipeline.stop().await;
}
