//! An account that sends too much is slowed down or refused alone (docs/security.md, "Noisy accounts"): its
//! quotas, and the turns of its lists.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use meta_dispatch::channel::{Class, MessageKind};
use meta_dispatch::domain::{AccountId, Lane, LineId, Submission};
use meta_dispatch::edge::tokens;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::support::insert::Insert;
use crate::support::pipeline::{Backend, Pipeline, eventually};
use crate::support::producer::{Producer, header};

const EMBEDDED: Backend = Backend::Embedded;
const SERVERS: Backend = Backend::Servers;

/// An account with a line, and its requests.
struct Sender {
    client: reqwest::Client,
    base: String,
    account: AccountId,
    line: LineId,
    tsid: String,
}

/// An answer to a message.
#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Sender {
    /// Return the account of the pipeline.
    fn quiet(pipeline: &Pipeline) -> Sender {
        Sender {
            client: pipeline.client.clone(),
            base: format!("http://{}/api/v2", pipeline.http),
            account: pipeline.account,
            line: pipeline.messenger,
            tsid: pipeline.tsid.expose_secret().to_owned(),
        }
    }

    /// Add another account.
    async fn noisy(pipeline: &Pipeline) -> Sender {
        let account = pipeline.store.add_account("Noisy").await.expect("accounts can be added");
        let tsid = tokens::mint().expose_secret().to_owned();
        let id = tokens::identifier(&tsid).expect("long enough");
        pipeline.store.add_token(account, id, &tokens::hash(&tsid)).await.expect("tokens can be added");
        let line = pipeline.add_line_of(account).await;
        Sender { account, line, tsid, ..Sender::quiet(pipeline) }
    }

    async fn send(&self, dest: &str) -> Answer {
        self.send_with_key(dest, None).await
    }

    async fn send_with_key(&self, dest: &str, key: Option<&str>) -> Answer {
        let mut request = self
            .client
            .post(format!("{}/MakeMessenger.php", self.base))
            .bearer_auth(&self.tsid)
            .json(&json!({"app_id": self.line.0, "dest": dest, "mdata": "hello"}));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.expect("ingest answers");
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Answer {
            status: answer.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: answer.json().await.expect("answers are JSON"),
        }
    }

    async fn send_batch(&self, lines: usize) -> Vec<Value> {
        let line =
            |n| format!("{}\n", json!({"app_id": self.line.0, "dest": format!("r{n}"), "mdata": "hello"}));
        let answer = self
            .client
            .post(format!("{}/messages/batch?class=messenger", self.base))
            .bearer_auth(&self.tsid)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body((0..lines).map(line).collect::<String>())
            .send()
            .await
            .expect("ingest answers");
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("a text");
        text.lines().map(|line| serde_json::from_str(line).expect("lines are JSON")).collect()
    }

    async fn list(&self) -> u16 {
        let request = self.client.get(format!("{}/messages?limit=1000", self.base)).bearer_auth(&self.tsid);
        let answer = request.send().await.expect("ingest answers");
        let status = answer.status().as_u16();
        answer.bytes().await.expect("the answer is whole");
        status
    }

    async fn pause_campaign(&self, cp_id: &str) -> u16 {
        let url = format!("{}/campaigns/{cp_id}/pause", self.base);
        self.client.post(url).bearer_auth(&self.tsid).send().await.expect("ingest answers").status().as_u16()
    }

    /// Return a long message of a campaign, to be logged.
    fn long_message(&self, n: usize) -> Submission {
        Submission {
            account: self.account,
            line: self.line,
            class: Class::MESSENGER,
            dest: format!("r{n}"),
            kind: MessageKind::Text,
            mdata: "x".repeat(2_000),
            mcaption: None,
            msg_id: None,
            cp_id: Some("spring".into()),
            lane: Lane::Bulk,
            send_at: None,
            valid_for: Duration::from_secs(3_600),
            waiter: None,
        }
    }

    /// Pause the line, or end the pause: what is accepted waits meanwhile.
    async fn pause(&self, pipeline: &Pipeline, is_paused: bool) {
        let until = if is_paused { "'2999-01-01T00:00:00.000Z'" } else { "null" };
        let line = self.line;
        pipeline
            .execute(&format!("update cd_v8_line set v8l_paused_until = {until} where v8l_id = {line}"))
            .await;
    }
}

impl Answer {
    fn is_refused_for(&self, quota: &str) -> bool {
        let told = &self.body["return"];
        self.status == 503
            && self.retry_after.as_deref().is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|n| n > 0))
            && (&told["status"], &told["status_code"], &told["cdls_id"])
                == (&json!("temporarily unavailable"), &json!(503), &json!(0))
            && told["detail"].as_str().is_some_and(|detail| detail.contains(quota))
    }
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn account_over_its_rate_is_refused_alone(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[("security.quota_rows_per_second", "1")]).await;
    let (noisy, quiet) = (Sender::noisy(&pipeline).await, Sender::quiet(&pipeline));
    let first = noisy.send_with_key("ann", Some("order-1")).await;
    assert_eq!(first.status, 200, "{first:?}");
    let flood = join_all((0..20).map(|n| {
        let noisy = &noisy;
        async move { noisy.send(&format!("r{n}")).await }
    }))
    .await;
    let refused: Vec<&Answer> = flood.iter().filter(|answer| answer.status != 200).collect();
    assert!(!refused.is_empty());
    for answer in refused {
        assert!(answer.is_refused_for("security.quota_rows_per_second"), "{answer:?}");
    }
    assert_eq!(quiet.send("bob").await.status, 200);
    let repeated = noisy.send_with_key("ann", Some("order-1")).await;
    assert_eq!(repeated.body["return"]["cdls_id"], first.body["return"]["cdls_id"], "it is logged already");
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn batch_over_the_rate_is_slowed_down(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[("security.quota_rows_per_second", "20")]).await;
    let noisy = Sender::noisy(&pipeline).await;
    let started = Instant::now();
    let answers = noisy.send_batch(60).await;
    assert_eq!(answers.len(), 60);
    assert!(answers.iter().all(|line| line["cdls_id"].is_i64()), "{answers:?}");
    // Twenty at once, and twenty a second.
    assert!(started.elapsed() >= Duration::from_millis(1_900), "{:?}", started.elapsed());
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite(EMBEDDED)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres(SERVERS)]
#[tokio::test(flavor = "multi_thread")]
async fn account_over_its_backlog_is_refused_alone_until_it_is_sent(#[case] backend: Backend) {
    let pipeline = Pipeline::start_with(backend, &[("security.quota_backlog", "3")]).await;
    let (noisy, quiet) = (Sender::noisy(&pipeline).await, Sender::quiet(&pipeline));
    noisy.pause(&pipeline, true).await;
    for n in 0..3 {
        let answer = noisy.send(&format!("r{n}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let refused = noisy.send("one-more").await;
    assert!(refused.is_refused_for("security.quota_backlog"), "{refused:?}");
    assert_eq!(quiet.send("bob").await.status, 200);
    noisy.pause(&pipeline, false).await;
    eventually("the account to be accepted again", || async {
        let answer = noisy.send("later").await;
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
async fn submission_over_the_rate_is_answered_and_kept() {
    let pipeline = Pipeline::start_with(SERVERS, &[("security.quota_rows_per_second", "1")]).await;
    let producer = Producer::connect(&pipeline).await;
    let mut inbox = producer.reply_queue().await;
    let properties = producer.properties().with_reply_to(inbox.queue.as_str().into());
    for n in 0..8 {
        let properties = properties.clone().with_correlation_id(format!("order-{n}").as_str().into());
        producer.submit_text(pipeline.messenger, &format!("r{n}"), "hello", properties).await;
    }
    let rejected = producer.rejected().await;
    assert_eq!(header(&rejected.properties, "status_code"), "503");
    assert!(header(&rejected.properties, "detail").contains("security.quota_rows_per_second"));
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(inbox.next_json().await.1["return"]["status_code"].as_i64().expect("an integer"));
    }
    assert!(codes.contains(&503) && codes.contains(&200), "{codes:?}");
    let noisy = Sender::noisy(&pipeline).await;
    assert_eq!(noisy.send("bob").await.status, 200, "another account is not slowed down");
    pipeline.stop().await;
}

/// Sixty lists of long texts come at once. They take turns among themselves, and leave a turn to the others.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_another_account_are_not_waited_for() {
    const LISTS: usize = 60;
    let pipeline = Pipeline::start(EMBEDDED).await;
    let (noisy, quiet) = (Sender::noisy(&pipeline).await, Sender::quiet(&pipeline));
    noisy.pause(&pipeline, true).await;
    let rows: Vec<_> = (0..1_000).map(|n| noisy.long_message(n)).collect();
    pipeline.store.insert(&rows).await.expect("rows can be logged");
    let answered = AtomicUsize::new(0);
    let flood = join_all((0..LISTS).map(|_| async {
        assert_eq!(noisy.list().await, 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }));
    let beside = async {
        eventually("a list of the flood", || async {
            if answered.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
        assert_eq!(quiet.list().await, 200);
        answered.load(Ordering::Relaxed)
    };
    let (_, before) = tokio::join!(flood, beside);
    assert!(before < LISTS / 2, "{before} of {LISTS} lists went before the other account's");
    pipeline.stop().await;
}

/// Sixty lists and a command of one account come at once. The command waits for its account's lists, and no command
/// of another account waits behind it.
#[tokio::test(flavor = "multi_thread")]
async fn commands_of_another_account_are_not_waited_for() {
    const LISTS: usize = 60;
    let pipeline = Pipeline::start(EMBEDDED).await;
    let (noisy, quiet) = (Sender::noisy(&pipeline).await, Sender::quiet(&pipeline));
    for sender in [&noisy, &quiet] {
        sender.pause(&pipeline, true).await;
    }
    let mut rows: Vec<_> = (0..1_000).map(|n| noisy.long_message(n)).collect();
    rows.push(quiet.long_message(0));
    pipeline.store.insert(&rows).await.expect("rows can be logged");
    let answered = AtomicUsize::new(0);
    let flood = join_all((0..LISTS).map(|_| async {
        assert_eq!(noisy.list().await, 200);
        answered.fetch_add(1, Ordering::Relaxed);
    }));
    let beside = async {
        eventually("a list of the flood", || async {
            if answered.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
        assert_eq!(quiet.pause_campaign("spring").await, 200);
        answered.load(Ordering::Relaxed)
    };
    let (_, status, before) = tokio::join!(flood, noisy.pause_campaign("spring"), beside);
    assert_eq!(status, 200);
    assert!(before < LISTS / 2, "{before} of {LISTS} lists went before the other account's command");
    pipeline.stop().await;
}
