//! The property of one account, asked for with the token of another: the answers are those for things that do not
//! exist.

use meta_dispatch::domain::{AccountId, RowId, Status};
use reqwest::Method;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::pipeline::{Backend, Pipeline, Sender, eventually};

/// The mark in every text of the other account.
const MARK: &str = "beta";
const CAMPAIGN: &str = "beta-campaign";
const BATCH: &str = "beta-batch";
const KEY: &str = "the-key-of-both";

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("answers are JSON")
    }

    fn id(&self) -> RowId {
        RowId(self.json()["return"]["cdls_id"].as_i64().expect("an id"))
    }
}

/// A caller with a token.
struct Caller<'a> {
    pipeline: &'a Pipeline,
    tsid: String,
}

impl Caller<'_> {
    async fn ask(&self, method: Method, path: &str) -> Answer {
        self.send(method, path, &[], String::new()).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.send(Method::POST, path, &headers, body.to_string()).await
    }

    async fn batch(&self, query: &str, line: &Value) -> Answer {
        let headers = [("content-type", "application/x-ndjson")];
        self.send(Method::POST, &format!("messages/batch?{query}"), &headers, format!("{line}\n")).await
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let request =
            self.pipeline.client.request(method, format!("http://{}/api/v2/{path}", self.pipeline.http));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.bearer_auth(&self.tsid).body(body).send().await.expect("ingest answers");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.expect("the answer is whole") }
    }
}

/// The property of the other account.
struct Property {
    account: AccountId,
    line: i64,
    sent: RowId,
    waiting: RowId,
    in_batch: RowId,
    cursor: String,
}

fn in_an_hour() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp() + 3_600
}

async fn property(beta: &Caller<'_>, sender: &Sender) -> Property {
    let line = sender.line.0;
    let of = |dest: &str, more: Value| {
        let mut message =
            json!({"app_id": line, "dest": dest, "mdata": "beta-text", "msg_id": "beta-reference"});
        for (name, value) in more.as_object().expect("an object") {
            message[name] = value.clone();
        }
        message
    };
    let key = [("idempotency-key", KEY)];
    let sent = beta.post("MakeMessenger.php", &key, &of("beta-one", json!({}))).await.id();
    let later = json!({"send_at": in_an_hour(), "cp_id": CAMPAIGN});
    let waiting = beta.post("MakeMessenger.php", &[], &of("beta-two", later)).await.id();
    let later = of("beta-three", json!({"send_at": in_an_hour()}));
    let batch = beta.batch(&format!("batch_id={BATCH}"), &later).await;
    let in_batch = RowId(batch.json()["cdls_id"].as_i64().expect("an id"));
    beta.pipeline.expect_ok(sent).await;
    let page = beta.ask(Method::GET, "messages?limit=1").await.json();
    let cursor = page["next"].as_str().expect("there are more").to_owned();
    Property { account: sender.account, line, sent, waiting, in_batch, cursor }
}

/// Calls about the other account's property, and the statuses of their answers.
fn calls(property: &Property) -> Vec<(&'static str, Method, String, u16)> {
    let Property { line, sent, waiting, cursor, .. } = property;
    let (get, post) = (Method::GET, Method::POST);
    vec![
        ("a row", get.clone(), format!("messages/{sent}"), 404),
        ("a row that waits", get.clone(), format!("messages/{waiting}"), 404),
        ("the end of a row", post.clone(), format!("messages/{waiting}/cancel"), 404),
        ("a line", get.clone(), format!("lines/{line}"), 404),
        ("a campaign", get.clone(), format!("campaigns/{CAMPAIGN}"), 404),
        ("the pause of a campaign", post.clone(), format!("campaigns/{CAMPAIGN}/pause"), 404),
        ("the end of a pause", post.clone(), format!("campaigns/{CAMPAIGN}/resume"), 404),
        ("the end of a campaign", post.clone(), format!("campaigns/{CAMPAIGN}/cancel"), 404),
        ("rows", get.clone(), "messages?limit=1000".to_owned(), 200),
        ("rows behind a cursor", get.clone(), format!("messages?after={cursor}"), 200),
        ("rows of a line", get.clone(), format!("messages?app_id={line}"), 200),
        ("rows to a recipient", get.clone(), "messages?dest=beta-one".to_owned(), 200),
        ("rows of a reference", get.clone(), "messages?msg_id=beta-reference".to_owned(), 200),
        ("rows of a campaign", get.clone(), format!("messages?cp_id={CAMPAIGN}"), 200),
        ("an export as CSV", get.clone(), "messages/export".to_owned(), 200),
        ("an export as NDJSON", get.clone(), "messages/export?format=ndjson".to_owned(), 200),
        ("an export of a line", get.clone(), format!("messages/export?app_id={line}"), 200),
        ("lines", get.clone(), "lines".to_owned(), 200),
        ("campaigns", get, "campaigns".to_owned(), 200),
        ("the end of a line's rows", post.clone(), format!("messages/cancel?app_id={line}"), 200),
        ("the end of a recipient's rows", post.clone(), "messages/cancel?dest=beta-two".to_owned(), 200),
        (
            "the end of a reference's rows",
            post.clone(),
            "messages/cancel?msg_id=beta-reference".to_owned(),
            200,
        ),
        ("the end of a campaign's rows", post.clone(), format!("messages/cancel?cp_id={CAMPAIGN}"), 200),
        ("the end of a batch's rows", post, format!("messages/cancel?batch_id={BATCH}"), 200),
    ]
}

async fn callers(pipeline: &Pipeline) -> (Caller<'_>, Caller<'_>, Property) {
    let sender = pipeline.add_sender("Beta").await;
    let alpha = Caller { pipeline, tsid: pipeline.tsid.expose_secret().to_owned() };
    let beta = Caller { pipeline, tsid: sender.tsid.expose_secret().to_owned() };
    let property = property(&beta, &sender).await;
    (alpha, beta, property)
}

/// Check that nothing of the other account has changed.
async fn is_untouched(beta: &Caller<'_>, property: &Property) {
    for (id, status) in [
        (property.sent, Status::Ok),
        (property.waiting, Status::Pending),
        (property.in_batch, Status::Pending),
    ] {
        let row = beta.pipeline.row(id).await;
        assert_eq!((row.status, row.cdcs_id, row.v8l_id.0), (status, property.account, property.line));
    }
    let campaign = beta.ask(Method::GET, &format!("campaigns/{CAMPAIGN}")).await.json();
    assert_eq!((&campaign["state"], &campaign["total"]), (&json!("running"), &json!(1)), "{campaign}");
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn property_of_another_account_does_not_exist(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let (alpha, beta, property) = callers(&pipeline).await;
    let own = pipeline.submit("alpha-one", "alpha-text").await;
    pipeline.expect_ok(own).await;
    for (case, method, path, expected) in calls(&property) {
        let answer = alpha.ask(method, &path).await;
        assert_eq!(answer.status, expected, "{case}: {}", answer.text);
        assert!(!answer.text.contains(MARK) && !answer.text.contains(&beta.tsid), "{case}: {}", answer.text);
        if path.contains("/cancel?") {
            assert_eq!(answer.json()["touched"], 0, "{case}: {}", answer.text);
        }
        let finds_own = matches!(case, "rows" | "an export as CSV" | "an export as NDJSON");
        assert_eq!(answer.text.contains("alpha-one"), finds_own, "{case}: {}", answer.text);
    }
    for (theirs, nobodys) in [
        (format!("messages/{}", property.sent), "messages/999999"),
        (format!("messages?app_id={}", property.line), "messages?app_id=999999"),
        (format!("messages/export?app_id={}", property.line), "messages/export?app_id=999999"),
        ("messages?dest=beta-one".to_owned(), "messages?dest=nobody"),
        (format!("lines/{}", property.line), "lines/999999"),
        (format!("campaigns/{CAMPAIGN}"), "campaigns/nobodys"),
    ] {
        let (of_theirs, of_nobodys) =
            (alpha.ask(Method::GET, &theirs).await, alpha.ask(Method::GET, nobodys).await);
        assert_eq!(
            (of_theirs.status, of_theirs.text),
            (of_nobodys.status, of_nobodys.text),
            "{theirs} is told apart"
        );
    }
    is_untouched(&beta, &property).await;
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn line_of_another_account_sends_nothing(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let (alpha, beta, property) = callers(&pipeline).await;
    let rows = pipeline.rows().await.len();
    let message = |line: i64| json!({"app_id": line, "dest": "eve", "mdata": "alpha-text"});
    for endpoint in ["MakeMessenger.php", "MakeInstagram.php"] {
        let [theirs, nobodys] = [property.line, 999_999].map(message);
        let (theirs, nobodys) =
            (alpha.post(endpoint, &[], &theirs).await, alpha.post(endpoint, &[], &nobodys).await);
        assert_eq!(
            (theirs.status, &theirs.json()["return"]["status_code"]),
            (400, &json!(230)),
            "{}",
            theirs.text
        );
        assert_eq!((theirs.status, theirs.text), (nobodys.status, nobodys.text));
    }
    let [theirs, nobodys] = [property.line, 999_999].map(message);
    let (theirs, nobodys) = (alpha.batch("", &theirs).await, alpha.batch("", &nobodys).await);
    assert_eq!(theirs.json()["status_code"], 230, "{}", theirs.text);
    assert_eq!(theirs.text, nobodys.text);
    // The token of the query counts, whatever the header says.
    let mixed = format!("MakeMessenger.php?tsid={}", alpha.tsid);
    let mixed = beta.post(&mixed, &[], &message(property.line)).await;
    assert_eq!(mixed.json()["return"]["status_code"], 230, "{}", mixed.text);
    assert_eq!(pipeline.rows().await.len(), rows);
    is_untouched(&beta, &property).await;
    pipeline.stop().await;
}

#[rstest]
#[case::sqlite_with_the_embedded_queue(Backend::Embedded)]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
#[case::postgres_with_rabbitmq(Backend::Servers)]
#[tokio::test(flavor = "multi_thread")]
async fn names_of_two_accounts_are_apart(#[case] backend: Backend) {
    let pipeline = Pipeline::start(backend).await;
    let (alpha, beta, property) = callers(&pipeline).await;
    let line = pipeline.messenger.0;
    // One key, one name of a batch, one label.
    let message = json!({"app_id": line, "dest": "ann", "mdata": "alpha-text"});
    let with_key = alpha.post("MakeMessenger.php", &[("idempotency-key", KEY)], &message).await;
    assert_eq!(
        (with_key.status, &with_key.json()["return"]["status"]),
        (200, &json!("OK")),
        "{}",
        with_key.text
    );
    assert_ne!(with_key.id(), property.sent);
    let scheduled = json!({"app_id": line, "dest": "bob", "mdata": "alpha-text", "send_at": in_an_hour()});
    let batch = alpha.batch(&format!("batch_id={BATCH}&cp_id={CAMPAIGN}"), &scheduled).await;
    assert_eq!(batch.headers["batch-logged-before"], "0");
    let in_batch = RowId(batch.json()["cdls_id"].as_i64().expect("an id"));
    assert_ne!(in_batch, property.in_batch);
    let campaign = alpha.ask(Method::GET, &format!("campaigns/{CAMPAIGN}")).await.json();
    assert_eq!(campaign["total"], 1, "{campaign}");
    // The own campaign ends, and a message under its label is refused for this account alone.
    let ended = alpha.ask(Method::POST, &format!("campaigns/{CAMPAIGN}/cancel")).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    eventually("the end of the own row", || async {
        let row = pipeline.row(in_batch).await;
        if row.status == Status::Cancelled { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    let own = json!({"app_id": line, "dest": "cleo", "mdata": "alpha-text", "cp_id": CAMPAIGN});
    assert_eq!(alpha.post("MakeMessenger.php", &[], &own).await.json()["return"]["status_code"], 247);
    is_untouched(&beta, &property).await;
    let theirs =
        json!({"app_id": property.line, "dest": "beta-four", "mdata": "beta-text", "cp_id": CAMPAIGN});
    let theirs = beta.post("MakeMessenger.php", &[], &theirs).await;
    assert_eq!(theirs.status, 200, "{}", theirs.text);
    pipeline.stop().await;
}
